"""The policy file and the environment must not contradict each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.policy.effective import policy_of
from gateway.policy.tables import PolicyError
from gateway.settings import Settings
from tests.unit.gateway.policy.test_file import MINIMAL

ID, OTHER_ID = "a" * 24, "b" * 24


def settings(path: Path, text: str, *, registration: str = "", template_id: str = ID) -> Settings:
    path.write_text(text)
    return Settings(
        redis_url="redis://127.0.0.1",
        hms_app_access_key="key",
        hms_app_secret="secret",
        hms_template_id=template_id,
        gateway_secrets=("secret",),
        policy_path=path,
        registration=registration,
    )


def test_an_endpoint_without_a_secret_is_refused(path: Path) -> None:
    hook = "[webhooks.billing]\nurl = 'https://a.test/x'\nevents = ['room.ended']\n"
    given = settings(path, MINIMAL + hook)
    with pytest.raises(PolicyError) as refused:
        policy_of(given)
    assert str(refused.value) == (
        "mine.toml: webhooks.billing: has no secret; add billing=whsec_... to GATEWAY_WEBHOOK_SECRETS"
    )
    [endpoint] = policy_of(replace(given, signing_keys={"billing": (b"key",), "other": (b"key",)})).endpoints
    assert (endpoint.name, endpoint.host, endpoint.events) == ("billing", "a.test", {"room.ended"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.toml"


@pytest.mark.parametrize(
    ("said", "setting", "mode"),
    [
        ("", "", "closed"),
        ("", "open", "open"),
        ("", "closed", "closed"),
        ("invite", "", "invite"),
        ("open", "open", "open"),
    ],
)
def test_policy_or_setting_determines_the_registration_mode(path: Path, said: str, setting: str, mode: str) -> None:
    text = MINIMAL + '[registration]\nroles = ["member"]\n' + (f'mode = "{said}"\n' if said else "")
    registration = policy_of(settings(path, text, registration=setting)).registration
    assert (registration.mode, registration.roles) == (mode, ("member",))


def test_policy_and_setting_must_not_contradict_each_other(path: Path) -> None:
    closed = MINIMAL + '[registration]\nmode = "closed"\n'
    with pytest.raises(PolicyError, match=r"^mine\.toml: registration\.mode: differs from GATEWAY_REGISTRATION$"):
        policy_of(settings(path, closed, registration="open"))
    no_roles = MINIMAL + "[registration]\nroles = []\n"
    with pytest.raises(PolicyError, match=r"registration\.roles: is missing; GATEWAY_REGISTRATION is open$"):
        policy_of(settings(path, no_roles, registration="open"))
    assert policy_of(settings(path, no_roles, registration="invite")).registration.mode == "invite"


@pytest.mark.parametrize("mode", ["", 'mode = "closed"\n', 'mode = "open"\n'])
def test_registration_never_grants_power_over_others(path: Path, mode: str) -> None:
    powerful = MINIMAL + '[roles.boss]\npermissions = ["users:manage", "audit:read"]\n'
    powerful += 'limits.api = { rate = "120/min", burst = 60 }\n'
    text = powerful + f'[registration]\n{mode}roles = ["member", "boss"]\n'
    rule = r"registration\.roles: boss has audit:read, users:manage, which registration must not grant$"
    with pytest.raises(PolicyError, match=rule):
        policy_of(settings(path, text))


def test_the_id_of_the_default_template_comes_from_the_setting(path: Path) -> None:
    assert policy_of(settings(path, MINIMAL)).template_ids == {"default": ID}
    written = MINIMAL.replace("[templates.default]\n", f'[templates.default]\nid = "{ID}"\n')
    assert policy_of(settings(path, written)).template_ids == {"default": ID}
    with pytest.raises(PolicyError, match=r"templates\.default\.id: differs from HMS_TEMPLATE_ID$"):
        policy_of(settings(path, written, template_id=OTHER_ID))

"""`gateway doctor` against real servers: it names each error and the remedy, and prints no secret."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.collector import Collector
from tests.e2e.commands import assert_done, assert_failed, assert_no_secret, parsed
from tests.e2e.policies import BUILT_IN
from tests.e2e.templates import create_template, role
from tests.servers import Installation, LockedValkey


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Valkey and the local 100ms; the doctor needs no gateway to run."""
    folder = tmp_path_factory.mktemp("doctor")
    at = Installation(folder, valkey=LockedValkey(folder))
    at.env["HMS_WEBHOOK_SECRET"] = secrets.token_urlsafe(48)
    try:
        at.valkey.start()
        at.start_emulator()
        yield at
    finally:
        at.stop()


def examined(at: Installation, **env: str) -> dict[str, dict[str, str]]:
    """Run the doctor; return its findings by check, after checking that the exit code and the summary match them."""
    done = at.command("doctor", "--json", **env)
    plain: dict[str, Any] = json.loads(done.stdout)
    failed = [one["check"] for one in plain["checks"] if one["status"] == "FAIL"]
    assert plain["ok"] == (not failed)
    if failed:
        assert_failed(done, at.env | env, f"{len(failed)} of {len(plain['checks'])} checks failed: ", *failed)
    else:
        assert_done(done, at.env | env)
    assert "".join(one["text"] for one in plain["checks"]).isprintable()
    return {one["check"]: one for one in plain["checks"]}


def test_a_healthy_installation_passes_and_every_line_says_ok(at: Installation) -> None:
    at.add_users(ada="admin")
    with at.valkey.client() as client:
        client.hset("wm:1", mapping={"last_ms": time.time_ns() // 10**6, "lag_ms": 12})
    done = at.command("doctor")
    lines = assert_done(done, at.env).splitlines()
    assert [line.split()[0] for line in lines] == ["ok"] * len(lines)
    checks = "settings operators policy secret signing archive"
    checks += " redis append-only appendfsync eviction disk clock memory admins 100ms template"
    events = ["webhooks", "events", "event", "dead"]
    assert [line.split()[1] for line in lines] == [*checks.split(), *events]
    assert "the last one arrived" in lines[-3]
    password = at.valkey.password  # type: ignore[attr-defined]
    assert password not in done.stdout


def test_it_reads_the_settings_of_a_demo_as_in_its_container(at: Installation, tmp_path: Path) -> None:
    """`docker compose exec gateway gateway doctor`: only the folder of demo.env is set there."""
    settings = {name: value for name, value in at.env.items() if name.startswith(("REDIS_", "HMS_", "GATEWAY_"))}
    (tmp_path / "demo.env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    unset = dict.fromkeys(settings, "")
    found = examined(at, **unset, GATEWAY_DATA=str(tmp_path))
    assert {one["status"] for one in found.values()} == {"ok"}


def test_an_installation_without_an_active_admin_gets_a_warning_and_passes(at: Installation) -> None:
    with at.valkey.client() as client:  # not by the command line, which keeps the last admin
        users = list(client.scan_iter("u:1:*"))
        for key in users:
            client.hset(key, "status", "disabled")
        try:
            found = examined(at)["admins"]
        finally:
            for key in users:
                client.hset(key, "status", "active")
    assert found["status"] == "WARN"
    assert "gateway users add NAME --role admin" in found["text"]


def test_a_redis_without_persistence_fails(at: Installation) -> None:
    with at.valkey.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("appendonly", "no")
        try:
            found = examined(at)
        finally:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("appendonly", "yes")
    assert {name for name, one in found.items() if one["status"] == "FAIL"} == {"append-only", "eviction"}
    assert "WAITAOF" in found["disk"]["text"]
    assert found["disk"]["status"] == "WARN"


def test_an_unreachable_or_locked_redis_fails_and_the_other_checks_still_run(at: Installation) -> None:
    away = examined(at, REDIS_URL="redis://127.0.0.1:9/0")
    assert {name for name, one in away.items() if one["status"] == "FAIL"} == {"redis"}
    assert away["template default"]["status"] == "ok"
    locked = examined(at, REDIS_URL=f"redis://:wrong-password@127.0.0.1:{at.valkey.port}/0")
    assert locked["redis"]["status"] == "FAIL"
    assert "wrong-password" not in json.dumps(locked)


def test_a_redis_user_without_config_permission_gets_warnings_about_unknown_values(at: Installation) -> None:
    with at.valkey.client() as client:
        client.execute_command("ACL", "SETUSER", "gate", "on", ">gate-password", "~*", "&*", "+@all", "-config")
    url = f"redis://gate:gate-password@127.0.0.1:{at.valkey.port}/0"
    found = examined(at, REDIS_URL=url)
    assert {name for name, one in found.items() if one["status"] != "ok"} == {"appendfsync"}
    assert "gate-password" not in json.dumps(found)


def test_credentials_that_100ms_refuses_fail(at: Installation) -> None:
    found = examined(at, HMS_APP_SECRET="n0t-the-secret-of-this-account-at-100ms!")
    assert found["100ms"]["status"] == "FAIL"
    assert "HMS_APP_ACCESS_KEY and HMS_APP_SECRET" in found["100ms"]["text"]
    assert found["template default"]["status"] == "WARN"


def test_an_unreachable_100ms_fails(at: Installation) -> None:
    found = examined(at, HMS_API_URL="http://127.0.0.1:9/v2")
    assert found["100ms"]["status"] == "FAIL"
    assert "HMS_API_URL" in found["100ms"]["text"]


def test_a_missing_template_fails_while_the_credentials_pass(at: Installation) -> None:
    found = examined(at, HMS_TEMPLATE_ID="9" * 24)
    assert found["100ms"]["status"] == "ok"
    assert found["template default"]["status"] == "FAIL"
    assert "HMS_TEMPLATE_ID" in found["template default"]["text"]


def test_without_a_webhook_secret_the_doctor_says_that_no_minutes_are_counted(at: Installation) -> None:
    found = examined(at, HMS_WEBHOOK_SECRET="")
    assert found["webhooks"]["status"] == "WARN"
    assert "HMS_WEBHOOK_SECRET is not set, so no minutes are counted" in found["webhooks"]["text"]
    assert "events" not in found


def test_a_template_with_other_roles_fails_with_all_role_names(at: Installation) -> None:
    found = examined(at, HMS_TEMPLATE_ID=create_template(at, teacher=role("endRoom"), pupil=role()))
    assert found["template default"]["status"] == "FAIL"
    for words in ("'guest'", "'host'", "pupil, teacher", "gateway init"):
        assert words in found["template default"]["text"]


def test_every_template_of_the_policy_is_checked(at: Installation, tmp_path: Path) -> None:
    other = create_template(at, stage=role())
    policy = tmp_path / "policy.toml"
    policy.write_text(BUILT_IN.read_text() + f'[templates.big]\nid = "{other}"\nowner = ["stage", "boss"]\n')
    found = examined(at, GATEWAY_POLICY=str(policy))
    assert found["template default"]["status"] == "ok"
    assert found["template big"]["status"] == "FAIL"
    assert "'boss'" in found["template big"]["text"]


def test_a_guest_with_powers_gets_a_warning(at: Installation) -> None:
    found = examined(at, HMS_TEMPLATE_ID=create_template(at, host=role("endRoom"), guest=role("removeOthers")))
    done = parsed(at.command("doctor", "--json"), at.env)
    assert done["ok"]
    assert found["template default"]["status"] == "WARN"  # the last finding of that name
    assert "'guest' (removeOthers)" in found["template default"]["text"]


@pytest.mark.parametrize(
    ("env", "check", "words"),
    [
        ({"GATEWAY_SECRET": ""}, "settings", "GATEWAY_SECRET is not set"),
        ({"HMS_APP_SECRET": "short"}, "settings", "HMS_APP_SECRET"),
        ({"REDIS_URL": ""}, "redis", "REDIS_URL is not set"),
        ({"GATEWAY_POLICY": "none.toml"}, "policy", "none.toml: cannot be read"),
        ({"GATEWAY_SECRET": "correcthorsebatterystaple1234567"}, "secret", "could be guessed"),
    ],
)
def test_a_wrong_setting_does_not_hide_the_other_findings(
    at: Installation, env: dict[str, str], check: str, words: str
) -> None:
    found = examined(at, **env)
    assert words in found[check]["text"]
    assert found[check]["status"] == ("WARN" if check == "secret" else "FAIL")
    assert {"policy", "redis", "100ms", "webhooks"} <= found.keys()


def test_each_finding_is_one_line_and_standard_error_has_a_summary_of_the_failures(at: Installation) -> None:
    env = {"HMS_TEMPLATE_ID": "9" * 24}
    done = at.command("doctor", **env)
    assert_failed(done, at.env | env, "1 of", "template default")
    assert [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert_no_secret(done, at.env)


def test_a_collector_that_takes_no_traces_is_named(at: Installation) -> None:
    with Collector() as collector:
        env = {"GATEWAY_TRACES": "on", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        assert examined(at, **env)["traces"]["status"] == "ok"
        collector.status = 401
        refused = examined(at, **env)["traces"]
    assert refused == examined(at, **env)["traces"]
    assert refused["status"] == "WARN"
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in refused["text"]

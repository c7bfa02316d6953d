"""Registration: by whom, in which roles, under which name, and how often."""

from __future__ import annotations

import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from auth.vouchers import ref_of
from tests.e2e.asking import Admin, ask, everything_in, new_address
from tests.e2e.checks import assert_problem
from tests.e2e.volley import fire, post
from tests.servers import Installation

PASSWORD = "seventeen green umbrellas"


def register(installation: Installation, name: str, *, address: str = "", **fields: Any) -> httpx.Response:
    body = {"username": name, "password": PASSWORD} | fields
    return ask(installation, "POST", "/api/auth/register", address=address or new_address(), json=body)


def invite(installation: Installation, *arguments: str) -> str:
    done = installation.command("users", "invite", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["invite"])


def new_name(stem: str = "guest") -> str:
    return f"{stem}-{secrets.token_hex(5)}"


def test_a_registered_user_is_a_member_and_can_log_in(guarded_installation: Installation) -> None:
    name = new_name()
    answer = register(guarded_installation, name, display_name="Ada Lovelace")
    assert answer.status_code == 201, answer.text
    user = answer.json()["user"]
    assert (user["username"], user["display_name"], user["roles"]) == (name, "Ada Lovelace", ["member"])
    login = ask(guarded_installation, "POST", "/api/auth/login", json={"username": name, "password": PASSWORD})
    assert login.json()["user"]["id"] == user["id"]
    assert PASSWORD not in answer.text


@pytest.mark.parametrize("field", ["roles", "status", "ver", "id", "role", "permissions"])
def test_registration_refuses_fields_that_a_user_may_not_set(guarded_installation: Installation, field: str) -> None:
    """Mass assignment (CWE-915)."""
    answer = register(guarded_installation, new_name(), **{field: ["admin"]})
    assert_problem(answer, 400, "invalid_request", field=field)


async def test_one_name_in_forty_spellings_at_once_has_one_winner(guarded_installation: Installation) -> None:
    stem = new_name("kaffi")
    full_width = "".join(chr(ord(char) + 0xFEE0) for char in stem)
    spellings = [stem, stem.upper(), stem.title(), full_width, stem.replace("ffi", "\ufb03"), f"\u212a{stem[1:]}"]
    bodies = [{"username": spellings[n % len(spellings)], "password": PASSWORD} for n in range(20)]
    # One address may register 30 accounts; refused attempts are refunded.
    answers = await fire(guarded_installation.port, [post("/api/auth/register", body) for body in bodies] * 2)
    statuses = sorted(answer.status if answer else 0 for answer in answers)
    assert statuses.count(201) == 1, statuses
    assert set(statuses) <= {201, 409, 429, 503}
    assert statuses.count(409) >= 10
    for answer in answers:
        if answer and answer.status == 409:
            assert answer.json()["code"] == "user_exists"
    with guarded_installation.valkey.client() as client:
        listed = [place for place in client.zrange("ni:1", 0, -1) if stem.encode() in place]
        assert len(listed) == 1  # the losers left nothing behind


@pytest.mark.parametrize(
    "name", ["two words", " ada", "ada\u00a0b", "ada\u3000b", "ada\u200bb", "ada\u3164", "ada\ufe0f", "\u2800ada"]
)
def test_a_name_with_white_space_of_any_kind_is_refused(guarded_installation: Installation, name: str) -> None:
    assert_problem(register(guarded_installation, name), 400, "invalid_request", field="username")


def test_a_name_that_looks_like_an_id_is_refused(guarded_installation: Installation, admin: Admin) -> None:
    """Otherwise an administrator who meant the id would act on the user with that name."""
    assert_problem(register(guarded_installation, admin.id), 400, "invalid_request", field="username")
    assert_problem(register(guarded_installation, admin.id.upper()), 400, "invalid_request", field="username")


def test_a_weak_password_is_refused_with_reasons_and_leaves_the_name_free(guarded_installation: Installation) -> None:
    name = new_name()
    problem = assert_problem(register(guarded_installation, name, password=f"{name}!"), 422, "weak_password")
    assert "must not contain the user name" in problem["reasons"]
    assert register(guarded_installation, name).status_code == 201


def test_an_invitation_gives_its_roles_as_often_as_it_allows(guarded_installation: Installation) -> None:
    code = invite(guarded_installation, "--role", "host", "--role", "operator", "--uses", "2")
    for _ in range(2):
        answer = register(guarded_installation, new_name(), invite=code)
        assert answer.json()["user"]["roles"] == ["host", "operator"]
    assert_problem(register(guarded_installation, new_name(), invite=code), 403, "invite_invalid")
    assert_problem(register(guarded_installation, new_name(), invite=code.upper()), 403, "invite_invalid")


def test_twenty_racing_uses_of_one_invitation_make_one_account(guarded_installation: Installation) -> None:
    code = invite(guarded_installation, "--role", "host")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: register(guarded_installation, new_name(), invite=code), range(20)))
    assert sorted({answer.status_code for answer in answers}) == [201, 403]
    assert sum(answer.status_code == 201 for answer in answers) == 1


def test_an_invitation_is_refunded_if_no_account_is_created(guarded_installation: Installation, admin: Admin) -> None:
    code = invite(guarded_installation, "--role", "host")
    taken = admin.add().name
    assert_problem(register(guarded_installation, taken, invite=code), 409, "user_exists")
    assert_problem(register(guarded_installation, new_name(), invite=code, password="x"), 422, "weak_password")
    assert_problem(register(guarded_installation, "two words", invite=code), 400, "invalid_request", field="username")
    assert register(guarded_installation, new_name(), invite=code).status_code == 201


def test_an_expired_invitation_is_refused(guarded_installation: Installation) -> None:
    code = invite(guarded_installation, "--role", "host")
    with guarded_installation.valkey.client() as client:
        assert client.pexpire(f"vo:1:account:{ref_of(code)}", 1)
    assert_problem(register(guarded_installation, new_name(), invite=code), 403, "invite_invalid")


def test_no_invitation_can_be_read_in_redis(guarded_installation: Installation) -> None:
    code = invite(guarded_installation, "--role", "host")
    with guarded_installation.valkey.client() as client:
        assert code not in everything_in(client)
    assert register(guarded_installation, new_name(), invite=code).status_code == 201


def test_registrations_of_one_address_are_throttled_and_refused_ones_do_not_count(
    guarded_installation: Installation,
) -> None:
    address = new_address()
    for _ in range(35):
        answer = register(guarded_installation, new_name(), password="short", address=address)
        assert answer.status_code == 422
    name, statuses = new_name(), []
    for number in range(32):
        statuses.append(register(guarded_installation, f"{name}{number}", address=address).status_code)
        if statuses[-1] == 429:
            break
    assert statuses.count(201) in (30, 31), statuses  # one unit comes back every minute
    answer = register(guarded_installation, f"{name}-more", address=address)
    assert_problem(answer, 429, "too_many_attempts")
    assert 1 <= int(answer.headers["retry-after"]) <= 65  # a minute, and up to 5 s of jitter
    assert register(guarded_installation, f"{name}-else", address=new_address()).status_code == 201


def test_probing_for_taken_names_is_throttled_like_registration(
    guarded_installation: Installation, admin: Admin
) -> None:
    address, taken = new_address(), admin.add().name
    statuses = [register(guarded_installation, taken, address=address).status_code for _ in range(35)]
    assert statuses.count(409) in (30, 31), statuses
    assert set(statuses) == {409, 429}


@pytest.mark.parametrize("body", [{}, {"username": "somebody"}, {"password": PASSWORD}, {"username": 7, "password": 7}])
def test_a_registration_without_name_or_password_is_refused(
    guarded_installation: Installation, body: dict[str, object]
) -> None:
    assert_problem(ask(guarded_installation, "POST", "/api/auth/register", json=body), 400, "invalid_request")


def test_closed_registration_refuses_every_user(installation: Installation) -> None:
    for fields in ({}, {"invite": "a" * 26}):
        assert_problem(register(installation, new_name(), **fields), 403, "registration_closed")


def test_registration_by_invitation_requires_one(guarded_installation: Installation) -> None:
    """The same Redis with another gateway that requires invitations."""
    own = guarded_installation
    code = invite(own, "--role", "member")
    other = Installation(own.folder, workers=1, valkey=own.valkey)
    other.env = own.env | {"GATEWAY_REGISTRATION": "invite"}
    other.gateway.env, other.gateway.log = other.env, own.folder / "invite.log"
    try:
        other.start_gateway()
        assert_problem(register(other, new_name()), 403, "registration_closed")
        assert_problem(register(other, new_name(), invite="a" * 26), 403, "invite_invalid")
        assert register(other, new_name(), invite=code).status_code == 201
        assert_problem(register(other, new_name(), invite=code), 403, "invite_invalid")
    finally:
        other.gateway.stop()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_policy_that_contradicts_the_setting_stops_the_start_in_one_line(
    guarded_installation: Installation, tmp_path: Any, workers: str
) -> None:
    text = guarded_installation.folder.joinpath("policy.toml").read_text()
    policy = tmp_path / "contradicting.toml"
    policy.write_text(text.replace("[registration]", '[registration]\nmode = "invite"'))
    done = guarded_installation.command(
        "serve", "--port", "1", "--workers", workers, GATEWAY_POLICY=str(policy), GATEWAY_REGISTRATION="open"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("gateway: contradicting.toml: registration.mode")
    assert "GATEWAY_REGISTRATION" in done.stderr
    assert done.stderr.count("\n") == 1

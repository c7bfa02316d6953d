"""Account enumeration: unknown user, wrong password and disabled account get the same answer in the same time.

OWASP ASVS 5, 6.3.8; OWASP Authentication Cheat Sheet, "Authentication Responses"; CVE-2016-6210 is the timing variant.
"""

from __future__ import annotations

import json
from functools import partial

import pytest

from auth.accounts import FAILURE_FLOOR_S
from tests.attack.timing import assert_alike
from tests.e2e.checks import assert_problem
from tests.servers import Installation

# Of the 250 to 300 ms that a failure takes, the gateway computes a hash for less than this, then waits.
MOSTLY_WAITING_S = 0.09


def arms(target: Installation) -> dict[str, dict[str, str]]:
    """Logins that fail, each for a different reason."""
    return {
        "unknown": {"username": "nobody-at-all", "password": "not the password at all"},
        "wrong": {"username": "hanna", "password": "not the password at all"},
        "disabled": {"username": "dora", "password": target.passwords["dora"]},
        "no possible name": {"username": "a b", "password": "not the password at all"},
        "long password": {"username": "hanna", "password": "x" * 4000},
    }


def test_failed_logins_are_byte_identical(target: Installation) -> None:
    seen = set()
    for body in arms(target).values():
        with target.client() as client:
            answer = client.post("/api/auth/login", json=body)
        document = assert_problem(answer, 401, "invalid_credentials")
        raw = answer.content.replace(document["request_id"].encode(), b"")
        headers = {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}
        seen.add((raw, json.dumps(headers)))
    assert len(seen) == 1, seen


@pytest.mark.alone
def test_failed_logins_take_the_same_time(target: Installation) -> None:
    seen = set()
    with target.client() as client:

        def ask(body: dict[str, str]) -> None:
            seen.add(client.post("/api/auth/login", json=body).status_code)

        bodies = arms(target)
        asks = {name: partial(ask, bodies[name]) for name in ("unknown", "wrong", "disabled")}
        times = assert_alike(asks, every_s=MOSTLY_WAITING_S)
    assert seen == {401}
    assert min(times.values()) >= FAILURE_FLOOR_S


@pytest.mark.parametrize("name", ["unknown", "wrong", "disabled"])
def test_failed_login_leaves_no_session(target: Installation, name: str) -> None:
    def sessions() -> set[bytes]:
        with target.valkey.client() as client:
            return {*client.scan_iter("s:1:*"), *client.scan_iter("us:1:*")}

    before = sessions()
    with target.client() as http:
        assert_problem(http.post("/api/auth/login", json=arms(target)[name]), 401, "invalid_credentials")
    assert sessions() == before


def test_hidden_rooms_are_answered_like_rooms_that_do_not_exist(target: Installation) -> None:
    with target.client_of("hanna") as client:
        invited = client.post("/api/rooms", json={"access": "invited"}).json()["room"]["id"]
    seen = set()
    with target.client_of("mira") as stranger:
        for room in (invited, "0" * 24):
            for answer in (stranger.get(f"/api/rooms/{room}"), stranger.post(f"/api/rooms/{room}/token", json={})):
                document = assert_problem(answer, 404, "not_found")
                seen.add(json.dumps({**document, "instance": "", "request_id": ""}))
    assert len(seen) == 1


@pytest.mark.alone
def test_registration_without_an_invite_reveals_no_names(target: Installation) -> None:
    """If registration needs an invite, only its holder may learn that a name is taken."""
    seen = set()
    bodies: dict[str, dict[str, str]] = {
        name: {"username": name, "password": "plenty of good words, none common", **more}
        for name in ("hanna", "nobody-at-all", "dora")
        for more in ({"invite": "a" * 26},)
    }

    def ask(body: dict[str, str]) -> None:
        with target.client() as client:
            answer = client.post("/api/auth/register", json=body)
        document = assert_problem(answer, 403, "invite_invalid")
        seen.add(json.dumps(document | {"request_id": ""}))

    assert_alike({name: partial(ask, body) for name, body in bodies.items()})
    assert len(seen) == 1
    with target.client() as client:
        for body in bodies.values():
            del body["invite"]
            assert_problem(client.post("/api/auth/register", json=body), 403, "registration_closed")


@pytest.mark.alone
def test_invalid_password_links_get_the_same_answer(target: Installation) -> None:
    """Never issued, used, or of a deleted user: guessing codes reveals nothing about users."""
    with target.client_of("ada") as admin:
        for name in ("linus", "gone"):
            body = {"username": name, "roles": ["member"]}
            assert admin.post("/api/admin/users", json=body).status_code == 201
        links = [admin.post(f"/api/admin/users/{name}/password-link").json()["token"] for name in ("linus", "gone")]
        assert admin.delete("/api/admin/users/gone").status_code == 204
    used, gone = links
    with target.client() as client:
        body = {"token": used, "new_password": "plenty of good words, none common"}
        assert client.post("/api/auth/password/setup", json=body).status_code == 204
    seen = set()

    def ask(code: str) -> None:
        # A weak password too: whether it is checked must not depend on the code.
        for password in ("plenty of good words, none common", "weak"):
            with target.client() as client:
                body = {"token": code, "new_password": password}
                document = assert_problem(client.post("/api/auth/password/setup", json=body), 400, "invalid_grant")
            seen.add(json.dumps(document | {"request_id": ""}))

    codes = {"never issued": "a" * 26, "used": used, "of nobody": gone, "no code": "x"}
    assert_alike({name: partial(ask, code) for name, code in codes.items()})
    assert len(seen) == 1


@pytest.mark.alone
def test_wrong_current_passwords_get_the_same_answer(target: Installation) -> None:
    """Similar to the right one, different, or too long: the same answer in the same time."""
    right = target.passwords["mira"]
    near = right[:-1] + ("a" if right[-1] != "a" else "b")
    wrong = {"far": "not the password at all", "near": near, "long": "x" * 4000}
    seen = set()
    with target.client_of("mira") as client:

        def ask(current: str) -> None:
            body = {"current_password": current, "new_password": "plenty of good words, none common"}
            document = assert_problem(client.post("/api/auth/password", json=body), 401, "invalid_credentials")
            seen.add(json.dumps(document | {"request_id": ""}))

        times = assert_alike({name: partial(ask, given) for name, given in wrong.items()}, every_s=MOSTLY_WAITING_S)
    assert len(seen) == 1
    assert min(times.values()) >= FAILURE_FLOOR_S

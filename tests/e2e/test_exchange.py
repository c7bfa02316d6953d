"""From a token of an identity provider to a join token of 100ms, and the logouts on both sides."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

import httpx

from gateway.routes.exchange import ACCESS_TOKEN, GRANT_TYPE, SUBJECT_TYPES
from tests.e2e.checks import assert_problem
from tests.e2e.people import PROVIDER, arrive
from tests.e2e.volley import fire, post
from tests.servers import Installation

FORM = {"grant_type": GRANT_TYPE, "subject_token_type": SUBJECT_TYPES[0]}


def subject() -> str:
    """Return a subject that no other test uses."""
    return f"auth0|{secrets.token_hex(8)}"


def exchange(installation: Installation, token: str) -> httpx.Response:
    with installation.client() as client:
        return client.post("/api/auth/exchange", json={"token": token})


def log_in(installation: Installation, **claims: Any) -> dict[str, Any]:
    answer = exchange(installation, PROVIDER.token(**claims))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def log_out(installation: Installation, token: str) -> httpx.Response:
    with installation.client() as client:
        return client.post("/api/auth/logout/people", data={"logout_token": token})


def status_of(installation: Installation, login: dict[str, Any]) -> int:
    with installation.client(login["access_token"]) as client:
        return client.get("/api/auth/me").status_code


def test_a_person_of_a_provider_gets_a_join_token(installation: Installation) -> None:
    name, who = f"Ada {secrets.token_hex(4)}", subject()
    login = log_in(installation, sub=who, name=name, groups=["teachers", "unknown"], sid="s1")
    user = login["user"]
    assert (user["username"], user["display_name"], user["roles"]) == (name.replace(" ", "-"), name, ["host"])
    assert login["issued_token_type"] == ACCESS_TOKEN
    with installation.client(login["access_token"]) as client:
        room = client.post("/api/rooms", json={}).json()["room"]["id"]
        minted = client.post(f"/api/rooms/{room}/token", json={"role": "host"})
        assert minted.status_code == 200, minted.text
        assert minted.json()["user_id"] == user["id"]
        refreshed = client.post("/api/auth/refresh", json={"refresh_token": login["refresh_token"]})
        assert refreshed.json()["user"] == user
    again = log_in(installation, sub=who, name="Another Name", groups=["teachers"])
    assert again["user"] == user, "the account is found by issuer and subject"
    assert again["session_id"] != login["session_id"]


def test_a_token_is_exchanged_by_the_form_of_rfc_8693(installation: Installation) -> None:
    fields = FORM | {"subject_token": PROVIDER.token(sub=subject())}
    with installation.client() as client:
        answer = client.post("/api/auth/exchange", data=fields | {"requested_token_type": ACCESS_TOKEN})
        assert answer.status_code == 200, answer.text
        assert answer.json()["token_type"] == "Bearer"
        for wrong in ({"grant_type": "password"}, {"subject_token_type": "urn:x"}, {"requested_token_type": "urn:x"}):
            refused = client.post("/api/auth/exchange", data=fields | wrong)
            assert_problem(refused, 400, "invalid_request", field=next(iter(wrong)))
        assert_problem(client.post("/api/auth/exchange", data=FORM), 400, "invalid_request", field="subject_token")
        assert_problem(client.post("/api/auth/exchange", json={}), 400, "invalid_request", field="token")
        both = {"token": "x"} | fields
        assert_problem(client.post("/api/auth/exchange", data=both), 400, "invalid_request", field="token")


def test_whatever_is_wrong_the_answer_is_the_same_and_the_reason_is_audited(installation: Installation) -> None:
    who = subject()
    wrong = {
        "audience": {"aud": "another-app"},
        "expired": {"exp": 1, "iat": 0},
        "issuer": {"iss": "https://evil.test"},
    }
    answers = [exchange(installation, PROVIDER.token(sub=who, **claims)) for claims in wrong.values()]
    answers.append(exchange(installation, PROVIDER.token(sub=who)[:-8] + "AAAAAAAA"))
    documents = [assert_problem(answer, 400, "invalid_grant") for answer in answers]
    assert len({document["detail"] for document in documents}) == 1
    done = installation.command("users", "list", "--json")
    assert who not in done.stdout, "a refused token made an account"
    with installation.client_of("otto") as otto:
        entries = otto.get("/api/admin/audit", params={"action": "exchange.refused"}).json()["items"]
    assert {entry["details"]["reason"] for entry in entries} >= {*wrong, "signature"}


def test_roles_follow_the_youngest_claims_and_those_of_an_administrator_stay(installation: Installation) -> None:
    who, now = subject(), int(time.time())
    login = log_in(installation, sub=who, iat=now - 60, groups=["teachers"])
    uid = login["user"]["id"]
    done = installation.command("users", "roles", uid, "host", "admin")
    assert done.returncode == 0, done.stderr
    assert log_in(installation, sub=who, iat=now - 50, groups=[])["user"]["roles"] == ["admin", "member"]
    assert status_of(installation, login) == 401, "an access token with the old roles is void"
    older = log_in(installation, sub=who, iat=now - 55, groups=["teachers", "staff"])
    assert older["user"]["roles"] == ["admin", "member"], "an older token brings nothing back"
    shown = json.loads(installation.command("users", "show", uid, "--json").stdout)
    assert shown["identity"] == {"provider": "people", "issuer": PROVIDER.issuer, "subject": who}
    assert shown["mapped"] == ["member"]


def test_a_disabled_person_cannot_come_back_nor_with_tokens_from_before(installation: Installation) -> None:
    who, now = subject(), int(time.time())
    login = log_in(installation, sub=who)
    uid = login["user"]["id"]

    def switch(status: str) -> None:
        with installation.client_of("ada") as ada:
            assert ada.patch(f"/api/admin/users/{uid}", json={"status": status}).status_code == 200

    switch("disabled")
    assert status_of(installation, login) == 401
    assert_problem(exchange(installation, PROVIDER.token(sub=who)), 400, "invalid_grant")
    switch("active")
    assert_problem(exchange(installation, PROVIDER.token(sub=who, iat=now - 1)), 400, "invalid_grant")
    assert exchange(installation, PROVIDER.token(sub=who, iat=now + 20)).status_code == 200  # issued since


def test_a_deleted_person_comes_back_as_somebody_new(installation: Installation) -> None:
    who = subject()
    uid = log_in(installation, sub=who)["user"]["id"]
    with installation.client_of("ada") as ada:
        assert ada.delete(f"/api/admin/users/{uid}").status_code == 204
    assert log_in(installation, sub=who)["user"]["id"] != uid


def test_a_logout_at_the_provider_ends_that_session_and_its_tokens(installation: Installation) -> None:
    who, phone, laptop = subject(), secrets.token_hex(8), secrets.token_hex(8)
    token = PROVIDER.token(sub=who, sid=phone)
    on_phone = exchange(installation, token).json()
    on_laptop = log_in(installation, sub=who, sid=laptop)
    logout = PROVIDER.logout_token(sub=None, sid=phone)
    assert log_out(installation, logout).status_code == 200
    assert (status_of(installation, on_phone), status_of(installation, on_laptop)) == (401, 200)
    with installation.client() as client:
        refreshed = client.post("/api/auth/refresh", json={"refresh_token": on_phone["refresh_token"]})
    assert_problem(refreshed, 400, "invalid_grant")
    assert_problem(exchange(installation, token), 400, "invalid_grant")
    assert_problem(log_out(installation, logout), 400, "invalid_grant")  # replayed
    assert_problem(log_out(installation, PROVIDER.token(sub=who)), 400, "invalid_grant")
    assert log_out(installation, PROVIDER.logout_token(sub=who)).status_code == 200
    assert status_of(installation, on_laptop) == 401
    before = PROVIDER.token(sub=who, sid=laptop, iat=int(time.time()) - 5)
    assert_problem(exchange(installation, before), 400, "invalid_grant")
    assert exchange(installation, PROVIDER.token(sub=who, iat=int(time.time()) + 20)).status_code == 200


async def test_fifty_first_logins_of_one_person_make_one_account(installation: Installation) -> None:
    """On two workers at once, and while somebody has that name already."""
    (taken,) = await arrive(installation, "member")
    who = subject()
    bodies = [{"token": PROVIDER.token(sub=who, name=taken.name, iat=int(time.time()) - n)} for n in range(50)]
    answers = await fire(installation.port, [post("/api/auth/exchange", body) for body in bodies])
    assert [answer.status for answer in answers if answer] == [200] * 50
    (user, *others) = [answer.json()["user"] for answer in answers if answer]
    assert all(other == user for other in others)
    assert user["id"] != taken.id
    assert user["username"].startswith(f"{taken.name}-")
    with installation.valkey.client() as redis:
        rows = [
            row for row in redis.scan_iter("u:1:*", count=1000) if who.encode() in (redis.hget(row, "identity") or b"")
        ]
    assert len(rows) == 1, "the losers left nothing behind"


def test_an_administrator_prepares_the_account_of_an_identity(installation: Installation) -> None:
    who, name = subject(), f"prepared-{secrets.token_hex(4)}"
    arguments = ("users", "add", name, "--role", "host", "--no-password", "--identity", f"people:{who}")
    done = installation.command(*arguments)
    assert done.returncode == 0, done.stderr
    user = log_in(installation, sub=who)["user"]
    assert (user["username"], user["roles"]) == (name, ["host", "member"])
    other = {"username": f"{name}-2", "roles": ["member"], "identity": {"provider": "people", "subject": who}}
    unknown = other | {"identity": {"provider": "nobody", "subject": "x"}}
    with installation.client_of("ada") as ada:
        assert_problem(ada.post("/api/admin/users", json=other), 409, "user_exists")
        assert_problem(ada.post("/api/admin/users", json=unknown), 400, "invalid_request", field="identity.provider")
        shown = ada.get(f"/api/admin/users/{user['id']}").json()["user"]
    assert shown["identity"] == {"provider": "people", "subject": who}

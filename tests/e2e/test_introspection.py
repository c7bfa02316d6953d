"""POST /api/auth/introspect: what services are told of an access token, and that they are told at once when it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import jwt
import pytest

from auth.keys import KeyRing
from auth.signing_keys import SigningKeys, make_key
from auth.tokens import DEFAULT_TTL_S, LoginTokens, Principal
from tests.e2e.checks import assert_problem
from tests.servers import Installation

PATH = "/api/auth/introspect"
PASSWORD = "plenty of good words, none common"


@pytest.fixture(scope="module")
def key(installation: Installation) -> str:
    return made(installation, "reader", "tokens:introspect")


def made(installation: Installation, name: str, *scopes: str) -> str:
    words = [word for scope in scopes for word in ("--scope", scope)]
    done = installation.command("keys", "add", name, *words, "--json")
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["key"])


def ask(at: Installation, credential: str, token: str, **headers: str) -> httpx.Response:
    """Ask as OAuth does, with a form."""
    with at.client(credential) as client:
        return client.post(PATH, data={"token": token}, headers=headers)


def told(at: Installation, credential: str, token: str) -> dict[str, Any]:
    answer = ask(at, credential, token)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return dict(answer.json())


def claims_of(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def test_active_token_is_told_with_its_claims_and_the_rights_of_now(installation: Installation, key: str) -> None:
    login = installation.log_in("mira")
    claims = claims_of(login["access_token"])
    known = {name: claims[name] for name in claims if name not in ("ver", "roles")}
    assert told(installation, key, login["access_token"]) == known | {
        "active": True,
        "token_type": "Bearer",
        "scope": "rooms:join usage:read-own",
        "username": "mira",
        "roles": ["member"],
        "client_id": "hms-gateway",
    }


def test_json_is_taken_too_and_a_hint_changes_nothing(installation: Installation, key: str) -> None:
    token = installation.log_in("mira")["access_token"]
    with installation.client(key) as client:
        for body in ({"token": token}, {"token": token, "token_type_hint": "refresh_token"}):
            assert client.post(PATH, json=body).json()["active"]
            assert client.post(PATH, data=body).json()["active"]
        for body in ({}, {"token": ""}, {"token_type_hint": "access_token"}, {"token": token, "more": "x"}):
            assert_problem(client.post(PATH, data=body), 400, "invalid_request")
        twice = client.post(PATH, content=f"token={token}&token={token}", headers={"Content-Type": FORM})
        assert_problem(twice, 400, "invalid_request", field="token")


FORM = "application/x-www-form-urlencoded"
ENDINGS: dict[str, Callable[[httpx.Client, httpx.Client, str], httpx.Response]] = {
    "logout": lambda own, _, __: own.post("/api/auth/logout", json={}),
    "password changed": lambda own, _, __: own.post(
        "/api/auth/password", json={"current_password": PASSWORD, "new_password": PASSWORD[::-1]}
    ),
    "roles changed": lambda _, admin, name: admin.patch(f"/api/admin/users/{name}", json={"roles": ["host"]}),
    "disabled": lambda _, admin, name: admin.patch(f"/api/admin/users/{name}", json={"status": "disabled"}),
    "deleted": lambda _, admin, name: admin.delete(f"/api/admin/users/{name}"),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_token_is_inactive_from_the_moment_at_which_the_gateway_refuses_it(
    installation: Installation, key: str, how: str
) -> None:
    name = f"introspected-{[*ENDINGS].index(how)}"
    with installation.client_of("ada") as admin:
        body = {"username": name, "password": PASSWORD, "roles": ["member"]}
        assert admin.post("/api/admin/users", json=body).status_code == 201
        installation.passwords[name] = PASSWORD
        token = installation.log_in(name)["access_token"]
        for _ in range(4):  # so that both workers know the token
            assert told(installation, key, token)["active"]
        with installation.client(token) as own:
            assert ENDINGS[how](own, admin, name).status_code in (200, 204)
    for _ in range(4):
        assert told(installation, key, token) == {"active": False}


def test_whatever_is_no_live_access_token_is_inactive(installation: Installation, key: str) -> None:
    login = installation.log_in("hanna")
    claims = claims_of(login["access_token"])
    principal = Principal(claims["sub"], claims["sid"], ("host",), claims["ver"])
    ring = KeyRing([installation.env["GATEWAY_SECRET"]], "login-token")
    expired = LoginTokens(ring, now=lambda: time.time() - DEFAULT_TTL_S - 20)
    foreign = LoginTokens(KeyRing(["another secret of another gateway, long"], "login-token"))
    signed = LoginTokens(ring, SigningKeys((make_key("es256", datetime.now(UTC)),), installation.url))
    unknown = Principal("u" + "a" * 20, "0" * 20, ("admin",), 1)
    with installation.client(login["access_token"]) as client:
        room = client.post("/api/rooms", json={}).json()["room"]["id"]
        join = client.post(f"/api/rooms/{room}/token", json={}).json()["token"]
    head, payload, signature = login["access_token"].split(".")
    for token in (
        "x", " ", "null", "a.b.c", "x" * 8000, "\u0000", "\u00e4", key, join, login["refresh_token"],
        f"{head}.{payload}.{signature[:-1]}", f"{head}.{payload}.", f" {login['access_token']}",
        expired.issue(principal, auth_time=0), foreign.issue(principal, auth_time=0),
        signed.issue(principal, auth_time=0), LoginTokens(ring).issue(unknown, auth_time=0),
        LoginTokens(ring).issue(Principal(principal.uid, "0" * 20, ("host",), principal.ver), auth_time=0),
    ):  # fmt: skip
        assert told(installation, key, token) == {"active": False}, token[:40]
    assert told(installation, key, login["access_token"])["active"], "the control experiment"


def test_only_a_service_key_with_the_scope_is_answered(installation: Installation, key: str) -> None:
    token = installation.log_in("mira")["access_token"]
    with installation.client() as client:
        assert_problem(client.post(PATH, data={"token": token}), 401, "invalid_token")
    other = made(installation, "other", "usage:read-any", "act:user", "users:manage")
    for credential in (other, token, installation.log_in("ada")["access_token"]):
        answer = ask(installation, credential, token)
        assert assert_problem(answer, 403, "forbidden")["missing_permission"] == "tokens:introspect"
    acting = made(installation, "acting", "tokens:introspect", "act:user")
    assert told(installation, acting, token)["active"]
    uid = claims_of(token)["sub"]
    assert_problem(ask(installation, acting, token, **{"X-Act-As": uid}), 403, "forbidden")

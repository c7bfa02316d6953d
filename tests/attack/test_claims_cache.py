"""A token that a process has cached must not outlive its validity. OWASP ASVS 5, 7.4.1; CWE-613, CWE-672."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from auth.errors import InvalidToken
from auth.keys import KeyRing
from auth.tokens import MAX_TOKEN_BYTES, MOST_REMEMBERED, LoginTokens, Principal
from tests.attack.forge import Forge, encode
from tests.e2e.checks import assert_problem
from tests.servers import Installation

WARMING = 24  # requests on fresh connections, so that both workers have almost certainly seen the token
PASSWORD = "plenty of good words, none common"
NEW_PASSWORD = "another set of words, rarely seen"

Revoke = Callable[[httpx.Client, httpx.Client, str, dict[str, str]], httpx.Response]
REVOCATIONS: dict[str, tuple[str, Revoke]] = {
    "logout": ("invalid_token", lambda own, _, __, ___: own.post("/api/auth/logout", json={})),
    "logout everywhere": ("invalid_token", lambda own, _, __, ___: own.post("/api/auth/logout", json={"scope": "all"})),
    "its session ended": (
        "invalid_token",
        lambda own, _, __, login: own.delete(f"/api/auth/sessions/{login['session_id']}"),
    ),
    "password changed": (
        "token_expired",
        lambda own, _, __, ___: own.post(
            "/api/auth/password", json={"current_password": PASSWORD, "new_password": NEW_PASSWORD}
        ),
    ),
    "roles changed": (
        "token_expired",
        lambda _, admin, name, __: admin.patch(f"/api/admin/users/{name}", json={"roles": ["host"]}),
    ),
    "disabled": (
        "invalid_token",
        lambda _, admin, name, __: admin.patch(f"/api/admin/users/{name}", json={"status": "disabled"}),
    ),
    "logged out by an admin": (
        "invalid_token",
        lambda _, admin, name, __: admin.delete(f"/api/admin/users/{name}/sessions"),
    ),
    "deleted": ("invalid_token", lambda _, admin, name, __: admin.delete(f"/api/admin/users/{name}")),
}


@pytest.mark.parametrize("how", REVOCATIONS)
def test_cached_token_is_refused_from_the_next_request_on(target: Installation, how: str) -> None:
    """On every worker, although each has decoded it before and does not decode it again."""
    code, revoke = REVOCATIONS[how]
    name = f"cached-{[*REVOCATIONS].index(how)}"
    with target.client_of("ada") as admin:
        body = {"username": name, "password": PASSWORD, "roles": ["member"]}
        assert admin.post("/api/admin/users", json=body).status_code == 201
        target.passwords[name] = PASSWORD
        login = target.log_in(name)
        with target.client(login["access_token"]) as own:
            for _ in range(WARMING):
                with target.client(login["access_token"]) as client:
                    assert client.get("/api/auth/me").status_code == 200
            assert revoke(own, admin, name, login).status_code in (200, 204)
    for _ in range(WARMING):
        with target.client(login["access_token"]) as client:
            assert_problem(client.get("/api/auth/me"), 401, code)


def test_token_that_never_expires_ends_with_its_session(target: Installation, forge: Forge) -> None:
    """CWE-613: even a token of the right key with an `exp` in a million years ends with its session."""
    login = target.log_in("mira")
    claims = forge.claims | {"sub": login["user"]["id"], "sid": login["session_id"], "roles": ["member"]}
    endless = forge.sign(forge.header, claims | {"exp": 10**13})
    for _ in range(WARMING):
        with target.client(endless) as client:
            assert client.get("/api/auth/me").status_code == 200
    with target.client(login["access_token"]) as client:
        assert client.post("/api/auth/logout", json={}).status_code == 204
    for _ in range(WARMING):
        with target.client(endless) as client:
            assert_problem(client.get("/api/auth/me"), 401, "invalid_token")


def test_token_is_not_cached_by_a_part_of_itself(target: Installation, forge: Forge) -> None:
    """A cache keyed by the payload or the signature alone would give one token's identity to another token."""
    with target.client(forge.genuine) as client:
        assert client.get("/api/auth/me").status_code == 200
    head, payload, signature = forge.genuine.split(".")
    other = forge.sign(forge.header, forge.claims | {"sub": "u" + "a" * 20}, key=b"\x00" * 32).split(".")
    mixed = [(head, other[1], signature), (head, payload, other[2]), (encode(b"{}"), payload, signature)]
    for token in map(".".join, mixed):
        for _ in range(4):
            with target.client(token) as client:
                assert_problem(client.get("/api/auth/me"), 401, "invalid_token")


def test_refused_tokens_are_not_cached_and_the_cache_is_bounded() -> None:
    """CWE-400, CWE-770: only genuine tokens take memory, and only a bounded number of them."""
    tokens = LoginTokens(KeyRing(["a secret of the test, long enough it is"], "login-token"))
    for number in range(200):
        with pytest.raises(InvalidToken):
            tokens.verify(f"{'x' * (MAX_TOKEN_BYTES - 50)}{number}.e30.e30")
    assert len(tokens._verified) == 0
    for number in range(MOST_REMEMBERED + 50):
        principal = Principal("u" + "a" * 20, f"{number:020x}", ("member",), 1)
        tokens.verify(tokens.issue(principal, auth_time=0))
    assert len(tokens._verified) <= MOST_REMEMBERED


def test_removed_secret_verifies_nothing(strict: Installation) -> None:
    """OWASP Key Management Cheat Sheet: a rotation must void what the old key signed, cached or not."""
    old, new = strict.env["GATEWAY_SECRET"], "another-secret-of-this-installation-48-characters"
    login = strict.log_in("hanna")
    try:
        for secrets, code in ((f"{new},{old}", 200), (new, 401)):
            strict.gateway.stop()
            strict.env["GATEWAY_SECRET"] = secrets
            strict.start_gateway()
            with strict.client(login["access_token"]) as client:
                assert client.get("/api/auth/me").status_code == code
            with strict.client() as client:
                body = {"refresh_token": login["refresh_token"]}
                answer = client.post("/api/auth/refresh", json=body)
            if code == 401:
                assert_problem(answer, 400, "invalid_grant")
    finally:
        strict.gateway.stop()
        strict.env["GATEWAY_SECRET"] = old
        strict.start_gateway()

"""Cookie mode under attack: forged requests of other pages, planted cookies, tokens in two places.

OWASP Cross-Site Request Forgery Prevention Cheat Sheet; OWASP WSTG-SESS-02 and -05; RFC 6265bis sections 4.1.3 and 8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.http.cookies import NAME
from tests.attack.conftest import LISTED, PUBLIC
from tests.attack.wire import exchange, head
from tests.e2e.checks import assert_problem
from tests.servers import Installation

LOGIN, REFRESH, LOGOUT = "/api/auth/login", "/api/auth/refresh", "/api/auth/logout"
ASKS = {"X-Gateway-Session": "cookie"}
OWN = ASKS | {"Origin": PUBLIC, "Sec-Fetch-Site": "same-origin"}
REMOVED = f"{NAME}=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax"
KEPT = re.compile(
    NAME + r"=(v1\.u[a-z2-7]{20}\.[0-9a-f]{20}\.[0-9]+\.[0-9a-f]{32}); Max-Age=([0-9]+); Path=/; Secure; HttpOnly; "
    "SameSite=Lax"
)


def send(target: Installation, path: str, headers: dict[str, str], *, token: str = "", **body: Any) -> httpx.Response:
    with target.client() as client:
        cookie = {"Cookie": f"{NAME}={token}"} if token else {}
        return client.post(path, headers=headers | cookie, **(body or {"json": {}}))


def kept(answer: httpx.Response) -> str:
    """Return the refresh token that the browser keeps; no script of the page can read it."""
    assert answer.status_code == 200, answer.text
    assert "refresh_token" not in answer.json()
    found = KEPT.fullmatch(answer.headers["set-cookie"])
    assert found
    assert int(found[2]) == answer.json()["refresh_expires_in"]
    return found[1]


def log_in(target: Installation, headers: dict[str, str] = OWN, name: str = "mira") -> httpx.Response:
    return send(target, LOGIN, headers, json={"username": name, "password": target.passwords[name]})


@pytest.fixture(scope="module")
def login(shared: Installation) -> httpx.Response:
    return log_in(shared)


@pytest.fixture
def token(shared: Installation, login: httpx.Response) -> Iterator[str]:
    """The refresh token of a session that no attack may end."""
    yield kept(login)
    with shared.client(login.json()["access_token"]) as client:
        assert client.get("/api/auth/me").status_code == 200, "the session has ended"


FOREIGN: list[dict[str, str]] = [
    {},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "https://evil.example"},
    {"Origin": "https://evil.gateway.example.com"},
    {"Origin": "https://other.example.com", "Sec-Fetch-Site": "same-site"},
    {"Origin": "https://example.com", "Sec-Fetch-Site": "same-site"},
    {"Origin": "https://gateway.example.com.evil.example"},
    {"Origin": "https://gateway.example.com:8443", "Sec-Fetch-Site": "same-site"},
    {"Origin": "http://gateway.example.com", "Sec-Fetch-Site": "cross-site"},
    {"Origin": f"{PUBLIC}/"},
    {"Origin": f"{PUBLIC} https://evil.example"},
    {"Origin": PUBLIC, "Sec-Fetch-Site": "cross-site"},
    {"Origin": LISTED, "Sec-Fetch-Site": "cross-site"},
    {"Origin": PUBLIC, "Sec-Fetch-Site": "none"},
    # A proxy that believes the client does not make the gateway believe it.
    {"Origin": "https://evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"},
    {"Origin": "https://evil.example", "Host": "evil.example", "Forwarded": "host=evil.example;proto=https"},
    {"Origin": "http://rebound.example:8000", "Host": "rebound.example:8000"},
    {"Referer": f"{PUBLIC}/operator"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=repr)
def test_page_of_another_origin_is_refused_everywhere(
    shared: Installation, token: str, headers: dict[str, str]
) -> None:
    """Login CSRF, a forged refresh, logout CSRF; with the cookie, as if the browser had sent it along."""
    asked = [
        log_in(shared, ASKS | headers),
        send(shared, REFRESH, ASKS | headers, token=token),
        send(shared, LOGOUT, ASKS | headers, token=token),
        send(shared, LOGOUT, ASKS | headers, token=token, json={"scope": "all"}),
        send(shared, "/api/auth/exchange", ASKS | headers, json={"token": "eyJ.of.mallory"}),
        send(shared, "/api/invites/abcdefghijklmnopqrstuvwxyz/accept", ASKS | headers),
    ]
    for answer in asked:
        assert_problem(answer, 403, "origin_refused")
        assert "set-cookie" not in answer.headers


def test_two_origins_are_refused(shared: Installation) -> None:
    fields = ("Content-Length: 0", "X-Gateway-Session: cookie", f"Origin: {PUBLIC}", "Origin: https://evil.example")
    assert exchange(shared, head(f"POST {REFRESH} HTTP/1.1", *fields)).status == 403


def test_request_without_the_header_field_uses_no_cookie(shared: Installation, token: str) -> None:
    """A form or a link of any page sends the cookie along, but cannot send the field. Every route ignores it."""
    plain = {"Origin": PUBLIC, "Sec-Fetch-Site": "same-origin"}
    assert_problem(send(shared, REFRESH, plain, token=token), 400, "invalid_request", field="refresh_token")
    for scope in ("current", "others", "all"):
        answer = send(shared, LOGOUT, plain, token=token, json={"scope": scope})
        assert_problem(answer, 401, "invalid_token")
        assert "set-cookie" not in answer.headers
    login = log_in(shared, plain)
    assert "set-cookie" not in login.headers
    assert login.json()["refresh_token"]
    cookie = {"Cookie": f"{NAME}={token}"}
    with shared.client() as client:
        for headers in (cookie, cookie | OWN):
            for method, path in (("GET", "/api/auth/me"), ("POST", "/api/rooms"), ("GET", "/api/auth/sessions")):
                assert_problem(client.request(method, path, headers=headers), 401, "invalid_token")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_form_of_another_page_is_refused(shared: Installation, token: str, kind: str) -> None:
    """The only requests that a browser sends across origins without a preflight."""
    headers = {"Origin": "https://evil.example", "Content-Type": kind}
    for path in (LOGIN, REFRESH, LOGOUT):
        answer = send(shared, path, headers, token=token, content=b'{"username": "mira", "password": "x"}')
        assert_problem(answer, 415, "unsupported_media_type")
        assert "set-cookie" not in answer.headers


def test_preflight_allows_the_field_to_listed_origins_only(shared: Installation) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-gateway-session"}
    with shared.client() as client:
        listed = client.options(REFRESH, headers={"Origin": LISTED, **asked}).headers
        other = client.options(REFRESH, headers={"Origin": "https://other.example.com", **asked}).headers
    assert (listed["access-control-allow-origin"], listed["access-control-allow-credentials"]) == (LISTED, "true")
    assert "x-gateway-session" in listed["access-control-allow-headers"].split(", ")
    assert not [name for name in other if name.startswith("access-control-")]


def test_listed_page_of_the_same_site_may_use_the_cookie(shared: Installation) -> None:
    headers = ASKS | {"Origin": LISTED, "Sec-Fetch-Site": "same-site"}
    answer = send(shared, REFRESH, headers, token=kept(log_in(shared, headers)))
    kept(answer)
    assert answer.headers["access-control-allow-origin"] == LISTED
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "set-cookie" not in answer.headers["access-control-expose-headers"].lower()


def test_no_cookie_is_no_session(shared: Installation) -> None:
    answer = send(shared, REFRESH, OWN)
    assert_problem(answer, 400, "invalid_grant")
    assert answer.headers["set-cookie"] == REMOVED


def test_planted_cookie_is_never_chosen(shared: Installation, token: str) -> None:
    """Cookie tossing: a browser that does not know the prefix may hold one of a sibling domain beside the gateway's."""
    mallory = kept(log_in(shared, name="hanna"))
    pairs = ((mallory, token), (token, mallory), ("", token))
    for cookie in ("; ".join(f"{NAME}={value}" for value in pair) for pair in pairs):
        for path in (REFRESH, LOGOUT):
            answer = send(shared, path, OWN | {"Cookie": cookie})
            assert_problem(answer, 400, "invalid_grant")
            assert answer.headers["set-cookie"] == REMOVED
    for name in ("gateway-refresh", "__Secure-gateway-refresh", NAME.lower(), f"{NAME} x"):
        assert_problem(send(shared, REFRESH, OWN | {"Cookie": f"{name}={token}"}), 400, "invalid_grant")


def test_token_in_two_places_is_refused(shared: Installation, token: str) -> None:
    """Which of the two sessions is meant would depend on who reads it (CWE-436)."""
    other = log_in(shared, {}, name="hanna").json()["refresh_token"]
    for path in (REFRESH, LOGOUT):
        for cookie in (token, ""):
            answer = send(shared, path, OWN, token=cookie, json={"refresh_token": other})
            assert_problem(answer, 400, "invalid_request", field="refresh_token")
            assert "set-cookie" not in answer.headers
    assert send(shared, REFRESH, {}, json={"refresh_token": other}).status_code == 200


@pytest.mark.parametrize("forged", ["x", "v1", '"quoted"', "v1.u.s.1.m", "a" * 3000, "%0d%0aSet-Cookie:x=y", "\xe9"])
def test_forged_cookie_is_removed(shared: Installation, forged: str) -> None:
    for path in (REFRESH, LOGOUT):
        raw = f"Cookie: {NAME}={forged}"
        asked = head(f"POST {path} HTTP/1.1", "Content-Length: 0", raw, *(f"{n}: {v}" for n, v in OWN.items()))
        answer = exchange(shared, asked)
        assert (answer.status, answer.headers["set-cookie"]) == (400, REMOVED)


def test_replayed_cookie_ends_its_session(shared: Installation) -> None:
    """RFC 9700 section 4.14.2, as for a token in a body."""
    first = kept(log_in(shared))
    second = kept(send(shared, REFRESH, OWN, token=first))
    third = kept(send(shared, REFRESH, OWN, token=second))
    for stolen in (first, third):
        answer = send(shared, REFRESH, OWN, token=stolen)
        assert_problem(answer, 400, "invalid_grant")
        assert answer.headers["set-cookie"] == REMOVED


def test_refused_login_leaves_the_cookie_alone(shared: Installation) -> None:
    for password in ("wrong password 123", "x" * 5000):
        answer = send(shared, LOGIN, OWN, json={"username": "mira", "password": password})
        assert answer.status_code in (400, 401)
        assert "set-cookie" not in answer.headers


def test_gateway_without_cookies_refuses_the_field(target: Installation) -> None:
    """Ignoring it would hand the refresh token to a script that asked not to get one."""
    login = log_in(target, {})
    token = login.json()["refresh_token"]
    for answer in (log_in(target), send(target, REFRESH, OWN, token=token), send(target, LOGOUT, OWN, token=token)):
        assert_problem(answer, 400, "invalid_request", field="X-Gateway-Session")
        assert "set-cookie" not in answer.headers
        assert token not in answer.text
    assert_problem(send(target, REFRESH, {}, token=token), 400, "invalid_request", field="refresh_token")
    asked = {"Origin": LISTED, "Access-Control-Request-Method": "POST"}
    with target.client() as client:
        assert "x-gateway-session" not in client.options(REFRESH, headers=asked).headers.get(
            "access-control-allow-headers", ""
        )

"""Other spellings of a path never bypass the login; a path without a route is not found.

Litestar's `exclude=` patterns once let `/rooms/%2Fhealth` in (docs/architecture.md); CVE-2023-25690 and CVE-2021-41773
are consequences of decoded dots and slashes elsewhere.
"""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPMessage
from typing import Any

import pytest

from gateway.routes.table import ROUTES
from tests.servers import HOST, Installation

ROOM = "0123456789abcdef01234567"
PUBLIC = {"/health/live", "/health/ready", "/openapi.json", "/docs", "/docs/docs.css", "/docs/docs.js"}
PUBLIC |= {"/.well-known/jwks.json", "/.well-known/oauth-authorization-server"}


def ask(target: Installation, method: str, path: str, *, token: str = "") -> tuple[int, HTTPMessage, bytes]:
    """Send a path unchanged; client libraries would normalise it."""
    connection = HTTPConnection(HOST, target.port, timeout=5)
    connection._validate_path = lambda _: None  # type: ignore[attr-defined]
    try:
        connection.putrequest(method, path)
        if token:
            connection.putheader("Authorization", f"Bearer {token}")
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


RESPELLED = [
    "/api/usage/",
    "//api/usage",
    "/api//usage",
    "/api/./usage",
    "/api/../api/usage",
    "/api/%75sage",
    "/%61pi/usage",
    "/api%2Fusage",
    "/api%2fusage",
    "/API/usage",
    "/api/Usage",
    "/api/usage;a=b",
    "/api/usage%00",
    "/api/usage%20",
    "/api/usage.json",
    "/api/usage%2e",
    "/api/usage?x=/health/live",
    "/api/usage#/health/live",
    "/health/live/../../api/usage",
    "/health/live/..%2f..%2fapi/usage",
    "/health/live%2f..%2f..%2fapi%2fusage",
    "/health/live;/api/usage",
    "/health/live//api/usage",
    "/api/rooms/%2Fhealth%2Flive",
    "/api/rooms/%2e%2e/usage",
    "/api/rooms/..%2fusage",
    "/api/rooms/health",
    f"/api/rooms/{ROOM}%2ftoken",
    f"/api/rooms/{ROOM}/../{ROOM}",
    "/api/auth/login/../me",
    "/api/auth/login%2f..%2fme",
    "/api/auth/me/api/auth/login",
    "/api/admin/usage/..;/",
    "/api/admin%2fusage",
    "/api/%ff",
    "/api/%",
    "/api/%zz",
    "/api/rooms/%E2%80%8B",
    "http://127.0.0.1/api/usage",
    "http://evil.example/health/live/../../api/usage",
    "/api/rooms/*",
    "/api/rooms/{room_id}",
    "/" + "a" * 5000,
    "/" + "../" * 500 + "api/usage",
]


@pytest.mark.parametrize("path", RESPELLED, ids=lambda path: path[:40])
def test_other_spelling_of_a_path_gives_no_data_without_a_login(target: Installation, path: str) -> None:
    for method in ("GET", "HEAD", "POST", "OPTIONS", "DELETE", "PATCH", "TRACE"):
        status, headers, body = ask(target, method, path)
        assert status in (204, 401, 404, 405), (method, status, body)
        if status == 204:
            assert method == "OPTIONS"
        if method != "HEAD" and status != 204:
            assert headers["content-type"] == "application/problem+json", method
            assert json.loads(body)["status"] == status
        else:
            assert body == b"", method
        assert headers["x-request-id"]


def test_other_spelling_of_a_path_gives_no_data_of_another_user(target: Installation) -> None:
    """A logged-in caller gets the same room check under every spelling that reaches a route."""
    with target.client_of("hanna") as client:
        room = client.post("/api/rooms", json={"access": "invited"}).json()["room"]["id"]
    token = target.token_of("mira")
    for path in (
        f"/api/rooms/{room}/",
        f"//api/rooms/{room}",
        f"/api/rooms/{room.upper()}",
        f"/api/rooms/%20{room}",
        f"/api/rooms/{room}%00",
        f"/api/rooms/{room}%0a",
        f"/api/rooms/%2e%2e%2f{room}",
        f"/api/rooms/{''.join(f'%{ord(char):02x}' for char in room)}",
    ):
        status, _, _ = ask(target, "GET", path, token=token)
        assert status == 404, path


def test_other_spelling_of_a_path_is_not_found_whoever_asks(target: Installation) -> None:
    """CWE-647: a proxy's rule for a path must not be passed by another spelling of the same path."""
    token = target.token_of("hanna")
    for path in (
        "/api//rooms",
        "/api/rooms/",
        "/api%2frooms",
        "/api/%72ooms",
        "/health//live",
        "/docs/",
        "/openapi%2Ejson",
    ):
        assert ask(target, "GET", path, token=token)[0] == 404, path


def every_path() -> list[str]:
    return sorted({path.replace("{room_id:str}", ROOM) for handler in ROUTES for path in handler.paths})


@pytest.mark.parametrize("path", every_path())
def test_head_and_options_reveal_no_data(target: Installation, path: str) -> None:
    """Litestar's JWTAuth does not check HEAD, and its own OPTIONS handlers have none of the route's options."""
    status, _, body = ask(target, "HEAD", path)
    assert status in (401, 405) or path in PUBLIC
    assert body == b""
    status, headers, body = ask(target, "OPTIONS", path)
    assert status in (204, 405)
    assert body == b""
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("path", every_path())
def test_unsupported_methods_reveal_no_data(target: Installation, path: str) -> None:
    for method in ("TRACE", "PROPFIND"):
        assert_no_data(target, method, path)


def test_connect_reveals_no_data(target: Installation) -> None:
    assert_no_data(target, "CONNECT", f"{HOST}:{target.port}")


def assert_no_data(target: Installation, method: str, path: str) -> None:
    status, headers, body = ask(target, method, path)
    assert status in (400, 401, 404, 405), method
    data: Any = json.loads(body) if headers["content-type"] == "application/problem+json" else None
    assert data is None or data["success"] is False


def test_override_headers_do_not_change_the_method(target: Installation) -> None:
    """CWE-436: a proxy that checks the method must see the effective one."""
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        with target.client() as client:
            answer = client.get("/api/auth/login", headers={name: "POST"})
        assert answer.status_code == 405
    with target.client() as client:
        for name in ("X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix"):
            answer = client.get("/api/usage", headers={name: "/health/live"})
            assert answer.status_code == 401
            assert client.get("/health/live", headers={name: "/api/usage"}).json() == {"status": "ok"}

"""CORS: which pages may call the API and read its responses. Fetch standard, "CORS protocol"; OWASP WSTG-CLNT-07."""

from __future__ import annotations

import httpx
import pytest

from tests.attack.conftest import LISTED
from tests.attack.wire import exchange, head
from tests.e2e.checks import assert_problem
from tests.servers import Installation


def let_in(answer: httpx.Response, origin: str) -> bool:
    """Tell whether a browser would let the origin's page read this answer; check that it allows all or nothing."""
    fields = {name for name in answer.headers if name.startswith("access-control-")}
    assert "origin" in answer.headers["vary"].lower()
    if not fields:
        return False
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers.get_list("access-control-allow-origin") == [origin]
    return True


def preflight(client: httpx.Client, path: str, origin: str, method: str = "POST") -> httpx.Response:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization,content-type"}
    return client.options(path, headers={"Origin": origin, **asked})


@pytest.mark.parametrize(
    "origin", [LISTED, "http://localhost:3000", "http://localhost:80", "https://[2001:db8::1]:8443"]
)
def test_page_of_a_listed_origin_is_allowed(shared: Installation, origin: str) -> None:
    with shared.client() as client:
        asked = preflight(client, "/api/rooms", origin)
        assert asked.status_code == 204
        assert let_in(asked, origin)
        assert {"GET", "POST", "PUT", "PATCH", "DELETE"} <= {*asked.headers["access-control-allow-methods"].split(", ")}
        allowed = {*asked.headers["access-control-allow-headers"].split(", ")}
        assert allowed >= {"authorization", "content-type", "x-gateway-session"}
        assert int(asked.headers["access-control-max-age"]) <= 600
    with shared.client_of("mira") as client:
        answer = client.get("/api/auth/me", headers={"Origin": origin})
        assert answer.status_code == 200
        assert let_in(answer, origin)
        exposed = {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}
        assert exposed >= {"RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id", "WWW-Authenticate"}


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://evil.example",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.evil.example",
        "https://evilapp.example.com",
        "https://evil.app.example.com",
        "https://appXexample.com",
        "https://app.example.com/",
        "https://app.example.com@evil.example",
        "https://evil.example#https://app.example.com",
        "https://evil.example,https://app.example.com",
        "https://APP.example.com",
        "https://app.example.com%60.evil.example",
        "https://app.example.com_.evil.example",
        "http://localhost",
        "http://localhost:",
        "http://localhost:*",
        "http://localhost:3000.evil.example",
        "http://localhost:123456",
        "http://localhost.evil.example:3000",
        "*",
        "",
    ],
)
def test_page_of_any_other_origin_is_not_allowed(shared: Installation, origin: str) -> None:
    with shared.client() as client:
        for method in ("GET", "DELETE"):
            asked = preflight(client, "/api/rooms", origin, method)
            assert not let_in(asked, origin)
            assert "access-control-max-age" not in asked.headers
        answer = client.get("/api/auth/me", headers={"Origin": origin})
        assert not let_in(answer, origin)
        assert_problem(answer, 401, "invalid_token")
        assert not let_in(client.get("/health/live"), "")


def test_two_origins_count_as_none(shared: Installation) -> None:
    answer = exchange(shared, head("GET /health/live HTTP/1.1", f"Origin: {LISTED}", "Origin: https://evil.example"))
    assert answer.status == 200
    assert b"access-control" not in answer.raw


def test_page_can_read_every_refusal(shared: Installation) -> None:
    """Without these fields the page gets `TypeError: Failed to fetch` instead of the problem document."""
    origin = {"Origin": LISTED}
    big = b'{"username": "' + b"x" * 20_000 + b'"}'
    json = origin | {"Content-Type": "application/json"}
    with shared.client() as client:
        refusals = [
            (client.get("/api/auth/me", headers=origin), 401),
            (client.get("/api/nowhere", headers=origin), 404),
            (client.put("/api/rooms", headers=origin), 405),
            (client.post("/api/auth/login", content=b"{", headers=json), 400),
            (client.post("/api/auth/login", content=big, headers=json), 413),
            (client.post("/api/auth/login", content=b"x", headers=origin | {"Content-Type": "text/plain"}), 415),
            (client.get("/health/live", headers=origin | {"X": "x" * 40_000}), 431),
        ]
    for answer, status in refusals:
        assert answer.status_code == status
        assert let_in(answer, LISTED), status


def test_preflight_reveals_nothing_about_addresses(shared: Installation) -> None:
    """The page can read the 404 of the call itself. A preflight grants nothing: the call is checked as usual."""
    with shared.client() as client:
        answers = [preflight(client, path, LISTED) for path in ("/api/rooms", "/api/nowhere", "/api/admin/users")]
    assert {(answer.status_code, answer.headers["access-control-allow-methods"]) for answer in answers} == {
        (204, "GET, HEAD, POST, PUT, PATCH, DELETE")
    }


def test_no_origin_is_allowed_by_default(target: Installation) -> None:
    with target.client() as client:
        for answer in (preflight(client, "/api/rooms", LISTED), client.get("/api/usage", headers={"Origin": LISTED})):
            assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_security_fields_are_on_every_answer(shared: Installation, target: Installation) -> None:
    """OWASP REST Security Cheat Sheet, "Security Headers"; RFC 6797 only if clients use https."""
    with shared.client() as client, target.client() as plain:
        answers = [
            client.get("/health/live"),
            client.get("/api/usage"),
            client.get("/api/nowhere"),
            client.request("TRACE", "/api/usage"),
            client.options("/api/usage"),
            preflight(client, "/api/usage", LISTED),
            client.get("/openapi.json"),
            client.get("/health/live", headers={"X": "x" * 40_000}),
        ]
        for answer in answers:
            fields = answer.headers
            assert fields["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert fields["x-content-type-options"] == "nosniff"
            assert fields["x-frame-options"] == "DENY"
            assert fields["referrer-policy"] == "no-referrer"
            assert fields["cross-origin-opener-policy"] == "same-origin"
            assert fields["cross-origin-resource-policy"] == "same-origin"
            assert fields["permissions-policy"]
            assert fields["strict-transport-security"] == "max-age=31536000"
            assert "server" not in fields
            public = answer.request.url.path == "/openapi.json"
            assert fields["cache-control"] == ("public, max-age=300" if public else "no-store")
        assert "strict-transport-security" not in plain.get("/health/live").headers

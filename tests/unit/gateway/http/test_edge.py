"""The outermost wrapper around every request."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from litestar.types import Receive, Scope, Send

from gateway.http.client_address import ClientAddresses
from gateway.http.cors import Cors
from gateway.http.edge import REFUSED, Edge
from gateway.http.problems import Problem
from limits.policy import US_PER_S, Limit


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the address the edge found; fail where the path says so."""
    if scope["path"] == "/boom":
        raise RuntimeError("the secret is 12345")
    client: Any = scope["client"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": client[0].encode(), "more_body": False})


def client(*, burst: int = 3, address: str = "198.51.100.1", app: Any = echo, **options: Any) -> httpx.AsyncClient:
    edge = Edge(app, addresses=ClientAddresses(()), flood=lambda: Limit("flood", 1, 60 * US_PER_S, burst), **options)
    transport = httpx.ASGITransport(app=edge, client=(address, 4711))  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


async def test_every_response_has_a_generated_request_id_and_is_not_stored() -> None:
    async with client() as http:
        first = await http.get("/", headers={"X-Request-Id": "forged\tline"})
        second = await http.get("/")
    assert len(first.headers["x-request-id"]) == 24
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert first.headers["cache-control"] == "no-store"
    assert first.headers["x-content-type-options"] == "nosniff"


async def test_a_flood_from_one_address_is_refused_and_others_are_not() -> None:
    async with client() as http:
        answers = [await http.get("/anything") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    refused = answers[-1]
    assert refused.headers["content-type"] == "application/problem+json"
    assert int(refused.headers["retry-after"]) >= 60
    document = refused.json()
    assert document["code"] == "rate_limited"
    assert document["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert document["violated-policies"] == ["flood"]
    assert document["request_id"] == refused.headers["x-request-id"]


async def test_shadow_flood_limit_refuses_nothing() -> None:
    shadow = Limit("flood", 1, 60 * US_PER_S, 1, shadow=True)
    edge = Edge(echo, addresses=ClientAddresses(()), flood=lambda: shadow)
    transport = httpx.ASGITransport(app=edge, client=("198.51.100.1", 1))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        assert [(await http.get("/")).status_code for _ in range(3)] == [200, 200, 200]


async def test_each_address_has_its_own_flood_limit() -> None:
    edge = Edge(echo, addresses=ClientAddresses(()), flood=lambda: Limit("flood", 1, 60 * US_PER_S, 1))
    for address in ("198.51.100.1", "198.51.100.2"):
        transport = httpx.ASGITransport(app=edge, client=(address, 1))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            assert (await http.get("/")).status_code == 200
            assert (await http.get("/")).status_code == 429


async def test_flood_limit_spares_only_exempt_requests() -> None:
    async with client(burst=1, is_exempt=lambda scope: scope["path"] == "/hook") as http:
        assert [(await http.get("/hook")).status_code for _ in range(5)] == [200] * 5
        assert [(await http.get("/hook/x")).status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
async def test_health_checks_are_never_refused(path: str) -> None:
    async with client(burst=1) as http:
        assert [(await http.get(path)).status_code for _ in range(5)] == [200] * 5


async def test_an_unexpected_exception_is_a_bare_500(caplog: pytest.LogCaptureFixture) -> None:
    async with client() as http:
        answer = await http.get("/boom")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "internal"
    assert "12345" not in answer.text
    assert any(record.exc_info for record in caplog.records)


async def test_a_response_keeps_the_security_headers_it_sets() -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        own = [(b"Content-Security-Policy", b"default-src 'self'"), (b"cache-control", b"public, max-age=60")]
        await send({"type": "http.response.start", "status": 200, "headers": own})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with client(app=page) as http:
        headers = (await http.get("/")).headers
    assert headers.get_list("content-security-policy") == ["default-src 'self'"]
    assert headers.get_list("cache-control") == ["public, max-age=60"]
    assert headers["x-frame-options"] == "DENY"


async def test_hsts_is_sent_only_if_the_public_url_is_https() -> None:
    async with client(https=True) as http, client() as plain:
        assert "max-age=31536000" in (await http.get("/")).headers["strict-transport-security"]
        assert "strict-transport-security" not in (await plain.get("/")).headers


async def test_the_app_sees_head_as_get_and_the_client_gets_no_content() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["method"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"text", "more_body": False})

    edge = Edge(app, addresses=ClientAddresses(()), flood=lambda: Limit("flood", 1, 60 * US_PER_S, 3))
    given = {"method": "HEAD", "path": "/", "raw_path": b"/", "headers": []}
    scope: Any = {"type": "http", "client": ("198.51.100.1", 1), **given}
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await edge(scope, None, send)  # type: ignore[arg-type]
    assert seen == ["GET"]
    assert scope["method"] == "HEAD"  # the server decides by its own scope whether a body may follow
    assert (b"content-length", b"4") in sent[0]["headers"]
    assert [message["body"] for message in sent[1:]] == [b""]


async def test_a_listed_origin_can_read_what_the_edge_itself_answers() -> None:
    origin = {"Origin": "https://app.example.com"}
    async with client(burst=2, cors=Cors(["https://app.example.com"])) as http:
        answers = [await http.get(path, headers=origin) for path in ("/boom", "/", "/")]
        assert [answer.status_code for answer in answers] == [500, 200, 429]
        assert {answer.headers["access-control-allow-origin"] for answer in answers} == {"https://app.example.com"}
        assert {answer.headers["vary"] for answer in answers} == {"Origin"}


async def test_preflight_of_a_listed_origin_is_answered_before_the_app() -> None:
    asked = {"Access-Control-Request-Method": "PATCH"}
    async with client(cors=Cors(["https://app.example.com"])) as http:
        listed = await http.options("/boom", headers=asked | {"Origin": "https://app.example.com"})
        other = await http.options("/boom", headers=asked | {"Origin": "https://evil.example"})
        plain = await http.options("/boom", headers={"Origin": "https://app.example.com"})
    assert (listed.status_code, other.status_code, plain.status_code) == (204, 500, 500)
    assert "PATCH" in listed.headers["access-control-allow-methods"]
    assert not [name for name in other.headers if name.startswith("access-control")]


async def test_a_request_the_server_could_not_parse_is_answered_with_its_problem() -> None:
    async def server(scope: Any, receive: Any, send: Any) -> None:
        await edge({**scope, REFUSED: Problem(431, "headers_too_large", "Too much.")}, receive, send)

    edge = Edge(echo, addresses=ClientAddresses(()), flood=lambda: Limit("flood", 1, 60 * US_PER_S, 3))
    transport = httpx.ASGITransport(app=server)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        answer = await http.get("/")
    assert answer.status_code == 431
    assert answer.json()["code"] == "headers_too_large"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_every_response_is_reported_once_with_its_scope_and_status() -> None:
    seen: list[tuple[str, int]] = []

    def note(scope: Scope, status: int, seconds: float) -> None:
        assert 0 < seconds < 10
        seen.append((scope["path"], status))

    async with client(burst=2, on_response=[note]) as http:
        for path in ("/", "/boom", "/flood"):
            await http.get(path)
    assert seen == [("/", 200), ("/boom", 500), ("/flood", 429)]


RESPELLED = [
    "/api//rooms",
    "/api/rooms/",
    "//api/rooms",
    "/api%2frooms",
    "/api%2Frooms",
    "/%61pi/rooms",
    "/api/%72ooms",
]
DOTTED = [
    "/api/./rooms",
    "/api/rooms/.",
    "/x/../api/rooms",
    "/api/rooms/..",
    "/api/%2e%2E/rooms",
    "/api%5Crooms",
    "/%00",
    "/%zz",
    "*",
]


@pytest.mark.parametrize("path", [*RESPELLED, *DOTTED, "/health/live/", "/health%2flive", "/docs/docs.cs%73"])
async def test_another_spelling_of_a_path_is_not_found(path: str) -> None:
    """A proxy's rule for `/api/rooms` would not apply to it. RFC 3986 section 6.2.2, CWE-647."""
    assert await status_of(path) == 404


@pytest.mark.parametrize(
    "path", ["/", "/api/rooms", "/operator/main.js", "/users/ann%40home%3Bx%25", "/users/%C3%A9a.b~c-d_e"]
)
async def test_a_path_with_necessary_escapes_is_served_whatever_its_query(path: str) -> None:
    assert await status_of(path, query=b"next=/a//b/%2F/../") == 200


async def status_of(path: str, query: bytes = b"") -> int:
    """Return the status for a path exactly as sent; httpx would change some."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    edge = Edge(echo, addresses=ClientAddresses(()), flood=lambda: Limit("flood", 1, US_PER_S, 9))
    given = {"path": unquote(path), "raw_path": path.encode(), "query_string": query}
    scope: Any = {"type": "http", "method": "GET", "client": ("198.51.100.1", 1), "headers": [], **given}
    await edge(scope, receive, send)
    return int(sent[0]["status"])

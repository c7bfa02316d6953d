"""What the outermost wrapper does to every request."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from litestar.types import Receive, Scope, Send

from gateway.addresses import ClientAddresses
from gateway.edge import Edge
from limits.policy import US_PER_S, Limit


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the address the edge found; fail where the path says so."""
    if scope["path"] == "/boom":
        raise RuntimeError("the secret is 12345")
    client: Any = scope["client"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": client[0].encode(), "more_body": False})


def client(*, burst: int = 3, address: str = "198.51.100.1") -> httpx.AsyncClient:
    edge = Edge(echo, addresses=ClientAddresses(()), flood=Limit("flood", 1, 60 * US_PER_S, burst))
    transport = httpx.ASGITransport(app=edge, client=(address, 4711))  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


async def test_every_response_has_an_id_of_ours_and_is_not_stored() -> None:
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


async def test_one_address_does_not_pay_for_another() -> None:
    edge = Edge(echo, addresses=ClientAddresses(()), flood=Limit("flood", 1, 60 * US_PER_S, 1))
    for address in ("198.51.100.1", "198.51.100.2"):
        transport = httpx.ASGITransport(app=edge, client=(address, 1))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            assert (await http.get("/")).status_code == 200
            assert (await http.get("/")).status_code == 429


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
async def test_health_checks_are_never_refused(path: str) -> None:
    async with client(burst=1) as http:
        assert [(await http.get(path)).status_code for _ in range(5)] == [200] * 5


async def test_what_nobody_foresaw_is_a_bare_500(caplog: pytest.LogCaptureFixture) -> None:
    async with client() as http:
        answer = await http.get("/boom")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "internal"
    assert "12345" not in answer.text
    assert any(record.exc_info for record in caplog.records)

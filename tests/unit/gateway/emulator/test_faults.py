"""Faults, the call log, and the refusals of the outermost layer."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.emulator.faults import Fault
from tests.unit.gateway.local_100ms import app_of, signed


def headers() -> dict[str, str]:
    return {"authorization": f"Bearer {signed()}"}


async def test_a_status_fault_answers_in_the_envelope_without_running_the_call(client: httpx.AsyncClient) -> None:
    reply = await client.post("/v2/rooms", json={}, headers={"x-emulate": "status=503"})
    assert reply.status_code == 503
    assert reply.json() == {"code": 503, "message": "Service Unavailable", "details": ["emulated fault"]}
    assert (await client.get("/v2/rooms")).json()["data"] == []


async def test_a_429_fault_has_the_wait_only_in_its_message(client: httpx.AsyncClient) -> None:
    reply = await client.get("/v2/rooms", headers={"x-emulate": "status=429"})
    assert reply.status_code == 429
    assert reply.json() == {
        "code": 429,
        "message": "Too many requests, retry after 45 seconds",
        "details": ["emulated fault"],
    }
    assert "retry-after" not in reply.headers


async def test_garbage_is_a_200_that_is_not_json(client: httpx.AsyncClient) -> None:
    reply = await client.get("/v2/rooms", headers={"x-emulate": "garbage"})
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    with pytest.raises(ValueError, match="Expecting value"):
        reply.json()


async def test_parts_of_a_fault_combine(client: httpx.AsyncClient) -> None:
    began = time.monotonic()
    reply = await client.get("/v2/rooms", headers={"x-emulate": "delay=0.2; status=502; garbage"})
    assert reply.status_code == 502
    assert time.monotonic() - began >= 0.2
    assert b"not JSON" in reply.content


async def test_a_delay_alone_is_followed_by_the_true_answer(client: httpx.AsyncClient) -> None:
    began = time.monotonic()
    reply = await client.post("/v2/rooms", json={"name": "late"}, headers={"x-emulate": "delay=0.2"})
    assert (reply.status_code, reply.json()["name"]) == (200, "late")
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "unknown fault ''"),
        ("explode", "unknown fault 'explode'"),
        ("reset=1", "unknown fault 'reset=1'"),
        ("status=200", "status must be 400 to 599, not '200'"),
        ("status=", "status must be 400 to 599, not ''"),
        ("delay=soon", "delay must be a number of seconds, not 'soon'"),
        ("delay=-1", "delay must be a number of seconds, not '-1'"),
        ("delay=inf", "delay must be a number of seconds, not 'inf'"),
    ],
)
async def test_a_malformed_fault_is_a_400(unchanged: httpx.AsyncClient, text: str, problem: str) -> None:
    reply = await unchanged.get("/v2/rooms", headers={"x-emulate": text})
    assert reply.status_code == 400
    assert reply.json() == {"code": 400, "message": "Invalid x-emulate header", "details": [problem]}
    ruled = await unchanged.post("/emulator/faults", json={"match": "/v2/rooms", "fault": text})
    assert ruled.status_code == 400
    assert ruled.json() == {"code": 400, "message": "Invalid body param", "details": [f"Invalid body param: {problem}"]}


def test_a_delay_is_limited_to_a_minute() -> None:
    assert Fault.parse("delay=3600").delay_s == 60


async def test_a_reset_reaches_an_in_process_client_as_a_connection_error(client: httpx.AsyncClient) -> None:
    with pytest.raises(ConnectionResetError):
        await client.get("/v2/rooms", headers={"x-emulate": "reset"})


async def test_a_reset_closes_the_socket_without_an_answer(server_url: str) -> None:
    async with httpx.AsyncClient(base_url=server_url, headers=headers()) as client:
        for path in ("/v2/rooms", "/init"):
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)) as caught:
                await client.get(path, headers={"x-emulate": "reset"})
            assert "incomplete" not in str(caught.value)
        assert (await client.get("/v2/rooms")).status_code == 200


async def test_the_call_of_a_client_that_disconnects_is_still_completed(server_url: str) -> None:
    async with httpx.AsyncClient(base_url=server_url, headers=headers()) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/v2/rooms", json={"name": "slow"}, headers={"x-emulate": "delay=30"}, timeout=0.3)
        for _ in range(250):
            found = (await client.get("/v2/rooms")).json()["data"]
            if found:
                break
            await asyncio.sleep(0.02)
    assert [room["name"] for room in found] == ["slow"]


async def test_a_rule_applies_as_often_as_it_says(client: httpx.AsyncClient) -> None:
    rule = {"match": "/v2/rooms", "fault": "status=500", "times": 2}
    reply = await client.post("/emulator/faults", json=rule)
    assert (reply.status_code, reply.json()) == (200, rule)
    statuses = [(await client.get(path)).status_code for path in ("/v2/rooms", "/v2/rooms/x", "/v2/rooms")]
    assert statuses == [500, 500, 200]


async def test_a_rule_without_a_count_applies_until_it_is_cleared(client: httpx.AsyncClient) -> None:
    await client.post("/emulator/faults", json={"match": "/v2/rooms", "fault": "status=500", "times": None})
    assert {(await client.get("/v2/rooms")).status_code for _ in range(5)} == {500}
    assert (await client.delete("/emulator/faults")).status_code == 204
    assert (await client.get("/v2/rooms")).status_code == 200


async def test_a_rule_matches_whole_path_segments_only(client: httpx.AsyncClient) -> None:
    await client.post("/emulator/faults", json={"match": "/v2/room", "fault": "status=500"})
    assert (await client.get("/v2/rooms")).status_code == 200
    await client.post("/emulator/faults", json={"match": "/", "fault": "status=500"})
    assert (await client.get("/v2/rooms")).status_code == 500
    assert (await client.get("/emulator/calls")).status_code == 200


async def test_a_header_replaces_a_rule_without_using_it_up(client: httpx.AsyncClient) -> None:
    await client.post("/emulator/faults", json={"match": "/v2/rooms", "fault": "status=500", "times": 1})
    assert (await client.get("/v2/rooms", headers={"x-emulate": "status=502"})).status_code == 502
    assert (await client.get("/v2/rooms")).status_code == 500


@pytest.mark.parametrize(
    ("rule", "detail"),
    [
        ({"match": "rooms", "fault": "reset"}, "Expected `str` matching regex '^/' - at `$.match`"),
        ({"match": "/", "fault": "reset", "times": 0}, "Expected `int` >= 1 - at `$.times`"),
        ({"match": "/"}, "Object missing required field `fault`"),
        ({"match": "/", "fault": "reset", "x": 1}, "Object contains unknown field `x`"),
    ],
)
async def test_a_malformed_rule_is_a_400(unchanged: httpx.AsyncClient, rule: dict[str, Any], detail: str) -> None:
    reply = await unchanged.post("/emulator/faults", json=rule)
    assert reply.status_code == 400
    assert reply.json() == {"code": 400, "message": "Invalid body param", "details": [f"Invalid body param: {detail}"]}


async def test_the_call_log_includes_calls_that_failed_or_were_refused(client: httpx.AsyncClient) -> None:
    await client.post("/v2/rooms", json={"name": "a"})
    await client.get("/v2/rooms?limit=20", headers={"x-emulate": "status=500"})
    await client.post("/v2/nowhere", content=b"<xml>")
    await client.get("/init?peer_id=1")
    assert (await client.get("/emulator/calls")).json() == {
        "calls": [
            {"method": "POST", "path": "/v2/rooms", "query": "", "body": {"name": "a"}},
            {"method": "GET", "path": "/v2/rooms", "query": "limit=20", "body": None},
            {"method": "POST", "path": "/v2/nowhere", "query": "", "body": None},
        ]
    }


async def test_the_call_log_never_contains_a_token(client: httpx.AsyncClient) -> None:
    token = headers()["authorization"].removeprefix("Bearer ")
    escaped = b'{"a": "\\u0065' + token[1:].encode() + b'", "b": ["x ' + token.encode() + b'"]}'
    await client.post(f"/v2/rooms/{token}?token={token}", content=escaped)
    shown = (await client.get("/emulator/calls")).json()["calls"]
    assert shown == [
        {
            "method": "POST",
            "path": "/v2/rooms/[token]",
            "query": "token=[token]",
            "body": {"a": "[token]", "b": ["x [token]"]},
        }
    ]


async def test_the_call_log_keeps_the_last_two_hundred(client: httpx.AsyncClient) -> None:
    for number in range(205):
        await client.get(f"/v2/rooms/{number}")
    calls = (await client.get("/emulator/calls")).json()["calls"]
    assert [call["path"] for call in calls] == [f"/v2/rooms/{number}" for number in range(5, 205)]


@pytest.mark.parametrize("address", ["10.0.0.7", "::ffff:10.0.0.7", "fe80::1", "localhost.example"])
async def test_control_is_refused_to_other_machines(address: str, unchanged: httpx.AsyncClient) -> None:
    transport = httpx.ASGITransport(app=app_of(unchanged), client=(address, 4000))
    async with httpx.AsyncClient(transport=transport, base_url="http://emulator") as client:
        for method, path in (("POST", "faults"), ("DELETE", "faults"), ("GET", "calls")):
            reply = await client.request(method, f"/emulator/{path}")
            assert reply.status_code == 403
            assert reply.json() == {
                "code": 403,
                "message": "Forbidden",
                "details": ["control endpoints need a management token from other machines"],
            }


async def test_control_is_open_to_other_machines_with_a_management_token(unchanged: httpx.AsyncClient) -> None:
    transport = httpx.ASGITransport(app=app_of(unchanged), client=("10.0.0.7", 4000))
    async with httpx.AsyncClient(transport=transport, base_url="http://emulator") as client:
        for token, status in ((signed(), 200), (signed("x" * 64), 401), (signed(type="app"), 401)):
            reply = await client.get("/emulator/calls", headers={"authorization": f"Bearer {token}"})
            assert reply.status_code == status


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
async def test_control_is_open_to_this_machine(address: str, unchanged: httpx.AsyncClient) -> None:
    transport = httpx.ASGITransport(app=app_of(unchanged), client=(address, 4000))
    async with httpx.AsyncClient(transport=transport, base_url="http://emulator") as client:
        assert (await client.get("/emulator/calls")).status_code == 200


@pytest.mark.parametrize("path", ["/", "/v2", "/v2/unknown", "/rooms", "/schema", "/v2/rooms/a/b"])
async def test_an_unknown_route_is_a_404_in_the_envelope(unchanged: httpx.AsyncClient, path: str) -> None:
    reply = await unchanged.get(path)
    assert reply.status_code == 404
    assert reply.headers["content-type"] == "application/json"
    assert reply.json() == {"code": 404, "message": "Not Found", "details": [f"GET {path}"]}


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/v2/rooms"), ("PUT", "/v2/rooms/x"), ("POST", "/init")])
async def test_a_wrong_method_is_a_405_in_the_envelope(unchanged: httpx.AsyncClient, method: str, path: str) -> None:
    reply = await unchanged.request(method, path)
    assert reply.status_code == 405
    assert reply.headers["content-type"] == "application/json"
    assert reply.json() == {"code": 405, "message": "Method Not Allowed", "details": [f"{method} {path}"]}
    assert "GET" in reply.headers["allow"]


async def test_a_body_over_the_limit_is_a_413_with_and_without_a_content_length(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield b"x" * 1024

    for content in (b"x" * (256 * 1024 + 1), chunks()):
        reply = await client.post("/v2/rooms", content=content)
        assert reply.status_code == 413
        assert reply.json() == {
            "code": 413,
            "message": "Request Entity Too Large",
            "details": ["body is larger than 262144 bytes"],
        }


async def test_a_body_at_the_limit_is_read(client: httpx.AsyncClient) -> None:
    body = b'{"description": "' + b"x" * (256 * 1024 - 19) + b'"}'
    assert len(body) == 256 * 1024
    reply = await client.post("/v2/rooms", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 200


async def test_an_oversized_body_over_a_socket_is_answered_or_cut_off(server_url: str) -> None:
    async with httpx.AsyncClient(base_url=server_url, headers=headers()) as client:
        # The server may close the connection while the client still writes, which is as good as an answer.
        with contextlib.suppress(httpx.WriteError, httpx.ReadError):
            assert (await client.post("/v2/rooms", content=b"x" * 5_000_000)).status_code == 413
        assert (await client.get("/v2/rooms")).status_code == 200


async def test_a_bug_is_a_500_in_the_envelope_without_a_traceback(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.emulator.rooms.new_id", lambda: 1 / 0)
    reply = await client.post("/v2/rooms", json={})
    assert reply.status_code == 500
    assert reply.json() == {"code": 500, "message": "Internal server error"}
    assert "ZeroDivisionError" in caplog.text

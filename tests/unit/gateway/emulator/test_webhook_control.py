"""Webhooks from a join to the receiver, and the control calls for tests."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from tests.servers import free_port
from tests.unit.gateway.local_100ms import client_for, join, new_room, stop
from tests.unit.gateway.receiver import Receiver


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_for() as made:
        yield made
        await stop(made)


async def delivered(client: httpx.AsyncClient, ready: Callable[[list[Any]], bool]) -> list[dict[str, Any]]:
    end = time.monotonic() + 5
    while True:
        found = (await client.get("/emulator/deliveries")).json()["deliveries"]
        if ready(found):
            return list(found)
        assert time.monotonic() < end, found
        await asyncio.sleep(0.01)


def all_done(count: int) -> Callable[[list[Any]], bool]:
    return lambda found: len(found) == count and all(one["state"] == "delivered" for one in found)


async def test_a_join_and_a_leave_reach_the_receiver(client: httpx.AsyncClient, receiver: Receiver) -> None:
    reply = await client.post("/emulator/webhook", json={"url": receiver.url, "headers": {"X-Secret": "s3cret"}})
    assert (reply.status_code, reply.json()) == (200, {"url": receiver.url, "headers": ["X-Secret"]})
    room_id = await new_room(client)
    await join(client, room_id, "p1")
    await client.delete("/emulator/peers/p1?reason=websocket%20closed")
    log = await delivered(client, all_done(4))
    kinds = ["session.open.success", "peer.join.success", "peer.leave.success", "session.close.success"]
    assert [event["type"] for event in receiver.events()] == kinds
    assert receiver.events()[2]["data"]["reason"] == "websocket closed"
    assert [entry["event"] for entry in log] == receiver.events()
    assert log[0]["attempts"][0].keys() == {"at", "status"}
    assert "s3cret" not in json.dumps(log)


async def test_a_room_can_be_created_with_its_own_webhook(client: httpx.AsyncClient, receiver: Receiver) -> None:
    await client.post("/emulator/webhook", json={"url": f"http://127.0.0.1:{free_port()}/"})
    room_id = await new_room(client, webhook={"url": receiver.url, "headers": {"X-Room": "mine"}})
    await join(client, room_id, "p1")
    await delivered(client, all_done(2))
    assert {headers["x-room"] for _, headers, _ in receiver.requests} == {"mine"}


async def test_the_webhook_can_be_read_and_unset(client: httpx.AsyncClient, receiver: Receiver) -> None:
    assert (await client.get("/emulator/webhook")).json() == {"url": None, "headers": []}
    await client.post("/emulator/webhook", json={"url": receiver.url})
    assert (await client.get("/emulator/webhook")).json() == {"url": receiver.url, "headers": []}
    assert (await client.delete("/emulator/webhook")).status_code == 204
    await join(client, await new_room(client), "p1")
    assert (await client.get("/emulator/deliveries")).json() == {"deliveries": []}
    for body in ({"url": "ftp://x"}, {}, {"url": receiver.url, "headers": {"a": 1}}):
        assert (await client.post("/emulator/webhook", json=body)).status_code == 400


@pytest.mark.parametrize(
    "url", ["http://8.8.8.8/x", "https://[2606:4700::1111]/", "http://169.254.169.254/latest", "http://127.0.0.1:port/"]
)
async def test_a_forbidden_address_is_refused_at_once_and_the_previous_one_is_kept(
    client: httpx.AsyncClient, receiver: Receiver, url: str
) -> None:
    """OWASP: server-side request forgery. Refused at once, so that a test need not search for missing events."""
    await client.post("/emulator/webhook", json={"url": receiver.url})
    reply = await client.post("/emulator/webhook", json={"url": url})
    assert (reply.status_code, reply.headers["content-type"]) == (400, "application/json")
    assert reply.json().keys() == {"code", "message", "details"}
    assert (reply.json()["code"], reply.json()["message"]) == (400, "Invalid body param")
    (detail,) = reply.json()["details"]
    assert detail.startswith("Invalid body param: url: ")
    if "port" not in url:
        assert "events go only to loopback and private addresses (127.0.0.0/8, " in detail
    assert (await client.get("/emulator/webhook")).json()["url"] == receiver.url


async def test_a_name_that_does_not_resolve_yet_is_accepted(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that starts later has no address yet."""

    async def resolve(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve, raising=False)
    assert (await client.post("/emulator/webhook", json={"url": "http://later:9000/hook"})).status_code == 200


async def test_a_custom_event_is_delivered_unchanged(client: httpx.AsyncClient, receiver: Receiver) -> None:
    event = {"id": "0", "type": "surprise", "is_replay": True, "data": {"joined_at": "0001-01-01T00:00:00Z"}}
    refused = await client.post("/emulator/events", json={"event": event})
    assert (refused.status_code, refused.json()) == (409, {"code": 409, "message": "no webhook is set"})
    await client.post("/emulator/webhook", json={"url": receiver.url})
    room_id = await new_room(client, webhook={"url": receiver.url + "/of-room"})
    assert (await client.post("/emulator/events", json={"event": event})).status_code == 202
    sent = await client.post("/emulator/events", json={"event": event, "room_id": room_id})
    assert sent.json() == {"url": receiver.url + "/of-room"}
    await delivered(client, all_done(2))
    assert receiver.events() == [event, event]
    assert (await client.post("/emulator/events", json={"event": event, "room_id": "f" * 24})).status_code == 404


async def test_duplicates_and_reordering_are_set_over_http(client: httpx.AsyncClient, receiver: Receiver) -> None:
    await client.post("/emulator/webhook", json={"url": receiver.url})
    reply = await client.post("/emulator/webhook/disorder", json={"duplicate": 1, "reorder": 3})
    assert (reply.status_code, reply.json()) == (200, {"duplicate": 1, "reorder": 3})
    await join(client, await new_room(client), "p1")
    await delivered(client, all_done(3))
    kinds = ["peer.join.success", "session.open.success", "session.open.success"]
    assert [event["type"] for event in receiver.events()] == kinds
    assert (await client.delete("/emulator/webhook/disorder")).status_code == 204
    for body in ({"duplicate": -1}, {"reorder": 101}, {"shuffle": 1}):
        assert (await client.post("/emulator/webhook/disorder", json=body)).status_code == 400


async def test_a_stopping_emulator_ends_its_sessions_without_events(
    client: httpx.AsyncClient, receiver: Receiver
) -> None:
    await client.post("/emulator/webhook", json={"url": receiver.url})
    session_id = (await join(client, await new_room(client), "p1"))["session_id"]
    await delivered(client, all_done(2))
    await stop(client)
    session = (await client.get(f"/v2/sessions/{session_id}")).json()
    assert (session["active"], "left_at" in session["peers"]["p1"]) == (False, True)
    assert len(receiver.requests) == 2

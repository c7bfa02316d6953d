"""Sessions: their fields, their lists, and their state after a restart."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.emulator import wire
from gateway.emulator.records import Session
from gateway.emulator.state import StateError, Workspace
from tests.unit.gateway.local_100ms import client_for, join, new_room, stop

ROOM = "a" * 24


async def sessions(client: httpx.AsyncClient, query: str = "") -> list[str]:
    reply = await client.get(f"/v2/sessions{query}")
    assert reply.status_code == 200, reply.text
    return [session["id"] for session in reply.json()["data"]]


async def test_a_session_keeps_peers_that_left(client: httpx.AsyncClient) -> None:
    room_id = await new_room(client)
    first = await join(client, room_id, "p1", name="Ann")
    await join(client, room_id, "p2", user_id="u2", role="host")
    await client.delete("/emulator/peers/p1")
    running = (await client.get(f"/v2/sessions/{first['session_id']}")).json()
    assert running.keys() == {"id", "room_id", "customer_id", "app_id", "active", "peers", "created_at", "updated_at"}
    assert (running["room_id"], running["active"], list(running["peers"])) == (room_id, True, ["p1", "p2"])
    assert running["peers"]["p1"].keys() == {"id", "session_id", "name", "role", "user_id", "joined_at", "left_at"}
    assert "left_at" not in running["peers"]["p2"]
    await client.delete("/emulator/peers/p2")
    ended = (await client.get(f"/v2/sessions/{first['session_id']}")).json()
    assert ended["active"] is False
    left = [wire.instant_ns(peer["left_at"]) for peer in ended["peers"].values()]
    joined = [wire.instant_ns(peer["joined_at"]) for peer in ended["peers"].values()]
    assert wire.instant_ns(ended["created_at"]) == joined[0] <= joined[1] <= left[0] <= left[1]
    assert wire.instant_ns(ended["updated_at"]) >= left[1]
    unknown = await client.get(f"/v2/sessions/{'f' * 24}")
    assert (unknown.status_code, unknown.json()["message"]) == (404, "Session not found")


async def test_times_never_decrease_whatever_their_fraction_length() -> None:
    workspace = Workspace("key", None)
    stamps = [workspace.now() for _ in range(200)]
    instants = [wire.instant_ns(stamp) for stamp in stamps]
    assert instants == sorted(instants)
    assert len({len(stamp) for stamp in stamps}) > 1


async def test_sessions_are_listed_newest_first_and_filtered_by_room_state_and_time(client: httpx.AsyncClient) -> None:
    rooms = [await new_room(client) for _ in range(2)]
    made = []
    for number in range(14):
        made.append((await join(client, rooms[number % 2], "p"))["session_id"])
        await client.delete("/emulator/peers/p")
        await asyncio.sleep(0.002)  # the filters have millisecond precision
    made.append((await join(client, rooms[0], "p"))["session_id"])
    newest_first = made[::-1]
    assert await sessions(client) == newest_first[:10]
    assert await sessions(client, f"?start={newest_first[9]}") == newest_first[10:]
    assert await sessions(client, "?active=true") == [made[-1]]
    assert await sessions(client, "?active=false&limit=20") == newest_first[1:]
    assert await sessions(client, f"?room_id={rooms[1]}") == newest_first[1::2][:10]
    assert await sessions(client, f"?room_id={'f' * 24}") == []
    middle = (await client.get(f"/v2/sessions/{made[7]}")).json()["created_at"]
    instant = wire.timestamp(wire.instant_ns(middle) // 1_000_000 * 1_000_000, 9)
    bound = f"{instant[:19]}.{(instant[20:-1] or '0').ljust(3, '0')[:3]}Z"
    after = await sessions(client, f"?limit=20&after={bound}")
    before = await sessions(client, f"?limit=20&before={bound}")
    assert sorted({*after, *before}) == sorted(made)
    assert after == newest_first[: len(after)]
    assert before == newest_first[-len(before) :]
    for query in ("?active=yes", "?limit=5", "?after=yesterday", "?start=nothing"):
        assert (await client.get(f"/v2/sessions{query}")).status_code == 400


async def test_a_page_can_start_after_a_session_that_has_ended_since(client: httpx.AsyncClient) -> None:
    made = []
    for number in range(11):
        made.append((await join(client, await new_room(client), f"p{number}"))["session_id"])
    page = (await client.get("/v2/sessions?active=true")).json()
    assert page["last"] == made[1]
    await client.delete("/emulator/peers/p1")
    assert await sessions(client, f"?active=true&start={page['last']}") == [made[0]]


async def test_a_restart_keeps_ended_sessions_and_closes_a_running_one(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    async with client_for(path) as client:
        room_id = await new_room(client)
        ended = await join(client, room_id, "p1")
        await client.delete("/emulator/peers/p1")
        whole = (await client.get(f"/v2/sessions/{ended['session_id']}")).json()
        cut = await join(client, room_id, "p2")
    async with client_for(path) as client:  # as after a crash, which did not close the running one
        assert (await client.get(f"/v2/sessions/{ended['session_id']}")).json() == whole
        closed = (await client.get(f"/v2/sessions/{cut['session_id']}")).json()
        assert (closed["active"], closed["peers"]["p2"]["left_at"]) == (False, cut["joined_at"])
        assert (await client.get(f"/v2/active-rooms/{room_id}")).status_code == 404
        await join(client, room_id, "p2")


async def test_a_stop_ends_running_sessions_at_its_time(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    async with client_for(path) as client:
        joined = await join(client, await new_room(client), "p1")
        await asyncio.sleep(0.002)
        await stop(client)
    async with client_for(path) as client:
        peer = (await client.get(f"/v2/sessions/{joined['session_id']}")).json()["peers"]["p1"]
    assert wire.instant_ns(peer["left_at"]) > wire.instant_ns(peer["joined_at"])


THEN = "2024-01-01T00:00:00Z"
CODE = {"code": "a", "room_id": "x", "role": "guest", "enabled": True, "created_at": THEN, "updated_at": THEN}
SESSION = {"id": "s", "room_id": "x", "created_at": THEN, "updated_at": THEN, "active": False, "peers": {}}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"codes": [CODE]}, "refers to an unknown room"),
        ({"sessions": [SESSION]}, "refers to an unknown room"),
        ({"sessions": [SESSION | {"updated_at": "yesterday"}]}, "not an RFC 3339 timestamp"),
        ({"sessions": [SESSION | {"peers": {"p": {"id": "p"}}}]}, "missing required field"),
    ],
)
def test_a_damaged_record_prevents_the_start(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"version": 1, "rooms": [], "templates": []} | change))
    with pytest.raises(StateError, match=text):
        client_for(path)


def test_beyond_2000_sessions_the_oldest_ended_one_is_dropped() -> None:
    workspace = Workspace("key", None)
    for number in range(2001):
        now = workspace.now()
        workspace.put_session(
            Session(id=str(number), room_id=ROOM, created_at=now, updated_at=now, active=number == 0, peers={})
        )
    assert len(workspace.sessions) == 2000
    assert {"0", "2000"} <= workspace.sessions.keys()
    assert "1" not in workspace.sessions

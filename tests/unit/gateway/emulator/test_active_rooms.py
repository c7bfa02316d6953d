"""Active rooms: joins, the calls of a server, and the answers without a session."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.unit.gateway.local_100ms import TEMPLATE, app_of, app_token, join, new_room, signed

NO_SESSION = {"code": 404, "message": "session not found", "details": ["not found"]}
NO_PEER = {"code": 404, "message": "Peer not found", "details": ["not found"]}


@pytest.fixture
async def room_id(client: httpx.AsyncClient) -> str:
    return await new_room(client, name="busy")


async def peers(client: httpx.AsyncClient, room_id: str, query: str = "") -> list[str]:
    reply = await client.get(f"/v2/active-rooms/{room_id}/peers{query}")
    assert reply.status_code == 200, reply.text
    assert reply.json().keys() == {"peers"}
    return list(reply.json()["peers"])


async def test_first_join_opens_a_session_and_last_leave_ends_it(client: httpx.AsyncClient, room_id: str) -> None:
    first = await join(client, room_id, "p1", name="Ann", metadata="{}")
    second = await join(client, room_id, "p2", user_id="u2", role="host")
    assert (first["session_id"], first["room_id"]) == (second["session_id"], room_id)
    active = (await client.get(f"/v2/active-rooms/{room_id}")).json()
    assert active.keys() == {"id", "name", "customer_id", "session"}
    assert active["session"] == {"id": first["session_id"], "created_at": first["joined_at"], "peers": ["p1", "p2"]}
    assert (await client.delete("/emulator/peers/p1")).status_code == 204
    assert await peers(client, room_id) == ["p2"]
    assert (await client.delete("/emulator/peers/p2")).status_code == 204
    assert (await client.get(f"/v2/active-rooms/{room_id}")).json() == NO_SESSION
    third = await join(client, room_id, "p3")
    assert third["session_id"] != first["session_id"]


async def test_peers_can_be_filtered_by_user_and_role(client: httpx.AsyncClient, room_id: str) -> None:
    await join(client, room_id, "p1", name="Ann", metadata="m")
    await join(client, room_id, "p2", user_id="u2", role="host")
    shown = (await client.get(f"/v2/active-rooms/{room_id}/peers")).json()["peers"]["p1"]
    assert shown.pop("joined_at")
    assert shown == {"id": "p1", "name": "Ann", "user_id": "u1", "metadata": "m", "role": "guest"}
    assert await peers(client, room_id, "?user_id=u2") == ["p2"]
    assert await peers(client, room_id, "?role=guest") == ["p1"]
    assert await peers(client, room_id, "?role=guest&user_id=u2") == []


async def test_a_peer_has_the_tracks_that_its_role_allows(client: httpx.AsyncClient, room_id: str) -> None:
    await join(client, room_id, "p1", tracks=["audio", "screen"])
    await join(client, room_id, "p2", role="host", tracks=["audio", "screen"])
    guest = (await client.get(f"/v2/active-rooms/{room_id}/peers/p1")).json()
    host = (await client.get(f"/v2/active-rooms/{room_id}/peers/p2")).json()
    assert [track["type"] for track in guest["tracks"].values()] == ["audio"]
    assert [(track["type"], track["source"]) for track in host["tracks"].values()] == [
        ("audio", "regular"),
        ("video", "screen"),
    ]
    for track_id, track in host["tracks"].items():
        assert track.keys() == {"id", "stream_id", "mute", "type", "source", "started_at", "description"}
        assert track["id"] == track_id


async def test_an_update_changes_only_the_sent_fields_of_a_peer(client: httpx.AsyncClient, room_id: str) -> None:
    await join(client, room_id, "p1", name="Ann", metadata="m")
    path = f"/v2/active-rooms/{room_id}/peers/p1"
    changed = (await client.post(path, json={"role": "host"})).json()
    assert (changed["name"], changed["role"], changed["metadata"]) == ("Ann", "host", "m")
    assert (await client.post(path, json={"name": "", "metadata": "n"})).json()["metadata"] == "n"
    refused = await client.post(path, json={"role": "Host"})
    assert (refused.status_code, refused.json()["message"]) == (400, "role is invalid")
    assert (await client.post(path, json={"name": 5})).status_code == 400
    assert (await client.get(path)).json()["role"] == "host"


async def test_a_removal_prefers_the_peer_id_to_the_role(client: httpx.AsyncClient, room_id: str) -> None:
    for number in range(3):
        await join(client, room_id, f"p{number}")
    await join(client, room_id, "boss", role="host")
    path = f"/v2/active-rooms/{room_id}/remove-peers"
    reply = await client.post(path, json={"peer_id": "p1", "role": "host", "reason": "noise"})
    assert (reply.status_code, reply.json()) == (200, {"message": "peer remove request submitted"})
    assert await peers(client, room_id) == ["p0", "p2", "boss"]
    assert (await client.post(path, json={"role": "guest"})).status_code == 200
    assert await peers(client, room_id) == ["boss"]
    # The removal of a role without peers is acknowledged.
    assert (await client.post(path, json={"role": "guest"})).status_code == 200
    assert (await client.post(path, json={"peer_id": "p1"})).json() == NO_PEER
    neither = await client.post(path, json={"reason": "noise"})
    assert neither.status_code == 400
    assert neither.json()["details"] == ["Invalid body param: peer_id or role is required"]
    assert (await client.post(path, json={"role": "host"})).status_code == 200
    assert (await client.get(f"/v2/active-rooms/{room_id}")).json() == NO_SESSION


async def test_a_removed_peer_can_join_again_with_its_token(client: httpx.AsyncClient, room_id: str) -> None:
    await join(client, room_id, "p1")
    await client.post(f"/v2/active-rooms/{room_id}/remove-peers", json={"peer_id": "p1"})
    await join(client, room_id, "p1")
    assert await peers(client, room_id) == ["p1"]


async def test_a_message_is_accepted_for_a_peer_a_role_or_all(client: httpx.AsyncClient, room_id: str) -> None:
    await join(client, room_id, "p1")
    path = f"/v2/active-rooms/{room_id}/send-message"
    for target in ({}, {"role": "nobody"}, {"peer_id": "p1", "role": "nobody", "type": "custom"}):
        reply = await client.post(path, json={"message": "hi"} | target)
        assert (reply.status_code, reply.json()) == (200, {"message": "message sent"})
    assert (await client.post(path, json={"message": "hi", "peer_id": "p2"})).json() == NO_PEER
    assert (await client.post(path, json={"type": "chat"})).status_code == 400
    assert (await client.post(path, json={"message": 5})).status_code == 400


async def test_peers_can_rejoin_an_ended_room_but_not_a_locked_one(client: httpx.AsyncClient, room_id: str) -> None:
    path = f"/v2/active-rooms/{room_id}/end-room"
    await join(client, room_id, "p1")
    await join(client, room_id, "p2")
    reply = await client.post(path, json={})
    assert (reply.status_code, reply.json()) == (200, {"message": "session is ending"})
    assert (await client.post(path, json={})).json() == NO_SESSION
    await join(client, room_id, "p1")
    assert (await client.post(path, json={"lock": True, "reason": "over"})).status_code == 200
    refused = await client.post("/emulator/peers", json={"token": app_token(room_id)})
    assert (refused.status_code, refused.json()) == (403, {"code": 403, "message": "room is not active"})
    assert (await client.get(f"/v2/rooms/{room_id}")).json()["enabled"] is False
    await client.post(f"/v2/rooms/{room_id}", json={"enabled": True})
    await join(client, room_id, "p1")


async def test_disabling_a_room_does_not_end_its_session(client: httpx.AsyncClient, room_id: str) -> None:
    await join(client, room_id, "p1")
    await client.post(f"/v2/rooms/{room_id}", json={"enabled": False})
    assert await peers(client, room_id) == ["p1"]
    assert (await client.post(f"/v2/active-rooms/{room_id}/end-room", json={})).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("GET", "/peers", None),
        ("GET", "/peers/p1", None),
        ("POST", "/peers/p1", {"name": "x"}),
        ("POST", "/send-message", {"message": "x"}),
        ("POST", "/remove-peers", {"peer_id": "p1"}),
        ("POST", "/end-room", {"lock": True}),
    ],
)
async def test_a_room_without_a_session_and_an_unknown_room_are_404(
    client: httpx.AsyncClient, room_id: str, method: str, path: str, body: Any
) -> None:
    reply = await client.request(method, f"/v2/active-rooms/{room_id}{path}", json=body)
    assert (reply.status_code, reply.json()) == (404, NO_SESSION)
    unknown = await client.request(method, f"/v2/active-rooms/{'f' * 24}{path}", json=body)
    assert (unknown.status_code, unknown.json()["message"]) == (404, "Room not found")
    bare = await client.request(method, f"/v2/active-rooms/{room_id}{path}", json=body, headers={"authorization": ""})
    assert bare.status_code == 401
    # The failed end with a lock has not disabled the room.
    assert (await client.get(f"/v2/rooms/{room_id}")).json()["enabled"] is True


@pytest.mark.parametrize(
    ("claims", "status", "message"),
    [
        ({"type": "management"}, 401, "token type must be app"),
        ({"role": "Guest"}, 401, "role is invalid"),
        ({"room_id": "f" * 24}, 400, "invalid room"),
        ({"user_id": 7}, 401, "user_id must be a non-empty string"),
        ({"exp": 1_700_000_000}, 401, "token is expired"),
    ],
)
async def test_a_join_is_refused_for_the_same_reasons_as_init(
    client: httpx.AsyncClient, room_id: str, claims: dict[str, Any], status: int, message: str
) -> None:
    token = signed(**({"type": "app", "room_id": room_id, "role": "guest", "user_id": "u"} | claims))
    refused = await client.post("/emulator/peers", json={"token": token, "peer_id": "p1"})
    init = await client.get("/init?peer_id=p1", headers={"authorization": f"Bearer {token}"})
    assert (refused.status_code, refused.json()) == (status, {"code": status, "message": message})
    assert (init.status_code, init.json()) == (refused.status_code, refused.json())
    assert (await client.get(f"/v2/active-rooms/{room_id}")).json() == NO_SESSION


async def test_a_connected_peer_id_cannot_join_again(client: httpx.AsyncClient, room_id: str) -> None:
    await join(client, room_id, "p1")
    other = await new_room(client)
    for target in (room_id, other):
        refused = await client.post("/emulator/peers", json={"token": app_token(target), "peer_id": "p1"})
        assert (refused.status_code, refused.json()) == (400, {"code": 400, "message": "duplicate peer id"})
    assert (await client.get(f"/v2/active-rooms/{other}")).json() == NO_SESSION
    assert (await client.delete("/emulator/peers/p2")).json() == NO_PEER


async def test_a_join_without_a_peer_id_gets_a_new_one(client: httpx.AsyncClient, room_id: str) -> None:
    ids = [
        (await client.post("/emulator/peers", json={"token": app_token(room_id)})).json()["id"],
        (await client.post("/emulator/peers", json={"token": app_token(room_id)})).json()["id"],
    ]
    assert await peers(client, room_id) == ids
    assert ids[0] != ids[1]


@pytest.mark.parametrize(("most", "let_in"), [(2, 2), (-1, 0), (0, 3)])
async def test_max_peer_count_is_enforced_at_init_join_and_update(
    client: httpx.AsyncClient, room_id: str, most: int, let_in: int
) -> None:
    await client.post(f"/v2/templates/{TEMPLATE}/roles/guest", json={"maxPeerCount": most})
    statuses = await asyncio.gather(
        *(client.post("/emulator/peers", json={"token": app_token(room_id), "peer_id": f"p{n}"}) for n in range(3))
    )
    assert sum(reply.status_code == 200 for reply in statuses) == let_in
    await join(client, room_id, "boss", role="host")
    init = await client.get("/init?peer_id=p", headers={"authorization": f"Bearer {app_token(room_id)}"})
    update = await client.post(f"/v2/active-rooms/{room_id}/peers/boss", json={"role": "guest"})
    if most == 0:
        assert (init.status_code, update.status_code) == (200, 200)
    else:
        assert (init.status_code, init.json()) == (403, {"code": 403, "message": "role limit reached"})
        assert (update.status_code, update.json()["message"]) == (400, "role limit reached")


async def test_the_size_of_a_room_is_enforced(client: httpx.AsyncClient) -> None:
    room_id = await new_room(client, size=1)
    await join(client, room_id, "p1")
    refused = await client.post("/emulator/peers", json={"token": app_token(room_id)})
    assert (refused.status_code, refused.json()["message"]) == (403, "room limit reached")
    await client.delete("/emulator/peers/p1")
    await join(client, room_id, "p2")


async def test_other_machines_cannot_use_the_join_call(room_id: str, client: httpx.AsyncClient) -> None:
    transport = httpx.ASGITransport(app=app_of(client), client=("192.0.2.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://emulator") as stranger:
        refused = await stranger.post("/emulator/peers", json={"token": app_token(room_id)})
        assert (refused.status_code, refused.json()["message"]) == (403, "Forbidden")

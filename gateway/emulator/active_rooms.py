"""Active rooms: who is in a room, and what a server does to them (100ms docs, api-reference/active-rooms).

100ms acknowledges a removal or an end and acts later; here it has acted when the reply leaves.
"""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from gateway.emulator import wire
from gateway.emulator.errors import bad_body
from gateway.emulator.live import LiveRooms, PeerChanges
from gateway.emulator.records import Peer
from gateway.emulator.rooms import find_room
from gateway.emulator.state import Workspace


class _Message(msgspec.Struct):
    message: str
    peer_id: str = ""
    role: str = ""
    type: str = "chat"


class _Removal(msgspec.Struct):
    peer_id: str = ""
    role: str = ""
    reason: str = ""


class _End(msgspec.Struct):
    reason: str = ""
    lock: bool = False


@get("/active-rooms/{room_id:str}")
async def get_active_room(
    room_id: FromPath[str], workspace: NamedDependency[Workspace], live: NamedDependency[LiveRooms]
) -> dict[str, Any]:
    """Show a room's running session, with the ids of those in it."""
    room, session = find_room(workspace, room_id), live.session_in(room_id)
    return {
        "id": room.id,
        "name": room.name,
        "customer_id": workspace.customer_id,
        "session": {
            "id": session.id,
            "created_at": session.created_at,
            "peers": [peer.id for peer in session.connected()],
        },
    }


@get("/active-rooms/{room_id:str}/peers")
async def list_peers(
    request: Request[Any, Any, Any],
    room_id: FromPath[str],
    workspace: NamedDependency[Workspace],
    live: NamedDependency[LiveRooms],
) -> dict[str, Any]:
    """Show everyone who is in the room, or those of a user id or role, by peer id."""
    find_room(workspace, room_id)
    user_id, role = request.query_params.get("user_id", ""), request.query_params.get("role", "")
    peers = [
        peer
        for peer in live.session_in(room_id).connected()
        if (not user_id or peer.user_id == user_id) and (not role or peer.role == role)
    ]
    return {"peers": {peer.id: _listed(peer) for peer in peers}}


@get("/active-rooms/{room_id:str}/peers/{peer_id:str}")
async def get_peer(
    room_id: FromPath[str],
    peer_id: FromPath[str],
    workspace: NamedDependency[Workspace],
    live: NamedDependency[LiveRooms],
) -> dict[str, Any]:
    """Show a connected peer with what it sends."""
    find_room(workspace, room_id)
    return shown_peer(live.peer_in(room_id, peer_id))


@post("/active-rooms/{room_id:str}/peers/{peer_id:str}", status_code=200)
async def update_peer(
    request: Request[Any, Any, Any],
    room_id: FromPath[str],
    peer_id: FromPath[str],
    workspace: NamedDependency[Workspace],
    live: NamedDependency[LiveRooms],
) -> dict[str, Any]:
    """Change a peer's name, role or metadata."""
    changes = await wire.read_body(request, PeerChanges)
    find_room(workspace, room_id)
    return shown_peer(await live.update_peer(room_id, peer_id, changes))


@post("/active-rooms/{room_id:str}/send-message", status_code=200)
async def send_message(
    request: Request[Any, Any, Any],
    room_id: FromPath[str],
    workspace: NamedDependency[Workspace],
    live: NamedDependency[LiveRooms],
) -> dict[str, Any]:
    """Take a message for one peer, a role or, with neither, for all; `/emulator/calls` keeps it."""
    body = await wire.read_body(request, _Message)
    find_room(workspace, room_id)
    live.session_in(room_id)
    if body.peer_id:
        live.peer_in(room_id, body.peer_id)
    return {"message": "message sent"}


@post("/active-rooms/{room_id:str}/remove-peers", status_code=200)
async def remove_peers(
    request: Request[Any, Any, Any],
    room_id: FromPath[str],
    workspace: NamedDependency[Workspace],
    live: NamedDependency[LiveRooms],
) -> dict[str, Any]:
    """Kick one peer or, without `peer_id`, everyone of a role. No ban: a valid token comes back in."""
    body = await wire.read_body(request, _Removal)
    if not (body.peer_id or body.role):
        raise bad_body("peer_id or role is required")
    find_room(workspace, room_id)
    await live.remove(room_id, peer_id=body.peer_id, role=body.role, reason=body.reason)
    return {"message": "peer remove request submitted"}


@post("/active-rooms/{room_id:str}/end-room", status_code=200)
async def end_room(
    request: Request[Any, Any, Any],
    room_id: FromPath[str],
    workspace: NamedDependency[Workspace],
    live: NamedDependency[LiveRooms],
) -> dict[str, Any]:
    """End the running session; with `lock` the room is disabled too."""
    body = await wire.read_body(request, _End)
    find_room(workspace, room_id)
    await live.end(room_id, lock=body.lock, reason=body.reason)
    return {"message": "session is ending"}


ROUTES = (get_active_room, list_peers, get_peer, update_peer, send_message, remove_peers, end_room)


def shown_peer(peer: Peer) -> dict[str, Any]:
    """Shape a peer with its tracks."""
    return _listed(peer) | {"tracks": peer.tracks}


def _listed(peer: Peer) -> dict[str, Any]:
    return {
        "id": peer.id,
        "name": peer.name,
        "user_id": peer.user_id,
        "metadata": peer.metadata,
        "role": peer.role,
        "joined_at": peer.joined_at,
    }

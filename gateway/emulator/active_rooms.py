"""Active rooms: the peers in a room, and the actions on them (100ms docs, api-reference/active-rooms).

100ms acknowledges a removal or an end and acts later. The emulator has acted when it replies.
"""

import msgspec
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from gateway.emulator.errors import bad_body
from gateway.emulator.live import LiveRooms, PeerChanges
from gateway.emulator.records import Peer
from gateway.emulator.state import Workspace
from gateway.emulator.wire import Call, Reply, pick, read_body


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
) -> Reply:
    """Return a room's running session with the ids of its peers."""
    room, session = workspace.find_room(room_id), live.session_in(room_id)
    running = pick(session, "id", "created_at") | {"peers": [peer.id for peer in session.connected()]}
    return pick(room, "id", "name") | {"customer_id": workspace.customer_id, "session": running}


@get("/active-rooms/{room_id:str}/peers")
async def list_peers(request: Call, room_id: FromPath[str], live: NamedDependency[LiveRooms]) -> Reply:
    """Return the connected peers by id: all, or those of a user id or role."""
    user_id, role = request.query_params.get("user_id", ""), request.query_params.get("role", "")
    peers = [
        peer
        for peer in live.session_in(room_id).connected()
        if (not user_id or peer.user_id == user_id) and (not role or peer.role == role)
    ]
    return {"peers": {peer.id: _without_tracks(peer) for peer in peers}}


@get("/active-rooms/{room_id:str}/peers/{peer_id:str}")
async def get_peer(room_id: FromPath[str], peer_id: FromPath[str], live: NamedDependency[LiveRooms]) -> Reply:
    """Return a connected peer with its tracks."""
    return peer_reply(live.peer_in(room_id, peer_id))


@post("/active-rooms/{room_id:str}/peers/{peer_id:str}", status_code=200)
async def update_peer(
    request: Call, room_id: FromPath[str], peer_id: FromPath[str], live: NamedDependency[LiveRooms]
) -> Reply:
    """Change a peer's name, role or metadata."""
    changes = await read_body(request, PeerChanges)
    return peer_reply(await live.update_peer(room_id, peer_id, changes))


@post("/active-rooms/{room_id:str}/send-message", status_code=200)
async def send_message(request: Call, room_id: FromPath[str], live: NamedDependency[LiveRooms]) -> Reply:
    """Accept a message for one peer, a role or everyone. It is not delivered; `/emulator/calls` shows it."""
    body = await read_body(request, _Message)
    if body.peer_id:
        live.peer_in(room_id, body.peer_id)
    else:
        live.session_in(room_id)
    return {"message": "message sent"}


@post("/active-rooms/{room_id:str}/remove-peers", status_code=200)
async def remove_peers(request: Call, room_id: FromPath[str], live: NamedDependency[LiveRooms]) -> Reply:
    """Remove one peer or, without `peer_id`, all peers of a role. They can join again with a valid token."""
    body = await read_body(request, _Removal)
    if not (body.peer_id or body.role):
        raise bad_body("peer_id or role is required")
    await live.remove(room_id, peer_id=body.peer_id, role=body.role, reason=body.reason)
    return {"message": "peer remove request submitted"}


@post("/active-rooms/{room_id:str}/end-room", status_code=200)
async def end_room(request: Call, room_id: FromPath[str], live: NamedDependency[LiveRooms]) -> Reply:
    """End the running session; with `lock` also disable the room."""
    body = await read_body(request, _End)
    await live.end(room_id, lock=body.lock, reason=body.reason)
    return {"message": "session is ending"}


ROUTES = (get_active_room, list_peers, get_peer, update_peer, send_message, remove_peers, end_room)


def peer_reply(peer: Peer) -> Reply:
    """Return the reply for a peer, tracks included."""
    return _without_tracks(peer) | {"tracks": peer.tracks}


def _without_tracks(peer: Peer) -> Reply:
    return pick(peer, "id", "name", "user_id", "metadata", "role", "joined_at")

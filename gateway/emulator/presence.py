"""The emulator's own way into a room and out of it, in place of the media connection that it does not have."""

from __future__ import annotations

from typing import Any

from litestar import Request, delete, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from gateway.emulator import wire
from gateway.emulator.active_rooms import shown_peer
from gateway.emulator.errors import ApiError
from gateway.emulator.live import Joining, LiveRooms
from gateway.emulator.tokens import TokenRefusedError, Verifier


class _Join(Joining, kw_only=True, forbid_unknown_fields=True):
    token: str


@post("/peers", status_code=200)
async def join_room(
    request: Request[Any, Any, Any], live: NamedDependency[LiveRooms], verifier: NamedDependency[Verifier]
) -> dict[str, Any]:
    """Let a peer in with its app token, checked as `/init` checks it."""
    body = await wire.read_body(request, _Join)
    try:
        claims = verifier.verify_app(f"Bearer {body.token}")
    except TokenRefusedError as refusal:
        raise ApiError(401, str(refusal)) from None
    session, peer = await live.join(claims, body)
    return shown_peer(peer) | {"room_id": session.room_id, "session_id": session.id}


@delete("/peers/{peer_id:str}")
async def leave_room(request: Request[Any, Any, Any], peer_id: FromPath[str], live: NamedDependency[LiveRooms]) -> None:
    """Take a peer out; `reason` is what the webhook tells, `client request` if it is not given."""
    await live.leave(peer_id, request.query_params.get("reason") or "client request")


ROUTES = (join_room, leave_room)

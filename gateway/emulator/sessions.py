"""Running and ended sessions (100ms docs, api-reference/Sessions)."""

from __future__ import annotations

from typing import Any

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath

from gateway.emulator import wire
from gateway.emulator.errors import not_found
from gateway.emulator.records import Peer, Session
from gateway.emulator.state import Workspace


@get("/sessions")
async def list_sessions(request: wire.Call, workspace: NamedDependency[Workspace]) -> dict[str, Any]:
    """List sessions, newest first. Without `active`, both running and ended ones, as in the documented sample."""
    query = request.query_params
    active, room_id = wire.choice(query, "active"), query.get("room_id", "")
    created_within = wire.created_within(query)

    def wanted(session: Session) -> bool:
        return (
            active in (None, session.active)
            and (not room_id or session.room_id == room_id)
            and created_within(session.created_at)
        )

    return wire.page(reversed(workspace.sessions.values()), query, wanted, render=lambda one: _shown(one, workspace))


@get("/sessions/{session_id:str}")
async def get_session(session_id: FromPath[str], workspace: NamedDependency[Workspace]) -> dict[str, Any]:
    """Return one session with all its peers."""
    session = workspace.sessions.get(session_id)
    if session is None:
        raise not_found("Session")
    return _shown(session, workspace)


ROUTES = (list_sessions, get_session)


def _shown(session: Session, workspace: Workspace) -> dict[str, Any]:
    return {
        "id": session.id,
        "room_id": session.room_id,
        "customer_id": workspace.customer_id,
        "app_id": workspace.app_id,
        "active": session.active,
        "peers": {peer.id: _shown_peer(peer, session) for peer in session.peers.values()},
        "created_at": session.created_at,
        "updated_at": session.updated_at,
    }


def _shown_peer(peer: Peer, session: Session) -> dict[str, Any]:
    shown = {
        "id": peer.id,
        "session_id": session.id,
        "name": peer.name,
        "role": peer.role,
        "user_id": peer.user_id,
        "joined_at": peer.joined_at,
    }
    return shown if peer.left_at is None else shown | {"left_at": peer.left_at}

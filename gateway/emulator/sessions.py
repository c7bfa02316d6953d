"""Running and ended sessions (100ms docs, api-reference/Sessions)."""

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath

from gateway.emulator.errors import find
from gateway.emulator.records import Peer, Session
from gateway.emulator.state import Workspace
from gateway.emulator.wire import Call, Reply, choice, created_within, page, pick


@get("/sessions")
async def list_sessions(request: Call, workspace: NamedDependency[Workspace]) -> Reply:
    """List sessions, newest first. Without `active`, both running and ended ones, as in the documented sample."""
    query = request.query_params
    active, room_id = choice(query, "active"), query.get("room_id", "")
    within = created_within(query)

    def wanted(session: Session) -> bool:
        return (
            active in (None, session.active)
            and (not room_id or session.room_id == room_id)
            and within(session.created_at)
        )

    return page(reversed(workspace.sessions.values()), query, wanted, render=lambda one: _shown(one, workspace))


@get("/sessions/{session_id:str}")
async def get_session(session_id: FromPath[str], workspace: NamedDependency[Workspace]) -> Reply:
    """Return one session with all its peers."""
    return _shown(find(workspace.sessions, session_id, "Session"), workspace)


ROUTES = (list_sessions, get_session)


def _shown(session: Session, workspace: Workspace) -> Reply:
    return pick(session, "id", "room_id", "active", "created_at", "updated_at") | {
        "customer_id": workspace.customer_id,
        "app_id": workspace.app_id,
        "peers": {peer.id: _shown_peer(peer, session) for peer in session.peers.values()},
    }


def _shown_peer(peer: Peer, session: Session) -> Reply:
    shown = pick(peer, "id", "name", "role", "user_id", "joined_at") | {"session_id": session.id}
    return shown if peer.left_at is None else shown | {"left_at": peer.left_at}

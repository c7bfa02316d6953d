"""How a client joins: the check of `GET /init`, and the emulator's own calls to join and leave, which replace media.

Source of `/init`: 100mslive/web-sdks, signal/init.
"""

from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from gateway.emulator.active_rooms import peer_reply
from gateway.emulator.errors import ApiError
from gateway.emulator.live import Joining, LiveRooms
from gateway.emulator.tokens import AppClaims, TokenRefusedError, Verifier
from gateway.emulator.wire import Call, Reply, read_body

# The fields that a client needs for its network probe. With an empty URL it skips the download.
_NETWORK_HEALTH = {
    "url": "",
    "timeout": 10_000,
    "scoreMap": {
        "1": {"low": 0, "high": 100},
        "2": {"low": 100, "high": 300},
        "3": {"low": 300, "high": 500},
        "4": {"low": 500, "high": 1000},
        "5": {"low": 1000},
    },
}


class _Join(Joining, kw_only=True, forbid_unknown_fields=True):
    token: str


@get("/init")
async def init_client(request: Call, live: NamedDependency[LiveRooms], verifier: NamedDependency[Verifier]) -> Reply:
    """Admit a client, or refuse it with the text that the web client expects."""
    claims = _verified(verifier, request.headers.get("authorization"))
    if not request.query_params.get("peer_id"):
        raise ApiError(400, "peer_id is required")
    live.admit(claims)
    return {
        "endpoint": f"wss://{request.url.netloc}/ws",
        "rtcConfiguration": {"ice_servers": []},
        "config": {"enabledFlags": [], "networkHealth": _NETWORK_HEALTH},
    }


@post("/peers", status_code=200)
async def join_room(request: Call, live: NamedDependency[LiveRooms], verifier: NamedDependency[Verifier]) -> Reply:
    """Join a peer to the room of its app token, with the checks of `/init`."""
    body = await read_body(request, _Join)
    session, peer = await live.join(_verified(verifier, f"Bearer {body.token}"), body)
    return peer_reply(peer) | {"room_id": session.room_id, "session_id": session.id}


@get("/peers/{peer_id:str}")
async def show_peer(peer_id: FromPath[str], live: NamedDependency[LiveRooms]) -> Reply:
    """Return a peer that is in a room, or answer 404."""
    return peer_reply(live.peer(peer_id))


@delete("/peers/{peer_id:str}")
async def leave_room(request: Call, peer_id: FromPath[str], live: NamedDependency[LiveRooms]) -> None:
    """Let a peer leave. The webhook reports `reason`, by default `client request`."""
    await live.leave(peer_id, request.query_params.get("reason") or "client request")


CLIENT_ROUTES = (init_client,)
ROUTES = (join_room, show_peer, leave_room)


def _verified(verifier: Verifier, authorization: str | None) -> AppClaims:
    try:
        return verifier.verify_app(authorization)
    except TokenRefusedError as refusal:
        raise ApiError(401, str(refusal)) from None

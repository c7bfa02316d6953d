"""The check of a joining client: `GET /init` with an app token (100mslive/web-sdks, signal/init)."""

from __future__ import annotations

from typing import Any

from litestar import Request, get
from litestar.di import NamedDependency

from gateway.emulator.errors import ApiError
from gateway.emulator.live import LiveRooms
from gateway.emulator.tokens import TokenRefusedError, Verifier

# The shape and the numbers a client needs for its network probe; without an address it skips the download.
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


@get("/init")
async def init_client(
    request: Request[Any, Any, Any], live: NamedDependency[LiveRooms], verifier: NamedDependency[Verifier]
) -> dict[str, Any]:
    """Let a client in, or say why not in the words the web client looks for."""
    try:
        claims = verifier.verify_app(request.headers.get("authorization"))
    except TokenRefusedError as refusal:
        raise ApiError(401, str(refusal)) from None
    if not request.query_params.get("peer_id"):
        raise ApiError(400, "peer_id is required")
    live.admit(claims)
    return {
        "endpoint": f"wss://{request.url.netloc}/ws",
        "rtcConfiguration": {"ice_servers": []},
        "config": {"enabledFlags": [], "networkHealth": _NETWORK_HEALTH},
    }


ROUTES = (init_client,)

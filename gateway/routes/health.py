"""GET /health/live and /health/ready."""

from __future__ import annotations

from typing import Any

from litestar import Response, get
from litestar.di import NamedDependency
from redis.exceptions import RedisError

from gateway.store import Store, StoreError


@get("/health/live", opt={"public": True})
async def live() -> dict[str, str]:
    """Answer that the process runs."""
    return {"status": "ok"}


@get("/health/ready", opt={"public": True})
async def ready(store: NamedDependency[Store]) -> Response[dict[str, Any]]:
    """Answer whether requests can be served, and what is missing if not.

    100ms is not among it: without it no room can be created, but everything else works.
    """
    try:
        await store.execute("PING")
    except (StoreError, RedisError):
        return Response({"status": "unavailable", "missing": ["redis"]}, status_code=503)
    return Response({"status": "ok", "missing": []})

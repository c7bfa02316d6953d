"""GET /health/live and /health/ready."""

from typing import Annotated, Literal

import msgspec
from litestar import Response, get
from msgspec import Meta
from redis.exceptions import RedisError

from gateway.http.access import public
from gateway.redis.refusals import log_refusal
from gateway.redis.store import StoreError
from gateway.routes.services import Injected


class Live(msgspec.Struct):
    status: Annotated[Literal["ok"], Meta(description="Always `ok`.")] = "ok"


class Ready(msgspec.Struct):
    status: Annotated[
        Literal["ok", "degraded", "unavailable"],
        Meta(description="Whether requests can be served; `degraded`: those of most users, a master of Redis is lost."),
    ]
    missing: Annotated[list[str], Meta(description="Names of what is unavailable.")]


@get("/health/live", opt=public())
async def live() -> Live:
    """Report that the process is running."""
    return Live()


@get("/health/ready", opt=public(unready=True))
async def ready(services: Injected) -> Response[Ready]:
    """Report whether requests can be served, and what is unavailable if not. Redis must answer and accept writes.

    A cluster of Redis is unavailable only if no master works: without one of them, the users of the others are served.
    100ms is not checked: without it no room can be created, but everything else works.
    """
    try:
        missing = await services.store.check()
    except (StoreError, RedisError) as error:
        if isinstance(error, RedisError):
            log_refusal(error)
        return Response(Ready("unavailable", ["redis"]), status_code=503)
    return Response(Ready("degraded" if missing else "ok", missing))

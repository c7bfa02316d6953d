"""Serves the local 100ms on uvicorn. Its own module, so that the app can be built without importing a server."""

from __future__ import annotations

import uvicorn
from litestar.types import ASGIApp


def serve(app: ASGIApp, *, host: str, port: int) -> None:
    """Serve the emulator until SIGINT or SIGTERM."""
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_config=None,
        server_header=False,
        access_log=False,
        timeout_graceful_shutdown=1,
    )

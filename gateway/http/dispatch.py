"""Calls the handler of a request and sends what it returns, without Litestar's work (docs/decisions.md, Requests)."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.handlers import HTTPRouteHandler
from litestar.types import HTTPScope, Receive, Send

from gateway.http.context import context_of
from gateway.http.problems import send_problem

SERVICES = "services"
STOPS = "gateway.stops"
"""Scope key of a list of futures. The server completes them when it stops; else it would wait for endless answers."""

_EVENTS = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")]  # nginx would hold events back
_JSON = (b"content-type", b"application/json")
_REQUEST: type[Request[Any, Any, Any]] = Request  # calling the parametrized type takes twice as long


@dataclass(frozen=True, slots=True)
class Download:
    """What a handler returns to send a file while it is made. It has at least one chunk.

    An error before the first chunk is answered with its problem; a later one ends the connection.
    """

    file_name: str
    media_type: str
    chunks: AsyncGenerator[bytes]


@dataclass(frozen=True, slots=True)
class EventStream:
    """What a handler returns to send events for as long as the client stays, the server runs and there are chunks.

    It has at least one chunk, which comes at once. An error before it is answered with its problem.
    """

    chunks: AsyncGenerator[bytes]


class Dispatch:
    """Hands `services` to the handlers that take them."""

    def __init__(self, services: object) -> None:
        self._services = services

    async def __call__(self, scope: HTTPScope, arguments: dict[str, Any], receive: Receive, send: Send) -> None:
        """Call a handler with the arguments from its request and those that every handler may take."""
        handler: HTTPRouteHandler = scope["route_handler"]  # type: ignore[assignment]  # of HTTP requests
        request = _REQUEST(scope, receive, send)
        takes = _takes(handler)
        if "request" in takes:
            arguments["request"] = request
        if SERVICES in takes:
            arguments[SERVICES] = self._services
        first = b""
        try:
            result = await handler.fn(**arguments)
            if isinstance(result, Response):
                result = result.to_asgi_response(None, request, status_code=result.status_code or handler.status_code)
                await result(scope, receive, send)
                return
            if isinstance(result, (Download, EventStream)):
                first = await anext(result.chunks)
            else:
                body = b"" if result is None else msgspec.json.encode(result)
        except Exception as error:  # noqa: BLE001  every exception has its problem
            await send_problem(error, scope, send)
            return
        if isinstance(result, Download):
            await _stream(result, first, receive, send)
            return
        if isinstance(result, EventStream):
            await _follow(result, first, scope, receive, send)
            return
        headers = [] if result is None else [_JSON, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": handler.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


async def _stream(file: Download, chunk: bytes, receive: Receive, send: Send) -> None:
    """Send a file until it ends or the client has gone, whose departure `send` does not tell."""
    disposition = f'attachment; filename="{file.file_name}"'
    fields = [(b"content-type", file.media_type.encode()), (b"content-disposition", disposition.encode())]
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        async for more in file.chunks:
            if gone.done():
                return
            await send({"type": "http.response.body", "body": more, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        gone.cancel()
        await file.chunks.aclose()


async def _follow(stream: EventStream, chunk: bytes, scope: HTTPScope, receive: Receive, send: Send) -> None:
    """Send events until there are no more, the client has gone or the server stops; for HEAD none."""
    stop = asyncio.get_running_loop().create_future()
    stops: list[asyncio.Future[None]] = scope.setdefault(STOPS, [])  # type: ignore[misc]  # a scope may carry more
    stops.append(stop)
    sending = asyncio.ensure_future(_send_all(stream.chunks, chunk, send))
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await send({"type": "http.response.start", "status": 200, "headers": _EVENTS})
        if not context_of(scope).is_head:
            await asyncio.wait((sending, gone, stop), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stops.remove(stop)
        gone.cancel()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await stream.chunks.aclose()
    if not sending.cancelled():
        sending.result()  # raises what went wrong
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_all(chunks: AsyncGenerator[bytes], chunk: bytes, send: Send) -> None:
    await send({"type": "http.response.body", "body": chunk, "more_body": True})
    async for more in chunks:
        await send({"type": "http.response.body", "body": more, "more_body": True})


async def _gone(receive: Receive) -> None:
    """Return when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


@cache
def _takes(handler: HTTPRouteHandler) -> frozenset[str]:
    """Return the names of a handler's parameters."""
    return frozenset(handler.parsed_fn_signature.parameters)

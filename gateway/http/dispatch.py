"""Calls the handler of a request and sends what it returns, without Litestar's work (docs/decisions.md, Requests)."""

from functools import cache
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.handlers import HTTPRouteHandler
from litestar.types import HTTPScope, Receive, Send

from gateway.http.problems import send_problem

SERVICES = "services"
_JSON = (b"content-type", b"application/json")
_REQUEST: type[Request[Any, Any, Any]] = Request  # calling the parametrized type takes twice as long


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
        try:
            result = await handler.fn(**arguments)
            if isinstance(result, Response):
                result = result.to_asgi_response(None, request, status_code=result.status_code or handler.status_code)
                await result(scope, receive, send)
                return
            body = b"" if result is None else msgspec.json.encode(result)
        except Exception as error:  # noqa: BLE001  every exception has its problem
            await send_problem(error, scope, send)
            return
        headers = [] if result is None else [_JSON, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": handler.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


@cache
def _takes(handler: HTTPRouteHandler) -> frozenset[str]:
    """Return the names of a handler's parameters."""
    return frozenset(handler.parsed_fn_signature.parameters)

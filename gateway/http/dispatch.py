"""Calls a route's handler and sends its result, in place of Litestar where the handler's parameters need no parsing.

Litestar finds the route. What it then does for each request (dependencies, a model of the parameters, a response
object, exception handlers) is much of a mint's CPU time. A handler that takes only its body, its path parameters, the
request and the services, and returns a struct or nothing, needs none of it.
"""

from __future__ import annotations

from functools import cache
from typing import Any, get_origin, get_type_hints

import msgspec
from litestar import Response
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter
from litestar.types import ASGIApp, HTTPScope, Receive, Send

from gateway.http.context import context_of
from gateway.http.problems import send_problem
from gateway.http.request_input import GatewayRequest

SERVICES = "services"
_GIVEN = frozenset({"data", "request", SERVICES})
_JSON = (b"content-type", b"application/json")


class Dispatch:
    """Hands `services` to handlers that take them."""

    def __init__(self, services: object) -> None:
        self._services = services

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send, litestar: ASGIApp) -> None:
        """Call the handler of a request whose input has been judged, or leave it to Litestar."""
        handler: HTTPRouteHandler = scope["route_handler"]  # type: ignore[assignment]  # of HTTP requests
        names = _plain_parameters(handler)
        if names is None:
            await litestar(scope, receive, send)
            return
        arguments: dict[str, Any] = {name: scope["path_params"][name] for name in names if name not in _GIVEN}
        if "data" in names:
            arguments["data"] = context_of(scope).body
        if "request" in names:
            arguments["request"] = GatewayRequest(scope, receive, send)
        if SERVICES in names:
            arguments[SERVICES] = self._services
        try:
            result = await handler.fn(**arguments)
            body = b"" if result is None else msgspec.json.encode(result)
        except Exception as error:  # noqa: BLE001  every exception has its problem
            await send_problem(error, scope, send)
            return
        headers = [] if result is None else [_JSON, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": handler.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


@cache
def _plain_parameters(handler: HTTPRouteHandler) -> frozenset[str] | None:
    """Return the names of a handler's parameters; None if it has other ones, or returns a response of its own."""
    hints = get_type_hints(handler.fn)
    result = hints.pop("return")
    if result is Response or get_origin(result) is Response:
        return None
    for name, field in handler.parsed_fn_signature.parameters.items():
        if name not in _GIVEN and not isinstance(field.kwarg_definition, PathParameter):
            return None
    return frozenset(hints)

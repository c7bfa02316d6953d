"""OPTIONS on every address: which methods it has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from litestar import Response, route
from litestar.connection import Request
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler

from gateway.apidoc.openapi import template_of
from gateway.http.access import public
from gateway.http.problems import allow_of


def options(handlers: Iterable[HTTPRouteHandler]) -> HTTPRouteHandler:
    """Return one public handler for OPTIONS on all addresses of other handlers."""
    by_path: dict[str, set[str]] = defaultdict(set)
    for handler in handlers:
        for path in handler.paths:
            by_path[path] |= handler.http_methods
    allow = {template_of(path): allow_of(methods) for path, methods in by_path.items()}

    @route(sorted(by_path), http_method="OPTIONS", opt=public(), status_code=204, include_in_schema=False)
    async def answer(request: Request[Any, Any, State]) -> Response[None]:
        return Response(None, headers={"Allow": allow[request.scope["path_template"]]})

    return answer

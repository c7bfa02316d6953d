"""Query parameters are taken as strictly as bodies: what a route does not declare is an error, not silence."""

from __future__ import annotations

from functools import cache
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.params import QueryParameter

from gateway.http.problems import invalid

_MOST_NAME_CHARS = 64


async def check_query(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Refuse unknown query parameters and repeated single ones, as a guard: after login and policy, before the handler.

    Otherwise a misspelt `form=2026-01-01` would report another span, and `limit=1&limit=500` mean one thing to a proxy
    that counts and another to us (CWE-235).
    """
    scope = connection.scope
    if not scope["query_string"] or scope.get("method") == "OPTIONS":  # that asks about an address, whatever its query
        return
    known = _declared(handler)
    given = connection.query_params
    for name in given:
        if name not in known:
            raise invalid(name[:_MOST_NAME_CHARS], "unknown parameter")
        if not known[name] and len(given.getall(name)) > 1:
            raise invalid(name, "is given more than once")


@cache
def _declared(handler: BaseRouteHandler) -> dict[str, bool]:
    """Return a route's query parameters, and whether each is a list."""
    declared = {}
    for name, field in handler.parsed_fn_signature.parameters.items():
        kwarg = field.kwarg_definition
        if isinstance(kwarg, QueryParameter):
            declared[kwarg.name or name] = field.is_non_string_sequence
    return declared

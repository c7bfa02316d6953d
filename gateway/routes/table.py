"""All routes of the gateway, in the order of the API description."""

from types import ModuleType
from typing import Any

from litestar.handlers import HTTPRouteHandler

from gateway.routes import (
    account,
    console,
    description,
    events,
    exchange,
    health,
    hooks,
    introspection,
    invites,
    join_tokens,
    keys,
    login,
    members,
    outgoing,
    overview,
    rooms,
    usage,
    users,
    well_known,
)
from gateway.routes import audit as audit_routes
from gateway.routes import limits as limits_routes
from gateway.routes import metrics as metrics_routes


def _handlers(*modules: ModuleType) -> list[Any]:
    """Return all route handlers of modules, in the order in which they are written."""
    return [one for module in modules for one in vars(module).values() if isinstance(one, HTTPRouteHandler)]


ROUTES = _handlers(health, login, exchange, account, rooms, join_tokens, members, invites, usage, overview)
ROUTES += _handlers(limits_routes, users, keys, hooks, outgoing, events, audit_routes, well_known, introspection)
CONSOLE = _handlers(console)
DOCS = _handlers(description)
MONITORING = _handlers(metrics_routes)

"""Every route except those listed here answers 401 without a token. OWASP API Security 2023, API2 and API5.

The routes come from the running app's own document, which is compared with the router's list.
"""

from __future__ import annotations

import re

from gateway.apidoc.openapi import template_of
from gateway.http.access import access_of
from gateway.policy.actions import ACTIONS, ROOM_ACTIONS
from gateway.routes.table import CONSOLE, MONITORING, ROUTES
from gateway.routes.table import DOCS as DOCUMENT_ROUTES
from tests.e2e.checks import assert_problem
from tests.servers import Installation

# Written by hand: a route becomes public only with a line here.
PUBLIC = {
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/docs/docs.css"),
    ("GET", "/docs/docs.js"),
    ("GET", "/operator"),
    ("GET", "/operator/{name}"),
    ("GET", "/.well-known/jwks.json"),
    ("GET", "/.well-known/oauth-authorization-server"),
    ("POST", "/hooks/100ms"),
    ("POST", "/api/auth/login"),
    ("POST", "/api/auth/refresh"),
    ("POST", "/api/auth/logout"),
    ("POST", "/api/auth/exchange"),
    ("POST", "/api/auth/logout/{provider}"),
    ("POST", "/api/auth/register"),
    ("POST", "/api/auth/password/setup"),
    ("POST", "/api/invites/{code}/accept"),
}
# Routes that are not in the document: they serve it, or the files of the console.
DOCS = {("GET", path) for path in ("/openapi.json", "/docs", "/docs/docs.css", "/docs/docs.js")}
DOCS |= {("GET", "/operator"), ("GET", "/operator/{name}")}
# Public to the router; 100ms proves itself by a secret of its own (tests/attack/test_webhooks).
WITH_SECRET = {("POST", "/hooks/100ms")}
# Public to the router, because its body may hold the token; without any token it is refused like the others.
TOKEN_IN_BODY = {("POST", "/api/auth/logout")}
# Also written by hand: the action of each other route, by which the policy decides.
ACTION_OF = {
    ("GET", "/api/auth/me"): "account.read",
    ("POST", "/api/auth/password"): "account.manage",
    ("GET", "/api/auth/sessions"): "account.read",
    ("DELETE", "/api/auth/sessions/{sid}"): "account.manage",
    ("POST", "/api/rooms"): "rooms.create",
    ("GET", "/api/rooms"): "rooms.list",
    ("GET", "/api/rooms/{room_id}"): "rooms.read",
    ("POST", "/api/rooms/{room_id}/token"): "tokens.mint",
    ("PATCH", "/api/rooms/{room_id}"): "rooms.update",
    ("POST", "/api/rooms/{room_id}/end"): "rooms.end",
    ("POST", "/api/rooms/{room_id}/remove"): "rooms.end",
    ("GET", "/api/rooms/{room_id}/members"): "members.read",
    ("PUT", "/api/rooms/{room_id}/members/{user}"): "members.change",
    ("DELETE", "/api/rooms/{room_id}/members/{user}"): "members.change",
    ("POST", "/api/rooms/{room_id}/invites"): "invites.manage",
    ("GET", "/api/rooms/{room_id}/invites"): "members.read",
    ("DELETE", "/api/rooms/{room_id}/invites/{invite_id}"): "rooms.end",
    ("POST", "/api/invites/{code}/accept"): "invites.accept",
    ("GET", "/api/usage"): "usage.read",
    ("GET", "/api/admin/usage"): "usage.read-any",
    ("GET", "/api/admin/usage/top"): "usage.read-any",
    ("GET", "/api/admin/usage/rooms/{room_id}"): "usage.read-any",
    ("GET", "/api/admin/usage/users/{user}"): "usage.read-any",
    ("GET", "/api/admin/rooms/live"): "usage.read-any",
    ("GET", "/api/admin/overview"): "usage.read-any",
    ("GET", "/api/admin/live"): "usage.read-any",
    ("GET", "/api/admin/status"): "usage.read-any",
    ("GET", "/api/admin/budgets"): "usage.read-any",
    ("GET", "/api/admin/denials"): "usage.read-any",
    ("GET", "/api/admin/limits/{user}"): "limits.manage",
    ("POST", "/api/admin/limits/{user}/reset"): "limits.manage",
    ("PUT", "/api/admin/limits/{user}/override"): "limits.manage",
    ("DELETE", "/api/admin/limits/{user}/override"): "limits.manage",
    ("GET", "/api/admin/users"): "users.manage",
    ("POST", "/api/admin/users"): "users.manage",
    ("GET", "/api/admin/users/{user}"): "users.manage",
    ("PATCH", "/api/admin/users/{user}"): "users.manage",
    ("DELETE", "/api/admin/users/{user}"): "users.manage",
    ("DELETE", "/api/admin/users/{user}/sessions"): "users.manage",
    ("GET", "/api/admin/users/{user}/sessions"): "users.manage",
    ("DELETE", "/api/admin/users/{user}/sessions/{sid}"): "users.manage",
    ("POST", "/api/admin/users/{user}/password-link"): "users.manage",
    ("GET", "/api/admin/keys"): "keys.manage",
    ("POST", "/api/admin/keys"): "keys.manage",
    ("GET", "/api/admin/keys/{key}"): "keys.manage",
    ("DELETE", "/api/admin/keys/{key}"): "keys.manage",
    ("POST", "/api/admin/keys/{key}/rotate"): "keys.manage",
    ("GET", "/api/admin/events"): "usage.read-any",
    ("GET", "/api/admin/webhooks"): "usage.read-any",
    ("GET", "/api/admin/webhooks/dead"): "usage.read-any",
    ("POST", "/api/admin/webhooks/dead/{letter_id}/replay"): "limits.manage",
    ("GET", "/api/admin/webhooks/out"): "usage.read-any",
    ("GET", "/api/admin/webhooks/out/dead"): "usage.read-any",
    ("POST", "/api/admin/webhooks/out/dead/{letter_id}/replay"): "limits.manage",
    ("POST", "/api/admin/webhooks/out/{name}/test"): "limits.manage",
    ("GET", "/api/admin/audit"): "audit.read",
    ("POST", "/api/auth/introspect"): "tokens.introspect",
}
# Actions without a permission of their own: a login is enough, or the room in the path decides.
WITHOUT_PERMISSION = {"account.read", "rooms.list", "rooms.read", "account.manage", *ROOM_ACTIONS} - {"tokens.mint"}

VALUES = {"user": "mira", "room_id": "0" * 24}
METHODS = {"get", "post", "put", "patch", "delete", "head", "options", "trace"}


def documented(target: Installation) -> dict[tuple[str, str], bool]:
    """Return every operation of /openapi.json and whether the document requires a login for it."""
    with target.client() as client:
        document = client.get("/openapi.json").json()
    assert not document.get("security")
    return {
        (method.upper(), path): {} not in operation.get("security", [{}])
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


def routed() -> set[tuple[str, str]]:
    return {(method, template_of(path)) for one in ROUTES for method in one.http_methods for path in one.paths}


def test_document_lists_every_route_and_marks_the_public_ones(target: Installation) -> None:
    operations = documented(target)
    assert {*operations} == routed() - DOCS
    assert {operation for operation, closed in operations.items() if not closed} == PUBLIC - DOCS - WITH_SECRET


def test_every_route_is_refused_without_a_token(target: Installation) -> None:
    for method, template in sorted({*documented(target)} - (PUBLIC - TOKEN_IN_BODY)):
        path = re.sub(r"\{(\w+)\}", lambda name: VALUES.get(name[1], "0" * 20), template)
        in_body = (method, template) in TOKEN_IN_BODY
        with target.client() as client:
            for body in (None, {}) if in_body else (None, {}, {"nonsense": 1}):
                assert_problem(client.request(method, path, json=body), 401, "invalid_token")
            basic = client.request(method, path, json={}, headers={"Authorization": "Basic eDp5"})
            assert_problem(basic, 401, "invalid_token")
            if in_body:
                continue
            # Before body and query are read: a caller without a login does not learn what valid ones look like.
            garbage = {"Content-Type": "text/plain"}
            answer = client.request(method, path, content=b"{", headers=garbage, params={"nonsense": "1"})
            assert_problem(answer, 401, "invalid_token")


def test_list_of_public_routes_matches_the_router() -> None:
    marked = {
        (method, template_of(path))
        for handler in [*ROUTES, *CONSOLE, *MONITORING, *DOCUMENT_ROUTES]
        if (access := access_of(handler)).is_public or access.guests
        for method in handler.http_methods
        for path in handler.paths
    }
    assert marked == PUBLIC | {("GET", "/metrics")}, "which has a secret of its own (tests/e2e/test_metrics)"


def test_every_other_route_has_the_right_action() -> None:
    named = {
        (method, template_of(path)): access_of(handler).action
        for handler in ROUTES
        if not access_of(handler).is_public
        for method in handler.http_methods
        for path in handler.paths
    }
    assert named == ACTION_OF
    assert {*ACTION_OF.values()} == {*ACTIONS}


def test_actions_without_a_permission_are_the_listed_ones() -> None:
    assert {action for action, permission in ACTIONS.items() if permission is None} == WITHOUT_PERMISSION

"""Every route but those listed here answers 401 to whoever has no token. OWASP API Security 2023, API2 and API5."""

from __future__ import annotations

import pytest

from gateway.app import ROUTES
from gateway.policy import ACTIONS
from tests.e2e.checks import assert_problem
from tests.servers import Installation

# Written out by hand: a route becomes public by a line here, and by nothing else.
PUBLIC = {
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("POST", "/api/auth/login"),
    ("POST", "/api/auth/refresh"),
    ("POST", "/api/auth/logout"),
}
# Public to the router, because its body may hold the token instead; without either it is refused like the others.
TOKEN_IN_BODY = {("POST", "/api/auth/logout")}
# No permission of its own: being logged in is enough, or the room in its path decides.
WITHOUT_PERMISSION = {"account.read", "rooms.list", "rooms.read"}

EVERY = sorted((method, path) for handler in ROUTES for method in handler.http_methods for path in handler.paths)


@pytest.mark.parametrize(("method", "path"), sorted({*EVERY} - (PUBLIC - TOKEN_IN_BODY)))
def test_route_is_closed_without_a_token(target: Installation, method: str, path: str) -> None:
    address = path.replace("{room_id:str}", "0" * 24).replace("{user:str}", "mira")
    assert "{" not in address, "name a value for the new path parameter"
    with target.client() as client:
        for body in (None, {}, {"nonsense": 1}) if (method, path) not in TOKEN_IN_BODY else (None, {}):
            answer = client.request(method, address, json=body)
            assert_problem(answer, 401, "invalid_token")
        # Before anything is read of the body: a stranger is not told what a good one looks like.
        if (method, path) not in TOKEN_IN_BODY:
            answer = client.request(method, address, content=b"{", headers={"Content-Type": "text/plain"})
            assert_problem(answer, 401, "invalid_token")


def test_list_of_public_routes_is_the_routers() -> None:
    assert {*EVERY} >= PUBLIC
    marked = {
        (method, path)
        for handler in ROUTES
        if handler.opt.get("public")
        for method in handler.http_methods
        for path in handler.paths
    }
    assert marked == PUBLIC


def test_every_other_route_names_an_action_of_the_policy() -> None:
    for handler in ROUTES:
        if not handler.opt.get("public"):
            assert handler.opt["action"] in ACTIONS, handler
    assert {action for action, permission in ACTIONS.items() if permission is None} == WITHOUT_PERMISSION

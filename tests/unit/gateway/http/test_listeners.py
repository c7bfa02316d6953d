"""What exists only on the operators' listener."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.http.listeners import OperatorListener

OPERATORS = OperatorListener(8001)


def hidden(path: str, server: Any) -> bool:
    scope: Any = {"type": "http", "path": path, "server": server}
    return OPERATORS.hides(scope)


@pytest.mark.parametrize(
    "path", ["/operator", "/operator/", "/operator/main.js", "/api/admin", "/api/admin/users", "//api///admin/users/"]
)
@pytest.mark.parametrize("server", [("127.0.0.1", 8000), ("::1", 80), ("/run/gateway.sock", None), None])
def test_what_is_for_operators_is_hidden_on_every_other_listener(path: str, server: Any) -> None:
    assert hidden(path, server)
    assert not hidden(path, ("10.0.0.1", 8001))


@pytest.mark.parametrize("path", ["/", "/operators", "/api/administrator", "/api/rooms/admin", "/api/auth/me", "/api"])
def test_everything_else_is_on_both_listeners(path: str) -> None:
    assert not hidden(path, ("127.0.0.1", 8000))
    assert not hidden(path, ("127.0.0.1", 8001))

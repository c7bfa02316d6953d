"""The composition root."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

import httpx
import pytest
from litestar.handlers import HTTPRouteHandler

import gateway.routes
from gateway import app
from gateway.http.edge import Edge
from gateway.redis.server import Server, connect
from gateway.redis.store import Store
from gateway.routes.home import home
from gateway.settings import Settings
from tests.unit.gateway.test_settings import GOOD


def test_every_handler_of_every_route_module_is_served() -> None:
    served = {id(handler) for handler in [*app.ROUTES, *app.DOCS, *app.CONSOLE]}
    for found in pkgutil.iter_modules(gateway.routes.__path__, "gateway.routes."):
        if found.name == "gateway.routes.metrics":
            continue  # served, and imported at all, only with its setting
        for name, one in vars(import_module(found.name)).items():
            if isinstance(one, HTTPRouteHandler):
                assert id(one) in served, f"{found.name}.{name}"


async def test_the_page_at_the_root_links_only_to_what_is_shown_there() -> None:
    page = (await home(docs=False, console=False).fn()).content
    assert b"/health/ready" in page
    assert b"/docs" not in page
    assert b"/operator" not in page


def test_without_metrics_and_traces_no_hook_is_called_for_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks: list[object] = []

    def store(redis: Server, **options: Any) -> Store:
        hooks.append(options.pop("on_send"))
        return Store(redis, **options)

    monkeypatch.setattr(app, "open_store", store)
    settings = Settings.from_env(GOOD)
    edge = app.create_app(settings, redis=connect(settings.redis_url), http=httpx.AsyncClient())
    assert isinstance(edge, Edge)
    assert (edge.on_request, [*edge.on_response], hooks) == (None, [], [None, None])

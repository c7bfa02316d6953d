"""The composition root."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from litestar.handlers import HTTPRouteHandler

import gateway.routes
from gateway import app
from gateway.routes.home import home


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

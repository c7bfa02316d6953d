"""The API's description: GET /openapi.json for programs, GET /docs for people, OPTIONS for an address's methods."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from importlib.resources import files

from litestar import Response, get, route
from litestar.handlers import HTTPRouteHandler

from gateway.apidoc.openapi import template_of
from gateway.http.access import public
from gateway.http.context import Call
from gateway.http.problems import allow_of
from gateway.routes.services import Injected

_STATIC = files("gateway.apidoc").joinpath("static")
_PAGE, _STYLE, _SCRIPT = (_STATIC.joinpath(f"docs.{kind}").read_bytes() for kind in ("html", "css", "js"))

_HEADERS = {"Cache-Control": "public, max-age=300"}
# Only the page's own files and origin; no inline script or style, and no HTML made from text.
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)


@get("/openapi.json", opt=public())
async def openapi_json(services: Injected) -> Response[bytes]:
    """Return the OpenAPI 3.1 document."""
    content = await asyncio.to_thread(services.openapi_document)  # built at the first call, which takes a while
    return Response(content, media_type="application/json", headers=_HEADERS)


@get("/docs", opt=public())
async def docs_page() -> Response[bytes]:
    """Return the page that shows the document."""
    headers = _HEADERS | {"Content-Security-Policy": _CSP}
    return Response(_PAGE, media_type="text/html", headers=headers)


@get("/docs/docs.css", opt=public())
async def docs_style() -> Response[bytes]:
    """Return the page's style sheet."""
    return Response(_STYLE, media_type="text/css", headers=_HEADERS)


@get("/docs/docs.js", opt=public())
async def docs_script() -> Response[bytes]:
    """Return the page's script."""
    return Response(_SCRIPT, media_type="text/javascript", headers=_HEADERS)


def options(handlers: Iterable[HTTPRouteHandler]) -> HTTPRouteHandler:
    """Return one public handler for OPTIONS at every address of the given handlers."""
    by_path: dict[str, set[str]] = defaultdict(set)
    for handler in handlers:
        for path in handler.paths:
            by_path[path] |= handler.http_methods
    allow = {template_of(path): allow_of(methods) for path, methods in by_path.items()}

    @route(sorted(by_path), http_method="OPTIONS", opt=public(), status_code=204, include_in_schema=False)
    async def answer(request: Call) -> Response[None]:
        return Response(None, headers={"Allow": allow[request.scope["path_template"]]})

    return answer

"""GET /openapi.json: the API described for programs. GET /docs: the same for people, with no need of any other host."""

from __future__ import annotations

import asyncio
from importlib.resources import files

from litestar import Response, get
from litestar.di import NamedDependency

from gateway.http.access import public
from gateway.routes.services import Services

_STATIC = files("gateway.apidoc").joinpath("static")
_PAGE, _STYLE, _SCRIPT = (_STATIC.joinpath(f"docs.{kind}").read_bytes() for kind in ("html", "css", "js"))

_HEADERS = {"Cache-Control": "public, max-age=300"}
# Its own files and its own origin; no inline script or style, and no HTML made from text.
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)


@get("/openapi.json", opt=public())
async def openapi_json(services: NamedDependency[Services]) -> Response[bytes]:
    """Return the OpenAPI 3.1 document."""
    content = await asyncio.to_thread(services.openapi_document)  # made at the first call, which takes a moment
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

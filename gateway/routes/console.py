"""GET /operator: the operators' console. The page and its files are public; what it shows comes from /api."""

import gzip
import re
from functools import cache
from hashlib import sha256
from importlib.resources import files

from litestar import Response, get
from litestar.params import FromPath

from gateway.http.access import public
from gateway.http.context import Call
from gateway.http.problems import Problem
from gateway.routes.services import Injected

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_FILES = {
    one.name: (one.read_bytes(), _TYPES[one.name.rpartition(".")[2]])
    for one in files("gateway.console").joinpath("static").iterdir()
}
_PAGE = "operator.html"
# One tag for all files: a browser that has half of them from an older gateway loads all of them again. A weak one,
# because a file has the same compressed or not.
_TAG = f'W/"{sha256(b"".join(_FILES[name][0] for name in sorted(_FILES))).hexdigest()[:16]}"'
# Of a gateway whose browsers keep the session in a cookie: its script asks for that session before it shows the form.
_COOKIE_PAGE = _FILES[_PAGE][0].replace(b"<html ", b'<html data-session="cookie" ').replace(b"<form ", b"<form hidden ")
_COOKIE_TAG = f'{_TAG[:-1]}-cookie"'
_TAKES_GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))")
# Only the page's own files and origin; no inline script or style, and no HTML made from text.
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)


@get("/operator", opt=public())
async def console_page(request: Call, services: Injected) -> Response[bytes]:
    """Return the page."""
    if services.cookies.on:
        return _file(request, _COOKIE_PAGE, "text/html", _COOKIE_TAG)
    return _file(request, *_FILES[_PAGE], _TAG)


@get("/operator/{name:str}", opt=public(refuses=("not_found",)))
async def console_file(request: Call, name: FromPath[str]) -> Response[bytes]:
    """Return a style sheet or a script of the page."""
    if name not in _FILES or name == _PAGE:
        raise Problem(404, "not_found", "There is nothing at this address.")
    return _file(request, *_FILES[name], _TAG)


def _file(request: Call, content: bytes, kind: str, tag: str) -> Response[bytes]:
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Security-Policy": _CSP, "Vary": "Accept-Encoding"}
    if request.headers.get("if-none-match") == tag:
        return Response(b"", status_code=304, headers=headers, media_type=kind)
    if _TAKES_GZIP.search(request.headers.get("accept-encoding", "")):
        return Response(_packed(content), headers=headers | {"Content-Encoding": "gzip"}, media_type=kind)
    return Response(content, headers=headers, media_type=kind)


@cache
def _packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)

"""GET /: a page for people who open the gateway's address in a browser."""

from base64 import b64encode
from hashlib import sha256

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from gateway.http.access import public

_STYLE = (
    "body{font:16px/1.6 system-ui,sans-serif;margin:15vh auto;max-width:32rem;padding:0 1rem;color-scheme:light dark}"
)
_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Cache-Control": "public, max-age=300",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
_DOCS = '<li><a href="/docs">The API</a>, described and ready to try</li>'
_CONSOLE = '<li><a href="/operator">The console</a>, for operators</li>'
_HEALTH = '<li><a href="/health/ready">Health</a></li>'


def home(*, docs: bool, console: bool) -> HTTPRouteHandler:
    """Return the handler of the page, which links to what this installation shows at its public address."""
    links = f"{_DOCS if docs else ''}{_CONSOLE if console else ''}{_HEALTH}"
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>100ms gateway</title><style>{_STYLE}</style><h1>100ms gateway</h1><p>It is running.</p>"
        f"<ul>{links}</ul></html>"
    ).encode()

    @get("/", opt=public(), include_in_schema=False)
    async def home_page() -> Response[bytes]:
        """Return the page."""
        return Response(page, media_type="text/html", headers=_HEADERS)

    return home_page

"""The outermost layer, which sees every request, even those that Litestar refuses before its middleware.

Limits and buffers the body, keeps the call log, applies faults, and adds CORS headers to the paths of browsers.
"""

import re

import msgspec
from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPRequestEvent, HTTPScope, Message, Receive, ReceiveMessage, Scope, Send

from gateway.emulator.control import CallLog
from gateway.emulator.errors import envelope
from gateway.emulator.faults import Fault, FaultRules, respond

BODY_MOST_BYTES = 256 * 1024
# A client that uses us as its proxy sends the absolute URL (RFC 9112, section 3.2.2). httptools extracts the path, h11
# does not.
_ABSOLUTE = re.compile(r"https?://[^/]+", re.ASCII)
_CORS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    # By name: `*` does not cover Authorization (WHATWG Fetch, section 4.8).
    (b"access-control-allow-headers", b"authorization, content-type, x-emulate"),
)


class _BodyTooLargeError(Exception):
    pass


class Intake:
    """The ASGI app around the Litestar app."""

    def __init__(self, app: ASGIApp, *, faults: FaultRules, calls: CallLog, browser_paths: frozenset[str]) -> None:
        self._app = app
        self._faults = faults
        self._calls = calls
        self._browser_paths = browser_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        _make_relative(scope)
        answering = _open_to_browsers(send) if scope["path"] in self._browser_paths else send
        try:
            body = await _read(scope, receive)
        except _BodyTooLargeError:
            detail = f"body is larger than {BODY_MOST_BYTES} bytes"
            refusal = msgspec.json.encode(envelope(413, "Request Entity Too Large", (detail,)))
            await respond(answering, 413, refusal, (b"connection", b"close"))
            return
        if body is None:
            return
        if scope["path"].startswith("/v2/"):
            self._calls.record(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), body)
        try:
            fault = self._fault(scope)
        except ValueError as error:
            await respond(answering, 400, msgspec.json.encode(envelope(400, "Invalid x-emulate header", (str(error),))))
            return
        # A reset needs uvicorn's own `send`, which owns the socket.
        if fault and await fault.strike(receive, send if fault.reset else answering):
            return
        await self._app(scope, _replay(body, receive), answering)

    def _fault(self, scope: HTTPScope) -> Fault | None:
        path = scope["path"]
        if path.startswith("/emulator/"):
            return None
        header = Headers.from_scope(scope).get("x-emulate")
        return self._faults.take(path) if header is None else Fault.parse(header)


def _make_relative(scope: HTTPScope) -> None:
    absolute = _ABSOLUTE.match(scope["path"])
    if absolute is not None:
        scope["path"] = scope["path"][absolute.end() :] or "/"
        scope["raw_path"] = _ABSOLUTE.sub("", scope["raw_path"].decode("latin-1"), count=1).encode("latin-1") or b"/"


async def _read(scope: HTTPScope, receive: Receive) -> bytes | None:
    """Return the whole body, or None if the client has disconnected."""
    announced = Headers.from_scope(scope).get("content-length", "0")
    if announced.isdigit() and int(announced) > BODY_MOST_BYTES:
        raise _BodyTooLargeError
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > BODY_MOST_BYTES:
            raise _BodyTooLargeError
        if not message.get("more_body"):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> ReceiveMessage:
        nonlocal given
        if given:
            return await receive()
        given = True
        return HTTPRequestEvent(type="http.request", body=body, more_body=False)

    return replay


def _open_to_browsers(send: Send) -> Send:
    async def send_open(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *_CORS]
        await send(message)

    return send_open

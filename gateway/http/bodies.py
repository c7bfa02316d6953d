"""Bodies of requests: JSON, of bounded size and duration, and none where a route takes none."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Receive, Scope

from gateway.http.problems import Problem, invalid

MOST_BODY_BYTES = 16 * 1024
BODY_TIMEOUT_S = 10.0
_MOST_DIGITS = 18  # of a length; Python refuses to read thousands


async def refuse_body(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Refuse a body, as a guard, where a route that changes something takes none; `{}` is as good as none."""
    if connection.scope.get("method") in ("GET", "HEAD", "OPTIONS") or handler.parsed_data_field is not None:
        return
    if isinstance(connection, Request) and msgspec.json.decode(await connection.body()) != {}:
        raise invalid("", "This address takes no body.")


def json_body(scope: Scope, receive: Receive) -> Receive:
    """Return a `receive` that hands on a JSON body of bounded size, or refuses; an empty body means `{}`.

    The check runs when the body is read. Where that is before the route (`all_there`), its refusal waits for the route:
    a refused body is counted like any other refusal.
    """
    done = False

    async def checked() -> Any:
        nonlocal done
        if done:
            return await receive()
        done = True
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        if length.isdigit() and (len(length) > _MOST_DIGITS or int(length) > MOST_BODY_BYTES):
            raise _too_large()
        content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content_type and content_type != b"application/json":
            raise Problem(415, "unsupported_media_type", "The body must be sent as application/json.")
        body = await _read(receive)
        if body and not content_type:
            raise Problem(415, "unsupported_media_type", "The body must be sent as application/json.")
        try:
            msgspec.json.decode(body or b"{}")  # Litestar lets broken UTF-8 and deep nesting out as a server's error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise invalid("", "The body is not valid JSON.") from None
        return {"type": "http.request", "body": body or b"{}", "more_body": False}

    return checked


async def all_there(receive: Receive) -> Receive:
    """Wait for a body, and return a `receive` that gives it, or refuses it, once it is asked for.

    What somebody may do is asked when all of his request is there: else he would begin it while he may, hold the last
    byte back, and be served when he no longer may.
    """
    refusal: Problem | None = None
    message: Any = None
    try:
        message = await receive()
    except Problem as problem:
        refusal = problem

    async def arrived() -> Any:
        nonlocal message
        if refusal is not None:
            raise refusal
        if message is None:
            return await receive()
        given, message = message, None
        return given

    return arrived


async def _read(receive: Receive) -> bytes:
    body = b""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Problem(400, "invalid_request", "The request ended before its body was complete.")
                body += message.get("body", b"")
                if len(body) > MOST_BODY_BYTES:
                    raise _too_large()
                if not message.get("more_body"):
                    return body
    except TimeoutError:
        raise Problem(400, "invalid_request", f"The body did not arrive within {BODY_TIMEOUT_S:.0f} s.") from None


def _too_large() -> Problem:
    return Problem(413, "payload_too_large", f"The body must have at most {MOST_BODY_BYTES} bytes.")

"""What a request brings: its JSON body and its query, read once and judged strictly before its handler runs."""

from __future__ import annotations

import asyncio
import re
from datetime import date, datetime
from functools import cache
from typing import Any, get_args

import msgspec
from litestar import Request
from litestar.handlers import BaseRouteHandler
from litestar.params import QueryParameter
from litestar.types import HTTPScope, Receive, ReceiveMessage

from gateway.http.context import context_of
from gateway.http.field_errors import of_body
from gateway.http.problems import Problem
from gateway.text import FieldError

MOST_BODY_BYTES = 16 * 1024
BODY_TIMEOUT_S = 10.0
_MOST_DIGITS = 18  # of a length; Python refuses to read thousands
_MOST_NAME_CHARS = 64
_IGNORED = ("GET", "HEAD", "OPTIONS")  # whatever body they have
_ENUM = "Invalid enum value"
# How values of a query are written. msgspec would also take `5.0` for 5, `null` for a missing date, 0 for 1970.
_WRITTEN: dict[type, tuple[re.Pattern[str], str]] = {
    int: (re.compile(r"-?[0-9]{1,18}"), "must be an integer"),
    datetime: (re.compile(r"[0-9]{4}-.*"), "must be a date and time with a time zone, e.g. 2026-11-22T12:00:00Z"),
    date: (re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"), "must be a date, e.g. 2026-11-22"),
}


class Body:
    """The body of one request, decoded into the type that its route takes (None: the route takes no body)."""

    def __init__(self, scope: HTTPScope, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        self._is_ignored = scope["method"] in _IGNORED
        field = scope["route_handler"].parsed_data_field
        self._kind = field.annotation if field else None
        self._raw: bytes | None = None
        self._replayed = False
        self.refusal: Problem | FieldError | None = None

    async def arrive(self) -> None:
        """Read the whole body and decode it. What is wrong with it becomes `refusal`, for the caller to raise.

        Permissions are checked after this. Otherwise a client could begin a request while it may make it, hold back the
        last byte, and be served when it no longer may.
        """
        if self._raw is not None:
            return
        self._raw = b"{}"
        try:
            self._raw = await self._read() or b"{}"
            context_of(self._scope).body = self._decode(self._raw)
        except (Problem, FieldError) as error:
            self.refusal = None if self._is_ignored else error

    async def receive(self) -> ReceiveMessage:
        """Give the body to whoever reads the request next; what follows it comes from the server. Raises: Problem"""
        if self._replayed:
            return await self._receive()
        await self.arrive()
        if self.refusal is not None:
            raise self.refusal
        self._replayed = True
        return {"type": "http.request", "body": self._raw or b"{}", "more_body": False}

    async def _read(self) -> bytes:
        headers = dict(self._scope["headers"])
        length = headers.get(b"content-length", b"")
        if length.isdigit() and (len(length) > _MOST_DIGITS or int(length) > MOST_BODY_BYTES):
            raise _too_large()
        content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content_type and content_type != b"application/json":
            raise Problem(415, "unsupported_media_type", "The body must be sent as application/json.")
        body = await self._read_all()
        if body and not content_type:
            raise Problem(415, "unsupported_media_type", "The body must be sent as application/json.")
        return body

    async def _read_all(self) -> bytes:
        body = b""
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while True:
                    message = await self._receive()
                    if message["type"] != "http.request":
                        raise Problem(400, "invalid_request", "The request ended before its body was complete.")
                    body += message.get("body", b"")
                    if len(body) > MOST_BODY_BYTES:
                        raise _too_large()
                    if not message.get("more_body"):
                        return body
        except TimeoutError:
            raise Problem(400, "invalid_request", f"The body did not arrive within {BODY_TIMEOUT_S:.0f} s.") from None

    def _decode(self, raw: bytes) -> Any:
        try:
            if self._kind is not None:
                return msgspec.json.decode(raw, type=self._kind)
            if msgspec.json.decode(raw) != {}:
                raise FieldError("", "This address takes no body.")
        except msgspec.ValidationError as error:
            if isinstance(error.__cause__, FieldError):  # by the type's own __post_init__
                raise error.__cause__ from None
            raise FieldError(*self._broken(str(error))) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise FieldError("", "The body is not valid JSON.") from None

    def _broken(self, text: str) -> tuple[str, str]:
        """Return the field and the rule; for a choice, msgspec's own text repeats the caller's value instead."""
        field, rule = of_body(text)
        return field, f"must be one of: {_choices(self._kind, field)}" if rule.startswith(_ENUM) else rule


class GatewayRequest(Request[Any, Any, Any]):
    """A Litestar request whose JSON is the body that `Body` has decoded, so that it is decoded once."""

    async def json(self) -> Any:
        return context_of(self.scope).body


def query_refusal(scope: HTTPScope) -> FieldError | None:
    """Return what is wrong with a query: parameters that the route does not have, repeated ones, misspelt values.

    Otherwise a misspelt `form=2026-01-01` would report another period, and `limit=1&limit=500` mean one thing to a
    proxy that counts and another to the gateway (CWE-235).
    """
    if not scope["query_string"] or scope["method"] == "OPTIONS":  # that asks about an address, whatever its query
        return None
    known = _declared(scope["route_handler"])
    given = Request[Any, Any, Any](scope).query_params
    for name in given:
        if name not in known:
            return FieldError(name[:_MOST_NAME_CHARS], "unknown parameter")
        if len(given.getall(name)) > 1:
            return FieldError(name, "is given more than once")
        pattern, rule = _WRITTEN.get(known[name], (None, ""))
        if pattern is not None and not pattern.fullmatch(given[name]):
            return FieldError(name, rule)
    return None


@cache
def _declared(handler: BaseRouteHandler) -> dict[str, type]:
    """Return a route's query parameters and their types."""
    declared = {}
    for name, field in handler.parsed_fn_signature.parameters.items():
        kwarg = field.kwarg_definition
        if isinstance(kwarg, QueryParameter):
            kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not type(None)]
            declared[kwarg.name or name] = kinds[0]
    return declared


def _choices(kind: Any, field: str) -> str:
    """Return the values that a field of a body may have."""
    info = msgspec.inspect.type_info(kind)
    for one in info.fields if isinstance(info, msgspec.inspect.StructType) else ():
        kinds = one.type.types if isinstance(one.type, msgspec.inspect.UnionType) else (one.type,)
        literals = [kind for kind in kinds if isinstance(kind, msgspec.inspect.LiteralType)]
        if one.encode_name == field and literals:
            return ", ".join(str(value) for value in literals[0].values)
    return "the documented values"


def _too_large() -> Problem:
    return Problem(413, "payload_too_large", f"The body must have at most {MOST_BODY_BYTES} bytes.")

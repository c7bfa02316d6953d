"""The input of a request for its handler: path, query, headers and a body, read once and checked strictly.

The handler's own signature defines the allowed input: it is Litestar's, so that the OpenAPI document and this agree.
"""

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache, lru_cache
from typing import Annotated, Any, get_args
from urllib.parse import parse_qsl

import msgspec
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.params import HeaderParameter, PathParameter, QueryParameter
from litestar.types import HTTPScope, Receive

from gateway.http.access import Access, access_of
from gateway.http.field_errors import of_body, of_value
from gateway.http.problems import Problem
from gateway.text import FieldError

MOST_BODY_BYTES = 16 * 1024
MOST_WEBHOOK_BYTES = 256 * 1024
BODY_TIMEOUT_S = 10.0
ARRIVED = "gateway.arrived"  # scope key: the server has the whole body. A timeout for what has arrived takes 4 us
_MOST_DIGITS = 18  # of a length; Python refuses to read thousands
_MOST_NAME_CHARS = 64
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = _TOKEN + rb'|"(?:[^"\\]|\\.)*"'
# RFC 9110 section 8.3.1; a parameter may be empty.
_PARAMETER = re.compile(rb";[ \t]*(" + _TOKEN + rb")=(" + _VALUE + rb")")
_MEDIA_TYPE = re.compile(
    rb"[ \t]*(" + _TOKEN + rb"/" + _TOKEN + rb")((?:[ \t]*;[ \t]*(?:" + _TOKEN + rb"=(?:" + _VALUE + rb"))?)*)[ \t]*"
)
_ESCAPED = re.compile(rb"\\(.)")
_UTF_8 = (b"utf-8", b"utf8")
_JSON, _FORM = b"application/json", b"application/x-www-form-urlencoded"
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_MOST_FORM_FIELDS = 32
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})  # their bodies are read and ignored
# The forms of query values. msgspec would also accept `5.0` as 5, `null` as a missing date and 0 as 1970.
_WRITTEN: dict[Any, tuple[str, str]] = {
    int: (r"-?[0-9]{1,18}", "must be an integer"),
    datetime: (r"[0-9]{4}-.*", "must be a date and time with a time zone, e.g. 2026-11-22T12:00:00Z"),
    date: (r"[0-9]{4}-[0-9]{2}-[0-9]{2}", "must be a date, e.g. 2026-11-22"),
}


async def read_input(scope: HTTPScope, receive: Receive) -> dict[str, Any]:
    """Wait for the whole request, check it, and return the handler arguments that it contains.

    Permissions are checked after this. Otherwise a client could begin a request while it is permitted, hold back the
    last byte, and be served after it has lost the permission. Raises the first Problem or FieldError found, once the
    body has arrived or never will.
    """
    handler: HTTPRouteHandler = scope["route_handler"]  # type: ignore[assignment]  # of HTTP requests
    access, without_body = access_of(handler), scope["method"] in _WITHOUT_BODY
    raw, kind, refusal = b"", _JSON, None
    try:
        raw, kind = await _read(scope, receive, access)
    except Problem as problem:
        refusal = problem
    if scope["method"] == "OPTIONS":  # it concerns the address, not its query
        return {}
    arguments = _arguments(handler, scope)
    if (check := access.check) is not None:
        check(scope["headers"])
    if without_body:
        return arguments
    if refusal is not None:
        raise refusal
    if access.webhook:
        return arguments | {"body": raw}
    body = handler.parsed_data_field
    data = _decode(_from_form(raw) if kind == _FORM else raw or b"{}", body.annotation if body else None)
    return arguments | {"data": data} if body else arguments


async def _read(scope: HTTPScope, receive: Receive, access: Access) -> tuple[bytes, bytes]:
    """Read a body and its media type: JSON, a form where the route takes one, or anything that 100ms may send."""
    any_kind = access.webhook
    headers, most_bytes = dict(scope["headers"]), MOST_WEBHOOK_BYTES if any_kind else MOST_BODY_BYTES
    length = headers.get(b"content-length", b"")
    if length.isdigit() and (len(length) > _MOST_DIGITS or int(length) > most_bytes):
        raise _too_large(most_bytes)
    content_type = headers.get(b"content-type", b"")
    kind = _media_type(content_type)
    if content_type and not any_kind and kind != _JSON and not (access.form and kind == _FORM):
        raise _wrong_type(access)
    if ARRIVED in scope:
        body = await _read_all(receive, most_bytes)
    else:
        body = await _wait_for_all(receive, most_bytes)
    if body and not content_type and not any_kind:
        raise _wrong_type(access)
    return body, kind


@lru_cache(maxsize=64)  # clients send few
def _media_type(content_type: bytes) -> bytes:
    """Return the media type of a Content-Type in UTF-8, empty if it is malformed or in another encoding.

    UTF-8 is the only encoding that JSON has between systems (RFC 8259) and OAuth's forms have (RFC 6749 appendix B).
    """
    match = _MEDIA_TYPE.fullmatch(content_type)
    if match is None:
        return b""
    parameters = _PARAMETER.findall(match[2])
    charsets = (value for name, value in parameters if name.lower() == b"charset")
    is_utf_8 = all(_ESCAPED.sub(rb"\1", value.strip(b'"')).lower() in _UTF_8 for value in charsets)
    return match[1].lower() if is_utf_8 else b""


def _wrong_type(access: Access) -> Problem:
    kinds = "application/json or application/x-www-form-urlencoded" if access.form else "application/json"
    return Problem(415, "unsupported_media_type", f"The body must be sent as {kinds}, in UTF-8.")


def _from_form(raw: bytes) -> bytes:
    """Return a form as a JSON object of strings. Raises: FieldError

    A field without a value counts as left out, and none may be given twice (RFC 6749 sections 3.1 and 3.2).
    """
    try:
        if _BAD_ESCAPE.search(raw):
            raise ValueError("not an escape")
        pairs = parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(raw),
            errors="strict",
            max_num_fields=_MOST_FORM_FIELDS,
        )
    except ValueError:
        raise FieldError("", "The body is not a valid form.") from None
    _refuse_repeated(pairs)
    return msgspec.json.encode({name: value for name, value in pairs if value})


async def _wait_for_all(receive: Receive, most_bytes: int) -> bytes:
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _read_all(receive, most_bytes)
    except TimeoutError:
        raise Problem(400, "invalid_request", f"The body did not arrive within {BODY_TIMEOUT_S:.0f} s.") from None


async def _read_all(receive: Receive, most_bytes: int) -> bytes:
    body = bytearray()  # bytes would be copied for each chunk
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Problem(400, "invalid_request", "The request ended before its body was complete.")
        body += message.get("body", b"")
        if len(body) > most_bytes:
            raise _too_large(most_bytes)
        if not message.get("more_body"):
            return bytes(body)


def _too_large(most_bytes: int) -> Problem:
    return Problem(413, "payload_too_large", f"The body must have at most {most_bytes} bytes.")


def _decode(raw: bytes, kind: Any) -> Any:
    """Decode a body into the type that its route takes; None: it takes none."""
    try:
        if kind is not None:
            data = msgspec.json.decode(raw, type=kind)
            if raw.count(b":") > 1:  # most bodies have one field at most, and are not read twice
                json.loads(raw.decode(), object_pairs_hook=_refuse_repeated)
            return data
        if msgspec.json.decode(raw) != {}:
            raise FieldError("", "This address takes no body.")
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, FieldError):  # by the type's own __post_init__
            raise error.__cause__ from None
        raise FieldError(*of_body(str(error), kind)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise FieldError("", "The body is not valid JSON.") from None


def _refuse_repeated(pairs: Iterable[tuple[str, Any]]) -> None:
    """Refuse an object or a form that has a name twice. Raises: FieldError

    msgspec takes the last value, other parsers the first: a proxy could check one and the gateway use the other.
    """
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise FieldError(name[:_MOST_NAME_CHARS], "is given more than once")
        seen.add(name)


@dataclass(frozen=True, slots=True)
class _Parameter:
    """One query parameter: the handler's name for it, its type with its bounds, and how its values are written."""

    argument: str
    kind: Any
    pattern: re.Pattern[str] | None
    rule: str
    required: bool


@dataclass(frozen=True, slots=True)
class _Signature:
    path: tuple[str, ...]
    query: Mapping[str, _Parameter]
    headers: Mapping[str, bytes]


def _arguments(handler: BaseRouteHandler, scope: HTTPScope) -> dict[str, Any]:
    """Return the arguments from path, query and headers. Raises: FieldError"""
    signature = _signature(handler)
    arguments: dict[str, Any] = {name: scope["path_params"][name] for name in signature.path}
    if scope["query_string"]:
        arguments |= _query(signature.query, scope["query_string"])
    for name, parameter in signature.query.items():
        if parameter.required and parameter.argument not in arguments:
            raise FieldError(name, "is required")
    for name, field in signature.headers.items():
        arguments[name] = next((value.decode("latin-1") for key, value in scope["headers"] if key == field), None)
    return arguments


def _query(parameters: Mapping[str, _Parameter], query: bytes) -> dict[str, Any]:
    """Read a query; unknown and repeated parameters are refused.

    Otherwise a misspelt `form=2026-01-01` would report another period, and `limit=1&limit=500` would mean one
    thing to a proxy that counts and another to the gateway (CWE-235).
    """
    values: dict[str, Any] = {}
    for name, text in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        parameter = parameters.get(name)
        if parameter is None:
            raise FieldError(name[:_MOST_NAME_CHARS], "unknown parameter")
        if parameter.argument in values:
            raise FieldError(name, "is given more than once")
        if parameter.pattern is not None and not parameter.pattern.fullmatch(text):
            raise FieldError(name, parameter.rule)
        try:
            values[parameter.argument] = msgspec.convert(text, parameter.kind, strict=False)
        except msgspec.ValidationError as error:
            raise FieldError(name, of_value(str(error))) from None
    return values


@cache
def _signature(handler: BaseRouteHandler) -> _Signature:
    path, query, headers = [], {}, {}
    for argument, field in handler.parsed_fn_signature.parameters.items():
        given = field.kwarg_definition
        if isinstance(given, PathParameter):
            path.append(argument)
        elif isinstance(given, QueryParameter):
            query[given.name or argument] = _parameter(argument, field.annotation, given, required=field.is_required)
        elif isinstance(given, HeaderParameter):
            headers[argument] = (given.name or argument).lower().encode()
    return _Signature(tuple(path), query, headers)


def _parameter(argument: str, annotation: Any, given: QueryParameter, *, required: bool) -> _Parameter:
    kind = next(kind for kind in get_args(annotation) or (annotation,) if kind is not type(None))
    bounds = {name: getattr(given, name) for name in ("ge", "le", "min_length", "max_length", "pattern")}
    rules = {name: bound for name, bound in bounds.items() if bound is not None}
    pattern, rule = _WRITTEN.get(kind, (None, ""))
    typed = Annotated[kind, msgspec.Meta(**rules)] if rules else kind
    return _Parameter(argument, typed, re.compile(pattern) if pattern else None, rule, required)

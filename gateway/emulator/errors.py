"""The error envelope of 100ms, and the exception handler that writes it.

Shape (100ms docs, server-side v2, how-to-guides/make-api-calls): `{code, message, details}`, where `code` repeats the
HTTP status and `details`, a list of strings, is optional.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, TypeVar

from litestar import Request, Response
from litestar.exceptions import HTTPException

T = TypeVar("T")
_log = logging.getLogger(__name__)


class ApiError(Exception):
    """An error answer of 100ms."""

    def __init__(self, status: int, message: str, *details: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details


def bad_body(detail: str) -> ApiError:
    """Return the 400 for an invalid body (text from how-to-guides/create-large-rooms)."""
    return ApiError(400, "Invalid body param", f"Invalid body param: {detail}")


def bad_query(detail: str) -> ApiError:
    """Return the 400 for an invalid query."""
    return ApiError(400, "Invalid query param", f"Invalid query param: {detail}")


def not_found(what: str) -> ApiError:
    """Return the 404 for an unknown id or name."""
    return ApiError(404, f"{what} not found", "not found")


def find(records: Mapping[str, T], key: str, what: str) -> T:
    """Return a record, or answer 404."""
    if key not in records:
        raise not_found(what)
    return records[key]


def envelope(status: int, message: str, details: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return an error body, without the key `details` if there are none."""
    body: dict[str, Any] = {"code": status, "message": message}
    if details:
        body["details"] = list(details)
    return body


def answer(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """Answer any exception of a handler or of the router with the envelope."""
    if isinstance(error, ApiError):
        return Response(envelope(error.status, error.message, error.details), status_code=error.status)
    if isinstance(error, HTTPException):
        # Litestar's messages reveal its internals, so the standard phrase replaces them.
        phrase = HTTPStatus(error.status_code).phrase
        detail = f"{request.method} {request.scope['path']}"
        body = envelope(error.status_code, phrase, (detail,))
        return Response(body, status_code=error.status_code, headers=dict(error.headers or {}))
    _log.error("the emulator failed on %s %s", request.method, request.scope["path"], exc_info=error)
    return Response(envelope(500, "Internal server error"), status_code=500)

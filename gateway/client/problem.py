"""The errors of the client: a refusal of the gateway, or no answer. Neither holds a token, a key or a password."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
from msgspec import Struct

from gateway.client.shapes import RateLimit

_LIMIT = re.compile(r'"((?:[^"\\]|\\.)*)";r=([0-9]+)(?:;t=([0-9]+))?')


class FieldProblem(Struct, frozen=True):
    """A field of the request and the rule that it breaks."""

    field: str
    rule: str


class _Document(Struct):
    """The problem document (RFC 9457). Of another server's answer nothing is kept."""

    code: str
    detail: str
    title: str = ""
    request_id: str = ""
    errors: tuple[FieldProblem, ...] = ()
    reasons: tuple[str, ...] = ()
    allowed_roles: tuple[str, ...] = ()
    missing_permission: str = ""
    violated_policies: tuple[str, ...] = msgspec.field(name="violated-policies", default=())


class GatewayProblem(Exception):
    """A refusal: the gateway's problem document and its Retry-After.

    `code` is one of docs/api.md, or of the client: `no_session` (nothing was sent, because there is no login) and
    `unexpected_answer` (the answer did not come from a gateway).
    """

    def __init__(
        self, status: int, code: str, detail: str, *, retry_after_s: float | None = None, document: Any = None
    ) -> None:
        super().__init__(detail)
        known = document if isinstance(document, _Document) else _Document(code, detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.title = known.title
        self.request_id = known.request_id
        self.errors = known.errors
        self.reasons = known.reasons
        self.allowed_roles = known.allowed_roles
        self.missing_permission = known.missing_permission
        self.violated_policies = known.violated_policies
        self.retry_after_s = retry_after_s


class GatewayUnreachable(Exception):
    """There was no answer, so that the outcome of the request is unknown."""

    def __init__(self, text: str, *, timed_out: bool = False) -> None:
        super().__init__(text)
        self.timed_out = timed_out


def problem_of(status: int, headers: Mapping[str, str], body: bytes) -> GatewayProblem:
    """Return the problem of an answer with a status of 400 or more, which may come from another server."""
    wait = _retry_after(headers.get("retry-after", ""))
    try:
        document = msgspec.json.decode(body, type=_Document)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # A proxy's page is not repeated, because it may contain the request.
        text = f"The server answered {status} without a reason."
        return GatewayProblem(status, "unexpected_answer", text, retry_after_s=wait)
    return GatewayProblem(status, document.code, document.detail, retry_after_s=wait, document=document)


def rate_limits_of(headers: Mapping[str, str]) -> tuple[RateLimit, ...]:
    """Return the limits that an answer reports, the tightest first."""
    found = _LIMIT.findall(headers.get("ratelimit", ""))
    return tuple(RateLimit(re.sub(r"\\(.)", r"\1", name), int(left), int(reset or 0)) for name, left, reset in found)


def _retry_after(text: str) -> float | None:
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return max(0.0, (at - datetime.now(UTC)).total_seconds()) if at.tzinfo else None

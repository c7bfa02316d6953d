"""GET /api/admin/audit: who did what to whom."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from auth.errors import UnknownUser
from gateway.audit import ACTION, PLACE, party
from gateway.http.access import needs
from gateway.routes.schemas import iso
from gateway.routes.services import Services
from gateway.text import FieldError


class AuditEntry(msgspec.Struct):
    """`by` is a user id, `cli`, or empty for a stranger; `subject` the id of the user it is about."""

    id: str
    at: str
    action: str
    by: str
    subject: str
    request_id: str
    details: dict[str, str | int]


class AuditPage(msgspec.Struct):
    items: list[AuditEntry]
    next_cursor: str | None


@get("/api/admin/audit", opt=needs("audit.read", refuses=("invalid_request",)))
async def read_audit(  # noqa: PLR0913  one argument per query parameter
    services: NamedDependency[Services],
    user: Annotated[str | None, QueryParameter(max_length=256)] = None,
    action: Annotated[str | None, QueryParameter(pattern=f"^{ACTION}$")] = None,
    from_: Annotated[datetime | None, QueryParameter(name="from")] = None,
    to: Annotated[datetime | None, QueryParameter()] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=500)] = 100,
    cursor: Annotated[str | None, QueryParameter(max_length=256)] = None,
) -> AuditPage:
    """Return what happened, newest first: by or about a `user` (name or id), of an `action` (`login` takes in
    `login.failed`), in a span of time."""
    if user is not None:
        try:
            user = await party(services.report_accounts, user)
        except UnknownUser as error:
            raise FieldError("user", "no such user; a deleted one is found by his id") from error
    first_ms, last_ms = _ms("from", from_) or 0, _ms("to", to)
    if last_ms is not None and first_ms > last_ms:
        raise FieldError("from", "must not be after `to`")
    before = None
    if cursor:
        before = services.cursors.open("audit", cursor)[0]
        if not PLACE.fullmatch(before):
            raise FieldError("cursor", "is not a cursor of this list")
    found, following = await services.report_audit.page(
        user=user,
        action=action,
        first_ms=first_ms,
        last_ms=last_ms,
        before=before,
        size=limit,
    )
    items = [
        AuditEntry(
            id=entry.id,
            at=iso(entry.at_ms / 1000),
            action=entry.action,
            by=entry.by,
            subject=entry.subject,
            request_id=entry.request_id,
            details=entry.details,
        )
        for entry in found
    ]
    return AuditPage(items, services.cursors.seal("audit", following) if following else None)


def _ms(field: str, at: datetime | None) -> int | None:
    if at is None:
        return None
    if at.tzinfo is None:
        raise FieldError(field, "must have a time zone, e.g. 2026-11-22T12:00:00Z")
    return max(0, int(at.timestamp() * 1000))

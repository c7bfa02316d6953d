"""GET /api/admin/audit: the audit trail."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

import msgspec
from litestar import get
from litestar.params import QueryParameter
from msgspec import Meta

from auth.errors import UnknownUser
from gateway.audit import ACTION, PLACE, Entry, Filter, check_action, party
from gateway.http.access import needs
from gateway.http.cursors import PageCursor, PageSize
from gateway.routes.schemas import By, Instant, NextCursor, iso
from gateway.routes.services import Injected, Services
from gateway.text import FieldError
from gateway.usage.subjects import Subject, is_subject

_FROM = "Only entries from this instant on; with a time zone."
_TO = "Only entries up to this instant; with a time zone."


class AuditEntry(msgspec.Struct):
    """One entry of the audit trail."""

    id: Annotated[str, Meta(description="Place in the audit trail.")]
    at: Annotated[Instant, Meta(description="When it happened.")]
    action: Annotated[str, Meta(description="What was done or attempted, e.g. `token.minted`.")]
    by: By
    by_name: Annotated[str, Meta(description="Name of that user or key; empty if it was none or they were deleted.")]
    subject: Annotated[str, Meta(description="Id of the user or service key that it concerns; empty if there is none.")]
    subject_name: Annotated[str, Meta(description="Name of that user or key; empty if deleted.")]
    request_id: Annotated[str, Meta(description="`X-Request-Id` of the request.")]
    details: Annotated[dict[str, str | int], Meta(description="More about it, depending on the action.")]

    @classmethod
    def of(cls, entry: Entry, users: Mapping[str, Subject]) -> AuditEntry:
        by_name, subject_name = (users[uid].username if uid in users else "" for uid in (entry.by, entry.subject))
        at, parties = iso(entry.at_ms / 1000), (entry.by, by_name, entry.subject, subject_name)
        return cls(entry.id, at, entry.action, *parties, entry.request_id, entry.details)


class AuditPage(msgspec.Struct):
    items: Annotated[list[AuditEntry], Meta(description="The newest first; a page before the last may be empty.")]
    next_cursor: NextCursor | None


@get("/api/admin/audit", opt=needs("audit.read", refuses=("invalid_request",)))
async def read_audit(  # noqa: PLR0913  one argument per query parameter
    services: Injected,
    user: Annotated[
        str | None,
        QueryParameter(
            max_length=256, description="Only entries by or about this user (id or name) or service key (id)."
        ),
    ] = None,
    action: Annotated[
        str | None,
        QueryParameter(pattern=f"^{ACTION}$", description="Only this action; `login` includes `login.failed`."),
    ] = None,
    from_: Annotated[datetime | None, QueryParameter(name="from", description=_FROM)] = None,
    to: Annotated[datetime | None, QueryParameter(description=_TO)] = None,
    limit: PageSize = 100,
    cursor: PageCursor = None,
) -> AuditPage:
    """Return entries of the audit trail, newest first."""
    if action is not None:
        check_action(action)
    wanted = Filter(await _party(services, user), action, _ms("from", from_) or 0, _ms("to", to))
    if wanted.last_ms is not None and wanted.first_ms > wanted.last_ms:
        raise FieldError("from", "must not be after `to`")
    before = services.cursors.open("audit", cursor)[0] if cursor else None
    if before is not None and not PLACE.fullmatch(before):
        raise FieldError("cursor", "is not a cursor of this list")
    found, following = await services.report_audit.page(wanted, before=before, size=limit)
    parties = {one for entry in found for one in (entry.by, entry.subject) if is_subject(one)}
    users = await services.subjects.several(list(parties))
    next_cursor = services.cursors.seal("audit", following) if following else None
    return AuditPage([AuditEntry.of(entry, users) for entry in found], next_cursor)


async def _party(services: Services, user: str | None) -> str | None:
    """Return the id that the trail uses for a user. Raises: FieldError"""
    try:
        return None if user is None else await party(services.report_accounts, user)
    except UnknownUser as error:
        raise FieldError("user", "no such user; search for a deleted user by id") from error


def _ms(field: str, at: datetime | None) -> int | None:
    if at is None:
        return None
    if at.tzinfo is None:
        raise FieldError(field, "must have a time zone, e.g. 2026-11-22T12:00:00Z")
    return max(0, int(at.timestamp() * 1000))

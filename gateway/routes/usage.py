"""GET /api/usage: the caller's own limits and counters. GET /api/admin/usage: everybody's, day by day."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from gateway.http.access import needs
from gateway.http.context import Call
from gateway.policy.model import ACTIONS
from gateway.routes.schemas import LimitsNow
from gateway.routes.services import Services
from gateway.text import FieldError
from gateway.usage.reports import METRIC, PERIOD, TopRow, UsageRow, daily_usage, span_of_days, top_users
from limits.counters import Tally, Usage


class Used(msgspec.Struct):
    """What was used today and this month (UTC), and ever: per action, by outcome."""

    today: dict[str, Tally]
    month: dict[str, Tally]
    total: dict[str, Tally]


class OwnUsage(LimitsNow):
    user_id: str
    usage: Used


class UsageReport(msgspec.Struct, rename={"from_": "from"}):
    from_: str
    to: str
    items: list[UsageRow]
    next_cursor: str | None


class TopReport(msgspec.Struct):
    period: str
    counter: str
    items: list[TopRow]


class RoomDay(msgspec.Struct):
    date: str
    usage: dict[str, Tally]


class RoomReport(msgspec.Struct, rename={"from_": "from"}):
    room_id: str
    from_: str
    to: str
    items: list[RoomDay]


@get("/api/usage", opt=needs("usage.read"))
async def own_usage(request: Call) -> OwnUsage:
    """Return the caller's limits as they stand and what he has used today, this month (UTC) and ever. Costs nothing."""
    admitted = request.auth
    usage = admitted.usage or Usage({}, {}, {})
    now = LimitsNow.of(admitted.decision)
    used = Used(_sorted(usage.today), _sorted(usage.month), _sorted(usage.total))
    return OwnUsage(now.limits, now.quotas, now.leases, now.blocked_until, request.user.uid, used)


@get("/api/admin/usage", opt=needs("usage.read-any", refuses=("not_found",)))
async def admin_usage(  # noqa: PLR0913  one argument per query parameter
    request: Call,
    services: NamedDependency[Services],
    from_: Annotated[date | None, QueryParameter(name="from")] = None,
    to: Annotated[date | None, QueryParameter()] = None,
    user: Annotated[str | None, QueryParameter(max_length=256)] = None,
    action: Annotated[str | None, QueryParameter(max_length=64)] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=500)] = 100,
    cursor: Annotated[str | None, QueryParameter(max_length=256)] = None,
) -> UsageReport:
    """Return what users used per UTC day and action, `limit` users a page; by default the 30 days up to today."""
    first, last = _range(from_, to)
    if action is not None and action not in ACTIONS and action not in ("login", "api"):
        raise FieldError("action", "is not an action that is counted, e.g. tokens.mint, rooms.create, login, api")
    after = 0
    if cursor:
        after = int(services.cursors.open("admin-usage", cursor)[0])
    if user is not None:
        user = (await services.report_accounts.lookup(user)).id
    page = await daily_usage(
        services.report_accounts,
        services.report_counters,
        first=first,
        last=last,
        user=user,
        action=action,
        after=after,
        size=limit,
    )
    services.audit.note_reading("users", by=request.user.uid, subject=user or "")
    next_cursor = services.cursors.seal("admin-usage", page.following) if page.following is not None else None
    return UsageReport(first.isoformat(), last.isoformat(), page.rows, next_cursor)


@get("/api/admin/usage/top", opt=needs("usage.read-any"))
async def top_usage(
    request: Call,
    services: NamedDependency[Services],
    counter: Annotated[str, QueryParameter(pattern=METRIC)] = "tokens.mint.ok",
    period: Annotated[str | None, QueryParameter(pattern=PERIOD)] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=100)] = 10,
) -> TopReport:
    """Return who has most of any counter, e.g. `tokens.mint.ok` or `api.denied.api`, on a UTC day or in a month."""
    period = period or datetime.now(UTC).date().isoformat()
    rows = await top_users(services.report_accounts, services.derived, period, counter, limit)
    services.audit.note_reading("top", by=request.user.uid)
    return TopReport(period, counter, rows)


@get("/api/admin/usage/rooms/{room_id:str}", opt=needs("usage.read-any"))
async def room_usage(
    room_id: FromPath[str],
    request: Call,
    services: NamedDependency[Services],
    from_: Annotated[date | None, QueryParameter(name="from")] = None,
    to: Annotated[date | None, QueryParameter()] = None,
) -> RoomReport:
    """Return how often a room was joined and refused, per UTC day; by default the 30 days up to today."""
    first, last = _range(from_, to)
    days = await services.report_counters.room_days(room_id, first, last)
    services.audit.note_reading("room", by=request.user.uid)
    items = [RoomDay(day.isoformat(), _sorted(tallies)) for day, tallies in days.items()]
    return RoomReport(room_id, first.isoformat(), last.isoformat(), items)


def _range(from_: date | None, to: date | None) -> tuple[date, date]:
    return span_of_days(from_, to)


def _sorted(tallies: dict[str, Tally]) -> dict[str, Tally]:
    return dict(sorted(tallies.items()))

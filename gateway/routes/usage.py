"""GET /api/usage: the caller's own limits and counters. GET /api/admin/usage: those of all users, by day."""

from datetime import UTC, date, datetime
from typing import Annotated

import msgspec
from litestar import get
from litestar.params import QueryParameter
from msgspec import Meta

from gateway.http.access import needs
from gateway.http.context import Call
from gateway.http.cursors import PageCursor
from gateway.policy.actions import ACTIONS
from gateway.routes.schemas import Day, LimitsNow, NextCursor, RoomId, UserId
from gateway.routes.services import Injected, RoomInPath
from gateway.text import FieldError
from gateway.usage.reports import METRIC, PERIOD, TopRow, UsageRow, span_of_days
from limits.counters import Tally, Usage

_First = Annotated[str, Meta(description="First UTC day of the report.")]
_Last = Annotated[str, Meta(description="Last UTC day of the report.")]
_From = Annotated[
    date | None, QueryParameter(name="from", description="First UTC day; by default 29 days before `to`.")
]
_To = Annotated[date | None, QueryParameter(description="Last UTC day; by default today.")]


class Used(msgspec.Struct):
    """What was used, per action and by outcome."""

    today: Annotated[dict[str, Tally], Meta(description="This UTC day, by action.")]
    month: Annotated[dict[str, Tally], Meta(description="This UTC month, by action.")]
    total: Annotated[dict[str, Tally], Meta(description="Since the account was created, by action.")]


class OwnUsage(LimitsNow):
    user_id: UserId
    usage: Annotated[Used, Meta(description="What was used.")]


class UsageReport(msgspec.Struct, rename={"from_": "from"}):
    from_: _First
    to: _Last
    items: Annotated[list[UsageRow], Meta(description="By user, then by day, then by action.")]
    next_cursor: NextCursor | None


class TopReport(msgspec.Struct):
    period: Annotated[str, Meta(description="UTC day or month.")]
    counter: Annotated[str, Meta(description="What is counted, e.g. `tokens.mint.ok`.")]
    items: Annotated[list[TopRow], Meta(description="The highest count first.")]


class RoomDay(msgspec.Struct):
    date: Day
    usage: Annotated[dict[str, Tally], Meta(description="Counters by action.")]


class RoomReport(msgspec.Struct, rename={"from_": "from"}):
    room_id: RoomId
    from_: _First
    to: _Last
    items: Annotated[list[RoomDay], Meta(description="The days on which the room was used.")]


@get("/api/usage", opt=needs("usage.read"))
async def own_usage(request: Call) -> OwnUsage:
    """Return the current state of the caller's limits, and what they have used. This call costs nothing."""
    admitted = request.auth
    usage = admitted.usage or Usage({}, {}, {})
    used = Used(_sorted(usage.today), _sorted(usage.month), _sorted(usage.total))
    return OwnUsage.of(admitted.decision, user_id=request.user.uid, usage=used)


@get("/api/admin/usage", opt=needs("usage.read-any", refuses=("not_found",)))
async def admin_usage(  # noqa: PLR0913  one argument per query parameter
    request: Call,
    services: Injected,
    from_: _From = None,
    to: _To = None,
    user: Annotated[str | None, QueryParameter(max_length=256, description="Only this user: id or name.")] = None,
    action: Annotated[
        str | None, QueryParameter(max_length=64, description="Only this action, e.g. `tokens.mint`.")
    ] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=500, description="How many users a page has at most.")] = 100,
    cursor: PageCursor = None,
) -> UsageReport:
    """Return what users used per UTC day and action; by default in the last 30 days."""
    days = span_of_days(from_, to)
    if action is not None and action not in ACTIONS and action not in ("login", "api"):
        raise FieldError("action", "is not an action that is counted, e.g. tokens.mint, rooms.create, login, api")
    after = int(services.cursors.open("admin-usage", cursor)[0]) if cursor else 0
    if user is not None:
        user = (await services.report_accounts.lookup(user)).id
    rows, following = await services.reports.daily(days, user=user, action=action, after=after, size=limit)
    services.audit.note_reading("users", by=request.user.uid, subject=user or "")
    next_cursor = services.cursors.seal("admin-usage", following) if following is not None else None
    return UsageReport(days[0].isoformat(), days[1].isoformat(), rows, next_cursor)


@get("/api/admin/usage/top", opt=needs("usage.read-any"))
async def top_usage(
    request: Call,
    services: Injected,
    counter: Annotated[
        str,
        QueryParameter(
            pattern=METRIC, description="Action and outcome, e.g. `tokens.mint.ok` or `api.denied.api` (by limit)."
        ),
    ] = "tokens.mint.ok",
    period: Annotated[
        str | None,
        QueryParameter(
            pattern=PERIOD, description="UTC day or month, e.g. `2026-11-22` or `2026-11`; by default today."
        ),
    ] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="How many users to return at most.")] = 10,
) -> TopReport:
    """Return the users with the highest count of one counter on a UTC day or in a month."""
    period = period or datetime.now(UTC).date().isoformat()
    rows = await services.reports.top(period, counter, limit)
    services.audit.note_reading("top", by=request.user.uid)
    return TopReport(period, counter, rows)


@get("/api/admin/usage/rooms/{room_id:str}", opt=needs("usage.read-any"))
async def room_usage(
    room_id: RoomInPath, request: Call, services: Injected, from_: _From = None, to: _To = None
) -> RoomReport:
    """Return the counters of a room per UTC day; by default in the last 30 days."""
    first, last = span_of_days(from_, to)
    days = await services.reports.of_room(room_id, (first, last))
    services.audit.note_reading("room", by=request.user.uid)
    items = [RoomDay(day.isoformat(), _sorted(tallies)) for day, tallies in days.items()]
    return RoomReport(room_id, first.isoformat(), last.isoformat(), items)


def _sorted(tallies: dict[str, Tally]) -> dict[str, Tally]:
    return dict(sorted(tallies.items()))

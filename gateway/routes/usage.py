"""GET /api/usage: the caller's own limits and counters. GET /api/admin/usage: those of all users and rooms, by day."""

from datetime import date
from typing import Annotated, Literal

import msgspec
from litestar import get
from litestar.params import QueryParameter
from msgspec import Meta

from gateway.http.access import needs
from gateway.http.context import Call
from gateway.http.cursors import PageCursor
from gateway.http.dispatch import Download
from gateway.http.problem_codes import STATUS
from gateway.policy.model import Prices
from gateway.routes.schemas import LimitsNow, NextCursor, RoomId, TimeZone, UserId
from gateway.routes.services import Injected, RoomInPath, Services, UserInPath
from gateway.text import FieldError
from gateway.usage.live import LiveRoom, who_is_where
from gateway.usage.query import Days, GroupBy, Query, check_reason, days_of_period, span_of_days, today_in
from gateway.usage.reports import METRIC, PERIOD, Place
from gateway.usage.rows import Counts, TopRow, UsageDay, UsageRow, shown
from gateway.usage.tables import MEDIA_TYPE, csv_of, name_of
from limits.counters import Usage

_First = Annotated[str, Meta(description="First day of the report.")]
_Last = Annotated[str, Meta(description="Last day of the report.")]
_Currency = Annotated[str | None, Meta(description="Currency of `money`; null if the policy has no prices.")]
_Used = Annotated[list[UsageDay], Meta(description="The days with any use, the oldest first.")]
_From = Annotated[date | None, QueryParameter(name="from", description="First day; by default 29 days before `to`.")]
_To = Annotated[date | None, QueryParameter(description="Last day; by default today in the time zone of the policy.")]


class Used(msgspec.Struct):
    """What was used, per action and by outcome."""

    today: Annotated[dict[str, Counts], Meta(description="This day, by action; `minutes` is time in rooms.")]
    month: Annotated[dict[str, Counts], Meta(description="This month, by action.")]
    total: Annotated[dict[str, Counts], Meta(description="Since the account was created, by action.")]


class OwnUsage(LimitsNow):
    user_id: UserId
    usage: Annotated[Used, Meta(description="What was used.")]
    time_zone: Annotated[str, Meta(description="Time zone of this day and this month.")]


class UsageReport(msgspec.Struct, rename={"from_": "from"}):
    from_: _First
    to: _Last
    time_zone: TimeZone
    currency: _Currency
    items: Annotated[list[UsageRow], Meta(description="By user or room, then by day, then by action.")]
    next_cursor: NextCursor | None


class TopReport(msgspec.Struct):
    period: Annotated[str, Meta(description="Day or month.")]
    time_zone: TimeZone
    counter: Annotated[str, Meta(description="What is counted, e.g. `tokens.mint.ok`.")]
    currency: _Currency
    items: Annotated[list[TopRow], Meta(description="The highest count first.")]


class RoomReport(msgspec.Struct, rename={"from_": "from"}):
    room_id: RoomId
    from_: _First
    to: _Last
    time_zone: TimeZone
    items: _Used


class UserReport(msgspec.Struct, rename={"from_": "from"}):
    user_id: UserId
    username: Annotated[str, Meta(description="Name of the user; empty if the account was deleted.")]
    from_: _First
    to: _Last
    time_zone: TimeZone
    items: _Used


class LiveRooms(msgspec.Struct):
    all_rooms: Annotated[int, Meta(description="How many rooms anybody is in.")]
    all_people: Annotated[int, Meta(description="How many people are in rooms; a second device counts again.")]
    rooms: Annotated[list[LiveRoom], Meta(description="Those with the most people first.")]


@get("/api/usage", opt=needs("usage.read"))
async def own_usage(request: Call) -> OwnUsage:
    """Return the current state of the caller's limits, and what they have used. This call costs nothing."""
    admitted = request.auth
    usage = admitted.usage or Usage({}, {}, {})
    used = Used(shown(usage.today), shown(usage.month), shown(usage.total))
    decision = admitted.decision
    return OwnUsage.of(decision, user_id=request.user.uid, usage=used, time_zone=decision.zone)


@get("/api/admin/usage", opt=needs("usage.read-any", refuses=("not_found",)))
async def admin_usage(  # noqa: PLR0913  one argument per query parameter
    request: Call,
    services: Injected,
    from_: _From = None,
    to: _To = None,
    group_by: Annotated[
        GroupBy | None,
        QueryParameter(description="What a row is about, besides an action; by default a user's day, or a room's."),
    ] = None,
    user: Annotated[
        str | None, QueryParameter(max_length=256, description="Only this user or service key: id or name.")
    ] = None,
    room: Annotated[str | None, QueryParameter(max_length=64, description="Only this room: id.")] = None,
    action: Annotated[
        str | None, QueryParameter(max_length=64, description="Only this action, e.g. `tokens.mint` or `minutes`.")
    ] = None,
    format: Annotated[
        Literal["json", "csv"] | None, QueryParameter(description="By default `json`. A CSV file has all pages.")
    ] = None,
    limit: Annotated[
        int, QueryParameter(ge=1, le=500, description="How many users or rooms a page has at most.")
    ] = 100,
    cursor: PageCursor = None,
) -> UsageReport | Download:
    """Return what was used per day and action, of all users or as grouped; by default in the last 30 days.

    Rows of the action `minutes` count time in rooms, those of `owned` the time of all people in the rooms of a user.
    """
    if user is not None:
        user = (await services.reports.find_user(user)).id
    query = Query(_days(services, from_, to), group_by, user, action, room, services.policy.now.prices)
    after = _place(services, query, cursor)
    services.audit.note_reading(
        "rooms" if "room_id" in query.keys else "users", by=request.user.uid, subject=user or ""
    )
    if format == "csv":
        if cursor:
            raise FieldError("cursor", "must not be given for a CSV file, which has all pages")
        zones = await services.reports.zones_of(query.days)
        pages = services.reports.pages(query)
        return Download(name_of(query, zones, "csv"), MEDIA_TYPE, csv_of(query, pages, zones))
    rows, following = await services.reports.page(query, after=after, size=limit)
    next_cursor = services.cursors.seal(f"usage-{query.pages_of}", *following) if following else None
    return UsageReport(*await _span(services, query.days), _currency(query.prices), rows, next_cursor)


@get("/api/admin/usage/top", opt=needs("usage.read-any"))
async def top_usage(
    request: Call,
    services: Injected,
    counter: Annotated[
        str,
        QueryParameter(
            pattern=METRIC,
            description="`minutes` (in rooms), `owned` (minutes of all people in the user's rooms), `money` (their "
            "price), `denials`, or an action and an outcome, e.g. `tokens.mint.ok` or `api.denied.api` (by limit).",
        ),
    ] = "tokens.mint.ok",
    period: Annotated[
        str | None,
        QueryParameter(pattern=PERIOD, description="Day or month, e.g. `2026-11-22` or `2026-11`; by default today."),
    ] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="How many users to return at most.")] = 10,
) -> TopReport:
    """Return the users with the highest count of one counter on a day or in a month."""
    period = period or today_in(services.policy.zone()).isoformat()
    zones = await services.reports.zones_of(days_of_period(period))
    prices = services.policy.now.prices
    rows = await services.reports.top(period, counter, limit, prices)
    if not rows:
        check_reason(counter, services.policy.now, STATUS)
    services.audit.note_reading("top", by=request.user.uid)
    return TopReport(period, zones.text, counter, _currency(prices), rows)


@get("/api/admin/usage/rooms/{room_id:str}", opt=needs("usage.read-any"))
async def room_usage(
    room_id: RoomInPath, request: Call, services: Injected, from_: _From = None, to: _To = None
) -> RoomReport:
    """Return the counters of a room per day; by default in the last 30 days."""
    span = _days(services, from_, to)
    days = await services.reports.of_room(room_id, span)
    services.audit.note_reading("room", by=request.user.uid)
    return RoomReport(room_id, *await _span(services, span), days)


@get("/api/admin/usage/users/{user:str}", opt=needs("usage.read-any", refuses=("not_found",)))
async def user_usage(
    user: UserInPath, request: Call, services: Injected, from_: _From = None, to: _To = None
) -> UserReport:
    """Return the counters of a user per day; by default in the last 30 days."""
    span = _days(services, from_, to)
    found = await services.reports.find_user(user)
    days = await services.reports.of_user(found.id, span)
    services.audit.note_reading("user", by=request.user.uid, subject=found.id)
    return UserReport(found.id, found.username, *await _span(services, span), days)


@get("/api/admin/rooms/live", opt=needs("usage.read-any"))
async def live_rooms(
    request: Call,
    services: Injected,
    limit: Annotated[int, QueryParameter(ge=1, le=500, description="How many rooms to return at most.")] = 100,
) -> LiveRooms:
    """Return the rooms that anybody is in now, with the people in them, as the events of 100ms say."""
    now = await who_is_where(services.report_store.execute, services.report_accounts, size=limit)
    services.audit.note_reading("live", by=request.user.uid)
    return LiveRooms(now.all_rooms, now.all_people, now.rooms)


def _days(services: Services, first: date | None, last: date | None) -> Days:
    return span_of_days(first, last, today_in(services.policy.zone()))


async def _span(services: Services, days: Days) -> tuple[str, str, str]:
    """Return the first and the last day of a report, and in which time zone they were counted."""
    first, last = days
    return first.isoformat(), last.isoformat(), (await services.reports.zones_of(days)).text


def _place(services: Services, query: Query, cursor: str | None) -> Place | None:
    return tuple(services.cursors.open(f"usage-{query.pages_of}", cursor)) if cursor else None


def _currency(prices: Prices | None) -> str | None:
    return prices.currency if prices else None

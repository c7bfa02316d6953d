"""/api/admin/overview, live and denials: what the whole installation does, for the operator's page."""

from collections import Counter
from datetime import UTC, date, datetime
from typing import Annotated

import msgspec
from litestar import get
from litestar.params import QueryParameter
from msgspec import Meta

from gateway.http.access import needs
from gateway.http.admission import bearer_of
from gateway.http.context import Call
from gateway.http.dispatch import EventStream
from gateway.overview.points import Point, Sums
from gateway.overview.totals import Range, total_of
from gateway.routes.schemas import Day
from gateway.routes.services import Injected
from gateway.usage.query import span_of_days

_From = Annotated[
    date | None, QueryParameter(name="from", description="First UTC day; by default 29 days before `to`.")
]
_To = Annotated[date | None, QueryParameter(description="Last UTC day; by default today.")]
_Limit = Annotated[str, Meta(description="Name of the limit or quota.")]
_Action = Annotated[str, Meta(description="What was denied, e.g. `tokens.mint`; other requests are `api`.")]
_Count = Annotated[int, Meta(description="Denied requests.")]


class Overview(msgspec.Struct):
    range: Annotated[Range, Meta(description="As asked for.")]
    step_s: Annotated[int | None, Meta(description="Seconds in a step; null: a step is a UTC month.")]
    time_zone: Annotated[str, Meta(description="Time zone of days and months; always `UTC`.")]
    currency: Annotated[str | None, Meta(description="Currency of `money`; null if the policy has no prices.")]
    points: Annotated[list[Point], Meta(description="One per step, the oldest first; also those without any use.")]
    totals: Annotated[Sums, Meta(description="Sums of all points.")]
    people_now: Annotated[int, Meta(description="How many people are in rooms; a second device counts again.")]
    rooms_now: Annotated[int, Meta(description="How many rooms anybody is in.")]


class DayDenials(msgspec.Struct):
    """How often a limit denied an action on a day."""

    date: Day
    limit: _Limit
    action: _Action
    count: _Count


class LimitDenials(msgspec.Struct):
    limit: _Limit
    count: _Count


class ActionDenials(msgspec.Struct):
    action: _Action
    count: _Count


class Denials(msgspec.Struct, rename={"from_": "from"}):
    from_: Annotated[str, Meta(description="First UTC day of the report.")]
    to: Annotated[str, Meta(description="Last UTC day of the report.")]
    total: _Count
    limits: Annotated[list[LimitDenials], Meta(description="By limit, the most first.")]
    actions: Annotated[list[ActionDenials], Meta(description="By action, the most first.")]
    items: Annotated[list[DayDenials], Meta(description="By day, then by action and limit; only days with denials.")]


@get("/api/admin/overview", opt=needs("usage.read-any"))
async def overview(
    services: Injected,
    range_: Annotated[
        Range | None,
        QueryParameter(
            name="range",
            description="How far back, in steps of a minute, of five minutes, of days or of months; by default `24h`.",
        ),
    ] = None,
) -> Overview:
    """Return requests by outcome and time in rooms of the whole installation over time, and who is online now."""
    wanted, prices = range_ or "24h", services.policy.now.prices
    series = await services.totals.series(wanted, datetime.now(UTC))
    people, rooms = await services.presence.now()
    points = [Point.of_step(step, prices) for step in series.points]
    totals = Sums.of(total_of(series.points), prices)
    currency = prices.currency if prices else None
    return Overview(wanted, series.step_s, "UTC", currency, points, totals, people, rooms)


@get("/api/admin/live", opt=needs("usage.read-any", refuses=("busy",)), media_type="text/event-stream")
async def live(request: Call, services: Injected) -> EventStream:
    """Send events (`text/event-stream`) while things change: `overview`, at most every two seconds.

    Their data is JSON: `people_now`, `rooms_now`, `points` (the minute before and this one, as in the overview),
    `webhooks_waiting`, `webhook_lag_ms`, `dead_letters`. A comment every 15 s shows that the connection is alive. The
    event `end` tells its `reason` in the end: `token_expired`, `session_ended`, `forbidden` or `unavailable`. A process
    has at most 50 streams, and 10 of one user.
    """
    return EventStream(services.live.follow(request.user, bearer_of(request.scope)))


@get("/api/admin/denials", opt=needs("usage.read-any"))
async def denials(services: Injected, from_: _From = None, to: _To = None) -> Denials:
    """Return how many requests of all users were denied, by limit, action and UTC day."""
    first, last = span_of_days(from_, to)
    found = await services.totals.denials((first, last))
    limits, actions = Counter[str](), Counter[str]()
    for one in found:
        limits[one.limit] += one.count
        actions[one.action] += one.count
    return Denials(
        first.isoformat(),
        last.isoformat(),
        limits.total(),
        [LimitDenials(*pair) for pair in limits.most_common()],
        [ActionDenials(*pair) for pair in actions.most_common()],
        [DayDenials(one.day.isoformat(), one.limit, one.action, one.count) for one in found],
    )

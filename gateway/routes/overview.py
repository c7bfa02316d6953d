"""/api/admin/overview, denials: what the whole installation does, for the operator's page."""

from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Self

import msgspec
from litestar import get
from litestar.params import QueryParameter
from msgspec import UNSET, Meta, UnsetType

from gateway.http.access import needs
from gateway.overview.totals import Range, Total, total_of
from gateway.policy.model import Prices
from gateway.routes.schemas import Day, Instant, iso
from gateway.routes.services import Injected
from gateway.usage.query import span_of_days
from gateway.usage.rows import minutes_of, money_of

_From = Annotated[
    date | None, QueryParameter(name="from", description="First UTC day; by default 29 days before `to`.")
]
_To = Annotated[date | None, QueryParameter(description="Last UTC day; by default today.")]
_Limit = Annotated[str, Meta(description="Name of the limit or quota.")]
_Action = Annotated[str, Meta(description="What was denied, e.g. `tokens.mint`; other requests are `api`.")]
_Count = Annotated[int, Meta(description="Denied requests.")]


class Totals(msgspec.Struct, kw_only=True):
    """Requests of all users by outcome, and their time in rooms."""

    ok: Annotated[int, Meta(description="Requests that succeeded.")]
    denied: Annotated[int, Meta(description="Requests that a limit denied.")]
    refused: Annotated[int, Meta(description="Requests refused for another reason than a limit.")]
    failed: Annotated[int, Meta(description="Requests that failed because of the server.")]
    minutes: Annotated[float, Meta(description="Time of all people in rooms, in minutes to two decimals.")]
    seconds: Annotated[int, Meta(description="Exact number behind `minutes`.")]
    money: Annotated[
        Decimal | UnsetType, Meta(description="Price of these minutes; only where the policy has prices.")
    ] = UNSET

    @classmethod
    def of(cls, total: Total, prices: Prices | None) -> Self:
        return cls(**_numbers(total, prices))


class Point(Totals, kw_only=True):
    """The totals of one step."""

    at: Annotated[Instant, Meta(description="When the step begins. The last step is not over yet.")]


class Overview(msgspec.Struct):
    range: Annotated[Range, Meta(description="As asked for.")]
    step_s: Annotated[int | None, Meta(description="Seconds in a step; null: a step is a UTC month.")]
    time_zone: Annotated[str, Meta(description="Time zone of days and months; always `UTC`.")]
    currency: Annotated[str | None, Meta(description="Currency of `money`; null if the policy has no prices.")]
    points: Annotated[list[Point], Meta(description="One per step, the oldest first; also those without any use.")]
    totals: Annotated[Totals, Meta(description="Sums of all points.")]
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
    points = [Point(at=_at(at), **_numbers(total, prices)) for at, total in series.points]
    totals = Totals.of(total_of(series.points), prices)
    currency = prices.currency if prices else None
    return Overview(wanted, series.step_s, "UTC", currency, points, totals, people, rooms)


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


def _numbers(total: Total, prices: Prices | None) -> dict[str, Any]:
    return {
        "ok": total.ok,
        "denied": total.denied,
        "refused": total.refused,
        "failed": total.failed,
        "minutes": minutes_of(total.seconds),
        "seconds": total.seconds,
        "money": money_of(total.seconds, prices),
    }


def _at(at: datetime) -> str:
    return iso(at.timestamp())

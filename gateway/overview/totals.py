"""Totals of the whole installation over time: requests by outcome, minutes in rooms, their price; and denials."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Literal, Self, TypeAlias

from gateway.usage.query import Days
from limits import Execute
from limits.counters import ACTING, ALL, METERED, Daily, split_metric
from limits.minutes import SECONDS, read_minutes

Range: TypeAlias = Literal["1h", "24h", "30d", "12mo"]

MINUTES = "minutes.ok"
_STEPS: dict[str, tuple[int, int]] = {"1h": (1, 60), "24h": (5, 288)}  # minutes in a point, points
_DAYS, _MONTHS = 30, 12
_COUNTED_TWICE = {*METERED, ACTING}

Read: TypeAlias = Callable[[str, date, date], Awaitable[Daily]]
"""Reads a subject's counters of each day in a span."""


@dataclass(frozen=True, slots=True)
class Total:
    """How many requests had which outcome, and how many seconds people were in rooms."""

    ok: int = 0
    denied: int = 0
    refused: int = 0
    failed: int = 0
    seconds: int = 0

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> Self:
        """Return the total of counts by outcome, and of `seconds`, which corrections may have left below zero."""
        ok, denied, refused, failed = (counts.get(name, 0) for name in ("ok", "denied", "refused", "failed"))
        return cls(ok, denied, refused, failed, max(0, counts.get(SECONDS, 0)))


Step: TypeAlias = tuple[datetime, Total]
"""When a step begins, and its total. Days and months begin in the zone of reports, other steps are in UTC."""


@dataclass(frozen=True, slots=True)
class Series:
    """Totals of consecutive steps. `step_s` is None for months, which differ in length."""

    step_s: int | None
    points: list[Step]


@dataclass(frozen=True, slots=True)
class Denial:
    """How often a limit denied an action on a day."""

    day: date
    limit: str
    action: str
    count: int


class Totals:
    """Reads totals. `daily` reads days, also those that only the archive has."""

    def __init__(self, execute: Execute, daily: Read) -> None:
        self._execute = execute
        self._daily = daily

    async def series(self, wanted: Range, now: datetime) -> Series:
        """Return the totals up to an instant in the zone of reports; its minute, day or month is the last step."""
        if wanted in _STEPS:
            return await self._by_minute(*_STEPS[wanted], now)
        if wanted == "30d":
            first = now.date() - timedelta(days=_DAYS - 1)
            daily = await self._daily(ALL, first, now.date())
            days = [first + timedelta(days=n) for n in range(_DAYS)]
            points = [(_midnight(day, now.tzinfo), Total.of(_outcomes([daily.get(day, {})]))) for day in days]
            return Series(86_400, points)
        months = _last_months(now.date())
        daily = await self._daily(ALL, months[0], now.date())
        by_month: dict[date, list[Mapping[str, int]]] = {}
        for day, counts in daily.items():
            by_month.setdefault(day.replace(day=1), []).append(counts)
        points = [(_midnight(month, now.tzinfo), Total.of(_outcomes(by_month.get(month, [])))) for month in months]
        return Series(None, points)

    async def denials(self, days: Days) -> list[Denial]:
        """Return what was denied, by day, limit and action."""
        return [
            Denial(day, parts[2], parts[0], count)
            for day, counts in (await self._daily(ALL, *days)).items()
            for metric, count in sorted(counts.items())
            if count and (parts := split_metric(metric)) and parts[1] == "denied"
        ]

    async def last_minutes(self, now: datetime) -> list[Step]:
        """Return the totals of the minute before an instant's, and of its own."""
        return (await self._by_minute(1, 2, now)).points

    async def _by_minute(self, step: int, size: int, now: datetime) -> Series:
        last = int(now.timestamp()) // 60
        first = last - last % step - step * (size - 1)
        found = await read_minutes(self._execute, first, last, step=step)
        points = [(datetime.fromtimestamp(begin * 60, UTC), Total.of(counts)) for begin, counts in found.items()]
        return Series(step * 60, points)


def total_of(points: Iterable[Step]) -> Total:
    """Return the sum of steps."""
    totals = [total for _, total in points]
    return Total(
        sum(one.ok for one in totals),
        sum(one.denied for one in totals),
        sum(one.refused for one in totals),
        sum(one.failed for one in totals),
        sum(one.seconds for one in totals),
    )


def _outcomes(days: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sum the counters of days over all actions, by outcome. `owned` and `act-as` count once more what others do."""
    totals: dict[str, int] = {}
    for counts in days:
        for metric, count in counts.items():  # a year has some thousand
            totals[metric] = totals.get(metric, 0) + count
    sums = {SECONDS: totals.get(MINUTES, 0)}
    for metric, count in totals.items():
        if (parts := split_metric(metric)) and parts[0] not in _COUNTED_TWICE:
            sums[parts[1]] = sums.get(parts[1], 0) + count
    return sums


def _midnight(day: date, zone: tzinfo | None) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone)


def _last_months(today: date) -> list[date]:
    """Return the first days of the last twelve months, the oldest first."""
    number = today.year * 12 + today.month - 1
    return [date(one // 12, one % 12 + 1, 1) for one in range(number - _MONTHS + 1, number + 1)]

"""UTC days and months: which counter fields a moment belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

US_PER_DAY = 86_400 * 1_000_000


@dataclass(frozen=True, slots=True)
class Day:
    """One UTC day: the month its counters lie in (`2026-11`), its field there (`22`), its end in epoch microseconds."""

    month: str
    field: str
    end_us: int


@lru_cache(maxsize=8)
def _day(number: int) -> Day:
    start = datetime.fromtimestamp(number * 86_400, UTC)
    return Day(f"{start:%Y-%m}", f"{start:%d}", (number + 1) * US_PER_DAY)


def day_of(now_us: int) -> Day:
    """Return the UTC day that holds an instant (epoch microseconds)."""
    return _day(now_us // US_PER_DAY)


def months_between(first: date, last: date) -> list[str]:
    """Return the months (`2026-11`) that two days and all between them lie in, oldest first."""
    months = []
    at = first.replace(day=1)
    while at <= last:
        months.append(f"{at:%Y-%m}")
        at = (at + timedelta(days=31)).replace(day=1)
    return months

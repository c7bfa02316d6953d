"""Calendar periods of a time zone: days and months for counters; days, weeks and months for quotas."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

US_PER_DAY = 86_400 * 1_000_000
PERIODS = ("day", "week", "month")

Zone = Callable[[], str]
"""Returns the time zone of the days and months of counters, by its IANA name. It may change while a process runs."""


def utc() -> str:
    return "UTC"


class Day(Struct, frozen=True):
    """A day: the month its counters lie in (`2026-11`), its field there (`22`), its end in epoch microseconds."""

    month: str
    field: str
    end_us: int

    @property
    def name(self) -> str:
        """The day with its month and year: `2026-11-22`."""
        return f"{self.month}-{self.field}"


@dataclass(frozen=True, slots=True)
class Span:
    """One period of a calendar: its id, and its bounds in epoch microseconds. DST makes days of 23 and 25 h."""

    id: str
    start_us: int
    end_us: int

    @property
    def seconds(self) -> int:
        return (self.end_us - self.start_us) // 1_000_000


def day_of(at_us: int, zone: str) -> Day:
    """Return the day of a time zone that holds an instant (epoch microseconds)."""
    span = span_of("day", zone, at_us)
    return Day(span.id[:7], span.id[8:], span.end_us)


def months_between(first: date, last: date) -> list[str]:
    """Return the months (`2026-11`) that two days and all between them lie in, oldest first."""
    months = []
    at = first.replace(day=1)
    while at <= last:
        months.append(f"{at:%Y-%m}")
        at = (at + timedelta(days=31)).replace(day=1)
    return months


@lru_cache(maxsize=64)
def zone_of(name: str) -> ZoneInfo:
    """Return a time zone by its IANA name. Raises: ValueError"""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name!r}") from None


def span_of(period: str, zone: str, at_us: int) -> Span:
    """Return the day, ISO week or month of a time zone that holds an instant (epoch microseconds)."""
    local = datetime.fromtimestamp(at_us // 1_000_000, zone_of(zone)).date()
    return _span(period, zone, local)


def day_span(day: date, zone: str) -> Span:
    """Return a day of a time zone."""
    return _span("day", zone, day)


@lru_cache(maxsize=512)
def _span(period: str, zone: str, local: date) -> Span:
    if period == "day":
        first, following, name = local, local + timedelta(days=1), local.isoformat()
    elif period == "week":
        first = local - timedelta(days=local.weekday())
        following = first + timedelta(days=7)
        year, week, _ = local.isocalendar()
        name = f"{year}-W{week:02}"
    else:
        first = local.replace(day=1)
        following = (first + timedelta(days=31)).replace(day=1)
        name = f"{local:%Y-%m}"
    return Span(name, _midnight_us(first, zone), _midnight_us(following, zone))


def _midnight_us(day: date, zone: str) -> int:
    """Return when a local day begins. Where DST skips midnight itself, `fold` 0 gives the instant of the jump."""
    return int(datetime(day.year, day.month, day.day, tzinfo=zone_of(zone)).timestamp()) * 1_000_000

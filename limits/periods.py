"""Calendar periods: UTC days and months for counters; days, weeks and months in a quota's time zone."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

US_PER_DAY = 86_400 * 1_000_000
PERIODS = ("day", "week", "month")


class Day(Struct, frozen=True):
    """One UTC day: the month its counters lie in (`2026-11`), its field there (`22`), its end in epoch microseconds."""

    month: str
    field: str
    end_us: int


@dataclass(frozen=True, slots=True)
class Span:
    """One period of a calendar: its id, and its bounds in epoch microseconds. DST makes days of 23 and 25 h."""

    id: str
    start_us: int
    end_us: int

    @property
    def seconds(self) -> int:
        return (self.end_us - self.start_us) // 1_000_000


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

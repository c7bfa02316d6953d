"""Meters time: credits intervals to the counters of an account, each exactly once however often it is reported.

Seconds are counted under `<metric>.ok`, in the same hashes as requests. `credit.lua` does it in one call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterator, Sequence
from functools import lru_cache
from importlib.resources import files

from msgspec import Struct

from . import Execute
from .limiter import KEEP_COUNTERS_MS, metered_field
from .periods import US_PER_DAY, Span, span_of

OPEN, ENDED, CONFIRMED = 0, 1, 2
"""Ranks of what is known about an interval: it is open, its end was reported, or its end was confirmed."""

MS_PER_DAY = 86_400_000
MOST_MS = 25 * 3_600_000  # of one interval: three days at most, and two months
KEEP_LEDGER_MS = 40 * MS_PER_DAY  # from an interval's start; a report that comes later would be credited again
KEEP_OWN_MS = 62 * MS_PER_DAY
_MOST_PER_CALL = 100  # so that no call occupies Redis for more than some milliseconds
_CREDIT = files(__package__).joinpath("credit.lua").read_text()

Calendars = Collection[tuple[str, str]]
"""(period, time zone) of the calendars that are counted beside the days and months of the counters."""


class Interval(Struct, frozen=True):
    """A span of time, with what is known of its end: `left_ms`, until which it counts, is of `rank` as of `stamp_ms`.

    `id` names it in the ledger, `open_id` among the open ones. `note` is kept in the ledger, `open` while it is open:
    a text, empty exactly if `rank` is not OPEN.
    """

    id: str
    open_id: str
    start_ms: int
    left_ms: int
    rank: int
    stamp_ms: int
    note: str = ""
    open: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.start_ms <= self.left_ms <= self.start_ms + MOST_MS:
            raise ValueError("an interval must end after its start, within 25 hours")
        if self.rank not in (OPEN, ENDED, CONFIRMED) or self.stamp_ms < 0 or bool(self.open) != (self.rank == OPEN):
            raise ValueError("an interval must be open, ended or confirmed")


class Account(Struct, frozen=True):
    """Where time is credited: full keys, which share a cluster slot. `zone` is that of the counters' days and months.

    `counters` is the stem of usage counters (`uc:1:{<uid>}`), `own` the key of those in other calendars. With
    `counts_most`, the largest number of intervals that were open at once is kept as `people.peak`.
    """

    ledger: str
    open: str
    counters: str
    own: str
    metric: str
    counts_most: bool = False
    zone: str = "UTC"

    @property
    def kind(self) -> tuple[str, bool, str]:
        """What the periods of an account depend on: metric, `counts_most`, zone."""
        return self.metric, self.counts_most, self.zone


class Credited(Struct, frozen=True):
    """What one interval changed. `change_s` may be negative: what was credited too much."""

    is_new: bool
    has_changed: bool
    change_s: int


class Changes(Struct, frozen=True):
    """What intervals changed: each of them, in their order; and each day (`2026-11-22`) and month, in seconds."""

    each: tuple[Credited, ...]
    periods: dict[str, int]


class Metered:
    """Credits intervals. What `execute` raises passes through; repeating a call is always safe."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    async def credit(self, account: Account, intervals: Sequence[Interval], calendars: Calendars = ()) -> Changes:
        """Credit intervals to one account; those that were credited before change only what is now known better."""
        by_day: dict[int, list[int]] = {}
        for at, interval in enumerate(intervals):
            by_day.setdefault(interval.start_ms // MS_PER_DAY, []).append(at)
        parts = [
            (day, places[at : at + _MOST_PER_CALL])
            for day, places in by_day.items()
            for at in range(0, len(places), _MOST_PER_CALL)
        ]
        zones = tuple(sorted(calendars))
        replies = await asyncio.gather(
            *(self._call(account, day, [intervals[at] for at in places], zones) for day, places in parts)
        )
        each: list[Credited] = [Credited(False, False, 0)] * len(intervals)
        sums: dict[str, int] = {}
        for (day, places), reply in zip(parts, replies, strict=True):
            for n, at in enumerate(places):
                status, change_s = reply[2 * n : 2 * n + 2]
                each[at] = Credited(status == 2, status > 0, change_s)
            names = _periods(day, account.kind, zones).names
            for name, change_s in zip(names, reply[2 * len(places) :], strict=True):
                if name and change_s:
                    sums[name] = sums.get(name, 0) + change_s
        return Changes(tuple(each), sums)

    def _call(
        self, account: Account, day: int, intervals: Sequence[Interval], zones: tuple[tuple[str, str], ...]
    ) -> Awaitable[list[int]]:
        periods = _periods(day, account.kind, zones)
        months = (f"{account.counters}:{month}" for month in periods.months)
        keys = [account.ledger, account.open, *months, f"{account.counters}:all", account.own]
        words: list[str | int] = [account.metric, len(periods.names), KEEP_COUNTERS_MS]
        words += ((day + 1) * MS_PER_DAY + KEEP_LEDGER_MS, KEEP_OWN_MS, *periods.words)
        for one in intervals:
            words += (one.id, one.open_id, one.start_ms, one.left_ms, one.rank, one.stamp_ms, one.note, one.open)
        return self._execute("EVAL", _CREDIT, len(keys), *keys, *words)


class _Periods(Struct, frozen=True):
    """The periods that intervals of one start day (UTC) can lie in; without a name, those of other calendars."""

    months: tuple[str, str]
    names: tuple[str, ...]
    words: tuple[str | int, ...]


@lru_cache(maxsize=256)
def _periods(day: int, kind: tuple[str, bool, str], zones: tuple[tuple[str, str], ...]) -> _Periods:
    metric, counts_most, own_zone = kind
    since, until = day * US_PER_DAY, (day + 1) * US_PER_DAY + MOST_MS * 1000
    days = list(_spans("day", own_zone, since, until))
    months = list(_spans("month", own_zone, since, until))
    key_of = {span.id: 3 + at for at, span in enumerate(months)}
    names: list[str] = []
    words: list[str | int] = []
    for span in [*days, *months]:
        is_day = span in days
        field = span.id[8:] if is_day else "*"
        most = f"{field}:people.peak" if counts_most else ""
        names.append(span.id)
        words += [key_of[span.id[:7]], f"{field}:{metric}.ok", most, *_seconds(span), ""]
    for period, zone in zones:
        for span in _spans(period, zone, since, until):
            oldest = span_of(period, zone, span.start_us - KEEP_OWN_MS * 1000).id
            names.append("")
            words += [6, f"{metered_field(metric, period, zone)}:{span.id}", "", *_seconds(span), oldest]
    # With one month the script's second key is never written.
    return _Periods((months[0].id, months[-1].id), tuple(names), tuple(words))


def _spans(period: str, zone: str, since_us: int, until_us: int) -> Iterator[Span]:
    at_us = since_us
    while at_us < until_us:
        span = span_of(period, zone, at_us)
        yield span
        at_us = span.end_us


def _seconds(span: Span) -> tuple[int, int]:
    return span.start_us // 1_000_000, span.end_us // 1_000_000

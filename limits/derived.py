"""Data derived from decisions, written after them: top lists across users, counters of rooms, totals of all users.

Totals are of days and months and, for the last two days, of minutes (see `minutes`). With the totals of a day is the
time zone in which it was counted, as a counter `zone.<name>` of 1; after a change of the zone a day may have two.

Outcomes are summed in the process and sent every `FLUSH_S`, without waiting: of a thousand mints in one room Redis gets
a few commands, not four each (0.92 of the gateway's CPU per mint, 0.82 of Redis'). A process that is killed loses the
sums of its last `FLUSH_S`. Top lists and totals can be rebuilt from the users' own counters (`rebuild`).
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import TypeVar

from . import Execute
from .counters import ACTING, ALL, METERED, PEAK, ZONE, Counters, split_metric
from .limiter import KEEP_COUNTERS_MS
from .minutes import KEEP_S as KEEP_MINUTES_S
from .minutes import SECONDS, US_PER_MINUTE, place_of, spread
from .periods import Day, Zone, day_of, months_between, utc

T = TypeVar("T")

Post = Callable[..., None]
"""Sends one Redis command without waiting for the reply; errors are ignored."""

DENIALS = "denials"
"""The top list of denials, whatever the action and the limit."""

FLUSH_S = 0.1

MOST_KEPT = 1_000
"""How many subjects a top list of a finished day or month keeps: with a million users, each list takes 75 MB."""

_AT_ONCE = 1_000  # subjects that Redis removes in one call, which takes it less than a millisecond
_KEEP_S = KEEP_COUNTERS_MS // 1000
KEEP_DAYS = _KEEP_S // 86_400
_MOST_REMEMBERED = 10_000


class Derived:
    """Counts outcomes in top lists, in the counters of rooms and in those of the whole installation.

    These are `tp:1:<day or month>:<metric>`, `rc:1:{room}:<month>` and `uc:1:{all}:<month>`, where also denials are.
    """

    def __init__(self, execute: Execute, post: Post, *, zone: Zone = utc) -> None:
        self._execute = execute
        self._post = post
        self._zone = zone
        self._expiring: set[str] = set()
        self._marked: set[tuple[str, str]] = set()
        self._noted: Counter[tuple[str, str, int, str | None]] = Counter()  # since the last flush
        self._seconds: Counter[int] = Counter()  # the same, by minute

    def note(self, subject: str, metric: str, now_us: int, *, room: str | None = None) -> None:
        """Count one outcome, e.g. `tokens.mint.ok`, for a subject and for the room it was about."""
        if not self._noted:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        self._noted[subject, metric, now_us // US_PER_MINUTE, room] += 1

    def note_seconds(self, end_ms: int, change_s: int) -> None:
        """Count seconds in rooms up to an instant, or after it those that were counted too much, in their minutes."""
        if not self._seconds:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        for minute, seconds in spread(end_ms, change_s):
            self._seconds[minute] += seconds

    def flush(self) -> None:
        """Send what was counted since the last flush."""
        noted, self._noted = self._noted, Counter()
        seconds, self._seconds = self._seconds, Counter()
        sums: Counter[tuple[str, str, str]] = Counter()
        zone, days = self._zone(), dict[int, Day]()
        minutes: Counter[tuple[int, str]] = Counter({(minute, SECONDS): count for minute, count in seconds.items()})
        for (subject, metric, minute, room), count in noted.items():
            day = days.get(minute) or days.setdefault(minute, day_of(minute * US_PER_MINUTE, zone))
            if (parts := split_metric(metric)) and parts[0] != ACTING:
                minutes[minute, parts[1]] += count
            for period in (day.name, day.month):
                for name in _lists(metric):
                    sums["ZINCRBY", f"tp:1:{period}:{name}", subject] += count
            for field in (day.field, "*"):
                sums["HINCRBY", _totals(day.month), f"{field}:{metric}"] += count
                if room is not None:
                    sums["HINCRBY", f"rc:1:{{{room}}}:{day.month}", f"{field}:{metric}"] += count
        for (command, key, member), count in sums.items():
            self._bump(command, key, count, member)
        self.mark((day.name for day in days.values()), zone)
        for (minute, what), count in minutes.items():
            key, field = place_of(minute)
            self._bump("HINCRBY", key, count, f"{field}:{what}", keep_s=KEEP_MINUTES_S)

    def rank(self, subject: str, metric: str, periods: Mapping[str, int]) -> None:
        """Add to a subject's place in the top lists of days and months, at once. The numbers may be negative."""
        for period, count in periods.items():
            self._bump("ZINCRBY", f"tp:1:{period}:{metric}", count, subject)

    def mark(self, days: Iterable[str], zone: str) -> None:
        """Note in which time zone days are counted; any other period is passed over."""
        for day in days:
            month, field = day[:7], day[8:]
            if field and (day, zone) not in self._marked:
                _remember(self._marked, (day, zone))
                self._post("HSET", _totals(month), f"{field}:{ZONE}{zone}", 1)

    async def top(self, period: str, metric: str, size: int) -> list[tuple[str, int]]:
        """Return the subjects with the highest counts of a metric on a day (`2026-11-22`) or in a month."""
        reply = await self._execute("ZREVRANGE", f"tp:1:{period}:{metric}", 0, size - 1, "WITHSCORES")
        return [(subject.decode(), int(score)) for subject, score in reply]

    async def shorten(self, since: date, through: date) -> int:
        """Reduce the top lists of the days from `since` to `through`, which have ended, to their first `MOST_KEPT`.

        Those of months that have ended by then, too. Returns how many subjects were removed. A later correction may
        bring a removed subject back with less than its count, and so never further up than it belongs.
        """
        removed = 0
        for month in months_between(since, through):
            counted = [name.decode().partition(":") for name in await self._execute("HKEYS", _totals(month))]
            for field in sorted({field for field, _, _ in counted}):
                period, last = _period(month, field)
                if since <= last <= through:
                    metrics = {metric for day, _, metric in counted if day == field}
                    metrics |= {f"{action}.ok" for action in METERED}  # totals do not count `owned`
                    for top in sorted({top for metric in metrics for top in _lists(metric)}):
                        removed += await self._shorten(f"tp:1:{period}:{top}")
        return removed

    async def _shorten(self, key: str) -> int:
        size = first = int(await self._execute("ZCARD", key))
        while size > MOST_KEPT:
            size -= int(await self._execute("ZREMRANGEBYRANK", key, 0, min(size - MOST_KEPT, _AT_ONCE) - 1))
        return first - size

    async def rebuild(self, month: str, subjects: AsyncIterable[str], counters: Counters) -> int:
        """Rebuild a month's top lists and totals from the subjects' own counters; return how many subjects had any.

        Each is replaced after all subjects have been read; what is counted in between may count twice or be missing.
        Totals of minutes are not derived and stay as they are. Without any counters, nothing is replaced: Redis may
        have forgotten them before it forgets the lists.
        """
        scores: dict[str, Counter[str]] = {}
        totals: Counter[str] = Counter()
        found = 0
        async for subject in subjects:
            raw = await counters.raw_month(subject, month)
            found += bool(raw)
            for name, count in raw:
                field, _, metric = name.partition(":")
                period = month if field == "*" else f"{month}-{field}"
                for top in _lists(metric):
                    scores.setdefault(f"tp:1:{period}:{top}", Counter())[subject] += count
                if not _is_exact(metric):
                    totals[name] += count
        if not found:
            return 0
        for key, counts in scores.items():
            await self._execute("DEL", key)
            await self._write("ZADD", key, [word for subject, count in counts.items() for word in (count, subject)])
        stored = (name.decode() for name in await self._execute("HKEYS", _totals(month)))
        if stale := [name for name in stored if not _is_exact(name.partition(":")[2])]:
            await self._execute("HDEL", _totals(month), *stale)
        await self._write("HSET", _totals(month), [word for item in totals.items() for word in item])
        return found

    async def _write(self, command: str, key: str, words: Sequence[str | int]) -> None:
        for at in range(0, len(words), 2000):
            await self._execute(command, key, *words[at : at + 2000])
        await self._execute("EXPIRE", key, _KEEP_S)

    def _bump(self, command: str, key: str, count: int, member: str, *, keep_s: int = _KEEP_S) -> None:
        self._post(command, key, *((count, member) if command == "ZINCRBY" else (member, count)))
        if key not in self._expiring:
            _remember(self._expiring, key)
            self._post("EXPIRE", key, keep_s)


def _remember(known: set[T], one: T) -> None:
    if len(known) > _MOST_REMEMBERED:
        known.clear()
    known.add(one)


def _period(month: str, field: str) -> tuple[str, date]:
    """Return the name and the last day of what a field of a month's totals counts: a day, or with `*` the month."""
    first = date.fromisoformat(f"{month}-01")
    if field != "*":
        return f"{month}-{field}", first.replace(day=int(field))
    return month, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)


def _totals(month: str) -> str:
    return f"uc:1:{{{ALL}}}:{month}"


def _lists(metric: str) -> Sequence[str]:
    """Return the top lists in which a metric counts: its own, and that of all denials if it is one."""
    parts = split_metric(metric)
    if parts is None:
        return ()
    return (metric, DENIALS) if parts[1] == "denied" else (metric,)


def _is_exact(metric: str) -> bool:
    """Tell whether a metric of the totals is counted by itself and not derived."""
    return metric == PEAK or metric.startswith((ZONE, *(f"{action}." for action in METERED)))

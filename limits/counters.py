"""Reads the usage counters that `take.lua` and `amend.lua` write.

A month's hash holds a field per day and metric (`22:tokens.mint.ok`) and one for the whole month
(`*:tokens.mint.ok`); `uc` holds what was allowed, `dn` what was denied. Days and months are those of the time zone in
which they were counted.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Annotated, Any

from msgspec import Meta, Struct

from . import Execute
from .periods import Day, day_of, months_between

METERED = ("minutes", "owned")
"""Actions whose counters hold seconds, not requests: time in rooms, and everyone's time in the rooms of an owner."""

ACTING = "act-as"
"""The action under which a service key counts requests for users, which count as their own actions, too."""

ALL = "all"
"""The subject under which the whole installation is counted: minutes exactly, requests derived (see `derived`)."""

PEAK = "people.peak"
"""The counter of the largest number of people at once; it is no sum."""

ZONE = "zone."
"""How a counter of a day of all begins that names the time zone in which the day was counted; it is 1."""

_OUTCOMES = ("ok", "denied", "refused", "failed", "would_deny")

Done = Annotated[int, Meta(description="Requests that succeeded.")]
Denied = Annotated[dict[str, int], Meta(description="Requests that a limit denied, by limit.")]
Refused = Annotated[dict[str, int], Meta(description="Requests refused for another reason than a limit, by code.")]
Failed = Annotated[int, Meta(description="Requests that failed because of the server; they cost nothing.")]
WouldDeny = Annotated[
    dict[str, int], Meta(description="Admitted requests that a shadow limit would have denied, by limit.")
]


class Tally(Struct):
    """Requests of one action by outcome; of a metered one, `ok` is seconds."""

    ok: Done = 0
    denied: Denied = {}
    refused: Refused = {}
    failed: Failed = 0
    would_deny: WouldDeny = {}

    def add(self, outcome: str, detail: str, count: int) -> None:
        if outcome == "ok":
            self.ok += count
        elif outcome == "failed":
            self.failed += count
        else:
            into = {"denied": self.denied, "refused": self.refused, "would_deny": self.would_deny}[outcome]
            into[detail] = into.get(detail, 0) + count


Tallies = dict[str, Tally]
"""action -> Tally."""

Daily = dict[date, dict[str, int]]
"""Day -> metric (`tokens.mint.ok`) -> count; days without use are left out."""


@dataclass(frozen=True, slots=True)
class Usage:
    """A subject's own counters: this day, this month, all time."""

    today: Tallies
    month: Tallies
    total: Tallies


@lru_cache(maxsize=1024)  # metrics are few; a tally of ten counters takes 25 us instead of 51
def split_metric(metric: str) -> tuple[str, str, str] | None:
    """Split `tokens.mint.denied.api` into action, outcome and detail; None for a field that is no such metric.

    Actions and limits may contain dots, so the outcome is the first of the four words that follows an action.
    """
    words = metric.split(".")
    for at in range(1, len(words)):
        if words[at] in _OUTCOMES:
            return ".".join(words[:at]), words[at], ".".join(words[at + 1 :])
    return None


def tally(counts: Iterable[tuple[str, int]]) -> Tallies:
    """Fold (metric, count) pairs into tallies per action."""
    tallies: Tallies = {}
    for metric, count in counts:
        if (parts := split_metric(metric)) and count:
            action, outcome, detail = parts
            if action not in tallies:
                tallies[action] = Tally()
            tallies[action].add(outcome, detail, count)
    return tallies


def _pairs(reply: Mapping[bytes, bytes]) -> list[tuple[str, int]]:
    return [(name.decode(), int(value)) for name, value in reply.items()]


class Counters:
    """Reads the counters of subjects. Never part of a decision."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def usage(self, subject: str, now_us: int, zone: str = "UTC") -> Awaitable[Usage]:
        """Ask Redis at once for a subject's counters as of an instant, and return them when awaited. One round trip."""
        day = day_of(now_us, zone)
        stems = [f"{kind}:1:{{{subject}}}" for kind in ("uc", "dn")]
        replies = [self._execute("HGETALL", f"{stem}:{period}") for period in (day.month, "all") for stem in stems]
        return _usage(day, replies)

    async def raw_month(self, subject: str, month: str) -> list[tuple[str, int]]:
        """Return a subject's counters of a month as stored: (`22:tokens.mint.ok`, count)."""
        replies = await asyncio.gather(*(self._execute("HGETALL", key) for key in _month_keys(subject, month)))
        return [pair for reply in replies for pair in _pairs(reply)]

    async def raw_room_month(self, room: str, month: str) -> list[tuple[str, int]]:
        """Return a room's counters of a month as stored."""
        return _pairs(await self._execute("HGETALL", f"rc:1:{{{room}}}:{month}"))

    async def daily(self, subject: str, first: date, last: date) -> Daily:
        """Return a subject's counters of each day from first to last with any use, in one round trip."""
        months = months_between(first, last)
        return await self._daily(months, [_month_keys(subject, month) for month in months], first, last)

    async def room_daily(self, room: str, first: date, last: date) -> Daily:
        """Return a room's counters per day, like `daily`."""
        months = months_between(first, last)
        return await self._daily(months, [[f"rc:1:{{{room}}}:{month}"] for month in months], first, last)

    async def _daily(self, months: list[str], keys_of: list[list[str]], first: date, last: date) -> Daily:
        keys = [(month, key) for month, keys in zip(months, keys_of, strict=True) for key in keys]
        replies = await asyncio.gather(*(self._execute("HGETALL", key) for _, key in keys))
        found: Daily = {}
        for (month, _), reply in zip(keys, replies, strict=True):
            counts_of: dict[bytes, dict[str, int]] = {b"*": {}}  # a year of the installation has some thousand fields
            for name, count in reply.items():
                field, _, metric = name.partition(b":")
                counts = counts_of.get(field)
                if counts is None:
                    day = date.fromisoformat(f"{month}-{field.decode()}")
                    counts = counts_of[field] = found.setdefault(day, {}) if first <= day <= last else {}
                counts[metric.decode()] = int(count)
        return dict(sorted(found.items()))


def _month_keys(subject: str, month: str) -> list[str]:
    return [f"{kind}:1:{{{subject}}}:{month}" for kind in ("uc", "dn")]


async def _usage(day: Day, replies: list[Awaitable[Any]]) -> Usage:
    used, denied, used_ever, denied_ever = [_pairs(await reply) for reply in replies]
    days: dict[str, list[tuple[str, int]]] = {day.field: [], "*": []}
    for name, count in (*used, *denied):
        field, _, metric = name.partition(":")
        if field in days:
            days[field].append((metric, count))
    return Usage(tally(days[day.field]), tally(days["*"]), tally(used_ever + denied_ever))

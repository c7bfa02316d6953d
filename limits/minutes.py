"""Totals of the last two days by minute: how many requests had which outcome, how many seconds people were in rooms.

An hour's hash (`mn:1:2026-11-22T09`) holds a field per minute and outcome (`07:ok`), and one of seconds (`07:seconds`).
`derived` writes them: a process that is killed loses those of its last 100 ms.
"""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache

from . import Execute

US_PER_MINUTE = 60 * 1_000_000
KEEP_S = 49 * 3600  # a day's chart, and one more for those who look at it tomorrow
SECONDS = "seconds"
"""The field of time in rooms, beside the outcomes of requests."""


@lru_cache(maxsize=256)
def place_of(minute: int) -> tuple[str, str]:
    """Return the key and the beginning of the fields of a minute, counted from the epoch."""
    at = datetime.fromtimestamp(minute * 60, UTC)
    return f"mn:1:{at:%Y-%m-%dT%H}", f"{at:%M}"


def spread(end_ms: int, change_s: int) -> Iterator[tuple[int, int]]:
    """Yield (minute, seconds) of time that was credited up to an instant, or of what was credited too much after it."""
    end_s = end_ms // 1000
    begin_s, end_s = min(end_s - change_s, end_s), max(end_s - change_s, end_s)
    sign = 1 if change_s > 0 else -1
    for minute in range(begin_s // 60, -(-end_s // 60)):
        yield minute, sign * (min(end_s, minute * 60 + 60) - max(begin_s, minute * 60))


@lru_cache(maxsize=512)
def _split(field: bytes) -> tuple[int, str]:
    minute, _, what = field.decode().partition(":")
    return int(minute), what


async def read_minutes(execute: Execute, first: int, last: int, *, step: int = 1) -> dict[int, dict[str, int]]:
    """Return totals of the minutes from first to last, in one round trip: of each `step` minutes from first on."""
    hours = range(first - first % 60, last + 1, 60)
    replies = await asyncio.gather(*(execute("HGETALL", place_of(hour)[0]) for hour in hours))
    found: dict[int, dict[str, int]] = {begin: {} for begin in range(first, last + 1, step)}
    for hour, reply in zip(hours, replies, strict=True):
        # The sums that each minute of this hour adds to; what lies outside is dropped. A day has 7,000 fields.
        sums_of = [found.get(minute - (minute - first) % step, {}) for minute in range(hour, min(hour + 60, last + 1))]
        for field, count in reply.items():
            minute, what = _split(field)
            if minute < len(sums_of):
                sums = sums_of[minute]
                sums[what] = sums.get(what, 0) + int(count)
    return found

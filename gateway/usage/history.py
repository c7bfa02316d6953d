"""Daily counters of users and rooms: of the last weeks from Redis, of earlier days from the archive if there is one."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta

from gateway.usage.archive import Archive, Kind
from gateway.usage.rollup import HOT_DAYS, THROUGH
from limits.counters import ALL, Counters, Daily

_ASK_EVERY_S = 60.0  # how far the archive is changes once a day


class History:
    """Reads like `Counters`, as far back as the archive reaches. Raises ArchiveError for days that only it has."""

    def __init__(self, counters: Counters, archive: Archive | None = None) -> None:
        self._counters = counters
        self._archive = archive
        self._through: date | None = None
        self._asked_at = -_ASK_EVERY_S

    async def daily(self, subject: str, first: date, last: date) -> Daily:
        """Return a subject's counters of each day from first to last with any use."""
        kind: Kind = "all" if subject == ALL else "user"
        return await self._read(kind, self._counters.daily, subject, first, last)

    async def room_daily(self, room: str, first: date, last: date) -> Daily:
        """Return a room's counters per day, like `daily`."""
        return await self._read("room", self._counters.room_daily, room, first, last)

    async def _read(
        self, kind: Kind, hot: Callable[[str, date, date], Awaitable[Daily]], subject: str, first: date, last: date
    ) -> Daily:
        if self._archive is None:
            return await hot(subject, first, last)
        kept_from = await self._kept_from(self._archive)
        if first >= kept_from:
            return await hot(subject, first, last)
        past = self._past(self._archive, kind, subject, first, min(last, kept_from - timedelta(days=1)))
        if last < kept_from:
            return await past
        old, new = await asyncio.gather(past, hot(subject, kept_from, last))
        return old | new

    async def _past(self, archive: Archive, kind: Kind, subject: str, first: date, last: date) -> Daily:
        found: Daily = {}
        for row in await archive.read(kind, [subject], first, last):
            found.setdefault(row.day, {})[row.metric] = row.value
        return found

    async def _kept_from(self, archive: Archive) -> date:
        """Return the first day that is read from Redis: as the archive has it, HOT_DAYS ago."""
        if time.monotonic() - self._asked_at > _ASK_EVERY_S:
            through = await archive.state(THROUGH)
            self._through = date.fromisoformat(through) if through else None
            self._asked_at = time.monotonic()
        # Whatever the zone of the days: what the roll-up has Redis forget lives for another day.
        hot_from = datetime.now(UTC).date() - timedelta(days=HOT_DAYS)
        return min(hot_from, self._through + timedelta(days=1) if self._through else date.min)

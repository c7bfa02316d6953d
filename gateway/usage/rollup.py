"""Copies the counters of finished days from Redis to the archive, and lets Redis forget old months."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from datetime import date, timedelta

from auth import Execute
from gateway.rooms import keys
from gateway.usage.archive import Archive, ArchiveError, Kind, Row
from gateway.usage.query import last_settled_day, today_in
from gateway.usage.subjects import Subjects
from limits.counters import ALL, Counters
from limits.periods import Zone, months_between, utc

log = logging.getLogger("gateway")

HOT_DAYS = 35
"""Days that reports read from Redis. 100ms replays events of 30 days, so older days do not change."""

CHANGED = "ad:1"
"""A set of past days whose counters have changed since they were copied."""

THROUGH = "through"
"""The state of the archive that holds the last day it has."""

_EVERY_S = 60.0
# Those that a roll-up has begun with; what a crash left there is copied again. In the slot of CHANGED.
_TAKEN = f"ad:1:taken:{{{CHANGED}}}"
_LONGEST_DAYS = 400  # how long Redis keeps counters
_PAGE = 500
_FORGET_S = 86_400
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

Progress = Callable[[int], None]
"""Receives how many subjects have been copied so far."""


class RollUp:
    """Brings the archive up to date. Running it twice, or two of them at once, does no harm."""

    def __init__(self, execute: Execute, subjects: Subjects, archive: Archive, *, zone: Zone = utc) -> None:
        self._execute = execute
        self._zone = zone
        self._subjects = subjects
        self._counters = Counters(execute)
        self._archive = archive
        self._has_failed = False

    async def run(self, *, today: date | None = None, progress: Progress | None = None) -> list[date]:
        """Copy every finished day that is not in the archive yet or has changed since; return these days.

        If it raises ArchiveError or StoreError, what was copied stays copied, and the next run continues.
        """
        today = today or today_in(self._zone())
        changed = await self._take_changed(today)
        through = await self.through()
        first_new = through + timedelta(days=1) if through else today - timedelta(days=_LONGEST_DAYS)
        new = {first_new + timedelta(days=n) for n in range((today - first_new).days)}
        # Once more before Redis forgets it: a process that died may have changed a day without noting it.
        leaving = {day - timedelta(days=HOT_DAYS) for day in new if through}
        days = sorted(changed | new | leaving)
        if days:
            await self._copy(frozenset(days), progress or (lambda _: None))
            await self._archive.set_state(THROUGH, (today - timedelta(days=1)).isoformat())
            await self._forget(today)
        if changed:
            await self._execute("SREM", _TAKEN, *(day.isoformat() for day in changed))
        return days

    async def work(self) -> float:
        """Run if a finished day is missing or has changed; return how many seconds to wait before the next time.

        Reports once that the archive cannot be used.
        """
        yesterday = last_settled_day(self._zone())
        try:
            through = await self.through()
            if through and through > yesterday:  # reports have got a zone in which that day has not ended yet
                await self._archive.set_state(THROUGH, yesterday.isoformat())
            if through is None or through < yesterday or await self._execute("SCARD", CHANGED):
                days = await self.run(today=yesterday + timedelta(days=1))
                if days:
                    log.info("copied the usage of %d days up to %s to the archive", len(days), days[-1])
            self._has_failed = False
        except ArchiveError as error:
            if not self._has_failed:
                log.error("%s", error)
            self._has_failed = True
        return _EVERY_S

    async def through(self) -> date | None:
        """Return the last day that the archive holds, None before the first roll-up."""
        found = await self._archive.state(THROUGH)
        return date.fromisoformat(found) if found else None

    async def _take_changed(self, today: date) -> set[date]:
        """Move the changed days aside before their counters are read, so that a later change is noted anew."""
        for day in await self._execute("SMEMBERS", CHANGED):
            if day.decode() < today.isoformat():
                await self._execute("SMOVE", CHANGED, _TAKEN, day)
        taken = {day.decode() for day in await self._execute("SMEMBERS", _TAKEN)}
        return {date.fromisoformat(day) for day in taken if _DAY.fullmatch(day)}

    async def _copy(self, days: frozenset[date], progress: Progress) -> None:
        done = 0
        async for kind, subjects in self._everyone():
            found = await asyncio.gather(*(self._rows(kind, subject, days) for subject in subjects))
            await self._archive.write(kind, [row for rows in found for row in rows])
            done += len(subjects)
            progress(done)

    async def _everyone(self) -> AsyncIterator[tuple[Kind, list[str]]]:
        after: int | None = 0
        while after is not None:
            users, after = await self._subjects.page(after=after, size=_PAGE)
            yield "user", [user.id for user in users]
        for at in range(0, await self._execute("ZCARD", keys.ALL_ROOMS), _PAGE):
            rooms = await self._execute("ZRANGE", keys.ALL_ROOMS, at, at + _PAGE - 1)
            yield "room", [room.decode() for room in rooms]
        yield "all", [ALL]

    async def _rows(self, kind: Kind, subject: str, days: frozenset[date]) -> list[Row]:
        read = self._counters.raw_room_month if kind == "room" else self._counters.raw_month
        rows = []
        for month in sorted({f"{day:%Y-%m}" for day in days}):
            for name, value in await read(subject, month):
                number, _, metric = name.partition(":")
                if number != "*" and (day := date.fromisoformat(f"{month}-{number}")) in days:
                    rows.append(Row(day, subject, metric, value))
        return rows

    async def _forget(self, today: date) -> None:
        """Let Redis drop months whose days are all in the archive and too old to change."""
        last = today - timedelta(days=HOT_DAYS)
        before = await self._archive.state("forgotten")
        first = date.fromisoformat(before) if before else today - timedelta(days=_LONGEST_DAYS)
        months = [month for month in months_between(first, last) if month < f"{last:%Y-%m}"]
        if not months:
            return
        async for kind, subjects in self._everyone():
            stems = ("rc",) if kind == "room" else ("uc", "dn")
            old = [f"{stem}:1:{{{one}}}:{month}" for one in subjects for month in months for stem in stems]
            await asyncio.gather(*(self._execute("EXPIRE", key, _FORGET_S) for key in old))
        await self._archive.set_state("forgotten", last.replace(day=1).isoformat())

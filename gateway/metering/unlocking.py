"""Unlocks rooms that spent budgets have locked, once these have time again: in a new period, or with a larger amount.

A lock that anybody else has set, before or since, is left alone.
"""

import asyncio
import logging
from collections.abc import Iterable

from gateway.audit import NO_USER, Audit
from gateway.hms.errors import HmsError
from gateway.redis.store import Clock
from gateway.rooms.locks import LockedMeanwhile, TooManyRooms
from gateway.rooms.registry import Rooms
from limits import Execute

from .budgets import Budgets
from .keys import LOCKED

log = logging.getLogger("gateway.metering")

EVERY_S = 2.0
AGAIN_MS = 30_000  # from one look at a spent budget to the next
LATER_MS = 600_000  # the creator of the room has as many others as they may have
_MOST_AT_ONCE = 100  # rooms; with few calls to 100ms at once, which users need, a dozen rooms a second
_MOST_CALLS = 5

# KEYS 1 the zset. ARGV 1 entry, 2 until when it was due (ms). If the room is being locked again, it is due later.
_FORGET = """
local due = redis.call('ZSCORE', KEYS[1], ARGV[1])
if due and tonumber(due) <= tonumber(ARGV[2]) then return redis.call('ZREM', KEYS[1], ARGV[1]) end
return 0
"""


class Unlocking:
    """Looks at the budgets that have locked rooms, a few at a time, those that were looked at longest ago first."""

    def __init__(self, execute: Execute, budgets: Budgets, rooms: Rooms, audit: Audit, clock: Clock) -> None:
        self._execute = execute
        self._budgets = budgets
        self._rooms = rooms
        self._audit = audit
        self._clock = clock
        self._calls = asyncio.Semaphore(_MOST_CALLS)

    async def work(self) -> float:
        """Unlock the rooms that are due and whose budgets have time; return the seconds until the next time."""
        now_ms = await self._clock()
        found = await self._execute("ZRANGEBYSCORE", LOCKED, "-inf", now_ms, "LIMIT", 0, _MOST_AT_ONCE)
        by_payer: dict[tuple[str, str], list[str]] = {}
        for entry in map(bytes.decode, found):
            scope, subject, _ = entry.split("|", 2)
            by_payer.setdefault((scope, subject), []).append(entry)
        spent = await asyncio.gather(*(self._budgets.ends_rooms(*payer) for payer in by_payer))
        some: list[str] = []
        for entries, is_spent in zip(by_payer.values(), spent, strict=True):
            if is_spent:
                await self._postpone(entries, now_ms + AGAIN_MS)
            else:
                some += entries
        await asyncio.gather(*(self._settle(entry, now_ms) for entry in some))
        return EVERY_S

    async def _settle(self, entry: str, now_ms: int) -> None:
        async with self._calls:
            again_ms = await self._unlock(*entry.rsplit("|", 1))
        if again_ms:
            await self._postpone([entry], now_ms + again_ms)
        else:
            await self._execute("EVAL", _FORGET, 1, LOCKED, entry, now_ms)

    async def _unlock(self, budget: str, room_id: str) -> int:
        """Unlock a room if only this budget locks it; return after how many ms to try again, 0 if that is done."""
        # In this order: a lock that comes between the two changes `room.locks`, which unlocking compares.
        room = await self._rooms.get(room_id)
        if room is None or room.enabled or await self._rooms.locks.locked_by(room_id) != budget:
            return 0
        try:
            await self._rooms.locks.unlock(room)
        except HmsError as error:
            log.warning("room %s stays locked although its budget has time again: %s", room_id, error)
            return AGAIN_MS
        except TooManyRooms:
            return LATER_MS
        except LockedMeanwhile:
            return 0
        said = {"room": room_id, "fields": "enabled", "budget": budget.rpartition("|")[2]}
        await self._audit.record("room.changed", by=NO_USER, subject=room.owner_id, **said)
        return 0

    async def _postpone(self, entries: Iterable[str], until_ms: int) -> None:
        await self._execute("ZADD", LOCKED, "XX", *(word for entry in entries for word in (until_ms, entry)))

"""Processes webhook events, in every worker: reads them, credits stays, acknowledges what has been credited.

A process that dies in between leaves its events to the others, which credit them again: that changes nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from msgspec import Struct
from redis.exceptions import RedisError, ResponseError

from gateway.metering import keys
from gateway.metering.dead_letters import DeadLetters
from gateway.metering.events import Event, Malformed, read_event
from gateway.metering.stays import Stays
from gateway.redis.refusals import is_outage, log_refusal
from gateway.redis.store import StoreError
from limits import Execute

log = logging.getLogger("gateway")

GROUP = "metering"
GATHER_S = 0.05  # events that follow share a batch: at 500 a second each costs 360 us of CPU instead of 984
POLL_S = 0.25  # events that another process has stored wait so long at most
RECLAIM_MS = 10_000  # a batch takes milliseconds; a consumer that holds an event for longer has died
BATCH = 100
MOST_FAILURES = 3
_TIDY_S = 60.0
_GONE_MS = 300_000  # a live consumer asks several times a second
_LATER_S = 1.0

# KEYS the stream. ARGV group, ids. Both in one step: an event that is acknowledged and not deleted would stay forever.
_DONE = """
local ids = {unpack(ARGV, 2)}
redis.call('XACK', KEYS[1], ARGV[1], unpack(ids))
return redis.call('XDEL', KEYS[1], unpack(ids))
"""
# KEYS the stream. ARGV group, ms. Deletes consumers that hold nothing and have not asked for so long.
_TIDY = """
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local about = {}
  for i = 1, #row, 2 do about[row[i]] = row[i + 1] end
  if about.pending == 0 and about.idle > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], about.name)
  end
end
return 1
"""


class Received(Struct, frozen=True):
    """An event as it was stored."""

    place: bytes
    body: bytes
    at_ms: int


class Consumer:
    """Processes batches until it is cancelled. `wake`: set when this process has stored an event."""

    def __init__(
        self,
        execute: Execute,
        stays: Stays,
        wake: asyncio.Event,
        *,
        now_ms: Callable[[], int] | None = None,
        reclaim_ms: int = RECLAIM_MS,
    ) -> None:
        self._execute = execute
        self._stays = stays
        self._wake = wake
        self._dead = DeadLetters(execute)
        self._name = secrets.token_hex(8)
        self._now_ms = now_ms or (lambda: time.time_ns() // 1_000_000)
        self._reclaim_ms = reclaim_ms
        self._has_group = False
        self._holds_batch = False  # perhaps one that an outage interrupted
        self._tidy_at = 0.0

    async def run(self) -> None:
        """Process events for as long as the worker runs. An outage of Redis only delays them."""
        while True:
            try:
                self._wake.clear()
                while await self.process_once() >= BATCH:
                    pass
                await self._rest(POLL_S)
                await asyncio.sleep(GATHER_S)
            except (StoreError, RedisError) as error:
                self._holds_batch = True
                if isinstance(error, RedisError):  # the store reports its own errors
                    log_refusal(error)
                await asyncio.sleep(_LATER_S)
            except Exception:
                log.exception("webhook events could not be processed; they are tried again")
                await asyncio.sleep(_LATER_S)

    async def process_once(self) -> int:
        """Process one batch; return how many events it had. Those of dead consumers come first.

        After an outage it is the batch that was interrupted: otherwise only the time of dead consumers would free it.
        """
        batch = await self._read()
        if batch:
            await self._process(batch)
        await self._tidy()
        return len(batch)

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)

    async def _read(self) -> list[Received]:
        if not self._has_group:
            await self._make_group()
        try:
            _, left, *_ = await self._execute(
                "XAUTOCLAIM", keys.EVENTS, GROUP, self._name, self._reclaim_ms, "0-0", "COUNT", BATCH
            )
            first = "0" if self._holds_batch else ">"
            fresh = await self._execute(
                "XREADGROUP", "GROUP", GROUP, self._name, "COUNT", BATCH, "STREAMS", keys.EVENTS, first
            )
            self._holds_batch = False
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self._has_group = False  # Redis has lost its data
            return []
        entries = [*left, *(_entries(fresh) if fresh else ())]
        return [_received(place, words) for place, words in entries if words]

    async def _make_group(self) -> None:
        try:
            await self._execute("XGROUP", "CREATE", keys.EVENTS, GROUP, "0", "MKSTREAM")
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._has_group = True

    async def _process(self, batch: list[Received]) -> None:
        now_ms = self._now_ms()
        counts: Counter[str] = Counter()
        events: list[tuple[Received, Event]] = []
        for one in batch:
            try:
                events.append((one, read_event(one.body, now_ms)))
            except Malformed as error:
                await self._add_dead_letter(one, str(error), counts)
        try:
            await self._credit([event for _, event in events], counts)
        except Exception as error:
            if _is_outage(error):
                raise
            events = await self._credit_each(events, counts)  # a single one may be the cause
        await self._done([one.place for one, _ in events])
        await self._count(counts, min(one.at_ms for one in batch), now_ms)

    async def _credit(self, events: list[Event], counts: Counter[str]) -> None:
        """Credit what events say, and count them once that is done."""
        facts = [event.session for event in events if event.session is not None]
        # Of several facts about a session, its close comes last and replaces the others.
        facts.sort(key=lambda fact: fact.has_closed)
        await self._stays.learn({(fact.room, fact.session): fact for fact in facts})
        done = await self._stays.apply([event.stay for event in events if event.stay is not None])
        counts["applied"] += sum(one.has_changed for one in done)
        counts["unchanged"] += sum(not one.has_changed for one in done)
        for event in events:
            counts[f"type:{event.kind}"] += 1
            if event.is_recorder:
                counts["recorder"] += 1
            elif event.stay is None and event.session is None:
                counts["ignored"] += 1

    async def _credit_each(
        self, events: list[tuple[Received, Event]], counts: Counter[str]
    ) -> list[tuple[Received, Event]]:
        """Credit events one by one, and return those that are done with. Others are tried again after a while."""
        done = []
        for one, event in events:
            try:
                await self._credit([event], counts)
            except Exception as error:
                if _is_outage(error):
                    raise
                log.exception("a webhook event could not be processed")
                if await self._attempts(one) < MOST_FAILURES:
                    continue
                await self._add_dead_letter(one, f"it failed {MOST_FAILURES} times: {type(error).__name__}", counts)
            else:
                done.append((one, event))
        return done

    async def _attempts(self, one: Received) -> int:
        """Return how often an event has been handed to a consumer."""
        place = one.place.decode()
        found = await self._execute("XPENDING", keys.EVENTS, GROUP, place, place, 1)
        return int(found[0][3]) if found else 0

    async def _add_dead_letter(self, one: Received, why: str, counts: Counter[str]) -> None:
        """Keep an event as a dead letter, then acknowledge it. After a crash in between there are two letters."""
        await self._dead.add(one.body, why, one.at_ms)
        await self._done([one.place])
        counts["dead"] += 1

    async def _done(self, places: list[bytes]) -> None:
        if places:
            await self._execute("EVAL", _DONE, 1, keys.EVENTS, GROUP, *places)

    async def _count(self, counts: Counter[str], oldest_ms: int, now_ms: int) -> None:
        changes = [self._execute("HINCRBY", keys.STATISTICS, name, count) for name, count in counts.items() if count]
        await asyncio.gather(*changes, self._execute("HSET", keys.STATISTICS, "lag_ms", max(0, now_ms - oldest_ms)))

    async def _tidy(self) -> None:
        now = time.monotonic()
        if now >= self._tidy_at:
            self._tidy_at = now + _TIDY_S
            await self._execute("EVAL", _TIDY, 1, keys.EVENTS, GROUP, _GONE_MS)


def _is_outage(error: Exception) -> bool:
    return isinstance(error, StoreError) or is_outage(error)


def _entries(reply: Any) -> list[Any]:
    """Return the entries of one stream: RESP3 has a map of streams, or a list of pairs."""
    return next(iter(reply.values())) if isinstance(reply, dict) else reply[0][1]


def _received(place: bytes, words: list[bytes]) -> Received:
    fields = dict(zip(words[::2], words[1::2], strict=True))
    return Received(place, fields.get(b"body", b""), int(fields.get(b"at", b"0")))

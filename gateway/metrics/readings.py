"""What a scrape asks Redis: numbers that all processes share. Each takes the same time for any number of users."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from gateway.metering import keys
from gateway.metering.budgets import Budgets
from gateway.metering.webhooks import Webhooks
from gateway.outgoing.control import EndpointState, Outgoing
from gateway.policy.actions import MINUTES
from gateway.policy.live import PolicyInForce
from gateway.redis.info import Each, info_of_all
from gateway.redis.store import StoreError
from limits import Execute
from limits.counters import ALL

DEADLINE_S = 0.5  # of everything: a scrape without Redis must still say so before Prometheus gives up
OVERDUE_S = 900  # the chores compare a session with 100ms as soon as it is due
_USERS, _ROOMS = "ui:1", "ra:1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What Redis said. Without an answer only `up` is set, to False.

    `seconds`: for the first round trip. `most_memory`: 0 without a limit. `is_persisted`: whether the last write of
    the append-only file succeeded; None if Redis does not say. `leads`: whether a process performs the chores.
    `budgets`: of the installation, the share of each that is used. `outgoing`: by endpoint of the policy.
    """

    up: bool
    seconds: float = 0.0
    memory: int = 0
    most_memory: int = 0
    is_persisted: bool | None = None
    users: int = 0
    rooms: int = 0
    people: int = 0
    participant_s: int = 0
    leads: bool = False
    sessions_overdue: int = 0
    events: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    oldest_s: float = 0.0
    dead_letters: int = 0
    budgets: dict[str, float] = field(default_factory=dict)
    outgoing: list[EndpointState] = field(default_factory=list)
    outgoing_dead: int = 0


@dataclass(frozen=True, slots=True)
class Reader:
    """Asks Redis on behalf of one scrape."""

    execute: Execute
    each: Each
    webhooks: Webhooks
    outgoing: Outgoing
    budgets: Budgets
    policy: PolicyInForce

    async def read(self) -> Readings:
        """Return what Redis says within half a second."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await self._read()
        except (StoreError, RedisError, TimeoutError):
            return Readings(up=False)

    async def _read(self) -> Readings:
        begun = time.perf_counter()
        now_ms = time.time_ns() // 1_000_000
        users, rooms = self.execute("ZCARD", _USERS), self.execute("ZCARD", _ROOMS)
        people = self.execute("HLEN", keys.open_stays(ALL))
        minutes = self.execute("HGET", f"uc:1:{{{ALL}}}:all", f"{MINUTES}.ok")
        leader = self.execute("EXISTS", keys.LEADER)
        overdue = self.execute("ZCOUNT", keys.SESSIONS_DUE, 0, now_ms - OVERDUE_S * 1000)
        oldest = self.execute("XRANGE", keys.EVENTS, "-", "+", "COUNT", 1)
        all_users = await users
        seconds = time.perf_counter() - begun
        (memory, silent), (persistence, _) = (
            await info_of_all(self.each, "memory"),
            await info_of_all(self.each, "persistence"),
        )
        events = await self.webhooks.state()
        written = persistence.get("aof_last_write_status")
        return Readings(
            up=not silent,
            seconds=seconds,
            memory=int(memory.get("used_memory", 0)),
            most_memory=int(memory.get("maxmemory", 0)),
            is_persisted=None if written is None else written == "ok" and persistence.get("aof_enabled") == "1",
            users=all_users,
            rooms=await rooms,
            people=await people,
            participant_s=int(await minutes or 0),
            leads=bool(await leader),
            sessions_overdue=await overdue,
            events=events.counts,
            waiting=events.waiting,
            oldest_s=_age_s(await oldest, now_ms),
            dead_letters=events.dead_letters,
            budgets=await self._budgets(),
            outgoing=await self.outgoing.state(),
            outgoing_dead=await self.outgoing.count_dead(),
        )

    async def _budgets(self) -> dict[str, float]:
        if not self.policy.now.has_budgets("all"):
            return {}
        states = (await self.budgets.look("all", "")).quotas
        return {state.name: state.counted / (state.amount * state.quota.unit) for state in states}


def _age_s(entries: list[tuple[bytes, list[bytes]]], now_ms: int) -> float:
    """Return how long ago the first of these entries of a stream was written."""
    return max(0, now_ms - int(entries[0][0].partition(b"-")[0])) / 1000 if entries else 0.0

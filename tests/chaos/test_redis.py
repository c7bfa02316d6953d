"""Redis dies, hangs, or refuses writes."""

from __future__ import annotations

import asyncio

import pytest

from tests.chaos.table import Row
from tests.chaos.trial import Expected, Trial, in_thread
from tests.servers import Installation

pytestmark = pytest.mark.alone

AWAY = ("unavailable", "not ready", "idempotency_conflict")
STORES = 2  # of each worker: for decisions, and for reports


async def test_redis_is_killed_and_starts_again(own: Installation, row: Row) -> None:
    """`kill -9` of Redis, which syncs its file every second; 1 s later it starts again"""
    async with Trial(own) as trial:
        await trial.calm(1)
        trial.strike()
        await in_thread(own.valkey.kill)
        await asyncio.sleep(1)
        await in_thread(own.valkey.start)
        trial.mend()
        await trial.calm(1.5)
    errors = {"Redis is unavailable": STORES * own.workers}
    measured = await trial.check(Expected(codes=AWAY, lost_s=1, errors=errors))
    row(measured, may_lose="the last second of counters, sessions, rooms and audit; no account")

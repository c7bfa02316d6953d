"""One process of all performs the chores; another one takes over when it ends, dies or loses Redis."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.metering import keys, leader
from gateway.metering.leader import Chore, Leader
from gateway.redis.store import StoreError
from limits import Execute
from tests.fake_redis import fake_redis
from tests.unit.gateway.upstream import settled

HASTE = 20


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, but faster."""
    for name in ("LEASE_S", "RENEW_S", "STORE_RETRY_S", "BUG_RETRY_S"):
        monkeypatch.setattr(leader, name, getattr(leader, name) / HASTE)


@pytest.fixture
def execute() -> Execute:
    return fake_redis().execute_command


class Process:
    """A leader with a chore that notes when it is done."""

    def __init__(self, execute: Execute, *failures: Exception) -> None:
        self._execute = execute
        self._failures = list(failures)
        self.connected = True
        self.done = 0
        self.leader = Leader(self.execute, Chore("count", self.count))

    async def execute(self, *words: Any) -> Any:
        if not self.connected:
            raise StoreError("no connection")
        # As in `Store`, a cancelled call goes on; a cancelled connection to fakeredis would block the next call.
        return await asyncio.shield(asyncio.ensure_future(self._execute(*words)))

    async def count(self) -> float:
        self.done += 1
        if self._failures:
            raise self._failures.pop(0)
        return 0.01

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.leader.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_only_the_holder_of_the_lock_performs_the_chores(execute: Execute) -> None:
    first, second = Process(execute), Process(execute)
    async with first.running():
        await settled(lambda: first.done)
        async with second.running():
            await settled(lambda: first.done > 20)
        assert await execute("EXISTS", keys.LEADER)  # only the holder gives it up
    assert (second.done, first.leader.leads, second.leader.leads) == (0, True, False)


async def test_a_process_that_ends_releases_the_lock(execute: Execute) -> None:
    first = Process(execute)
    async with first.running():
        await settled(lambda: first.done)
    assert not await execute("EXISTS", keys.LEADER)


async def test_a_process_that_loses_redis_is_replaced_and_stops_by_itself(execute: Execute) -> None:
    first, second = Process(execute), Process(execute)
    loop = asyncio.get_running_loop()
    async with first.running():
        await settled(lambda: first.done)
        async with second.running():
            first.connected, lost_at = False, loop.time()
            await settled(lambda: second.done)
            assert loop.time() - lost_at < leader.LEASE_S + 3 * leader.RENEW_S
            await settled(lambda: not first.leader.leads)
            seen = first.done
            await settled(lambda: second.done > 20)
            assert first.done <= seen + 1


def test_a_dead_process_is_replaced_within_five_seconds() -> None:
    assert HASTE * (leader.LEASE_S + leader.RENEW_S) < 5  # the whole lease, and the pause until the next question


@pytest.mark.parametrize("failure", [StoreError("gone"), ValueError("a bug")])
async def test_a_chore_that_fails_is_performed_again(
    execute: Execute, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    process = Process(execute, failure)
    async with process.running():
        await settled(lambda: process.done > 1)
    logged = ["the chore count failed"] if isinstance(failure, ValueError) else []
    assert [record.getMessage() for record in caplog.records] == logged

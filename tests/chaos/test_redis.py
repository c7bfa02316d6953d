"""Redis dies, hangs, or refuses writes."""

from __future__ import annotations

import asyncio
import resource
import statistics

import pytest

from tests.chaos.table import Row
from tests.chaos.trial import AWAY, DOWN, Expected, Trial, in_thread, unavailable
from tests.servers import Installation

pytestmark = pytest.mark.alone


async def test_redis_is_killed_and_starts_again(own: Installation, row: Row) -> None:
    """`kill -9` of Redis, which syncs its file every second, while creates take 0.5 s; 1 s later it starts again"""
    async with Trial(own) as trial:
        await in_thread(lambda: own.break_upstream("delay=0.5"))
        await trial.calm()
        trial.strike()
        await in_thread(own.valkey.kill)
        await asyncio.sleep(1)
        await in_thread(own.mend_upstream)
        await in_thread(own.valkey.start)
        trial.repair()
    measured = await trial.check(Expected(codes=AWAY, seen=DOWN, lost_s=1, errors=unavailable(own)))
    row(measured, may_lose="the last second of counters, sessions, rooms and audit; no account")


async def test_redis_stops_and_goes_on(own: Installation, row: Row) -> None:
    """SIGSTOP of Redis for 5 s: it keeps its connections, accepts new ones, and answers nothing"""
    async with Trial(own) as trial:
        await trial.calm()
        trial.strike()
        own.valkey.pause()
        await asyncio.sleep(5)
        own.valkey.resume()
        trial.repair()
    measured = await trial.check(Expected(codes=AWAY, seen=DOWN, errors=unavailable(own)))
    failed = [result for result in trial.load.results if result.code == "unavailable"]
    assert statistics.median(result.done - result.sent for result in failed) < 0.1, "the breaker has not opened"
    assert not [result for result in failed if "ratelimit" in result.fields and result.sent > trial.struck + 1]
    row(measured, may_lose="nothing")


async def test_disk_of_redis_is_full(own: Installation, row: Row) -> None:
    """For 1.2 s the append-only file of Redis may not grow (RLIMIT_FSIZE), as on a full disk: it refuses writes"""
    assert own.valkey.process is not None
    pid = own.valkey.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    async with Trial(own) as trial:
        await trial.calm()
        full = sum(file.stat().st_size for file in own.valkey.folder.glob("appendonlydir/*.incr.aof"))
        trial.strike()
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (full, hard))
        await asyncio.sleep(1.2)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
        trial.repair()
    measured = await trial.check(
        Expected(codes=AWAY, seen=DOWN, errors={"^Redis refuses commands: MISCONF ": own.workers})
    )
    row(measured, may_lose="nothing, unless Redis also crashes before the disk has room again")


async def test_memory_of_redis_is_full(own: Installation, row: Row) -> None:
    """`maxmemory` is reached for 1 s, with `noeviction`: Redis answers reads and refuses writes"""
    async with Trial(own) as trial:
        await trial.calm()
        trial.strike()
        with own.valkey.client() as client:
            client.config_set("maxmemory", "1")
            await asyncio.sleep(1)
            trial.repair()
            client.config_set("maxmemory", "0")
    errors = {"^Redis refuses commands: OOM command not allowed when used memory > ": own.workers}
    measured = await trial.check(Expected(codes=AWAY, seen=DOWN, errors=errors))
    row(measured, may_lose="nothing")

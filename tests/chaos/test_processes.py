"""The gateway stops, loses a worker, or replaces its workers."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.conftest import start
from tests.chaos.processes import workers_of
from tests.chaos.table import Row
from tests.chaos.trial import Expected, Trial, in_thread
from tests.servers import Installation, wait_until

pytestmark = pytest.mark.alone

STARTED = "Application startup complete"
STOP_S = 10.0
REPLACED_S = 2.0


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Installation]:
    """An installation for one test: new workers read the list of common passwords, of 14 MiB, later than others."""
    with start(tmp_path) as running:
        yield running


async def wait_for_workers(own: Installation, gone: set[int], started: int) -> None:
    """Wait until there are two workers, none of those that should be gone, and so many have started in all."""

    def replaced() -> bool:
        present = workers_of(own)
        is_complete = len(present) == own.workers and not gone & set(present)
        return is_complete and own.gateway.output().count(STARTED) >= started

    await asyncio.to_thread(wait_until, replaced, "the workers are replaced", within_s=15)


async def test_gateway_gets_sigterm_and_starts_again(real: Installation, row: Row) -> None:
    """SIGTERM while creates take a second; the gateway ends {took_s:.1f} s later (at most 10 s) and starts again"""
    process = real.gateway.process
    assert process is not None
    async with Trial(real) as trial:
        await in_thread(lambda: real.break_upstream("delay=1"))
        await trial.calm()
        trial.strike()
        process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(process.wait, STOP_S)
        took_s = time.monotonic() - trial.struck
        await in_thread(real.mend_upstream)
        await in_thread(real.start_gateway)
        trial.repair()
    # Every request that reached the gateway is answered; the others find no one who listens.
    measured = await trial.check(Expected(may_refuse=True, seen=["refused"]))
    assert code in (0, -signal.SIGTERM)
    row(measured, may_lose="nothing", took_s=took_s)


async def test_worker_of_two_is_killed(real: Installation, row: Row) -> None:
    """`kill -9` of one worker of two; a new one serves {took_s:.1f} s later (at most 2 s)"""
    [victim, _] = workers_of(real)
    started = real.gateway.output().count(STARTED)
    async with Trial(real) as trial:
        await trial.calm()
        trial.strike()
        os.kill(victim, signal.SIGKILL)
        trial.repair()
        await wait_for_workers(real, {victim}, started + 1)
        took_s = time.monotonic() - trial.struck
    measured = await trial.check(Expected(may_break=True, codes=("idempotency_conflict",), worker_died=True))
    assert took_s < REPLACED_S
    row(measured, may_lose="100 ms of top lists and room counters", took_s=took_s)


async def test_gateway_gets_sighup(real: Installation, row: Row) -> None:
    """SIGHUP of the gateway: each worker is replaced by a new one, one after the other"""
    process, before = real.gateway.process, set(workers_of(real))
    assert process is not None
    started = real.gateway.output().count(STARTED)
    async with Trial(real) as trial:
        await trial.calm()
        trial.strike()
        process.send_signal(signal.SIGHUP)
        await wait_for_workers(real, before, started + real.workers)
        trial.repair()
    measured = await trial.check(Expected())
    row(measured, may_lose="nothing")

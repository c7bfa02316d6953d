"""Heartbeats of workers, and what they say of the installation."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import ResponseError

from auth import Execute
from gateway.audit import Audit
from gateway.metering.keys import EVENTS, LEADER, STATISTICS
from gateway.metering.leader import Leader
from gateway.metering.webhooks import Webhooks
from gateway.overview import heartbeat as module
from gateway.overview.heartbeat import WORKERS, Heartbeat, Vitals, workers_alive
from gateway.overview.status import Status, status_of
from gateway.redis.store import StoreError
from tests.fake_redis import fake_redis

INFO = b"# Server\r\nredis_version:7.2.4\r\nvalkey_version:8.1.0\r\nused_memory:1048576\r\nmaxmemory:0\r\n"
INFO += b"aof_enabled:1\r\naof_last_write_status:err\r\n"


class Now:
    def __init__(self) -> None:
        self.ms = 1_795_608_000_000

    async def __call__(self) -> int:
        return self.ms


@pytest.fixture
async def execute() -> AsyncIterator[Execute]:
    redis = fake_redis()

    async def run(*words: Any) -> Any:
        return INFO if words[0] == "INFO" else await redis.execute_command(*words)

    yield run
    await redis.aclose()


async def look(execute: Execute, now: Now, *, lost: StoreError | None = None) -> Status:
    """Return the status; `lost` is why another master does not answer."""

    async def each(*words: Any) -> dict[str, Any]:
        try:
            return {"Redis": await execute(*words)} | ({"other": lost} if lost else {})
        except StoreError as error:
            return {"Redis": error}

    return await status_of(execute, now, each, Webhooks(execute, Audit(execute)))


def worker(execute: Execute, now: Now, vitals: Vitals | None = None) -> Heartbeat:
    return Heartbeat(execute, now, lambda: vitals or Vitals("closed", "closed", None, None))


async def test_a_worker_is_alive_for_three_heartbeats_and_forgotten_after_a_minute(execute: Execute) -> None:
    now = Now()
    one, other = worker(execute, now), worker(execute, now)
    await one.beat(0.0)
    now.ms += 5_000
    await other.beat(0.0123)
    alive = await workers_alive(execute, now.ms)
    assert [(each.pid, each.lag_ms, each.at_ms - each.started_ms) for each in alive] == [
        (os.getpid(), 0, 0),
        (os.getpid(), 12, 0),
    ]
    now.ms += 10_000
    await other.beat(0.0)
    (only,) = await workers_alive(execute, now.ms)
    assert only.at_ms - only.started_ms == 10_000
    assert await execute("HLEN", WORKERS) == 2
    now.ms += 50_000
    await other.beat(0.0)
    assert await execute("HLEN", WORKERS) == 1


async def test_a_worker_that_ends_says_so_and_an_outage_does_not_end_it(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.02)
    failed, written = False, asyncio.Event()

    async def shaky(*words: Any) -> Any:
        nonlocal failed
        if not failed:
            failed = True
            raise StoreError("Redis is down")
        if words[0] == "HGETALL":
            assert await execute("HLEN", WORKERS) == 1
            written.set()
        return await execute(*words)

    running = asyncio.create_task(worker(shaky, Now()).run())
    await asyncio.wait_for(written.wait(), 20)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not await execute("HLEN", WORKERS)


async def test_a_heartbeat_of_another_version_is_ignored(execute: Execute) -> None:
    now = Now()
    await execute("HSET", WORKERS, "older", '{"pid":1}')
    await worker(execute, now).beat(0.0)
    assert len(await workers_alive(execute, now.ms)) == 1


async def test_status_tells_redis_the_leader_and_the_worst_of_100ms(execute: Execute) -> None:
    now = Now()
    await worker(execute, now, Vitals("closed", "closed", 5, 7)).beat(0.0)
    await worker(execute, now, Vitals("closed", "open", 9, None)).beat(0.0)
    leads = asyncio.Event()

    async def noticed(*words: Any) -> Any:
        reply = await execute(*words)
        leads.set()
        return reply

    leader = asyncio.create_task(Leader(noticed).run())
    await asyncio.wait_for(leads.wait(), 20)

    status = await look(execute, now)
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)
    assert status.workers is not None
    assert status.hms is not None
    assert status.leader == f"{status.workers[0].host}:{os.getpid()}"
    assert (status.redis.server, status.redis.version) == ("Valkey", "8.1.0")
    assert (status.redis.memory, status.redis.most_memory) == (1_048_576, 0)
    assert (status.redis.has_aof, status.redis.writes_aof) == (True, False)
    assert (status.hms.state, status.hms.answered_ms, status.hms.failed_ms) == ("open", 9, 7)
    assert (await look(execute, now)).leader == ""


@pytest.mark.parametrize(
    ("lost", "unknown"),
    [(WORKERS, {"workers", "hms"}), (LEADER, {"leader"}), (STATISTICS, {"webhooks"}), (EVENTS, {"webhooks"})],
)
async def test_what_a_lost_master_has_is_not_known_and_everything_else_is(
    execute: Execute, lost: str, unknown: set[str]
) -> None:
    now = Now()
    await worker(execute, now).beat(0.0)

    async def without(*words: Any) -> Any:
        if words[1:2] == (lost,):
            raise StoreError("Redis did not answer in time")
        return await execute(*words)

    status = await look(without, now, lost=StoreError())
    parts = {name: getattr(status, name) for name in ("workers", "leader", "hms", "webhooks")}
    assert {name for name, part in parts.items() if part is None} == unknown
    assert (status.redis.server, status.redis.silent) == ("Valkey", ["other"])


async def test_without_any_redis_there_is_no_status_and_a_refusal_is_no_lost_master(execute: Execute) -> None:
    async def none(*words: Any) -> Any:
        raise StoreError("Redis did not answer in time")

    async def forbids(*words: Any) -> Any:
        if words[0] == "HVALS":
            raise ResponseError("NOPERM this user has no permissions")
        return await execute(*words)

    with pytest.raises(StoreError):
        await look(none, Now())
    with pytest.raises(ResponseError, match="NOPERM"):
        await look(forbids, Now())


async def test_the_time_is_that_of_a_master_that_answers(execute: Execute) -> None:
    """Which masters are lost, a store knows once it has asked all of them."""
    asked: list[str] = []

    async def each(*words: Any) -> dict[str, Any]:
        asked.append("all")
        return {"Redis": INFO}

    async def clock() -> int:
        asked.append("clock")
        return Now().ms

    await status_of(execute, clock, each, Webhooks(execute, Audit(execute)))
    assert asked == ["all", "clock"]

"""Consumers work webhook events off, on a real server: together, after crashes, and whatever the events are."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.metering import keys
from gateway.metering.consumer import GROUP, Consumer
from gateway.metering.dead_letters import DeadLetters
from gateway.metering.events import Stay
from gateway.metering.intake import Intake
from gateway.metering.stays import Stays
from gateway.redis.store import Store, StoreError
from gateway.rooms import keys as room_keys
from limits.derived import Derived
from limits.metered import Credited

ANN, BOB = "u" + "a" * 20, "u" + "b" * 20
ROOM, SESSION = "6" * 24, "7" * 24
NOW_MS = time.time_ns() // 1_000_000
JOINED_MS = NOW_MS - 3_600_000


def at(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:%M:%S}.{ms % 1000:03}Z"


def event(kind: str, peer: str = "p", *, left_s: int = 60, user: str = ANN, **more: Any) -> bytes:
    data = {"room_id": ROOM, "session_id": SESSION, "peer_id": peer, "user_id": user, "role": "guest"}
    data |= {"joined_at": at(JOINED_MS), "left_at": at(JOINED_MS // 1000 * 1000 + left_s * 1000 + 999)} | more
    return json.dumps({"type": kind, "data": data}).encode()


JOIN, LEAVE = event("peer.join.success"), event("peer.leave.success")


@pytest.fixture
def intake(store: Store) -> Intake:
    return Intake(store.execute, store.post)


@pytest.fixture
async def owned(store: Store) -> None:
    await store.execute("HSET", room_keys.room(ROOM), "owner", BOB, "template", "default")


def stays(store: Store) -> Stays:
    return Stays(store.execute, Derived(store.execute, store.post))


def consumer(store: Store, of: Stays | None = None, *, reclaim_ms: int = 0) -> Consumer:
    return Consumer(store.execute, of or stays(store), asyncio.Event(), reclaim_ms=reclaim_ms)


async def minutes(store: Store, user: str = ANN) -> int:
    return int(await store.execute("HGET", f"uc:1:{{{user}}}:all", "minutes.ok") or 0)


async def counts(store: Store) -> dict[str, int]:
    row = await store.execute("HGETALL", keys.STATISTICS)
    return {name.decode(): int(value) for name, value in row.items()}


async def drained(store: Store) -> bool:
    pending = await store.execute("XPENDING", keys.EVENTS, GROUP)
    return not await store.execute("XLEN", keys.EVENTS) and pending[0] == 0


async def test_events_become_minutes_and_are_forgotten(store: Store, intake: Intake, owned: None) -> None:
    for body in (event("session.open.success"), LEAVE, JOIN, LEAVE, event("track.recording.success"), b'{"type":"x"}'):
        await intake.store(body)
    assert await consumer(store).process_once() == 6
    assert await minutes(store) == 60
    assert int(await store.execute("HGET", f"uc:1:{{{BOB}}}:all", "owned.ok")) == 60
    assert await drained(store)
    found = await counts(store)
    assert found.pop("lag_ms") < 60_000
    assert found.pop("last_ms") >= NOW_MS
    assert found == {
        "received": 6,
        "applied": 1,
        "unchanged": 2,
        "ignored": 2,
        "type:session.open.success": 1,
        "type:peer.leave.success": 2,
        "type:peer.join.success": 1,
        "type:track.recording.success": 1,
        "type:other": 1,
    }


async def test_a_close_counts_whatever_else_a_batch_says_about_its_session(store: Store, intake: Intake) -> None:
    stopped_ms = JOINED_MS + 70_000
    for body in (JOIN, event("session.close.success", session_stopped_at=at(stopped_ms)), LEAVE):
        await intake.store(body)
    await consumer(store).process_once()
    assert await store.execute("HGET", keys.session(ROOM, SESSION), "closed_ms") == b"%d" % stopped_ms
    due_ms = await store.execute("ZSCORE", keys.SESSIONS_DUE, f"{ROOM}|{SESSION}")
    assert due_ms < time.time() * 1000 + 10_000


async def test_a_recorder_is_counted_and_credited_to_nobody(store: Store, intake: Intake) -> None:
    await intake.store(event("peer.leave.success", role="__internal_recorder"))
    await intake.store(event("peer.leave.success", user="100ms_5"))
    await consumer(store).process_once()
    assert await store.execute("KEYS", "?c:1:*") == []
    assert (await counts(store))["recorder"] == 2
    assert await drained(store)


async def test_what_cannot_be_understood_is_a_dead_letter_and_delays_nothing(store: Store, intake: Intake) -> None:
    for body in (b"[" * 100_000, event("peer.leave.success", joined_at="20XX"), LEAVE, b'{"type":"peer.join.success"}'):
        await intake.store(body)
    await consumer(store).process_once()
    assert await minutes(store) == 60
    assert await drained(store)
    letters, _ = await DeadLetters(store.execute).page(size=10)
    assert {one.why for one in letters} == {"the body is not JSON", "joined_at is not a time", "data is not an object"}
    assert (await counts(store))["dead"] == 3


class Dying(Stays):
    """Credits a part of its accounts, then fails."""

    def __init__(self, store: Store, error: Exception) -> None:
        self.calls = 0
        self.error = error

        async def some(*words: Any) -> Any:
            self.calls += words[0] == "EVAL"
            if self.calls % 3 == 0:
                raise self.error
            return await store.execute(*words)

        super().__init__(some, Derived(store.execute, store.post))


async def test_an_event_whose_consumer_died_between_two_credits_is_credited_once(
    store: Store, intake: Intake, owned: None
) -> None:
    await intake.store(JOIN)
    await intake.store(LEAVE)
    with pytest.raises(StoreError):
        await consumer(store, Dying(store, StoreError("killed"))).process_once()
    assert not await drained(store)
    assert await consumer(store).process_once() == 2
    assert await minutes(store) == 60
    assert int(await store.execute("HGET", "uc:1:{all}:all", "minutes.ok")) == 60
    assert await drained(store)


async def test_a_cancelled_consumer_leaves_its_events_to_the_next(store: Store, intake: Intake) -> None:
    reached = asyncio.Event()

    class Hanging(Stays):
        async def apply(self, stays: Sequence[Stay]) -> list[Credited]:
            reached.set()
            await asyncio.sleep(60)
            return []

    await intake.store(LEAVE)
    task = asyncio.create_task(consumer(store, Hanging(store.execute, Derived(store.execute, store.post))).run())
    await reached.wait()
    patient = consumer(store, reclaim_ms=60_000)
    assert await patient.process_once() == 0  # it may still be at work
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await consumer(store).process_once() == 1
    assert await minutes(store) == 60


async def test_two_consumers_at_once_credit_each_event_once(store: Store, intake: Intake) -> None:
    for n in range(400):
        await intake.store(event("peer.leave.success", f"p{n % 150}", left_s=n % 150))
    # With no time to reclaim, they also take each other's events.
    workers = [consumer(store) for _ in range(3)]

    async def work(one: Consumer) -> None:
        while await one.process_once():
            pass

    await asyncio.gather(*map(work, workers))
    assert await minutes(store) == sum(range(150))
    assert await drained(store)


async def test_an_event_that_fails_three_times_is_a_dead_letter_and_the_others_are_credited(
    store: Store, intake: Intake, caplog: pytest.LogCaptureFixture
) -> None:
    class Poisoned(Stays):
        async def apply(self, stays: Sequence[Stay]) -> list[Credited]:
            if any(stay.peer == "poison" for stay in stays):
                raise RuntimeError("cannot")
            return await super().apply(stays)

    for peer in ("a", "poison", "b"):
        await intake.store(event("peer.leave.success", peer))
    worker = consumer(store, Poisoned(store.execute, Derived(store.execute, store.post)))
    for n in range(3):
        assert await minutes(store) == (120 if n else 0)
        await worker.process_once()
    assert await minutes(store) == 120
    assert await drained(store)
    ((letter,), _) = await DeadLetters(store.execute).page(size=10)
    assert letter.why == "it failed 3 times: RuntimeError"
    assert len(caplog.records) == 3


async def test_a_replayed_letter_is_processed_again(store: Store, intake: Intake) -> None:
    await DeadLetters(store.execute).add(LEAVE, "a former version could not read it", 0)
    worker = consumer(store)
    await worker.process_once()
    assert await DeadLetters(store.execute).replay_all(NOW_MS) == 1
    await worker.process_once()
    assert await minutes(store) == 60


async def test_consumers_go_on_after_redis_has_lost_its_data(store: Store, intake: Intake) -> None:
    worker = consumer(store)
    await worker.process_once()
    await store.execute("FLUSHALL")
    assert await worker.process_once() == 0
    await intake.store(LEAVE)
    await worker.process_once()
    assert await minutes(store) == 60


async def test_consumers_that_are_gone_and_hold_nothing_are_deleted(
    store: Store, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    await consumer(store).process_once()
    await intake.store(LEAVE)
    holder = "holder"
    await store.execute("XREADGROUP", "GROUP", GROUP, holder, "STREAMS", keys.EVENTS, ">")
    await asyncio.sleep(0.03)
    monkeypatch.setattr("gateway.metering.consumer._GONE_MS", 20)
    await consumer(store, reclaim_ms=60_000).process_once()
    rows = await store.execute("XINFO", "CONSUMERS", keys.EVENTS, GROUP)
    names = [row[b"name"] if isinstance(row, dict) else row[1] for row in rows]
    assert holder.encode() in names
    assert len(names) == 2


async def test_an_event_of_this_process_is_processed_at_once(store: Store, intake: Intake) -> None:
    worker = Consumer(store.execute, stays(store), intake.wake)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(0.05)
    began = time.monotonic()
    await intake.store(LEAVE)
    while not await minutes(store):
        assert time.monotonic() - began < 5
        await asyncio.sleep(0.005)
    assert time.monotonic() - began < 0.2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_batch_that_an_outage_interrupted_is_processed_again_right_after_it(
    store: Store, intake: Intake, owned: None
) -> None:
    failures = [StoreError("away")]

    class Interrupted(Stays):
        async def apply(self, stays: Sequence[Stay]) -> list[Credited]:
            if failures:
                raise failures.pop()
            return await super().apply(stays)

    await intake.store(LEAVE)
    of = Interrupted(store.execute, Derived(store.execute, store.post))
    worker = consumer(store, of, reclaim_ms=60_000)
    task = asyncio.create_task(worker.run())
    began = time.monotonic()
    while not await minutes(store):
        assert time.monotonic() - began < 5
        await asyncio.sleep(0.05)
    assert not failures
    assert await minutes(store) == 60
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

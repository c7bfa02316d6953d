"""Rooms that budgets have locked, once the budgets have time again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from gateway.hms.errors import HmsUnreachable
from gateway.metering.consequences import FIRST_MS
from gateway.metering.keys import LOCKED
from gateway.metering.unlocking import _MOST_AT_ONCE, _MOST_CALLS, AGAIN_MS, EVERY_S, LATER_MS, Unlocking
from gateway.rooms.room import ChangeRoom, Room
from tests.unit.gateway.metering.budget_bench import ANN, BEN, OWNER
from tests.unit.gateway.metering.enforcement_bench import ENDS, EnforcementBench

DAY_S = 86_400


class Bench(EnforcementBench):
    def __init__(self, text: str = ENDS) -> None:
        super().__init__(text)
        self.unlocking = Unlocking(self.ledger, self.budgets, self.rooms, self.audit, self.clock)

    async def pass_by(self, seconds: float) -> list[tuple[object, ...]]:
        """Let time pass, look for rooms to unlock; return what 100ms was asked to do."""
        self.now_ms += int(seconds * 1000)
        before = len(self.ledger.lines)
        assert await self.unlocking.work() == EVERY_S
        return [line[1:] for line in self.ledger.lines[before:] if line[0] == "100ms"]

    async def lock_by(self, *spenders: tuple[str, Room, float]) -> None:
        """Spend the budgets of a day of users in rooms, so that these are locked."""
        for uid, room, minutes in spenders:
            await self.stay(uid, room.id, minutes, goes_on=True)
        assert await self.look()
        for uid, room, minutes in spenders:
            await self.stay(uid, room.id, minutes)  # they have left

    async def is_enabled(self, room: Room) -> bool:
        found = await self.rooms.get(room.id)
        assert found is not None
        return found.enabled

    async def waiting(self) -> int:
        return int(await self.execute("ZCARD", LOCKED))


@pytest.fixture
async def bench() -> Bench:
    bench = Bench()
    for uid in (ANN, BEN):
        await bench.account(uid, "member")
    return bench


async def test_a_room_is_unlocked_when_the_period_of_the_budget_has_ended(bench: Bench) -> None:
    room = await bench.room_of(ANN)
    await bench.lock_by((ANN, room, 31))
    assert await bench.pass_by(FIRST_MS / 1000 - 1) == []
    assert await bench.pass_by(AGAIN_MS / 1000) == []
    assert not await bench.is_enabled(room)
    assert await bench.pass_by(DAY_S) == [("enable", room.id), ("enable", room.id)]
    assert await bench.is_enabled(room)
    assert await bench.audited("room.changed") == [
        {"room": room.id, "fields": "enabled", "budget": "mine", "about": ANN}
    ]
    assert await bench.waiting() == 0


async def test_a_larger_budget_of_all_unlocks_every_room_a_few_at_a_time() -> None:
    bench = Bench(ENDS[ENDS.index("[quotas.everybody]") :])
    rooms = [await bench.room_of(OWNER) for _ in range(_MOST_AT_ONCE + 10)]
    await bench.lock_by(*(("guest", room, 5) for room in rooms))
    for passed_s in (FIRST_MS / 1000, EVERY_S):
        assert await bench.pass_by(passed_s) == []
    policy = bench.policy.now
    bench.policy.now = replace(policy, installation=(), rooms=replace(policy.rooms, active_per_owner=1000))
    assert await bench.pass_by(1) == [], "they were looked at a second ago"
    at_once = most = 0
    switch = bench.hms.switch_room

    async def counted(*words: Any, **more: Any) -> Any:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.001)
        await switch(*words, **more)
        at_once -= 1

    bench.hms.switch_room = counted  # type: ignore[method-assign]
    assert len(await bench.pass_by(AGAIN_MS / 1000)) == 2 * _MOST_AT_ONCE
    assert len(await bench.pass_by(EVERY_S)) == 2 * 10
    assert most == _MOST_CALLS
    assert all([await bench.is_enabled(room) for room in rooms])


async def owner_locks(bench: Bench, room: Room) -> None:
    await bench.rooms.update(room, ChangeRoom(enabled=False))


async def operator_ends(bench: Bench, room: Room) -> None:
    await bench.rooms.locks.end(room, lock=True, held=True, reason="by an operator")


@pytest.mark.parametrize("lock", [owner_locks, operator_ends])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lock_of_people_stays(
    bench: Bench, lock: Callable[[Bench, Room], Coroutine[Any, Any, None]], when: str
) -> None:
    room = await bench.room_of(ANN)
    if when == "before":  # it goes on for those who are in it
        await lock(bench, room)
    await bench.lock_by((ANN, room, 31))
    if when == "after":
        await lock(bench, room)
    assert await bench.pass_by(DAY_S) == []
    assert not await bench.is_enabled(room)
    assert await bench.waiting() == 0


async def test_a_lock_of_people_during_the_unlocking_stays(bench: Bench) -> None:
    room = await bench.room_of(ANN)
    await bench.lock_by((ANN, room, 31))
    bench.hms.meanwhile["enable"] = lambda: operator_ends(bench, room)
    await bench.pass_by(DAY_S)
    assert not await bench.is_enabled(room)
    assert await bench.audited("room.changed") == []
    assert await bench.pass_by(DAY_S) == []


async def test_an_unlocking_that_100ms_or_the_number_of_rooms_refuses_is_tried_again(bench: Bench) -> None:
    room = await bench.room_of(ANN)
    await bench.lock_by((ANN, room, 31))
    bench.hms.fails["enable"] = HmsUnreachable("away")
    assert await bench.pass_by(DAY_S) == [("enable", room.id)]
    assert not await bench.is_enabled(room)
    del bench.hms.fails["enable"]
    few = bench.policy.now
    bench.policy.now = replace(few, rooms=replace(few.rooms, active_per_owner=1))
    await bench.rooms.locks.take_place(ANN, "another room", ("host",))
    assert await bench.pass_by(AGAIN_MS / 1000) == []
    bench.policy.now = few
    assert await bench.pass_by(AGAIN_MS / 1000) == []
    assert await bench.pass_by(LATER_MS / 1000) == [("enable", room.id)] * 2
    assert await bench.is_enabled(room)


async def test_a_room_that_was_unlocked_and_is_being_locked_again_is_not_forgotten(bench: Bench) -> None:
    """Between the note and the lock the room looks as if nothing were to be done."""
    room = await bench.room_of(ANN)
    await bench.lock_by((ANN, room, 31))
    found = await bench.rooms.get(room.id)
    assert found is not None
    await bench.rooms.update(found, ChangeRoom(enabled=True))
    ((entry, _),) = await bench.execute("ZRANGE", LOCKED, 0, -1, "WITHSCORES")
    get = bench.rooms.get

    async def noted_meanwhile(room_id: str) -> Room | None:
        seen = await get(room_id)
        await bench.execute("ZADD", LOCKED, bench.now_ms + FIRST_MS, entry)
        return seen

    bench.rooms.get = noted_meanwhile  # type: ignore[method-assign]
    assert await bench.pass_by(DAY_S) == []
    assert await bench.waiting() == 1
    bench.rooms.get = get  # type: ignore[method-assign]
    assert await bench.pass_by(DAY_S) == []
    assert await bench.waiting() == 0

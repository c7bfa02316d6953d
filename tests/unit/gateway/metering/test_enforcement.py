"""Budgets while people are in rooms: what is audited, what ends, and how soon."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import structs

from gateway.hms.errors import HmsUnreachable
from gateway.metering.consequences import AGAIN_MS
from gateway.metering.enforcement import EVERY_S, IDLE_S, LONGEST_MS
from limits.overrides import Overrides
from tests.unit.gateway.metering.budget_bench import ANN, BEN, BUDGETS, OWNER
from tests.unit.gateway.metering.enforcement_bench import EnforcementBench


@pytest.fixture
async def bench() -> EnforcementBench:
    bench = EnforcementBench()
    for uid in (ANN, BEN):
        await bench.account(uid, "member")
    return bench


async def test_a_users_room_is_locked_and_ended_once_their_minutes_are_used_up(bench: EnforcementBench) -> None:
    room = await bench.room_of(ANN)
    await bench.stay(ANN, room.id, 29, goes_on=True)
    assert await bench.look() == []
    assert await bench.look(59) == []
    assert await bench.look(2) == [("end", room.id, True)]
    found = await bench.rooms.get(room.id)
    assert found is not None
    assert (found.enabled, found.held) == (False, False)
    [said] = await bench.audited("room.ended")
    assert said == {
        "room": room.id, "lock": 1, "reason": "the minutes of the owner of this room are used up", "budget": "mine",
        "about": ANN,
    }  # fmt: skip


async def test_a_user_is_removed_from_rooms_of_others_which_go_on(bench: EnforcementBench) -> None:
    theirs, own = await bench.room_of(OWNER), await bench.room_of(ANN)
    await bench.stay(ANN, theirs.id, 31, goes_on=True, peer="ann-1")
    await bench.stay(BEN, theirs.id, 10, goes_on=True)
    await bench.stay(BEN, own.id, 10, goes_on=True)
    assert sorted(await bench.look()) == [("end", own.id, True), ("remove", "ann-1")]
    assert [said["about"] for said in await bench.audited("peer.removed")] == [ANN]


async def test_every_running_room_of_an_owner_ends_with_the_budget_of_their_rooms(bench: EnforcementBench) -> None:
    theirs, more, others = await bench.room_of(OWNER), await bench.room_of(OWNER), await bench.room_of(BEN)
    for room, user in ((theirs, ANN), (more, BEN), (others, "guest")):
        await bench.stay(user, room.id, 29, goes_on=True)
    await bench.stay("somebody", theirs.id, 42)
    assert sorted(await bench.look()) == [("end", theirs.id, True), ("end", more.id, True)]


async def test_fifty_rooms_end_in_one_look_ten_at_a_time(bench: EnforcementBench) -> None:
    """So the time that it takes grows with a tenth of the rooms, and users keep most of the connections to 100ms."""
    rooms = [await bench.room_of(OWNER) for _ in range(50)]
    for room in rooms:
        await bench.stay("guest", room.id, 3, goes_on=True)
    at_once, most, end = 0, 0, bench.hms.end_room

    async def slow_end(*words: object, **more: object) -> bool:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.001)
        at_once -= 1
        return bool(await end(*words, **more))  # type: ignore[arg-type]

    bench.hms.end_room = slow_end  # type: ignore[method-assign]
    assert len(await bench.look()) == 50
    assert most == 10


async def test_the_budget_of_all_locks_and_ends_every_room_of_the_gateway(bench: EnforcementBench) -> None:
    rooms = [await bench.room_of(OWNER), await bench.room_of(BEN)]
    for room in rooms:
        await bench.stay("guest", room.id, 1, goes_on=True)
    await bench.stay("stranger", "not ours", 498, goes_on=True)
    assert sorted(await bench.look()) == [("end", room.id, True) for room in rooms]
    for room in rooms:
        found = await bench.rooms.get(room.id)
        assert found
        assert (found.enabled, found.held) == (False, False)
    said = {entry["about"]: entry for entry in await bench.audited("room.ended")}
    assert sorted(said) == [BEN, OWNER]
    assert {(one["reason"], one["budget"], one["lock"]) for one in said.values()} == {
        ("the minutes of this service are used up", "everybody", 1)
    }


async def test_a_budget_that_only_refuses_ends_nothing() -> None:
    bench = EnforcementBench(BUDGETS.format(more=""))
    room = await bench.room_of(ANN)
    await bench.stay(ANN, room.id, 600, goes_on=True)
    assert await bench.look() == []
    reached = [(said["budget"], said["percent"]) for said in await bench.audited("budget.reached")]
    assert sorted(reached) == [(name, percent) for name in ("everybody", "mine", "rooms") for percent in (80, 100)]


async def test_each_percentage_is_audited_once_per_period(bench: EnforcementBench) -> None:
    theirs = await bench.room_of(OWNER)
    await bench.stay(ANN, theirs.id, 23.9, goes_on=True)
    for _ in range(4):
        await bench.look(5)
    [said] = await bench.audited("budget.reached")
    assert said["period"]
    assert {name: said[name] for name in ("budget", "scope", "percent", "minutes", "about")} == {
        "budget": "mine", "scope": "user", "percent": 80, "minutes": 30, "about": ANN,
    }  # fmt: skip
    bench.enforcement._watches.clear()  # as in another process that becomes the leader
    await bench.look()
    assert len(await bench.audited("budget.reached")) == 1
    bench.now_ms += 86_400_000
    await bench.stay(ANN, theirs.id, 24, peer="again")
    await bench.look()
    assert [said["percent"] for said in await bench.audited("budget.reached") if said["budget"] == "mine"] == [80, 80]


async def test_what_100ms_refused_is_tried_again_with_the_next_look(bench: EnforcementBench) -> None:
    room = await bench.room_of(ANN)
    await bench.stay(ANN, room.id, 31, goes_on=True)
    bench.hms.fails["end"] = HmsUnreachable("away")
    assert await bench.look() == [("end", room.id, True)]
    assert await bench.audited("room.ended") == []
    del bench.hms.fails["end"]
    assert await bench.look(2) == [("end", room.id, True)]
    assert await bench.look(2) == []  # 100ms is at work
    assert await bench.look(AGAIN_MS / 1000) == [("end", room.id, True)]  # somebody has come back


async def test_a_budget_is_enforced_although_open_stays_have_not_been_credited_for_a_while(
    bench: EnforcementBench,
) -> None:
    room = await bench.room_of(ANN)
    await bench.stay(ANN, room.id, 29.5, goes_on=True)
    assert await bench.look() == []
    assert await bench.look(20, accrue=False) == []
    assert await bench.look(10, accrue=False) == [("end", room.id, True)]


async def test_a_process_that_becomes_the_leader_again_adds_nothing_to_what_others_credited(
    bench: EnforcementBench,
) -> None:
    room = await bench.room_of(ANN)
    await bench.accrual.work()
    bench.now_ms += 3_600_000
    await bench.stay(ANN, room.id, 20, goes_on=True)
    assert await bench.look(accrue=False) == []


async def test_a_smaller_override_ends_rooms_within_ten_seconds(bench: EnforcementBench) -> None:
    room = await bench.room_of(ANN)
    await bench.stay(ANN, room.id, 10, goes_on=True)
    assert await bench.look() == []
    overrides = Overrides(bench.execute, bench.limiter, clock=lambda: bench.now_ms * 1000)
    quota = structs.replace(bench.policy.now.roles["member"].quotas["mine"], amount=5)
    until_us = (bench.now_ms + 2 * 86_400_000) * 1000
    await overrides.set_quota(ANN, quota, until_us=until_us, reason="abuse", by="op")
    asked = [await bench.look(EVERY_S) for _ in range(5)]
    assert [line for lines in asked for line in lines] == [("end", room.id, True)]
    assert LONGEST_MS + EVERY_S * 1000 <= 10_000


async def test_a_budget_far_from_spent_is_not_asked_for_at_every_look(bench: EnforcementBench) -> None:
    theirs = await bench.room_of(OWNER)
    await bench.stay(ANN, theirs.id, 1, goes_on=True)
    await bench.look()
    before = len(bench.ledger.lines)
    for _ in range(3):
        await bench.look(EVERY_S, accrue=False)
    assert not [line for line in bench.ledger.lines[before:] if line[0] == "EVAL"]


async def test_without_budgets_open_stays_are_not_read() -> None:
    bench = EnforcementBench("")
    assert await bench.enforcement.work() == IDLE_S
    assert bench.ledger.lines == []

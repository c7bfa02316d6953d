"""Budgets while people are in rooms: what is audited, what ends, and how soon."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from msgspec import structs

from gateway.audit import Audit
from gateway.hms.errors import HmsUnreachable
from gateway.metering.accrual import Accrual
from gateway.metering.consequences import AGAIN_MS, Consequences
from gateway.metering.enforcement import EVERY_S, IDLE_S, LONGEST_MS, Enforcement
from gateway.rooms.registry import Rooms, upstream_name
from gateway.rooms.room import NewRoom, Room
from limits.overrides import Overrides
from tests.fake_redis import fake_redis
from tests.unit.gateway.fake_100ms import TEMPLATE, Fake100ms, Ledger
from tests.unit.gateway.metering.budget_bench import ANN, BEN, BUDGETS, OWNER, BudgetBench, policy_with

ENDS = BUDGETS.format(more='on_exhausted = "end"')


class Bench(BudgetBench):
    def __init__(self, text: str = ENDS) -> None:
        policy = policy_with(text)
        policy.now = replace(policy.now, template_ids={"default": TEMPLATE})
        self.ledger = Ledger(fake_redis().execute_command)
        super().__init__(self.ledger, policy)
        self.hms = Fake100ms(self.ledger)
        self.rooms = Rooms(self.ledger, self.hms, self.limiter, policy)  # type: ignore[arg-type]
        self.accrual = Accrual(self.ledger, self.stays, self.clock)
        self.audit = Audit(self.ledger)
        self.consequences = Consequences(self.ledger, self.rooms, self.hms, self.audit)  # type: ignore[arg-type]
        self.enforcement = Enforcement(
            self.ledger, self.budgets, policy, self.consequences, self.clock, lambda: self.accrual.credited_ms
        )

    async def room_of(self, uid: str) -> Room:
        await self.account(uid, "host")
        new = NewRoom("Tea", "", "open", "default")
        return (await self.rooms.create(uid, new, lease="lease", upstream=upstream_name("Tea")))[0]

    async def look(self, after_s: float = 0, *, accrue: bool = True) -> list[tuple[object, ...]]:
        """Let time pass, credit open stays, look at the budgets; return what 100ms was asked to do."""
        self.now_ms += int(after_s * 1000)
        if accrue:
            await self.accrual.work()
        before = len(self.ledger.lines)
        await self.enforcement.work()
        return [line[1:] for line in self.ledger.lines[before:] if line[0] == "100ms"]

    async def audited(self, action: str) -> list[dict[str, str | int]]:
        entries, _ = await self.audit.page()
        return [entry.details | {"about": entry.subject} for entry in reversed(entries) if entry.action == action]


@pytest.fixture
async def bench() -> Bench:
    bench = Bench()
    for uid in (ANN, BEN):
        await bench.account(uid, "member")
    return bench


async def test_a_users_room_is_locked_and_ended_once_their_minutes_are_used_up(bench: Bench) -> None:
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


async def test_a_user_is_removed_from_rooms_of_others_which_go_on(bench: Bench) -> None:
    theirs, own = await bench.room_of(OWNER), await bench.room_of(ANN)
    await bench.stay(ANN, theirs.id, 31, goes_on=True, peer="ann-1")
    await bench.stay(BEN, theirs.id, 10, goes_on=True)
    await bench.stay(BEN, own.id, 10, goes_on=True)
    assert sorted(await bench.look()) == [("end", own.id, True), ("remove", "ann-1")]
    assert [said["about"] for said in await bench.audited("peer.removed")] == [ANN]


async def test_every_running_room_of_an_owner_ends_with_the_budget_of_their_rooms(bench: Bench) -> None:
    theirs, more, others = await bench.room_of(OWNER), await bench.room_of(OWNER), await bench.room_of(BEN)
    for room, user in ((theirs, ANN), (more, BEN), (others, "guest")):
        await bench.stay(user, room.id, 29, goes_on=True)
    await bench.stay("somebody", theirs.id, 42)
    assert sorted(await bench.look()) == [("end", theirs.id, True), ("end", more.id, True)]


async def test_fifty_rooms_end_in_one_look_ten_at_a_time(bench: Bench) -> None:
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


async def test_the_budget_of_all_ends_every_room_of_the_gateway_and_locks_none(bench: Bench) -> None:
    rooms = [await bench.room_of(OWNER), await bench.room_of(BEN)]
    for room in rooms:
        await bench.stay("guest", room.id, 1, goes_on=True)
    await bench.stay("stranger", "not ours", 498, goes_on=True)
    assert sorted(await bench.look()) == [("end", room.id, False) for room in rooms]
    assert all([(found := await bench.rooms.get(room.id)) and found.enabled for room in rooms])


async def test_a_budget_that_only_refuses_ends_nothing() -> None:
    bench = Bench(BUDGETS.format(more=""))
    room = await bench.room_of(ANN)
    await bench.stay(ANN, room.id, 600, goes_on=True)
    assert await bench.look() == []
    reached = [(said["budget"], said["percent"]) for said in await bench.audited("budget.reached")]
    assert sorted(reached) == [(name, percent) for name in ("everybody", "mine", "rooms") for percent in (80, 100)]


async def test_each_percentage_is_audited_once_per_period(bench: Bench) -> None:
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


async def test_what_100ms_refused_is_tried_again_with_the_next_look(bench: Bench) -> None:
    room = await bench.room_of(ANN)
    await bench.stay(ANN, room.id, 31, goes_on=True)
    bench.hms.fails["end"] = HmsUnreachable("away")
    assert await bench.look() == [("end", room.id, True)]
    assert await bench.audited("room.ended") == []
    del bench.hms.fails["end"]
    assert await bench.look(2) == [("end", room.id, True)]
    assert await bench.look(2) == []  # 100ms is at work
    assert await bench.look(AGAIN_MS / 1000) == [("end", room.id, True)]  # somebody has come back


async def test_a_budget_is_enforced_although_open_stays_have_not_been_credited_for_a_while(bench: Bench) -> None:
    room = await bench.room_of(ANN)
    await bench.stay(ANN, room.id, 29.5, goes_on=True)
    assert await bench.look() == []
    assert await bench.look(20, accrue=False) == []
    assert await bench.look(10, accrue=False) == [("end", room.id, True)]


async def test_a_process_that_becomes_the_leader_again_adds_nothing_to_what_others_credited(bench: Bench) -> None:
    room = await bench.room_of(ANN)
    await bench.accrual.work()
    bench.now_ms += 3_600_000
    await bench.stay(ANN, room.id, 20, goes_on=True)
    assert await bench.look(accrue=False) == []


async def test_a_smaller_override_ends_rooms_within_ten_seconds(bench: Bench) -> None:
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


async def test_a_budget_far_from_spent_is_not_asked_for_at_every_look(bench: Bench) -> None:
    theirs = await bench.room_of(OWNER)
    await bench.stay(ANN, theirs.id, 1, goes_on=True)
    await bench.look()
    before = len(bench.ledger.lines)
    for _ in range(3):
        await bench.look(EVERY_S, accrue=False)
    assert not [line for line in bench.ledger.lines[before:] if line[0] == "EVAL"]


async def test_without_budgets_open_stays_are_not_read() -> None:
    bench = Bench("")
    assert await bench.enforcement.work() == IDLE_S
    assert bench.ledger.lines == []

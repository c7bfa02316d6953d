"""Locking, unlocking, ending, adopting and listing rooms, and the places they hold.

`RoomLocksContract` applies to any Redis; it runs on fakeredis here and on Valkey in integration.
"""

import asyncio
import contextlib
import random
from dataclasses import replace

import pytest

from gateway.hms.errors import HmsBusy, HmsTimeout, HmsUnreachable
from gateway.hms.replies import HmsRoom
from gateway.rooms.locks import LockedMeanwhile, TooManyRooms
from gateway.rooms.registry import NotOurs, Rooms
from gateway.rooms.room import ChangeRoom, Room
from tests.fake_redis import fake_redis
from tests.unit.gateway.fake_100ms import OWNER, STRANGER, TEMPLATE, Fake100ms, Ledger
from tests.unit.gateway.room_bench import Execute, RoomBench


class RoomLocksContract(RoomBench):
    # --- locking and unlocking ---

    async def test_minting_stops_before_100ms_is_called(self, rooms: Rooms, ledger: Ledger) -> None:
        room = await self.create(rooms)
        for change in (rooms.update(room, ChangeRoom(enabled=False)), self.end(rooms, room)):
            ledger.lines.clear()
            await change
            written = next(n for n, line in enumerate(ledger.lines) if f"rm:1:{{{room.id}}}" in line)
            asked = next(n for n, line in enumerate(ledger.lines) if line[0] == "100ms")
            assert written < asked

    async def end(self, rooms: Rooms, room: Room) -> bool:
        return await rooms.locks.end(room, lock=True, held=False, reason="over")

    async def test_a_lock_holds_although_100ms_fails_and_a_repetition_sends_it_again(
        self, rooms: Rooms, hms: Fake100ms, ledger: Ledger
    ) -> None:
        room = await self.create(rooms)
        hms.fails["disable"] = HmsUnreachable("x")
        with pytest.raises(HmsUnreachable, match=r"^x The gateway has locked the room nevertheless.* Repeat"):
            await rooms.update(room, ChangeRoom(enabled=False))
        assert not (await self.now(rooms, room)).enabled
        hms.fails.clear()
        ledger.lines.clear()
        await rooms.update(await self.now(rooms, room), ChangeRoom(enabled=False))
        assert ledger.upstream() == [("disable", room.id)]

    @pytest.mark.parametrize("fails", ["end", "disable"])
    async def test_the_error_of_a_failed_end_says_that_the_lock_holds(
        self, rooms: Rooms, hms: Fake100ms, fails: str
    ) -> None:
        room = await self.create(rooms)
        hms.running = False
        hms.fails[fails] = HmsBusy("x", 3)
        with pytest.raises(HmsBusy, match=r"^x The gateway has locked the room nevertheless.* Repeat") as caught:
            await self.end(rooms, room)
        assert caught.value.retry_after_s == 3
        assert not (await self.now(rooms, room)).enabled

    async def test_an_error_says_which_part_of_a_change_is_in_force(self, rooms: Rooms, hms: Fake100ms) -> None:
        room = await self.create(rooms)
        hms.fails = dict.fromkeys(("update", "end", "enable"), HmsUnreachable("x"))
        with pytest.raises(HmsUnreachable, match=r"^x$"):
            await rooms.update(room, ChangeRoom("Coffee", "new"))
        with pytest.raises(HmsUnreachable, match=r"^x$"):
            await rooms.locks.end(room, lock=False, held=False, reason="x")
        await rooms.update(room, ChangeRoom(enabled=False))
        locked = await self.now(rooms, room)
        with pytest.raises(HmsUnreachable, match=r"^x$"):
            await rooms.update(locked, ChangeRoom("Coffee", "new", enabled=True))
        del hms.fails["enable"]
        with pytest.raises(
            HmsUnreachable, match=r"^x The room has been enabled nevertheless; nothing else has changed"
        ):
            await rooms.update(locked, ChangeRoom("Coffee", "new", enabled=True))
        now = await self.now(rooms, room)
        assert (now.enabled, now.name, now.description) == (True, "Tea", "about")

    async def test_an_operator_can_take_over_the_lock_of_an_owner(self, rooms: Rooms) -> None:
        room = await self.create(rooms)
        await rooms.update(room, ChangeRoom(enabled=False))
        assert not (await self.now(rooms, room)).held
        await rooms.update(await self.now(rooms, room), ChangeRoom(enabled=False), held=True)
        assert (await self.now(rooms, room)).held

    async def test_a_simultaneous_lock_by_the_owner_does_not_weaken_the_operators_lock(self, rooms: Rooms) -> None:
        room = await self.create(rooms)
        await rooms.locks.end(room, lock=True, held=True, reason="by an operator")
        await rooms.locks.end(room, lock=True, held=False, reason="by the owner, who saw it unlocked")
        assert (await self.now(rooms, room)).held

    async def test_an_operators_lock_outlasts_an_unlock_in_progress(
        self, rooms: Rooms, hms: Fake100ms, ledger: Ledger
    ) -> None:
        """While 100ms slowly enables the room, an operator locks it."""
        room = await self.create(rooms)
        await rooms.update(room, ChangeRoom(enabled=False))
        locked = await self.now(rooms, room)

        async def operator() -> None:
            await rooms.update(locked, ChangeRoom(enabled=False), held=True)

        hms.meanwhile["enable"] = operator
        with pytest.raises(LockedMeanwhile):
            await rooms.update(locked, ChangeRoom("Mine", "new", enabled=True))
        now = await self.now(rooms, room)
        assert (now.enabled, now.held, now.name, now.description) == (False, True, "Tea", "about")
        assert "update" not in [line[0] for line in ledger.upstream()]
        assert ledger.upstream()[-1] == ("disable", room.id)
        assert await self.places(rooms) == 0

    async def test_a_budgets_lock_is_known_as_such_until_people_lock_or_unlock_the_room(self, rooms: Rooms) -> None:
        async def by_budget(budget: str) -> str:
            await rooms.locks.end(await self.now(rooms, room), lock=True, held=False, reason="x", budget=budget)
            return await rooms.locks.locked_by(room.id)

        room = await self.create(rooms)
        assert [await by_budget("a"), await by_budget("b")] == ["a", "a"]
        await rooms.locks.unlock(await self.now(rooms, room))
        assert await rooms.locks.locked_by(room.id) == ""
        assert await by_budget("b") == "b"
        await rooms.update(await self.now(rooms, room), ChangeRoom(enabled=False))
        assert [await rooms.locks.locked_by(room.id), await by_budget("c")] == ["", ""]

    async def test_a_running_room_is_ended_and_an_empty_one_only_disabled(
        self, rooms: Rooms, hms: Fake100ms, ledger: Ledger
    ) -> None:
        room = await self.create(rooms)
        ledger.lines.clear()
        assert await self.end(rooms, room)
        hms.running = False
        assert not await self.end(rooms, room)
        assert not await rooms.locks.end(room, lock=False, held=False, reason="x")
        assert ledger.upstream() == [
            ("end", room.id, True),
            ("end", room.id, True),
            ("disable", room.id),
            ("end", room.id, False),
        ]

    async def test_ending_without_a_lock_leaves_the_room_open_and_its_place_taken(self, rooms: Rooms) -> None:
        room = await self.create(rooms)
        await rooms.locks.end(room, lock=False, held=True, reason="x")
        assert await self.now(rooms, room) == room
        assert await self.places(rooms) == 1

    # --- places ---

    async def test_a_lock_frees_the_place_and_unlocking_takes_one(self, rooms: Rooms, ledger: Ledger) -> None:
        first, _ = await self.create(rooms), await self.create(rooms, "Coffee")
        await rooms.update(first, ChangeRoom(enabled=False))
        assert await self.places(rooms) == 1
        await self.create(rooms, "Milk")
        ledger.lines.clear()
        with pytest.raises(TooManyRooms):
            await rooms.update(await self.now(rooms, first), ChangeRoom("Mine", "new", enabled=True))
        assert ledger.upstream() == []
        now = await self.now(rooms, first)
        assert (now.enabled, now.name) == (False, "Tea")

    async def test_the_place_belongs_to_the_creator_whoever_owns_the_room(self, rooms: Rooms, ledger: Ledger) -> None:
        room = await self.create(rooms)
        await ledger("HSET", f"rm:1:{{{room.id}}}", "owner", STRANGER)
        assert (await self.places(rooms), await self.places(rooms, STRANGER)) == (1, 0)
        await rooms.update(await self.now(rooms, room), ChangeRoom(enabled=False))
        assert (await self.places(rooms), await self.places(rooms, STRANGER)) == (0, 0)
        await rooms.update(await self.now(rooms, room), ChangeRoom(enabled=True))
        assert (await self.places(rooms), await self.places(rooms, STRANGER)) == (1, 0)

    async def test_a_creator_has_as_many_places_as_their_roles_give_them_now(
        self, rooms: Rooms, ledger: Ledger
    ) -> None:
        policy = rooms._policy.now
        strict = replace(policy.roles["host"], concurrent_rooms=1)
        rooms._policy.now = replace(policy, roles={**policy.roles, "host": strict})
        room, _ = await self.create(rooms), await self.create(rooms, "Coffee")
        await rooms.update(room, ChangeRoom(enabled=False))
        await ledger("HSET", f"u:1:{{{OWNER}}}", "roles", "member host")
        with pytest.raises(TooManyRooms) as refused:
            await rooms.update(await self.now(rooms, room), ChangeRoom(enabled=True))
        assert refused.value.decision.leases[0].lease.most == 1
        await ledger("HSET", f"u:1:{{{OWNER}}}", "roles", "member")
        await rooms.update(await self.now(rooms, room), ChangeRoom(enabled=True))
        assert await self.places(rooms) == 2

    async def test_an_unlock_that_100ms_refuses_frees_its_place(self, rooms: Rooms, hms: Fake100ms) -> None:
        room = await self.create(rooms)
        await rooms.update(room, ChangeRoom(enabled=False))
        hms.fails["enable"] = HmsTimeout("x")
        with pytest.raises(HmsTimeout):
            await rooms.update(await self.now(rooms, room), ChangeRoom(enabled=True))
        assert await self.places(rooms) == 0
        assert not (await self.now(rooms, room)).enabled

    async def test_two_concurrent_unlocks_take_one_place(self, rooms: Rooms) -> None:
        room = await self.create(rooms)
        await rooms.update(room, ChangeRoom(enabled=False))
        locked = await self.now(rooms, room)
        await asyncio.gather(*(rooms.update(locked, ChangeRoom(enabled=True)) for _ in range(2)))
        assert (await self.places(rooms), (await self.now(rooms, room)).enabled) == (1, True)

    @pytest.mark.parametrize("seed", range(6))
    async def test_places_and_100ms_agree_with_the_rows_for_every_order_of_locks_and_unlocks(
        self, rooms: Rooms, hms: Fake100ms, seed: int
    ) -> None:
        """Otherwise an owner who locks and unlocks concurrently could get too many rooms or tokens for a locked one."""
        chance = random.Random(seed)
        hms.delays = chance
        made = [await self.create(rooms, name) for name in ("Tea", "Coffee")]

        async def act(room: Room) -> None:
            await asyncio.sleep(chance.uniform(0, 0.008))
            now = await self.now(rooms, room)
            with contextlib.suppress(TooManyRooms, LockedMeanwhile):
                if chance.random() < 0.2:
                    hms.running = chance.random() < 0.5
                    await rooms.locks.end(now, lock=True, held=False, reason="x")
                else:
                    await rooms.update(now, ChangeRoom(enabled=chance.random() < 0.6))

        for _ in range(12):
            await asyncio.gather(*(act(chance.choice(made)) for _ in range(6)))
            rows = [await self.now(rooms, room) for room in made]
            assert await self.places(rooms) == sum(row.enabled for row in rows)
            assert [hms.enabled.get(row.id, True) for row in rows] == [row.enabled for row in rows]

    async def test_a_late_lock_frees_only_the_earlier_place(self, rooms: Rooms, hms: Fake100ms) -> None:
        """Concurrent enable, disable and enable with a slow 100ms (an attack that once worked)."""
        room = await self.create(rooms)
        await rooms.update(room, ChangeRoom(enabled=False))
        locked = await self.now(rooms, room)

        async def disable_and_enable() -> None:
            await rooms.update(locked, ChangeRoom(enabled=False))
            await rooms.update(await self.now(rooms, room), ChangeRoom(enabled=True))

        hms.meanwhile["enable"] = disable_and_enable
        with pytest.raises(LockedMeanwhile):
            await rooms.update(locked, ChangeRoom(enabled=True))
        assert (await self.places(rooms), (await self.now(rooms, room)).enabled) == (1, True)
        assert hms.enabled[room.id]

    # --- adopting ---

    async def test_a_room_of_100ms_can_be_adopted_once_with_an_owner(self, rooms: Rooms, hms: Fake100ms) -> None:
        old = HmsRoom("e" * 24, "old-room", False, "89abcdef0123456789abcdef", 1_700_000_000.5)
        hms.rooms[old.id] = old
        room = await rooms.adopt(old.id, OWNER, name="Old room")
        assert await self.now(rooms, room) == room
        assert (room.owner_id, room.enabled, room.created_ms) == (OWNER, False, 1_700_000_000_500)
        assert [one.id for one in (await rooms.page(OWNER, before=None, size=9))[0]] == [old.id]
        for owner in (OWNER, STRANGER):
            with pytest.raises(NotOurs):
                await rooms.adopt(old.id, owner, name="Another")
        assert await self.now(rooms, room) == room

    @pytest.mark.parametrize(
        ("text", "kept"),
        [
            (" Cafe\u0301 ", "Caf\u00e9"),
            ("d" * 501, "d" * 500),
            ("d" * 499 + " tail", "d" * 499),
            ("two\nlines", ""),
            ("turned \u202e", ""),
            ("\x7f", ""),
            ("", ""),
        ],
    )
    async def test_texts_of_an_adopted_room_are_texts_that_users_may_write(
        self, rooms: Rooms, hms: Fake100ms, text: str, kept: str
    ) -> None:
        hms.rooms["e" * 24] = HmsRoom("e" * 24, text, True, TEMPLATE, description=text)
        room = await rooms.adopt("e" * 24, OWNER, name="")
        now = await self.now(rooms, room)
        assert (now.description, now.name, now.upstream) == (kept, kept[:100] or "Untitled room", text)

    async def test_one_of_two_simultaneous_adoptions_wins(self, rooms: Rooms, hms: Fake100ms) -> None:
        hms.rooms["e" * 24] = HmsRoom("e" * 24, "old-room", True, "89abcdef0123456789abcdef")
        names = {OWNER: "Mine", STRANGER: "Yours"}
        tries = (rooms.adopt("e" * 24, uid, name=name) for uid, name in names.items())
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        [adopted] = [one for one in outcomes if isinstance(one, Room)]
        assert sum(isinstance(one, NotOurs) for one in outcomes) == 1
        for uid in names:
            listed, _ = await rooms.page(uid, before=None, size=9)
            assert [one.id for one in listed] == ([adopted.id] if uid == adopted.owner_id else [])

    @pytest.mark.parametrize("room_id", ["", "x", "E" * 24, "../rooms", "f" * 24])
    async def test_a_room_that_100ms_does_not_have_is_not_adopted(
        self, rooms: Rooms, room_id: str, ledger: Ledger
    ) -> None:
        with pytest.raises(NotOurs):
            await rooms.adopt(room_id, OWNER, name="Old")
        assert ledger.upstream() == ([("get", room_id)] if room_id == "f" * 24 else [])

    async def test_a_room_with_an_unknown_template_is_not_adopted(self, rooms: Rooms, hms: Fake100ms) -> None:
        for template in ("a" * 24, ""):
            hms.rooms["e" * 24] = HmsRoom("e" * 24, "old-room", True, template)
            with pytest.raises(NotOurs, match="template"):
                await rooms.adopt("e" * 24, OWNER, name="Old")
        assert await rooms.get("e" * 24) is None

    # --- lists ---

    async def test_a_room_joined_while_it_was_open_leaves_the_list_when_it_is_closed(self, rooms: Rooms) -> None:
        room = await self.create(rooms)
        found = await rooms.find(room.id, STRANGER)
        assert found is not None
        await rooms.enlist(found, STRANGER)
        assert [one.id for one in (await rooms.page(STRANGER, before=None, size=9))[0]] == [room.id]
        assert (await rooms.page(STRANGER, before=None, size=9, open_rooms=False))[0] == []
        await rooms.update(room, ChangeRoom(access="invited"))
        assert (await rooms.page(STRANGER, before=None, size=9))[0] == []
        assert [one.id for one in (await rooms.page(OWNER, before=None, size=9))[0]] == [room.id]

    @pytest.mark.parametrize(("relation", "listed"), [("viewer", True), ("cohost", True), ("banned", False)])
    async def test_a_list_shows_rooms_with_a_stored_relation_except_bans(
        self, rooms: Rooms, ledger: Ledger, relation: str, listed: bool
    ) -> None:
        room = await self.create(rooms)
        await rooms.update(room, ChangeRoom(access="invited"))
        await ledger("HSET", f"rr:1:{{{room.id}}}", STRANGER, relation)
        await ledger("ZADD", f"ur:1:{{{STRANGER}}}", 1, room.id)
        assert bool((await rooms.page(STRANGER, before=None, size=9))[0]) is listed


class TestRoomLocksOnFakeredis(RoomLocksContract):
    @pytest.fixture
    def execute(self) -> Execute:
        return fake_redis().execute_command  # type: ignore[no-any-return]

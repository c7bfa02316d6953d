"""Repeated creates, and unique names.

`RoomNamesContract` applies to any Redis; it runs on fakeredis here and on Valkey in integration.
"""

import asyncio
import contextlib
import random

import pytest

from gateway.hms.errors import HmsBusy, HmsError, HmsTimeout, HmsUnreachable
from gateway.hms.replies import HmsRoom
from gateway.redis.store import StoreError
from gateway.rooms.names import NameTaken
from gateway.rooms.registry import Rooms, upstream_name
from gateway.rooms.room import UNTITLED, ChangeRoom, NewRoom, Room
from tests.fake_redis import fake_redis
from tests.unit.gateway.fake_100ms import OWNER, STRANGER, Fake100ms, Ledger
from tests.unit.gateway.room_bench import Execute, RoomBench


class RoomNamesContract(RoomBench):
    async def a_minute_later(self, ledger: Ledger, folded_name: str) -> None:
        key = f"nm:1:{folded_name}"
        since = int(await ledger("HGET", key, "at"))
        await ledger("HSET", key, "at", since - 60_000)

    async def test_a_repetition_finds_the_registered_room_and_does_not_change_it(
        self, rooms: Rooms, ledger: Ledger
    ) -> None:
        """An attempt registered the room and crashed. The repetition must not undo later changes of the room."""
        room = await self.create(rooms, upstream="tea.1")
        await rooms.update(room, ChangeRoom(name="Coffee", enabled=False), held=True)
        await ledger("HSET", f"rm:1:{{{room.id}}}", "owner", STRANGER)
        new = NewRoom("Tea", "about", "open", "default")
        again, is_new = await rooms.create(OWNER, new, lease="another", upstream="tea.1")
        assert not is_new
        assert again == await self.now(rooms, room)
        assert (again.name, again.owner_id, again.enabled, again.held) == ("Coffee", STRANGER, False, True)
        assert again.lease == room.lease

    async def test_a_repetition_already_holds_its_unique_name(self, rooms: Rooms) -> None:
        room = await self.create(rooms, upstream="tea.1")
        new = NewRoom("Tea", "about", "open", "default")
        assert await rooms.create(OWNER, new, lease="another", upstream="tea.1") == (room, False)
        with pytest.raises(NameTaken):
            await self.create(rooms, "TEA")

    async def test_an_answer_of_100ms_with_another_users_room_overwrites_nothing(
        self, rooms: Rooms, hms: Fake100ms, ledger: Ledger
    ) -> None:
        room = await self.create(rooms)
        hms.rooms = {room.id: HmsRoom(room.id, "mine.1", True)}
        with pytest.raises(HmsUnreachable):
            await self.create(rooms, "Mine", uid=STRANGER, upstream="mine.1")
        assert await self.now(rooms, room) == room
        assert await rooms.page(STRANGER, before=None, size=10) == ([], None)
        await self.a_minute_later(ledger, "mine")
        assert (await self.create(rooms, "Mine", uid=STRANGER)).owner_id == STRANGER  # the name was freed

    # --- unique names ---

    async def test_one_of_several_racing_creates_gets_the_name(self, rooms: Rooms) -> None:
        names = ["Tea", "tea", "TEA", "ｔｅａ"]
        many = [NewRoom(name, "", "open", "default") for name in names]
        made = await asyncio.gather(
            *(rooms.create(OWNER, new, lease="l", upstream=upstream_name("x")) for new in many), return_exceptions=True
        )
        assert sorted(type(one).__name__ for one in made) == ["NameTaken"] * 3 + ["tuple"]

    @pytest.mark.parametrize("error", [HmsUnreachable("x"), HmsTimeout("x"), HmsBusy("x", 1)])
    async def test_a_name_is_free_again_after_100ms_refused_the_create(
        self, rooms: Rooms, hms: Fake100ms, error: HmsError
    ) -> None:
        hms.fails["create"] = error
        new = NewRoom("Tea", "", "open", "default")
        with pytest.raises(type(error)):
            await rooms.create(OWNER, new, lease="l", upstream="tea.1")
        hms.fails.clear()
        await rooms.create(OWNER, new, lease="l", upstream="tea.2")

    async def test_any_number_of_rooms_may_be_unnamed(self, rooms: Rooms) -> None:
        new = NewRoom(UNTITLED, "", "open", "default")
        made = [await rooms.create(OWNER, new, lease="l", upstream=upstream_name("x")) for _ in range(3)]
        assert len({room.id for room, _ in made}) == 3

    async def test_a_rename_takes_the_new_name_and_frees_the_old(self, rooms: Rooms, ledger: Ledger) -> None:
        room = await self.create(rooms)
        await rooms.update(room, ChangeRoom(name="Coffee"))
        with pytest.raises(NameTaken):
            await self.create(rooms, "coffee", uid=STRANGER)
        with pytest.raises(NameTaken):  # for a minute, because the room may be about to get the name again
            await self.create(rooms, "Tea", uid=STRANGER)
        await self.a_minute_later(ledger, "tea")
        assert (await self.create(rooms, "Tea", uid=STRANGER)).name == "Tea"

    async def test_a_rename_to_a_taken_name_changes_nothing(self, rooms: Rooms) -> None:
        room, other = await self.create(rooms), await self.create(rooms, "Coffee")
        with pytest.raises(NameTaken):
            await rooms.update(room, ChangeRoom(name="COFFEE", access="invited", description="x"))
        assert await self.now(rooms, room) == room
        assert await self.now(rooms, other) == other

    async def test_a_rename_that_100ms_refuses_leaves_no_claim(
        self, rooms: Rooms, hms: Fake100ms, ledger: Ledger
    ) -> None:
        room = await self.create(rooms)
        hms.fails["update"] = HmsUnreachable("x")
        for name in ("Coffee", "TEA"):
            with pytest.raises(HmsUnreachable):
                await rooms.update(room, ChangeRoom(name=name, description="new"))
        assert (await self.now(rooms, room)).name == "Tea"
        await self.a_minute_later(ledger, "coffee")
        await self.a_minute_later(ledger, "tea")
        assert (await self.create(rooms, "Coffee", uid=STRANGER)).name == "Coffee"
        with pytest.raises(NameTaken):
            await self.create(rooms, "Tea", uid=STRANGER)

    async def test_another_change_does_not_restore_an_old_name(
        self, rooms: Rooms, hms: Fake100ms, ledger: Ledger
    ) -> None:
        """Another room may have the name by then (an attack that once worked)."""
        room = await self.create(rooms)

        async def rename_and_take() -> None:
            await rooms.update(room, ChangeRoom(name="Coffee"))
            await self.a_minute_later(ledger, "tea")
            await self.create(rooms, "Tea", uid=STRANGER)

        hms.meanwhile["update"] = rename_and_take
        await rooms.update(room, ChangeRoom(name="Tea", description="new"))
        now = await self.now(rooms, room)
        assert (now.name, now.description) == ("Coffee", "new")

    @pytest.mark.parametrize("seed", range(6))
    async def test_no_two_rooms_share_a_name_whatever_their_owners_do_concurrently(
        self, rooms: Rooms, hms: Fake100ms, ledger: Ledger, seed: int
    ) -> None:
        chance = random.Random(seed)
        hms.delays = chance
        names = ["Tea", "Coffee", "Milk"]
        made = [await self.create(rooms, "One"), await self.create(rooms, "Two", uid=STRANGER)]

        async def act(room: Room) -> None:
            await asyncio.sleep(chance.uniform(0, 0.004))
            now = await self.now(rooms, room)
            changes = ChangeRoom(chance.choice(names), chance.choice([None, "new"]), None, chance.choice([None, True]))
            with contextlib.suppress(NameTaken, HmsUnreachable):
                await rooms.update(now, changes)

        for number in range(15):
            hms.fails = {"update": HmsUnreachable("x")} if number % 3 == 0 else {}
            await asyncio.gather(*(act(chance.choice(made)) for _ in range(6)))
            for folded in names:
                if await ledger("EXISTS", f"nm:1:{folded.lower()}"):
                    await self.a_minute_later(ledger, folded.lower())
            one, two = [(await self.now(rooms, room)).name for room in made]
            assert one != two
            for room, name in zip(made, (one, two), strict=True):
                assert await ledger("HGET", f"nm:1:{name.lower()}", "holder") == room.id.encode()

    async def test_a_change_of_case_keeps_the_name(self, rooms: Rooms) -> None:
        room = await self.create(rooms)
        await rooms.update(room, ChangeRoom(name="TEA"))
        assert (await self.now(rooms, room)).name == "TEA"
        with pytest.raises(NameTaken):
            await self.create(rooms, "tea", uid=STRANGER)

    async def test_a_name_that_a_crashed_rename_left_behind_can_be_taken(self, rooms: Rooms, ledger: Ledger) -> None:
        room = await self.create(rooms)
        await ledger("HSET", f"rm:1:{{{room.id}}}", "name", "Coffee")  # then the process crashed
        with pytest.raises(NameTaken):  # for a minute it may be about to be renamed back
            await self.create(rooms, "Tea", uid=STRANGER)
        await self.a_minute_later(ledger, "tea")
        assert (await self.create(rooms, "Tea", uid=STRANGER)).name == "Tea"

    async def test_a_name_belongs_to_its_room_before_the_room_is_written(
        self, rooms: Rooms, hms: Fake100ms, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After any crash halfway, a room that has the name keeps it, and one that never got it does not."""
        register = rooms._register

        async def stop_before(_: Room) -> Room | None:
            raise StoreError("stopped before the row")

        async def stop_after(room: Room) -> Room | None:
            await register(room)
            raise StoreError("stopped after the row")

        for stopping in (stop_before, stop_after):
            monkeypatch.setattr(rooms, "_register", stopping)
            with pytest.raises(StoreError):
                await self.create(rooms, "Tea")
            with pytest.raises(NameTaken):
                await self.create(rooms, "Tea", uid=STRANGER)
            await self.a_minute_later(ledger, "tea")
        monkeypatch.undo()
        with pytest.raises(NameTaken):
            await self.create(rooms, "Tea", uid=STRANGER)

    async def test_a_repetition_of_a_crashed_request_already_holds_its_name(
        self, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The client repeats a 503 with the same key at once; its own first attempt must not block it."""

        async def stop(_: Room) -> Room | None:
            raise StoreError("stopped before the row")

        monkeypatch.setattr(rooms, "_register", stop)
        with pytest.raises(StoreError):
            await self.create(rooms, upstream="tea.1")
        monkeypatch.undo()
        room = await self.create(rooms, upstream="tea.1")
        assert room.name == "Tea"
        with pytest.raises(NameTaken):
            await self.create(rooms, "tea", uid=STRANGER)

    async def test_a_lost_claim_does_not_give_the_name_to_a_second_room(
        self, rooms: Rooms, hms: Fake100ms, ledger: Ledger
    ) -> None:
        """A create that takes more than a minute, and another one that has replaced it."""

        async def another() -> None:
            await self.a_minute_later(ledger, "tea")
            await self.create(rooms, "Tea", uid=STRANGER)

        hms.meanwhile["create"] = another
        with pytest.raises(NameTaken):
            await self.create(rooms, "Tea")
        with pytest.raises(NameTaken):
            await self.create(rooms, "Tea", uid=STRANGER)

    async def test_a_crashed_rename_leaves_no_name_to_two_rooms(self, rooms: Rooms, ledger: Ledger) -> None:
        room = await self.create(rooms)
        ledger.lost_reply = "HSET"
        with pytest.raises(StoreError):
            await rooms.update(room, ChangeRoom(name="Coffee"))
        ledger.lost_reply = ""
        await self.a_minute_later(ledger, "coffee")
        assert (await self.now(rooms, room)).name == "Coffee"
        with pytest.raises(NameTaken):
            await self.create(rooms, "Coffee", uid=STRANGER)

    async def test_one_of_many_requests_that_replace_a_crashed_holder_gets_the_name(
        self, rooms: Rooms, ledger: Ledger
    ) -> None:
        await ledger("HSET", "nm:1:tea", "holder", "tea.1", "at", 0)
        many = [NewRoom("Tea", "", "open", "default") for _ in range(8)]
        made = await asyncio.gather(
            *(rooms.create(OWNER, new, lease="l", upstream=upstream_name("x")) for new in many), return_exceptions=True
        )
        assert sorted(type(one).__name__ for one in made) == ["NameTaken"] * 7 + ["tuple"]

    async def test_a_name_that_another_request_is_about_to_use_is_taken(self, rooms: Rooms, hms: Fake100ms) -> None:
        room = await self.create(rooms)

        async def another() -> None:
            with pytest.raises(NameTaken):
                await self.create(rooms, "Coffee", uid=STRANGER)

        hms.meanwhile["update"] = another
        await rooms.update(room, ChangeRoom(name="Coffee", description="new"))
        assert hms.meanwhile == {}
        assert (await self.now(rooms, room)).name == "Coffee"


class TestRoomNamesOnFakeredis(RoomNamesContract):
    @pytest.fixture
    def execute(self) -> Execute:
        return fake_redis().execute_command  # type: ignore[no-any-return]

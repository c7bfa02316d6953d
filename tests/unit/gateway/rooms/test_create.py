"""Creating a room, with and without an Idempotency-Key. `RoomCreationContract` also runs on Valkey in integration."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from auth.tokens import Principal
from gateway.audit import Audit
from gateway.hms.errors import HmsTimeout
from gateway.redis.store import StoreError
from gateway.rooms import idempotency as module
from gateway.rooms import keys
from gateway.rooms.create import Created, RoomCreation, RoomGone, TemplateNotAllowed
from gateway.rooms.idempotency import Idempotency, InFlight, OtherRequest
from gateway.rooms.locks import TooManyRooms
from gateway.rooms.names import NameTaken
from gateway.rooms.registry import Rooms
from gateway.rooms.room import UNTITLED, CreateRoom
from tests.fake_redis import fake_redis
from tests.unit.gateway.fake_100ms import OWNER, STRANGER, Fake100ms, Ledger
from tests.unit.gateway.room_bench import RoomBench

HOST = Principal(OWNER, "s", ("host",), 1)


class RoomCreationContract(RoomBench):
    """A subclass brings an `execute` fixture on an empty database. Names are unique, places are two."""

    @pytest.fixture
    def creation(self, rooms: Rooms, ledger: Ledger) -> RoomCreation:
        return RoomCreation(rooms, Idempotency(ledger), rooms._policy, Audit(ledger, lambda *words: None))

    @pytest.fixture
    def brief_holds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "HOLD_MS", 300)
        monkeypatch.setattr(module, "_RENEW_S", 0.05)

    async def test_a_new_room_has_the_policys_defaults(self, creation: RoomCreation, rooms: Rooms) -> None:
        made = await creation.create(HOST, None, CreateRoom())
        assert (made.is_replayed, made.is_charged) == (False, True)
        room = await self.now(rooms, made.room)
        access = rooms._policy.now.rooms.access
        assert (room.name, room.description, room.access, room.template) == (UNTITLED, "", access, "default")
        assert (room.owner_id, room.creator_id) == (OWNER, OWNER)

    @pytest.mark.parametrize("key", [None, "k"])
    async def test_a_place_is_taken_before_100ms_is_called_and_belongs_to_the_room(
        self, creation: RoomCreation, rooms: Rooms, ledger: Ledger, hms: Fake100ms, key: str | None
    ) -> None:
        async def while_100ms_works() -> None:
            assert await self.places(rooms) == 1

        hms.meanwhile["create"] = while_100ms_works
        room = (await creation.create(HOST, key, CreateRoom(name="Tea"))).room
        assert await self.places(rooms) == 1
        await rooms.locks.lock(await self.now(rooms, room), held=False)
        assert await self.places(rooms) == 0, "the room's row must name the holder of its place"

    @pytest.mark.parametrize("key", [None, "k"])
    async def test_without_a_place_100ms_is_not_called(
        self, creation: RoomCreation, rooms: Rooms, ledger: Ledger, key: str | None
    ) -> None:
        for name in ("One", "Two"):
            await creation.create(HOST, None, CreateRoom(name=name))
        asked = ledger.upstream()
        with pytest.raises(TooManyRooms) as denied:
            await creation.create(HOST, key, CreateRoom(name="Three"))
        assert denied.value.outcome == "denied.rooms.active"
        assert ledger.upstream() == asked
        for room in (await rooms.page(OWNER, before=None, size=9))[0]:
            await rooms.locks.lock(room, held=False)
        assert (await creation.create(HOST, key, CreateRoom(name="Three"))).room.name == "Three"

    @pytest.mark.parametrize("key", [None, "k"])
    async def test_a_refusal_frees_the_place_and_the_key_at_once(
        self, creation: RoomCreation, rooms: Rooms, hms: Fake100ms, key: str | None
    ) -> None:
        hms.fails["create"] = HmsTimeout("x")
        with pytest.raises(HmsTimeout):
            await creation.create(HOST, key, CreateRoom(name="Tea"))
        assert await self.places(rooms) == 0
        hms.fails.clear()
        made = await creation.create(HOST, key, CreateRoom(name="Tea"))
        assert (made.is_replayed, await self.places(rooms), len(hms.rooms)) == (False, 1, 1 if key else 2)

    async def test_a_taken_name_takes_no_place(self, creation: RoomCreation, rooms: Rooms) -> None:
        await creation.create(HOST, None, CreateRoom(name="Tea"))
        for key in (None, "k"):
            with pytest.raises(NameTaken):
                await creation.create(HOST, key, CreateRoom(name="Tea"))
        assert await self.places(rooms) == 1

    @pytest.mark.parametrize("template", ["webinar", "", "Default"])
    async def test_an_unknown_template_is_refused_first_with_the_known_ones(
        self, creation: RoomCreation, ledger: Ledger, template: str
    ) -> None:
        with pytest.raises(TemplateNotAllowed, match=r"Allowed: default\.$") as refused:
            await creation.create(HOST, "k", CreateRoom(template=template))
        assert refused.value.allowed == ["default"]
        assert ledger.lines == []

    async def test_a_repetition_returns_the_room_as_it_is_now(self, creation: RoomCreation, ledger: Ledger) -> None:
        room = (await creation.create(HOST, "k", CreateRoom(name="Tea"))).room
        await ledger("HSET", keys.room(room.id), "name", "Coffee")
        again = await creation.create(HOST, "k", CreateRoom(name="Tea"))
        assert (again.room.id, again.room.name) == (room.id, "Coffee")
        assert (again.is_replayed, again.is_charged) == (True, False)
        assert ledger.upstream() == [("create", room.upstream)]

    @pytest.mark.parametrize("why", ["deleted", "banned"])
    async def test_a_room_that_the_caller_may_no_longer_see_is_not_replayed(
        self, creation: RoomCreation, ledger: Ledger, why: str
    ) -> None:
        room = (await creation.create(HOST, "k", CreateRoom(name="Tea"))).room
        if why == "deleted":
            await ledger("DEL", keys.room(room.id))
        else:
            await ledger("HSET", keys.room(room.id), "owner", STRANGER)
            await ledger("HSET", keys.relations(room.id), OWNER, "banned")
        with pytest.raises(RoomGone):
            await creation.create(HOST, "k", CreateRoom(name="Tea"))

    async def test_only_a_completed_request_of_the_same_user_with_the_same_body_was_made(
        self, creation: RoomCreation, ledger: Ledger
    ) -> None:
        idempotency, tea = creation._idempotency, CreateRoom(name="Tea")

        async def made(uid: str = OWNER, key: str = "k", wish: CreateRoom = tea) -> str:
            return await idempotency.made(uid, "rooms.create", key, msgspec.json.encode(wish))

        await idempotency.begin(OWNER, "rooms.create", "begun", msgspec.json.encode(tea), name="x")
        assert await made(key="begun") == await made() == ""
        room = (await creation.create(HOST, "k", tea)).room
        assert await made() == room.id
        assert [await made(STRANGER), await made(key="l"), await made(wish=CreateRoom())] == [""] * 3
        assert (await creation.replay(HOST, room.id)).is_charged is False

    async def test_another_request_with_the_same_key_is_refused(self, creation: RoomCreation) -> None:
        await creation.create(HOST, "k", CreateRoom(name="Tea", access="open"))
        same, default = {"name": "Tea", "access": "open"}, {"template": "default"}
        for other in ({}, {"name": "Tea"}, {"name": "Tea", "access": "invited"}, same | default):
            with pytest.raises(OtherRequest):
                await creation.create(HOST, "k", CreateRoom(**other))

    async def test_one_of_several_racing_requests_makes_the_room(
        self, creation: RoomCreation, rooms: Rooms, hms: Fake100ms
    ) -> None:
        requests = (creation.create(HOST, "k", CreateRoom(name="Tea")) for _ in range(20))
        outcomes = await asyncio.gather(*requests, return_exceptions=True)
        made = [one.room.id for one in outcomes if isinstance(one, Created)]
        assert len(set(made)) == len(hms.rooms) == await self.places(rooms) == 1
        assert sum(isinstance(one, InFlight) for one in outcomes) == 20 - len(made)

    @pytest.mark.usefixtures("brief_holds")
    async def test_a_slow_request_keeps_others_out(self, creation: RoomCreation, hms: Fake100ms) -> None:
        async def slowly() -> None:
            for _ in range(6):
                await asyncio.sleep(0.1)
                with pytest.raises(InFlight):
                    await creation.create(HOST, "k", CreateRoom(name="Tea"))

        hms.meanwhile["create"] = slowly
        assert not (await creation.create(HOST, "k", CreateRoom(name="Tea"))).is_replayed

    @pytest.mark.usefixtures("brief_holds")
    @pytest.mark.parametrize("step", ["before 100ms has made the room", "before the room is remembered"])
    async def test_after_a_crash_the_repetition_creates_or_finds_the_same_room(
        self, creation: RoomCreation, rooms: Rooms, hms: Fake100ms, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        """A cancelled task, like a killed process, does nothing more; in particular it does not free its place."""
        reached, never = asyncio.Event(), asyncio.Event()

        async def hang(*_: Any) -> None:
            reached.set()
            await never.wait()

        if step == "before 100ms has made the room":
            hms.meanwhile["create"] = hang
        else:
            monkeypatch.setattr(creation._idempotency, "finish", hang)
        killed = asyncio.create_task(creation.create(HOST, "k", CreateRoom(name="Tea")))
        await reached.wait()
        killed.cancel()
        await asyncio.gather(killed, return_exceptions=True)
        monkeypatch.undo()
        assert await self.places(rooms) == 1
        with pytest.raises(InFlight):
            await creation.create(HOST, "k", CreateRoom(name="Tea"))
        await asyncio.sleep(0.35)
        made = await creation.create(HOST, "k", CreateRoom(name="Tea"))
        assert (len(hms.rooms), await self.places(rooms)) == (1, 1)
        assert made.is_replayed == (step == "before the room is remembered")
        assert made.is_charged, "the crashed attempt answered no client"

    @pytest.mark.usefixtures("brief_holds")
    async def test_an_attempt_that_lost_its_hold_leaves_the_place_to_the_next(
        self, creation: RoomCreation, rooms: Rooms, ledger: Ledger, hms: Fake100ms
    ) -> None:
        async def frozen() -> None:
            [record] = await ledger("KEYS", "ik:1:*")
            await ledger("HSET", record, "by", "another")
            await asyncio.sleep(5)

        hms.meanwhile["create"] = frozen
        with pytest.raises(InFlight):
            await creation.create(HOST, "k", CreateRoom(name="Tea"))
        assert await self.places(rooms) == 1

    @pytest.mark.parametrize(("key", "places"), [(None, 0), ("k", 1)])
    async def test_when_the_registration_is_uncertain_only_a_key_keeps_its_place(
        self, creation: RoomCreation, rooms: Rooms, hms: Fake100ms, ledger: Ledger, key: str | None, places: int
    ) -> None:
        async def lose_the_reply() -> None:
            hms.fails["create"] = StoreError("the reply was lost")

        hms.meanwhile["create"] = lose_the_reply
        with pytest.raises(StoreError):
            await creation.create(HOST, key, CreateRoom(name="Tea"))
        assert await self.places(rooms) == places


class TestRoomCreationOnFakeredis(RoomCreationContract):
    @pytest.fixture
    def execute(self) -> Callable[..., Awaitable[Any]]:
        return fake_redis().execute_command  # type: ignore[no-any-return]

"""Changing and ending rooms on behalf of a user: permissions and audit entries."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.audit import Audit
from gateway.hms.errors import HmsTimeout
from gateway.rooms.change import RoomControl
from gateway.rooms.names import NameTaken
from gateway.rooms.registry import Rooms
from gateway.rooms.relations import Members
from gateway.rooms.room import Caller, ChangeRoom, Forbidden
from tests.fake_redis import fake_redis
from tests.unit.gateway.fake_100ms import OWNER, STRANGER, Fake100ms, Ledger
from tests.unit.gateway.room_bench import RoomBench

BY_OWNER = Caller(OWNER, "owner")
BY_OPERATOR = Caller(STRANGER, "", is_operator=True)
BY_OPERATING_COHOST = Caller(STRANGER, "cohost", is_operator=True)


class Trail(Audit):
    def __init__(self) -> None:
        self.entries: list[tuple[str, dict[str, str | int]]] = []

    async def record(self, action: str, *, by: str, subject: str, **details: str | int) -> None:
        self.entries.append((action, {"by": by, **details}))


class TestRoomControl(RoomBench):
    @pytest.fixture
    def execute(self) -> Callable[..., Awaitable[Any]]:
        return fake_redis().execute_command  # type: ignore[no-any-return]

    @pytest.fixture
    def audit(self) -> Trail:
        return Trail()

    @pytest.fixture
    def control(self, rooms: Rooms, ledger: Ledger, hms: Fake100ms, audit: Trail) -> RoomControl:
        return RoomControl(rooms, Members(ledger, hms, rooms._policy), audit)  # type: ignore[arg-type]

    async def test_a_change_returns_the_changed_room_and_is_audited_by_field(
        self, control: RoomControl, rooms: Rooms, audit: Trail
    ) -> None:
        room = await self.create(rooms)
        changed = await control.change(room, ChangeRoom(name="Coffee", description=""), by=BY_OWNER)
        assert changed == replace(room, name="Coffee", description="") == await self.now(rooms, room)
        assert audit.entries == [("room.changed", {"by": OWNER, "room": room.id, "fields": "name description"})]

    @pytest.mark.parametrize(
        "changes", [ChangeRoom(name="Coffee"), ChangeRoom(access="invited", enabled=False), ChangeRoom()]
    )
    async def test_an_operator_without_a_relation_may_change_only_the_lock(
        self, control: RoomControl, rooms: Rooms, audit: Trail, changes: ChangeRoom
    ) -> None:
        room = await self.create(rooms)
        with pytest.raises(Forbidden, match="more than `enabled`"):
            await control.change(room, changes, by=BY_OPERATOR)
        assert (await self.now(rooms, room), audit.entries) == (room, [])

    @pytest.mark.parametrize("operator", [BY_OPERATOR, BY_OPERATING_COHOST])
    async def test_only_operators_can_undo_a_lock_of_an_operator(
        self, control: RoomControl, rooms: Rooms, operator: Caller
    ) -> None:
        room = await self.create(rooms)
        locked = await control.change(room, ChangeRoom(enabled=False), by=operator)
        with pytest.raises(Forbidden, match="only an operator can unlock it"):
            await control.change(locked, ChangeRoom(enabled=True), by=BY_OWNER)
        assert (await control.change(locked, ChangeRoom(name="Coffee"), by=BY_OWNER)).held
        assert (await control.change(locked, ChangeRoom(enabled=True), by=operator)).enabled

    async def test_a_lock_that_100ms_did_not_carry_out_is_audited_as_such(
        self, control: RoomControl, rooms: Rooms, hms: Fake100ms, audit: Trail
    ) -> None:
        room = await self.create(rooms)
        hms.fails["disable"] = HmsTimeout("x")
        with pytest.raises(HmsTimeout, match="The gateway has locked the room nevertheless"):
            await control.change(room, ChangeRoom(enabled=False), by=BY_OWNER)
        said = {"by": OWNER, "room": room.id, "fields": "enabled", "code": "upstream"}
        assert audit.entries == [("room.changed", said)]

    async def test_a_change_that_was_refused_is_not_audited(
        self, control: RoomControl, rooms: Rooms, audit: Trail
    ) -> None:
        await self.create(rooms, "Tea")
        room = await self.create(rooms, "Coffee")
        with pytest.raises(NameTaken):
            await control.change(room, ChangeRoom(name="Tea"), by=BY_OWNER)
        assert audit.entries == []

    async def test_each_request_to_make_a_room_invited_removes_users_without_a_relation(
        self, control: RoomControl, rooms: Rooms, hms: Fake100ms, ledger: Ledger
    ) -> None:
        room = await self.create(rooms)
        hms.peers = {OWNER: ["p1"], STRANGER: ["p2"]}
        for _ in range(2):
            room = await control.change(room, ChangeRoom(access="invited"), by=BY_OWNER)
        assert [line for line in ledger.upstream() if line[0] == "remove"] == [("remove", "p2")] * 2

    async def test_an_empty_change_changes_and_audits_nothing(
        self, control: RoomControl, rooms: Rooms, audit: Trail, ledger: Ledger
    ) -> None:
        room = await self.create(rooms)
        before = len(ledger.lines)
        assert await control.change(room, ChangeRoom(), by=BY_OWNER) == room
        assert (audit.entries, len(ledger.lines)) == ([], before)

    @pytest.mark.parametrize(
        ("is_running", "lock", "action"),
        [
            (True, False, "room.ended"),
            (True, True, "room.ended"),
            (False, True, "room.locked"),
            (False, False, "room.found_empty"),
        ],
    )
    async def test_an_end_is_audited_as_what_happened(
        self,
        control: RoomControl,
        rooms: Rooms,
        hms: Fake100ms,
        audit: Trail,
        is_running: bool,
        lock: bool,
        action: str,
    ) -> None:
        room = await self.create(rooms)
        hms.running = is_running
        assert await control.end(room, lock=lock, reason="tea time", by=BY_OWNER) == is_running
        assert audit.entries == [(action, {"by": OWNER, "room": room.id, "lock": int(lock), "reason": "tea time"})]

    async def test_an_end_that_100ms_did_not_carry_out_is_audited_as_failed(
        self, control: RoomControl, rooms: Rooms, hms: Fake100ms, audit: Trail
    ) -> None:
        room = await self.create(rooms)
        hms.fails["end"] = HmsTimeout("x")
        with pytest.raises(HmsTimeout):
            await control.end(room, lock=False, reason=None, by=BY_OWNER)
        said = {"by": OWNER, "room": room.id, "lock": 0, "reason": "the room was ended"}
        assert audit.entries == [("room.end_failed", said)]

    @pytest.mark.parametrize(("by", "held"), [(BY_OWNER, False), (BY_OPERATOR, True)])
    async def test_only_an_operator_can_unlock_a_room_that_an_operator_ended_with_a_lock(
        self, control: RoomControl, rooms: Rooms, by: Caller, held: bool
    ) -> None:
        room = await self.create(rooms)
        assert await control.end(room, lock=True, reason="fire drill", by=by)
        now = await self.now(rooms, room)
        assert (now.enabled, now.held) == (False, held)

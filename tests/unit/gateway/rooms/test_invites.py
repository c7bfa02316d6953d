"""Invites and guests. `RoomInvitesContract` runs on fakeredis here and on Valkey in integration."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from auth.accounts import Accounts
from auth.errors import InvalidCredentials, InvalidVoucher, UnknownUser
from auth.keys import KeyRing
from auth.passwords import Passwords
from auth.sessions import Grant, Sessions
from auth.users import User
from auth.vouchers import Vouchers, ref_of
from gateway.hms.errors import HmsUnreachable
from gateway.policy.live import PolicyInForce
from gateway.policy.model import Guests
from gateway.rooms import invites as module
from gateway.rooms.guest_accounts import GuestBook
from gateway.rooms.invites import RoomInvites
from gateway.rooms.keys import GUESTS
from gateway.rooms.registry import Rooms
from gateway.rooms.relations import Members
from gateway.rooms.room import Caller, Forbidden, NewRoom, Room
from gateway.text import FieldError
from limits.limiter import Limiter
from tests.fake_redis import fake_redis
from tests.unit.auth.logging_in import authenticate
from tests.unit.gateway.fake_100ms import Fake100ms, Ledger, policy

Execute = Callable[..., Awaitable[Any]]


@dataclass
class House:
    """The services behind invites, and the users of one invited room."""

    execute: Execute
    policy: PolicyInForce
    accounts: Accounts
    sessions: Sessions
    rooms: Rooms
    members: Members
    hms: Fake100ms
    guests: GuestBook
    invites: RoomInvites
    room: Room
    owner: User
    cohost: User
    mira: User

    async def code(self, relation: str = "participant", *, by: User | None = None, **how: Any) -> str:
        how = {"lasts_s": 600, "uses": 1, "guests": False} | how
        who = Caller(self.cohost.id, "cohost") if by is self.cohost else Caller(self.owner.id, "owner")
        code, _ = await self.invites.make(self.room, who, relation, **how)
        return code

    async def set(self, user: User, relation: str) -> None:
        before = await self.members.relation(self.room, user.id)
        await self.members.set(self.room, user.id, relation, before=before, by=Caller(self.owner.id, "owner"))

    async def guest(self, code: str, name: str = "") -> User:
        return (await self.guests.accept(code, name, address="192.0.2.7", agent="a browser"))[2]

    async def refused(self, code: str, user: User) -> None:
        with pytest.raises(InvalidVoucher):
            await self.invites.accept(code, user)

    async def uses_left(self, code: str) -> int:
        voucher = await self.invites._vouchers.find(ref_of(code))
        assert voucher is not None
        return voucher.uses_left


class RoomInvitesContract:
    """A subclass brings an `execute` fixture on an empty database."""

    @pytest.fixture
    def passwords(self) -> Iterator[Passwords]:
        made = Passwords(memory_kib=8, passes=1)
        yield made
        made.close()

    @pytest.fixture
    async def house(self, execute: Execute, passwords: Passwords) -> House:
        in_force, hms = policy(), Fake100ms(Ledger(execute))
        accounts, sessions = Accounts(execute, passwords), Sessions(execute, KeyRing(("s" * 40,), "refresh"))
        rooms = Rooms(execute, hms, Limiter(execute), in_force)  # type: ignore[arg-type]
        members = Members(execute, hms, in_force)  # type: ignore[arg-type]
        invites = RoomInvites(execute, Vouchers(execute, "room"), rooms, members, accounts, in_force)
        guests = GuestBook(execute, accounts, sessions, rooms, members, invites)
        owner, cohost, mira = [
            await accounts.add(name, None, roles=[role])
            for name, role in (("hanna", "host"), ("carl", "member"), ("mira", "member"))
        ]
        room, _ = await rooms.create(owner.id, NewRoom("Tea", "", "invited", "default"), lease="l", upstream="t.1")
        parts = (execute, in_force, accounts, sessions, rooms, members, hms, guests, invites)
        house = House(*parts, room, owner, cohost, mira)
        await house.set(cohost, "cohost")
        return house

    # --- accepting ---

    @pytest.mark.parametrize("relation", ["cohost", "participant", "viewer"])
    async def test_an_invite_gives_its_relation_as_often_as_it_allows(self, house: House, relation: str) -> None:
        code = await house.code(relation)
        assert await house.invites.accept(code, house.mira) == (house.room, relation)
        assert await house.members.relation(house.room, house.mira.id) == relation
        await house.refused(code, await house.accounts.add("nora", None, roles=["member"]))

    async def test_exactly_as_many_racing_users_succeed_as_there_are_uses(self, house: House) -> None:
        users = [await house.accounts.add(f"user{n}", None, roles=["member"]) for n in range(30)]
        code = await house.code(uses=7)
        tries = (house.invites.accept(code, user) for user in users)
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(one, InvalidVoucher) for one in outcomes) == 23
        in_room = [user for user in users if await house.members.relation(house.room, user.id)]
        assert len(in_room) == 7

    async def test_one_user_in_several_tabs_takes_one_use(self, house: House) -> None:
        code = await house.code(uses=10)
        outcomes = await asyncio.gather(*(house.invites.accept(code, house.mira) for _ in range(8)))
        assert outcomes == [(house.room, "participant")] * 8
        assert await house.uses_left(code) == 9

    async def test_a_user_with_an_equal_or_higher_relation_takes_no_use(self, house: House) -> None:
        code = await house.code("participant")
        assert await house.invites.accept(code, house.cohost) == (house.room, "cohost")
        assert await house.invites.accept(code, house.owner) == (house.room, "owner")
        assert await house.uses_left(code) == 1

    async def test_a_banned_user_is_refused_and_takes_no_use(self, house: House) -> None:
        code = await house.code()
        await house.set(house.mira, "banned")
        await house.refused(code, house.mira)
        assert await house.uses_left(code) == 1
        assert await house.members.relation(house.room, house.mira.id) == "banned"

    async def test_a_lowered_user_is_not_raised_by_the_same_invite_again(self, house: House) -> None:
        code = await house.code("cohost", uses=5)
        await house.invites.accept(code, house.mira)
        await house.set(house.mira, "viewer")
        await house.refused(code, house.mira)
        assert await house.uses_left(code) == 4
        assert await house.members.relation(house.room, house.mira.id) == "viewer"

    @pytest.mark.parametrize("code", ["", "x", "a" * 26, "A" * 26, "a" * 27, "../x"])
    async def test_a_malformed_code_is_refused(self, house: House, code: str) -> None:
        await house.refused(code, house.mira)

    # --- an invite gives no more than its maker may give now ---

    @pytest.mark.parametrize("relation", ["participant", "viewer", "banned"])
    async def test_an_invite_ends_with_the_relation_of_its_maker(self, house: House, relation: str) -> None:
        code = await house.code(by=house.cohost)
        await house.set(house.cohost, relation)
        await house.refused(code, house.mira)
        await house.set(house.cohost, "cohost")
        assert (await house.invites.accept(code, house.mira))[1] == "participant"

    async def test_invites_by_a_former_owner_make_no_cohosts(self, house: House) -> None:
        cohosts, participants = await house.code("cohost"), await house.code()
        await house.members.hand_over(house.room, house.cohost.id)
        await house.refused(cohosts, house.mira)
        assert (await house.invites.accept(participants, house.mira))[1] == "participant"

    @pytest.mark.parametrize("how", ["disabled", "deleted", "unknown role"])
    async def test_an_invite_ends_with_the_account_of_its_maker(self, house: House, how: str) -> None:
        code = await house.code(guests=True, uses=5)
        match how:
            case "disabled":
                await house.accounts.change(await house.accounts.get(house.owner.id), status="disabled")
            case "deleted":
                await house.accounts.erase(await house.accounts.get(house.owner.id))
            case _:
                await house.accounts.change(await house.accounts.get(house.owner.id), roles=["gone"])
        await house.refused(code, house.mira)
        with pytest.raises(InvalidVoucher):
            await house.guest(code)

    # --- lists, revocation, expiry ---

    async def test_invites_are_listed_until_used_up_or_revoked(self, house: House) -> None:
        used, kept, revoked = [await house.code(), await house.code("viewer", uses=3), await house.code()]
        await house.invites.accept(used, house.mira)
        assert await house.invites.revoke(house.room, ref_of(revoked))
        [one] = await house.invites.all(house.room)
        assert (one.ref, one.relation, one.uses_left, one.by) == (ref_of(kept), "viewer", 3, house.owner.id)
        await house.refused(revoked, await house.accounts.add("nora", None, roles=["member"]))
        assert not await house.invites.revoke(house.room, ref_of(revoked))

    async def test_the_end_of_an_invite_is_the_same_in_every_answer(self, house: House) -> None:
        how = {"lasts_s": 600, "uses": 2, "guests": False}
        _, made = await house.invites.make(house.room, Caller(house.owner.id, "owner"), "viewer", **how)
        seen = []
        for _ in range(3):
            seen += await house.invites.all(house.room)
            await asyncio.sleep(0.02)
        assert seen == [made] * 3

    async def test_an_invite_can_be_revoked_only_through_its_own_room(self, house: House) -> None:
        code = await house.code()
        new = NewRoom("Other", "", "open", "default")
        other, _ = await house.rooms.create(house.cohost.id, new, lease="m", upstream="o.1")
        assert not await house.invites.revoke(other, ref_of(code))
        assert (await house.invites.accept(code, house.mira))[0] == house.room

    async def test_a_revocation_that_stopped_halfway_can_be_repeated(self, house: House, execute: Execute) -> None:
        code = await house.code()
        await execute("DEL", f"vo:1:room:{ref_of(code)}")  # voided; then the process crashed
        assert await house.invites.all(house.room) == []
        assert not await house.invites.revoke(house.room, ref_of(code))
        assert await execute("ZCARD", f"vi:1:{{{house.room.id}}}") == 0

    async def test_an_invite_expires(self, house: House) -> None:
        code = await house.code(lasts_s=1)
        await asyncio.sleep(1.05)
        await house.refused(code, house.mira)
        assert await house.invites.all(house.room) == []

    async def test_a_room_has_a_bounded_number_of_invites(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MOST_PER_ROOM", 3)
        for _ in range(3):
            await house.code()
        with pytest.raises(Forbidden, match="at most 3 invites"):
            await house.code()

    # --- guests ---

    async def test_a_guest_is_a_user_with_one_relation_and_no_password(self, house: House) -> None:
        code = await house.code("viewer", guests=True, uses=2)
        room, relation, guest, grant = await house.guests.accept(code, "Gus", address="192.0.2.7", agent="x")
        assert grant.principal.uid == guest.id
        assert grant.refresh_expires_s == house.policy.now.guests.lasts_s
        assert (room, relation, guest.roles, guest.display_name) == (house.room, "viewer", ("guest",), "Gus")
        assert [one.id for one in (await house.rooms.page(guest.id, before=None, size=9))[0]] == [room.id]
        with pytest.raises(InvalidCredentials):
            await authenticate(house.accounts, guest.username, "")
        another = await house.guest(code)
        assert another.id != guest.id
        with pytest.raises(InvalidVoucher):
            await house.guest(code)

    async def test_an_invite_for_users_makes_no_guest(self, house: House) -> None:
        code = await house.code()
        with pytest.raises(InvalidVoucher):
            await house.guest(code)
        assert await house.uses_left(code) == 1
        assert await house.accounts.count() == 3

    async def test_a_guest_cannot_accept_another_invite(self, house: House) -> None:
        guest = await house.guest(await house.code(guests=True))
        code = await house.code("cohost")
        with pytest.raises(Forbidden, match="cannot join another room"):
            await house.invites.accept(code, guest)
        assert await house.uses_left(code) == 1

    async def test_a_policy_without_guests_makes_none_and_ends_their_invites(self, house: House) -> None:
        code = await house.code(guests=True)
        house.policy.now = replace(house.policy.now, guests=Guests())
        with pytest.raises(FieldError, match="guests: the policy allows no guests"):
            await house.code(guests=True)
        with pytest.raises(InvalidVoucher):
            await house.guest(code)

    async def test_failure_to_create_a_guest_refunds_the_use(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(*_: Any, **__: Any) -> User:
            raise ConnectionError

        code = await house.code(guests=True)
        monkeypatch.setattr(house.accounts, "add", fail)
        with pytest.raises(ConnectionError):
            await house.guest(code)
        assert await house.uses_left(code) == 1

    async def test_failure_to_admit_a_guest_leaves_nothing_and_refunds_the_use(
        self, house: House, execute: Execute, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(*_: Any, **__: Any) -> tuple[str, bool]:
            raise ConnectionError

        code = await house.code(guests=True)
        monkeypatch.setattr(house.members, "let_in", fail)
        with pytest.raises(ConnectionError):
            await house.guest(code)
        assert await house.uses_left(code) == 1
        assert await execute("KEYS", "un:1:guest-*") == []
        assert await execute("ZCARD", GUESTS) == 0

    async def test_failure_to_log_in_a_guest_leaves_nothing_and_refunds_the_use(
        self, house: House, execute: Execute, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(*_: Any, **__: Any) -> Grant:
            raise ConnectionError

        code = await house.code(guests=True)
        monkeypatch.setattr(house.sessions, "open", fail)
        with pytest.raises(ConnectionError):
            await house.guest(code)
        assert await house.uses_left(code) == 1
        assert await execute("KEYS", "un:1:guest-*") == []
        assert len(await house.members.all(house.room)) == 2

    async def test_a_guest_who_is_being_changed_is_left_to_the_next_sweep(
        self, house: House, execute: Execute, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        guest = await house.guest(await house.code(guests=True))
        await execute("ZADD", GUESTS, 1, guest.id)
        end_all = house.sessions.end_all

        async def disabled_meanwhile(uid: str) -> int:
            await house.accounts.change(await house.accounts.get(uid), status="disabled")
            return await end_all(uid)

        async def read_before(uid: str) -> User:
            return guest

        monkeypatch.setattr(house.sessions, "end_all", disabled_meanwhile)
        with monkeypatch.context() as stale:
            stale.setattr(house.accounts, "get", read_before)
            await house.guests.sweep()
        assert await execute("ZSCORE", GUESTS, guest.id) is not None
        monkeypatch.undo()
        assert await house.guests.sweep() == 1
        with pytest.raises(UnknownUser):
            await house.accounts.get(guest.id)

    async def test_a_swept_guest_who_was_banned_leaves_no_relation(self, house: House, execute: Execute) -> None:
        guest = await house.guest(await house.code(guests=True))
        await house.set(guest, "banned")
        await execute("ZADD", GUESTS, 1, guest.id)
        assert await house.guests.sweep() == 1
        assert await house.members.relation(house.room, guest.id) is None

    async def test_guests_are_removed_when_they_expire_and_not_before(self, house: House, execute: Execute) -> None:
        code = await house.code(guests=True, uses=2)
        gone = await house.guest(code, "Gone")
        kept = await house.guest(code, "Kept")
        grant = await house.sessions.open(gone)
        assert await house.guests.sweep() == 0
        await execute("ZADD", GUESTS, 1, gone.id)
        assert await house.guests.sweep() == 1
        with pytest.raises(UnknownUser):
            await house.accounts.get(gone.id)
        with pytest.raises(UnknownUser):
            await house.accounts.find(gone.username)
        assert not await house.sessions.is_live(gone.id, grant.principal.sid)
        assert await house.members.relation(house.room, gone.id) is None
        assert await house.members.relation(house.room, kept.id) == "participant"
        assert await execute("ZRANGE", GUESTS, 0, -1) == [kept.id.encode()]

    async def test_removing_a_guest_at_100ms_is_retried_for_an_hour(self, house: House, execute: Execute) -> None:
        code = await house.code(guests=True, uses=2)
        guest = await house.guest(code)
        house.hms.peers[guest.id] = ["p-1"]
        house.hms.fails["remove"] = HmsUnreachable("x")
        await execute("ZADD", GUESTS, int(time.time()) - 10, guest.id)
        assert await house.guests.sweep() == 0
        assert (await house.accounts.get(guest.id)).id == guest.id
        house.hms.fails.clear()
        assert await house.guests.sweep() == 1
        stubborn = await house.guest(code)
        house.hms.peers[stubborn.id] = ["p-2"]
        house.hms.fails["remove"] = HmsUnreachable("x")
        await execute("ZADD", GUESTS, int(time.time()) - 3601, stubborn.id)
        assert await house.guests.sweep() == 1
        with pytest.raises(UnknownUser):
            await house.accounts.get(stubborn.id)

    async def test_guests_expire_even_if_the_policy_has_no_guests_any_more(
        self, house: House, execute: Execute
    ) -> None:
        guest = await house.guest(await house.code(guests=True))
        house.policy.now = replace(house.policy.now, guests=Guests())
        await execute("ZADD", GUESTS, 1, guest.id)
        assert await house.guests.sweep() == 1
        assert await house.members.relation(house.room, guest.id) is None

    async def test_a_guest_who_could_not_be_listed_is_not_created(
        self, house: House, execute: Execute, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They would never be removed."""

        async def fail(*words: Any) -> Any:
            if words[:2] == ("ZADD", GUESTS):
                raise ConnectionError
            return await execute(*words)

        code = await house.code(guests=True)
        monkeypatch.setattr(house.guests, "_execute", fail)
        with pytest.raises(ConnectionError):
            await house.guest(code)
        assert await execute("KEYS", "un:1:guest-*") == []
        assert await house.uses_left(code) == 1

    async def test_two_workers_can_sweep_concurrently(self, house: House, execute: Execute) -> None:
        code = await house.code(guests=True, uses=9)
        for _ in range(5):
            guest = await house.guest(code)
            await execute("ZADD", GUESTS, 1, guest.id)
        await asyncio.gather(house.guests.sweep(), house.guests.sweep())
        assert await house.guests.sweep() == 0
        assert len(await house.members.all(house.room)) == 2


class TestRoomInvitesOnFakeredis(RoomInvitesContract):
    @pytest.fixture
    def execute(self) -> Execute:
        return fake_redis().execute_command  # type: ignore[no-any-return]

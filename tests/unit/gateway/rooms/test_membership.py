"""Changes of relations on behalf of a user: permissions, rules for guests and operators, audit, removals."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from auth.accounts import Accounts
from auth.errors import UnknownUser
from auth.passwords import Passwords
from auth.users import User
from gateway.audit import Audit
from gateway.hms.errors import HmsTimeout
from gateway.policy.live import PolicyInForce
from gateway.redis.store import StoreError
from gateway.rooms import keys
from gateway.rooms.membership import Membership, may_own
from gateway.rooms.registry import Rooms
from gateway.rooms.relations import Members, NotInCharge, Overtaken
from gateway.rooms.room import Caller, Forbidden, NewRoom, Room
from gateway.text import FieldError
from limits.limiter import Limiter
from tests.fake_redis import fake_redis
from tests.unit.gateway.fake_100ms import Fake100ms, Ledger, policy


class Trail(Audit):
    """Records entries; with `broken` it cannot write them."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.broken = False

    async def record(self, action: str, *, by: str, subject: str, **details: str | int) -> None:
        if self.broken:
            raise StoreError("x")
        self.entries.append({"action": action, "by": by, "subject": subject, **details})


@dataclass
class House:
    """An invited room, its members and the use cases."""

    ledger: Ledger
    policy: PolicyInForce
    accounts: Accounts
    members: Members
    membership: Membership
    hms: Fake100ms
    audit: Trail
    room: Room
    people: dict[str, User]

    def by(self, name: str, relation: str) -> Caller:
        return Caller(self.people[name].id, relation)

    async def change(self, whom: str, wanted: str, *, by: str = "owner") -> int:
        user, removed = await self.membership.change(self.room, whom, wanted, by=self.by(by, by))
        assert user.id == self.people[whom].id
        return removed

    async def relation(self, name: str) -> str | None:
        return await self.members.relation(self.room, self.people[name].id)


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords(memory_kib=8, passes=1)
    yield made
    made.close()


@pytest.fixture
async def house(passwords: Passwords) -> House:
    ledger = Ledger(fake_redis().execute_command)
    in_force, hms, audit = policy(), Fake100ms(ledger), Trail()
    accounts = Accounts(ledger, passwords)
    roles = {"owner": "host", "heir": "host", "guest": "guest", "stray-guest": "guest", "operator": "operator"}
    names = ("owner", "cohost", "participant", "stranger", "heir", "guest", "stray-guest", "operator")
    people = {name: await accounts.add(name, None, roles=[roles.get(name, "member")]) for name in names}
    rooms = Rooms(ledger, hms, Limiter(ledger), in_force)  # type: ignore[arg-type]
    new = NewRoom("Tea", "", "invited", "default")
    room, _ = await rooms.create(people["owner"].id, new, lease="l", upstream="t.1")
    for name, relation in (("cohost", "cohost"), ("participant", "participant"), ("guest", "participant")):
        await ledger("HSET", keys.relations(room.id), people[name].id, relation)
    members = Members(ledger, hms, in_force)  # type: ignore[arg-type]
    membership = Membership(members, accounts, in_force, audit)
    return House(ledger, in_force, accounts, members, membership, hms, audit, room, people)


async def test_a_change_is_audited_with_both_relations_and_removes_a_lowered_user(house: House) -> None:
    house.hms.peers[house.people["cohost"].id] = ["p1", "p2"]
    assert await house.change("cohost", "participant") == 2
    [entry] = house.audit.entries
    assert (entry["action"], entry["was"], entry["now"]) == ("member.changed", "cohost", "participant")
    assert (entry["by"], entry["subject"]) == (house.people["owner"].id, house.people["cohost"].id)


async def test_a_promotion_does_not_call_100ms(house: House) -> None:
    asked = house.hms._ledger.upstream()
    assert await house.change("stranger", "cohost") == 0
    assert house.ledger.upstream() == asked
    assert [entry["was"] for entry in house.audit.entries] == [""]


async def test_a_ban_is_audited_as_a_ban(house: House) -> None:
    house.hms.peers[house.people["participant"].id] = ["p1"]
    assert await house.change("participant", "banned") == 1
    assert [entry["action"] for entry in house.audit.entries] == ["member.banned"]
    assert await house.relation("participant") == "banned"


async def test_a_relation_that_cannot_be_audited_is_still_carried_out_at_100ms(house: House) -> None:
    house.audit.broken = True
    house.hms.peers[house.people["participant"].id] = ["p1"]
    with pytest.raises(StoreError):
        await house.change("participant", "banned")
    assert ("remove", "p1") in house.ledger.upstream()


@pytest.mark.parametrize("wanted", ["owner", "cohost", "viewer", "banned"])
async def test_users_cannot_change_their_own_relation(house: House, wanted: str) -> None:
    for who in ("owner", "cohost"):
        with pytest.raises(Forbidden, match="your own relation"):
            await house.change(who, wanted, by=who)
    assert house.audit.entries == []


@pytest.mark.parametrize("wanted", ["owner", "cohost"])
async def test_a_cohost_can_change_neither_owners_nor_cohosts(house: House, wanted: str) -> None:
    with pytest.raises(Forbidden):
        await house.change("participant", wanted, by="cohost")
    with pytest.raises(Forbidden):
        await house.change("owner", "viewer", by="cohost")
    assert (await house.relation("participant"), house.audit.entries) == ("participant", [])


async def test_a_guest_becomes_neither_cohost_nor_member_of_another_room(house: House) -> None:
    with pytest.raises(FieldError, match=r"^relation: a guest must be a participant or a viewer$"):
        await house.change("guest", "cohost")
    with pytest.raises(FieldError, match=r"^relation: a guest may be a member of one room"):
        await house.change("stray-guest", "viewer")
    assert await house.change("guest", "viewer") == 0
    for guest in ("guest", "stray-guest"):
        await house.change(guest, "banned")
        assert await house.relation(guest) == "banned"


async def test_an_operator_cannot_be_banned(house: House) -> None:
    with pytest.raises(Forbidden, match="You may not ban this user"):
        await house.change("operator", "banned")
    await house.change("operator", "viewer")
    assert await house.relation("operator") == "viewer"


async def test_a_user_who_does_not_exist_is_not_found(house: House) -> None:
    with pytest.raises(UnknownUser):
        await house.membership.change(house.room, "nobody", "viewer", by=house.by("owner", "owner"))


@pytest.mark.parametrize(("races", "outcome"), [(2, "done"), (3, "abandoned")])
async def test_a_change_is_decided_again_after_a_faster_one(
    house: House, monkeypatch: pytest.MonkeyPatch, races: int, outcome: str
) -> None:
    read, left = house.members.relation, [races]

    async def changed_after_reading(room: Room, uid: str) -> str | None:
        before = await read(room, uid)
        if left[0]:
            left[0] -= 1
            other = "viewer" if before == "participant" else "participant"
            await house.ledger("HSET", keys.relations(room.id), uid, other)
        return before

    monkeypatch.setattr(house.members, "relation", changed_after_reading)
    if outcome == "done":
        await house.change("participant", "cohost")
        assert [entry["was"] for entry in house.audit.entries] == ["participant"]
    else:
        with pytest.raises(Overtaken, match=r"Try again\.$"):
            await house.change("participant", "cohost")
        assert house.audit.entries == []


async def test_a_user_lowered_meanwhile_changes_no_relation(house: House) -> None:
    await house.ledger("HSET", keys.relations(house.room.id), house.people["cohost"].id, "viewer")
    with pytest.raises(NotInCharge):
        await house.change("participant", "viewer", by="cohost")


# --- handing over ---


async def test_a_room_is_handed_over_to_a_user_who_may_own_one(house: House) -> None:
    await house.change("heir", "owner")
    [entry] = house.audit.entries
    assert (entry["action"], entry["subject"], entry["now"]) == ("member.changed", house.people["heir"].id, "owner")
    assert await house.ledger("HGET", keys.room(house.room.id), "owner") == house.people["heir"].id.encode()
    with pytest.raises(NotInCharge):  # the room as it was read before
        await house.membership.hand_over(house.room, house.people["heir"], by="cli")


@pytest.mark.parametrize("who", ["participant", "guest", "operator"])
async def test_a_user_who_may_not_create_rooms_cannot_become_owner(house: House, who: str) -> None:
    assert not may_own(house.policy.now, house.people[who])
    with pytest.raises(FieldError, match=r"^relation: cannot be owner"):
        await house.change(who, "owner")
    assert house.audit.entries == []


async def test_a_disabled_user_cannot_become_owner(house: House) -> None:
    await house.accounts.change(await house.accounts.get(house.people["heir"].id), status="disabled")
    with pytest.raises(FieldError, match=r"^relation: cannot be owner"):
        await house.change("heir", "owner")


async def test_a_deleted_owner_leaves_no_cohost_behind(house: House) -> None:
    await house.accounts.erase(await house.accounts.get(house.people["owner"].id))
    await house.membership.hand_over(house.room, house.people["heir"], by="cli")
    assert await house.ledger("HGET", keys.relations(house.room.id), house.people["owner"].id) is None
    assert house.audit.entries[0]["by"] == "cli"


async def test_a_former_owner_who_loses_a_role_is_removed_and_an_error_states_the_change(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lowers(room: Room, to: str) -> bool:
        return True

    monkeypatch.setattr(house.members, "hand_over", lowers)
    house.hms.peers[house.people["owner"].id] = ["p1"]
    house.hms.fails["remove"] = HmsTimeout("x")
    with pytest.raises(HmsTimeout, match="The room has been handed over"):
        await house.change("heir", "owner")
    house.hms.fails.clear()
    assert await house.change("heir", "owner") == 1

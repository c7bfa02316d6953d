"""Relations to a room, and the effects of their changes at 100ms.

`MembersContract` applies to any Redis; it runs on fakeredis here and on Valkey in integration.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from gateway.hms.errors import HmsTimeout, HmsUnreachable
from gateway.policy.live import PolicyInForce
from gateway.rooms.relations import Members, NotInCharge, Overtaken
from gateway.rooms.room import Caller, Room
from tests.fake_redis import fake_redis
from tests.unit.gateway.fake_100ms import COHOST, MEMBER, OWNER, STRANGER, Fake100ms, Ledger, policy

Execute = Callable[..., Awaitable[Any]]

ROOM = Room("0" * 23 + "1", "Tea", "", "open", "default", OWNER, True, 1_800_000_000_000, OWNER, "lease")
BY_OWNER, BY_COHOST = Caller(OWNER, "owner"), Caller(COHOST, "cohost")


def with_roles(in_force: PolicyInForce, **roles: tuple[str, ...]) -> PolicyInForce:
    now = in_force.now
    return PolicyInForce(replace(now, templates={"default": {**now.templates["default"], **roles}}))


class MembersContract:
    """A subclass brings an `execute` fixture on an empty database."""

    @pytest.fixture
    async def ledger(self, execute: Execute) -> Ledger:
        ledger = Ledger(execute)
        await ledger("HSET", f"rm:1:{{{ROOM.id}}}", "owner", OWNER)
        await ledger("HSET", f"rr:1:{{{ROOM.id}}}", COHOST, "cohost", MEMBER, "participant")
        ledger.lines.clear()
        return ledger

    @pytest.fixture
    def hms(self, ledger: Ledger) -> Fake100ms:
        return Fake100ms(ledger)

    @pytest.fixture
    def members(self, ledger: Ledger, hms: Fake100ms) -> Members:
        return Members(ledger, hms, policy())  # type: ignore[arg-type]

    async def test_everyone_with_a_relation_is_listed_once_with_the_owner_first(
        self, members: Members, ledger: Ledger
    ) -> None:
        await ledger("HSET", f"rr:1:{{{ROOM.id}}}", OWNER, "viewer")
        assert await members.all(ROOM) == [(OWNER, "owner"), (COHOST, "cohost"), (MEMBER, "participant")]
        assert [await members.relation(ROOM, uid) for uid in (OWNER, MEMBER, STRANGER)] == [
            "owner",
            "participant",
            None,
        ]

    async def test_giving_a_relation_adds_the_room_to_the_users_list(self, members: Members, ledger: Ledger) -> None:
        assert await members.set(ROOM, STRANGER, "viewer", before=None, by=BY_OWNER) is None
        assert await members.relation(ROOM, STRANGER) == "viewer"
        assert await ledger("ZSCORE", f"ur:1:{{{STRANGER}}}", ROOM.id) == ROOM.created_ms

    @pytest.mark.parametrize(
        ("before", "after", "sparing"),
        [
            ("participant", "cohost", None),
            ("cohost", "participant", set()),
            ("cohost", "viewer", set()),
            ("participant", "viewer", None),  # both may be guests
            (None, "viewer", None),
            ("banned", "viewer", None),
            ("participant", "participant", {"guest"}),  # they may have had more, and 100ms may not have removed them
            ("cohost", "cohost", None),  # the highest relation
            ("viewer", "banned", set()),
            (None, "banned", set()),
            ("banned", "banned", set()),
        ],
    )
    async def test_a_user_who_loses_a_100ms_role_must_be_removed(
        self, members: Members, ledger: Ledger, before: str | None, after: str, sparing: set[str] | None
    ) -> None:
        if before:
            await ledger("HSET", f"rr:1:{{{ROOM.id}}}", STRANGER, before)
        assert await members.set(ROOM, STRANGER, after, before=before, by=BY_OWNER) == sparing

    async def test_a_banned_user_is_removed_whatever_the_roles_of_the_template(
        self, ledger: Ledger, hms: Fake100ms
    ) -> None:
        """The policy may have changed since they joined."""
        members = Members(ledger, hms, with_roles(policy(), participant=()))  # type: ignore[arg-type]
        assert await members.set(ROOM, MEMBER, "banned", before="participant", by=BY_OWNER) == frozenset()

    async def test_a_banned_user_can_also_be_forgotten(self, members: Members, ledger: Ledger) -> None:
        await members.set(ROOM, MEMBER, "viewer", before="participant", by=BY_OWNER)
        await members.set(ROOM, MEMBER, "banned", before="viewer", by=BY_OWNER)
        await members.forget(MEMBER)
        assert await ledger("HGET", f"rr:1:{{{ROOM.id}}}", MEMBER) is None

    async def test_a_change_that_was_decided_on_an_outdated_relation_is_not_written(
        self, members: Members, ledger: Ledger
    ) -> None:
        """The owner has made them a cohost meanwhile; a cohost who saw a participant must not ban them."""
        await members.set(ROOM, MEMBER, "cohost", before="participant", by=BY_OWNER)
        with pytest.raises(Overtaken):
            await members.set(ROOM, MEMBER, "banned", before="participant", by=BY_COHOST)
        await ledger("HSET", f"rm:1:{{{ROOM.id}}}", "owner", MEMBER)
        with pytest.raises(Overtaken):
            await members.set(ROOM, MEMBER, "banned", before="cohost", by=BY_COHOST)
        assert await ledger("HGET", f"rr:1:{{{ROOM.id}}}", MEMBER) == b"cohost"

    @pytest.mark.parametrize("now", ["banned", "participant", None])
    async def test_a_user_who_was_lowered_meanwhile_changes_no_relation(
        self, members: Members, ledger: Ledger, now: str | None
    ) -> None:
        key = f"rr:1:{{{ROOM.id}}}"
        await (ledger("HSET", key, COHOST, now) if now else ledger("HDEL", key, COHOST))
        with pytest.raises(NotInCharge):
            await members.set(ROOM, MEMBER, "banned", before="participant", by=BY_COHOST)
        assert await members.relation(ROOM, MEMBER) == "participant"

    async def test_each_of_several_racing_changes_is_decided_on_the_result_of_the_previous(
        self, members: Members
    ) -> None:
        changes = [
            members.set(ROOM, MEMBER, relation, before="participant", by=BY_OWNER)
            for relation in ("cohost", "viewer", "banned")
        ]
        outcomes = await asyncio.gather(*changes, return_exceptions=True)
        assert sum(isinstance(one, Overtaken) for one in outcomes) == 2

    # --- handing over ---

    async def test_after_a_hand_over_the_former_owner_is_cohost(self, members: Members, ledger: Ledger) -> None:
        assert not await members.hand_over(ROOM, MEMBER)
        assert await ledger("HGET", f"rm:1:{{{ROOM.id}}}", "owner") == MEMBER.encode()
        handed = structs.replace(ROOM, owner_id=MEMBER)
        assert await members.all(handed) == [(MEMBER, "owner"), (OWNER, "cohost"), (COHOST, "cohost")]
        assert await ledger("ZSCORE", f"ur:1:{{{MEMBER}}}", ROOM.id) == ROOM.created_ms

    async def test_one_owner_can_hand_a_room_over_only_once(self, members: Members, ledger: Ledger) -> None:
        outcomes = await asyncio.gather(
            *(members.hand_over(ROOM, to) for to in (MEMBER, STRANGER)), return_exceptions=True
        )
        assert sum(isinstance(one, NotInCharge) for one in outcomes) == 1
        with pytest.raises(NotInCharge):
            await members.set(ROOM, COHOST, "banned", before="cohost", by=BY_OWNER)

    async def test_a_former_owner_who_loses_a_role_must_be_removed(self, ledger: Ledger, hms: Fake100ms) -> None:
        only_owners = with_roles(policy(), owner=("guest", "host", "chair"))
        assert await Members(ledger, hms, only_owners).hand_over(ROOM, MEMBER)  # type: ignore[arg-type]

    # --- accepting an invite ---

    async def let_in(self, members: Members, uid: str, relation: str, invite: str = "i") -> tuple[str, bool]:
        return await members.let_in(ROOM, uid, relation, invite=invite, keep_ms=60_000)

    @pytest.mark.parametrize(
        ("uid", "relation", "then"),
        [
            (STRANGER, "viewer", ("viewer", True)),
            (MEMBER, "viewer", ("participant", False)),
            (MEMBER, "participant", ("participant", False)),
            (MEMBER, "cohost", ("cohost", True)),
            (COHOST, "participant", ("cohost", False)),
            (OWNER, "cohost", ("owner", False)),
        ],
    )
    async def test_an_invite_raises_and_never_lowers(
        self, members: Members, uid: str, relation: str, then: tuple[str, bool]
    ) -> None:
        assert await self.let_in(members, uid, relation) == then
        assert await members.relation(ROOM, uid) == then[0]

    async def test_an_invite_does_not_lift_a_ban(self, members: Members) -> None:
        await members.set(ROOM, MEMBER, "banned", before="participant", by=BY_OWNER)
        assert await self.let_in(members, MEMBER, "cohost") == ("banned", False)
        assert await members.relation(ROOM, MEMBER) == "banned"

    async def test_a_lowered_user_is_not_raised_by_the_same_invite(self, members: Members) -> None:
        await self.let_in(members, MEMBER, "cohost")
        await members.set(ROOM, MEMBER, "viewer", before="cohost", by=BY_OWNER)
        assert await self.let_in(members, MEMBER, "cohost") == ("", False)
        assert await members.relation(ROOM, MEMBER) == "viewer"
        assert await self.let_in(members, MEMBER, "cohost", invite="another") == ("cohost", True)

    # --- removing and forgetting ---

    async def test_all_peers_of_the_user_are_removed(self, members: Members, hms: Fake100ms, ledger: Ledger) -> None:
        hms.peers = {MEMBER: ["p1", "p2", "p3"], STRANGER: ["p4"]}
        assert await members.remove_peers(ROOM, MEMBER, reason="x") == 3
        assert ledger.upstream() == [("list", MEMBER), ("remove", "p1"), ("remove", "p2"), ("remove", "p3")]

    async def test_peers_in_spared_roles_stay_and_those_in_unknown_roles_are_removed(
        self, members: Members, hms: Fake100ms, ledger: Ledger
    ) -> None:
        hms.peers = {MEMBER: ["p1", "p2", "p3"]}
        hms.roles = {"p1": "guest", "p3": ""}
        assert await members.remove_peers(ROOM, MEMBER, reason="x", sparing=frozenset({"guest"})) == 2
        assert ledger.upstream() == [("list", MEMBER), ("remove", "p2"), ("remove", "p3")]

    async def test_closing_a_room_removes_banned_users_and_users_without_a_relation(
        self, members: Members, hms: Fake100ms, ledger: Ledger
    ) -> None:
        await members.set(ROOM, STRANGER, "banned", before=None, by=BY_OWNER)
        hms.peers = {OWNER: ["p1"], MEMBER: ["p2"], STRANGER: ["p3"], "passer-by": ["p4"], "": ["p5"]}
        assert await members.remove_strangers(ROOM, reason="x") == 3
        assert ledger.upstream() == [("list", None), ("remove", "p3"), ("remove", "p4"), ("remove", "p5")]

    async def test_the_other_peers_are_removed_when_one_cannot_be(
        self, members: Members, hms: Fake100ms, ledger: Ledger
    ) -> None:
        hms.peers = {MEMBER: ["p1", "p2", "p3"]}

        async def fail() -> None:
            raise HmsUnreachable("x")

        hms.meanwhile["remove"] = fail
        with pytest.raises(HmsUnreachable, match=r"^x The relation has changed nevertheless.*: repeat the request"):
            await members.remove_peers(ROOM, MEMBER, reason="x")
        assert [line for line in ledger.upstream() if line[0] == "remove"] == [
            ("remove", "p1"),
            ("remove", "p2"),
            ("remove", "p3"),
        ]

    async def test_an_error_after_a_hand_over_says_what_to_do_instead_of_repeating_it(
        self, ledger: Ledger, hms: Fake100ms
    ) -> None:
        only_owners = with_roles(policy(), owner=("guest", "host", "chair"))
        members = Members(ledger, hms, only_owners)  # type: ignore[arg-type]
        assert await members.hand_over(ROOM, COHOST)
        hms.fails["list"] = HmsTimeout("x")
        with pytest.raises(HmsTimeout, match=r"^x The room has been handed over.* making them a cohost again\.$"):
            await members.remove_peers(ROOM, OWNER, reason="x")
        by = Caller(COHOST, "owner")
        sparing = await members.set(ROOM, OWNER, "cohost", before="cohost", by=by)
        assert sparing == {"guest", "host"}, "that removes them as a chair"

    async def test_a_forgotten_user_has_no_relation_to_any_room(self, members: Members, ledger: Ledger) -> None:
        await self.let_in(members, STRANGER, "participant")
        await members.forget(STRANGER)
        assert await members.relation(ROOM, STRANGER) is None
        assert await ledger("EXISTS", f"ur:1:{{{STRANGER}}}") == 0


class TestMembersOnFakeredis(MembersContract):
    @pytest.fixture
    def execute(self) -> Execute:
        return fake_redis().execute_command  # type: ignore[no-any-return]

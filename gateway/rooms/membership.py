"""Use cases of members: changes of relation, bans and hand-overs; their rules, audit entries and removals."""

from auth.accounts import Accounts
from auth.errors import UnknownUser
from auth.users import User
from gateway.audit import Audit
from gateway.policy.actions import BANNED
from gateway.policy.decide import decide_member
from gateway.policy.live import PolicyInForce
from gateway.policy.model import Policy
from gateway.rooms.guests import check_guest
from gateway.rooms.relations import Members, Overtaken
from gateway.rooms.room import Caller, Forbidden, Room
from gateway.text import FieldError

_ATTEMPTS = 3  # to change a relation that another request is changing
_LOWERED = "your role in this room has changed"
_BANNED = "you have been banned from this room"


class Membership:
    """Changes relations to rooms on behalf of a user."""

    def __init__(self, members: Members, accounts: Accounts, policy: PolicyInForce, audit: Audit) -> None:
        self._members = members
        self._accounts = accounts
        self._policy = policy
        self._audit = audit

    async def change(self, room: Room, user: str, wanted: str, *, by: Caller) -> tuple[User, int]:
        """Give a user (by id or name) a relation; `owner` hands the room over, `banned` bans them.

        Returns the user and how many peers were removed from the running session because of it. Raises UnknownUser,
        Forbidden, FieldError or Overtaken if nothing has changed, HmsError if only 100ms did not remove everyone.
        """
        target = await self._accounts.lookup(user)
        if wanted == "owner":
            await self._check(room, target, wanted, by)
            return target, await self.hand_over(room, target, by=by.uid)
        if self._policy.now.guests.role in target.roles:
            check_guest(wanted, is_member=await self._members.relation(room, target.id) is not None)
        if wanted == BANNED and "rooms:end-any" in self._policy.now.permissions(target.roles):
            raise Forbidden("You may not ban this user.")  # a ban beats every permission; operators must reach any room
        for _ in range(_ATTEMPTS):
            before = await self._check(room, target, wanted, by)
            try:
                sparing = await self._members.set(room, target.id, wanted, before=before, by=by)
            except Overtaken:
                continue
            return target, await self._carry_out(room, target, wanted, before, by, sparing)
        raise Overtaken("Another request is changing this member. Try again.")

    async def hand_over(self, room: Room, heir: User, *, by: str) -> int:
        """Make a user owner, the former one cohost; return how many were removed. Raises: FieldError, NotInCharge"""
        if not may_own(self._policy.now, heir):
            raise FieldError("relation", "cannot be owner: an owner must be an active user who may create rooms")
        is_lowered = await self._members.hand_over(room, heir.id)
        removed = 0
        try:
            await self._audit.record("member.changed", by=by, subject=heir.id, room=room.id, now="owner")
        finally:  # a hand-over cannot be repeated
            if by != room.owner_id:
                await self._forget_deleted(room, room.owner_id)
            if is_lowered:
                removed = await self._members.remove_peers(room, room.owner_id, reason=_LOWERED)
        return removed

    async def _check(self, room: Room, target: User, wanted: str, by: Caller) -> str | None:
        """Return the relation a user has, if the caller may give them another one. Raises: Forbidden"""
        if target.id == by.uid:
            raise Forbidden("You cannot change your own relation. Hand the room over, or ask another owner or cohost.")
        before = await self._members.relation(room, target.id)
        verdict = decide_member(by.relation, before, wanted)
        if not verdict.allowed:
            raise Forbidden(verdict.reason)
        return before

    async def _carry_out(
        self, room: Room, target: User, wanted: str, before: str | None, by: Caller, sparing: frozenset[str] | None
    ) -> int:
        action = "member.banned" if wanted == BANNED else "member.changed"
        removed = 0
        try:
            await self._audit.record(action, by=by.uid, subject=target.id, room=room.id, was=before or "", now=wanted)
        finally:  # the relation has changed, so the user is removed even if the audit fails
            if sparing is not None:
                reason = _BANNED if wanted == BANNED else _LOWERED
                removed = await self._members.remove_peers(room, target.id, reason=reason, sparing=sparing)
        return removed

    async def _forget_deleted(self, room: Room, uid: str) -> None:
        """Remove the relation of a deleted user, who cannot be a cohost."""
        try:
            await self._accounts.get(uid)
        except UnknownUser:
            await self._members.forget(uid, room.id)


def may_own(policy: Policy, user: User) -> bool:
    """Return whether a user may own rooms."""
    return user.is_active and "rooms:create" in policy.permissions(user.roles)

"""Invites to a room: codes for users, or for guests without an account. Their vouchers (auth) hold the terms."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from auth import Execute
from auth.accounts import Accounts
from auth.errors import InvalidVoucher, UnknownUser
from auth.users import User
from auth.vouchers import Voucher, Vouchers, ref_of
from gateway.policy.actions import BANNED, RELATIONS
from gateway.policy.decide import decide, decide_member, outranks
from gateway.policy.live import PolicyInForce
from gateway.policy.model import Guests, RoomFacts
from gateway.rooms import keys
from gateway.rooms.guests import check_guest, check_joins_more
from gateway.rooms.registry import Rooms
from gateway.rooms.relations import Members
from gateway.rooms.room import Caller, Forbidden, Room, timed_ids
from gateway.text import FieldError

MOST_LASTS_S = 30 * 86_400
MOST_USES = 10_000
MOST_PER_ROOM = 200


@dataclass(frozen=True, slots=True)
class Invite:
    """One invite, without its code. `expires_ms` is epoch ms; `by` is the id of its maker."""

    ref: str
    relation: str
    uses_left: int
    expires_ms: int
    guests: bool
    by: str


@dataclass(repr=False, eq=False)
class RoomInvites:
    """Makes, lists, revokes and accepts invites."""

    _execute: Execute
    _vouchers: Vouchers
    _rooms: Rooms
    _members: Members
    _accounts: Accounts
    _policy: PolicyInForce

    async def make(
        self, room: Room, by: Caller, relation: str, *, lasts_s: int, uses: int, guests: bool
    ) -> tuple[str, Invite]:
        """Return the code of a new invite, which is not stored, and the invite. Raises: FieldError, Forbidden"""
        verdict = decide_member(by.relation, None, relation)
        if not verdict.allowed:
            raise Forbidden(verdict.reason)
        if guests:
            check_guest(relation, is_member=True)
        if guests and not self._policy.now.guests.role:
            raise FieldError("guests", "the policy allows no guests")
        now_ms, index = time.time_ns() // 1_000_000, keys.invites(room.id)
        await self._execute("ZREMRANGEBYSCORE", index, "-inf", now_ms)
        if await self._execute("ZCARD", index) >= MOST_PER_ROOM:
            raise Forbidden(f"A room has at most {MOST_PER_ROOM} invites; revoke one first.")
        payload = {"room": room.id, "relation": relation, "by": by.uid, "guests": "1" if guests else ""}
        code = await self._vouchers.issue(payload, ttl_s=lasts_s, uses=uses)
        expires_ms = now_ms + lasts_s * 1000
        await self._execute("ZADD", index, expires_ms, ref_of(code))
        await self._execute("PEXPIRE", index, MOST_LASTS_S * 1000)
        return code, Invite(ref_of(code), relation, uses, expires_ms, guests, by.uid)

    async def all(self, room: Room) -> list[Invite]:
        """Return a room's invites that can still be used, in the order in which they expire."""
        span = (time.time_ns() // 1_000_000, "+inf", "WITHSCORES")
        listed = timed_ids(await self._execute("ZRANGEBYSCORE", keys.invites(room.id), *span))
        found = await asyncio.gather(*(self._vouchers.find(ref) for _, ref in listed))
        return [_invite(one, at) for (at, _), one in zip(listed, found, strict=True) if one and one.uses_left > 0]

    async def revoke(self, room: Room, ref: str) -> bool:
        """Void an invite of this room; return whether there was one."""
        index = keys.invites(room.id)
        if await self._execute("ZSCORE", index, ref) is None:
            return False
        revoked = await self._vouchers.revoke(ref)
        await self._execute("ZREM", index, ref)  # last: an invite that is not listed cannot be revoked
        return revoked

    async def accept(self, code: str, user: User) -> tuple[Room, str]:
        """Give a user the relation of an invite; return the room and the relation they have now.

        A user whose relation is already as high does not use the invite. Raises Forbidden for a guest, InvalidVoucher
        also for a banned user, for a user who accepted it before and whose relation was lowered since, and if its maker
        may no longer make such an invite.
        """
        check_joins_more(self._policy.now, user)
        room, voucher = await self._look(code)
        relation = voucher.payload["relation"]
        had = await self._members.relation(room, user.id)
        if had == BANNED:
            raise InvalidVoucher
        if outranks(had, relation):
            return room, str(had)
        await self._vouchers.spend(code)
        now, is_new = await self.let_in(room, user.id, voucher)
        if not is_new:
            await self._vouchers.give_back(code)
        if now not in RELATIONS:
            raise InvalidVoucher
        return room, now

    @asynccontextmanager
    async def used_by_guest(self, code: str) -> AsyncIterator[tuple[Room, Voucher, Guests]]:
        """Use an invite for guests once, unless the block fails. Yields room, voucher, terms. Raises: InvalidVoucher"""
        room, voucher = await self._look(code)
        terms = self._policy.now.guests
        if not voucher.payload["guests"] or not terms.role:
            raise InvalidVoucher
        await self._vouchers.spend(code)
        try:
            yield room, voucher, terms
        except BaseException:
            await self._vouchers.give_back(code)
            raise

    async def let_in(self, room: Room, uid: str, voucher: Voucher) -> tuple[str, bool]:
        """Give a user the relation of an invite, as `Members.let_in` does."""
        keep_ms = voucher.expires_in_s * 1000 + 1000
        relation = voucher.payload["relation"]
        return await self._members.let_in(room, uid, relation, invite=voucher.ref, keep_ms=keep_ms)

    async def _look(self, code: str) -> tuple[Room, Voucher]:
        """Return the room and the voucher of a valid code. An invite never gives more than its maker may give now."""
        voucher = await self._vouchers.look(code)
        room = await self._rooms.get(voucher.payload["room"])
        if room is None:
            raise InvalidVoucher
        try:
            maker = await self._accounts.get(voucher.payload["by"])
        except UnknownUser:
            raise InvalidVoucher from None
        relation = await self._members.relation(room, maker.id)
        facts = RoomFacts(relation, room.access, room.enabled, room.template)
        may_invite = decide(self._policy.now, maker.roles, "invites.manage", facts).allowed
        may_give = decide_member(relation or "", None, voucher.payload["relation"]).allowed
        if not (maker.is_active and may_invite and may_give):
            raise InvalidVoucher
        return room, voucher


def _invite(voucher: Voucher, expires_ms: int) -> Invite:
    said = voucher.payload
    return Invite(voucher.ref, said["relation"], voucher.uses_left, expires_ms, bool(said["guests"]), said["by"])

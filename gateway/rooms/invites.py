"""Invites to a room: a code that gives a relation, to users, or to guests who have no account.

`vi:1:{rid}` lists a room's invites by the instant they expire; what they say is in their vouchers (auth/vouchers.py).
`va:1:{rid}:<ref>` who was let in by one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from auth.accounts import Accounts, User
from auth.errors import InvalidVoucher, UnknownUser
from auth.sessions import Grant
from auth.vouchers import Voucher, Vouchers, ref_of
from gateway.policy.decide import decide, decide_member, outranks
from gateway.policy.live import PolicyInForce
from gateway.policy.model import BANNED, RELATIONS, RoomFacts
from gateway.rooms.guests import GuestBook
from gateway.rooms.registry import Rooms
from gateway.rooms.relations import Members
from gateway.rooms.room import Room, timed_ids

Execute = Callable[..., Awaitable[Any]]

MOST_LASTS_S = 30 * 86_400
MOST_USES = 10_000
MOST_PER_ROOM = 200


class TooManyInvites(Exception):
    """The room has as many invites as it may have."""


class NotForGuests(Exception):
    """A guest has the one room that he was invited to."""


class NoGuests(Exception):
    """The policy lets nobody in without an account."""


@dataclass(frozen=True, slots=True)
class Invite:
    """One invite, without its code. `expires_ms` is epoch ms."""

    ref: str
    relation: str
    uses_left: int
    expires_ms: int
    guests: bool
    by: str


class RoomInvites:
    """Makes, lists, revokes and accepts invites."""

    def __init__(  # noqa: PLR0913  an invite joins rooms, members and accounts
        self,
        execute: Execute,
        vouchers: Vouchers,
        rooms: Rooms,
        members: Members,
        accounts: Accounts,
        guests: GuestBook,
        policy: PolicyInForce,
    ) -> None:
        self._execute = execute
        self._vouchers = vouchers
        self._rooms = rooms
        self._members = members
        self._accounts = accounts
        self._guests = guests
        self._policy = policy

    async def make(
        self, room: Room, by: str, relation: str, *, lasts_s: int, uses: int, guests: bool
    ) -> tuple[str, Invite]:
        """Return the code of a new invite, which is not kept, and the invite. Raises: TooManyInvites, NoGuests"""
        if guests and not self._policy.now.guests.role:
            raise NoGuests("The policy lets nobody in without an account.")
        now_ms, index = time.time_ns() // 1_000_000, f"vi:1:{{{room.id}}}"
        await self._execute("ZREMRANGEBYSCORE", index, "-inf", now_ms)
        if await self._execute("ZCARD", index) >= MOST_PER_ROOM:
            raise TooManyInvites(f"A room has at most {MOST_PER_ROOM} invites; revoke one first.")
        payload = {"room": room.id, "relation": relation, "by": by, "guests": "1" if guests else ""}
        code = await self._vouchers.issue(payload, ttl_s=lasts_s, uses=uses)
        expires_ms = now_ms + lasts_s * 1000
        await self._execute("ZADD", index, expires_ms, ref_of(code))
        await self._execute("PEXPIRE", index, MOST_LASTS_S * 1000)
        return code, Invite(ref_of(code), relation, uses, expires_ms, guests, by)

    async def all(self, room: Room) -> list[Invite]:
        """Return a room's invites that may still be used, by when they end."""
        span = (time.time_ns() // 1_000_000, "+inf", "WITHSCORES")
        listed = timed_ids(await self._execute("ZRANGEBYSCORE", f"vi:1:{{{room.id}}}", *span))
        found = await asyncio.gather(*(self._vouchers.find(ref) for _, ref in listed))
        return [_invite(one, at) for (at, _), one in zip(listed, found, strict=True) if one and one.uses_left > 0]

    async def revoke(self, room: Room, ref: str) -> bool:
        """Void an invite of this room; tell whether there was one."""
        index = f"vi:1:{{{room.id}}}"
        if await self._execute("ZSCORE", index, ref) is None:
            return False
        revoked = await self._vouchers.revoke(ref)
        await self._execute("ZREM", index, ref)  # after it: what is not listed could not be revoked any more
        return revoked

    async def accept(self, code: str, user: User) -> tuple[Room, str]:
        """Let a user into the room of an invite; return the room and the relation he has now.

        Who has as much already uses nothing up.

        Raises:
            NotForGuests
            InvalidVoucher: also for the banned, for whom it let in before and somebody then lowered, and where whoever
                made the invite may not do so any more.
        """
        if self._policy.now.guests.role in user.roles:
            raise NotForGuests("A guest stays in the one room that he was invited to.")
        room, voucher = await self._look(code)
        relation = voucher.payload["relation"]
        had = await self._members.relation(room, user.id)
        if had == BANNED:
            raise InvalidVoucher
        if outranks(had, relation):
            return room, str(had)
        await self._vouchers.spend(code)
        now, is_new = await self._let_in(room, user.id, voucher)
        if not is_new:
            await self._vouchers.give_back(code)
        if now not in RELATIONS:
            raise InvalidVoucher
        return room, now

    async def accept_as_guest(
        self, code: str, display_name: str, *, address: str, agent: str
    ) -> tuple[Room, str, User, Grant]:
        """Make a user for somebody without an account, let him into that one room, and log him in.

        Raises:
            InvalidVoucher: also if the invite is not for guests.
        """
        room, voucher = await self._look(code)
        guests = self._policy.now.guests
        if not voucher.payload["guests"] or not guests.role:
            raise InvalidVoucher
        await self._vouchers.spend(code)
        user = None
        try:
            user = await self._guests.add(display_name, role=guests.role, lasts_s=guests.lasts_s)
            relation, _ = await self._let_in(room, user.id, voucher)
            grant = await self._guests.log_in(user, lasts_s=guests.lasts_s, address=address, agent=agent)
        except BaseException:
            try:
                if user is not None:
                    await self._guests.forget(user.id, room.id)
            finally:
                await self._vouchers.give_back(code)
            raise
        return room, relation, user, grant

    async def _look(self, code: str) -> tuple[Room, Voucher]:
        """Return room and voucher of a code that still holds: an invite is worth what its maker may do now."""
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

    async def _let_in(self, room: Room, uid: str, voucher: Voucher) -> tuple[str, bool]:
        keep_ms = voucher.expires_in_s * 1000 + 1000
        relation = voucher.payload["relation"]
        return await self._members.let_in(room, uid, relation, invite=voucher.ref, keep_ms=keep_ms)


def _invite(voucher: Voucher, expires_ms: int) -> Invite:
    said = voucher.payload
    return Invite(voucher.ref, said["relation"], voucher.uses_left, expires_ms, bool(said["guests"]), said["by"])

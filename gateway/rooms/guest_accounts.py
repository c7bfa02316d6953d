"""Guests: users without a permanent account, for one room and a few hours."""

import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from auth import Execute
from auth.accounts import Accounts
from auth.errors import ChangedMeanwhile, UnknownUser
from auth.sessions import Grant, Sessions
from auth.users import User
from gateway.hms.errors import HmsError
from gateway.policy.model import Guests
from gateway.rooms import keys
from gateway.rooms.invites import RoomInvites
from gateway.rooms.registry import Rooms
from gateway.rooms.relations import Members
from gateway.rooms.room import Room

log = logging.getLogger("gateway")

_SWEEP_S = 60.0
_RETRY_S = 3600  # how long to keep asking 100ms to remove an expired guest, who gets no more tokens


@dataclass(repr=False, eq=False)
class GuestBook:
    """Makes guests and removes them when they expire."""

    _execute: Execute
    _accounts: Accounts
    _sessions: Sessions
    _rooms: Rooms
    _members: Members
    _invites: RoomInvites

    async def accept(self, code: str, display_name: str, *, address: str, agent: str) -> tuple[Room, str, User, Grant]:
        """Make a user for a person without an account, let them into the room of an invite, and log them in.

        Returns the room, their relation to it, the user and their only session. Raises: InvalidVoucher
        """
        async with self._invites.used_by_guest(code) as (room, voucher, terms):
            guest = await self._add(display_name, terms)
            try:
                relation, _ = await self._invites.let_in(room, guest.id, voucher)
                lasts_ms = terms.lasts_s * 1000
                grant = await self._sessions.open(guest, address=address, agent=agent, lasts_ms=lasts_ms)
            except BaseException:
                await self._forget(guest.id, room.id)
                raise
        return room, relation, guest, grant

    async def ends_at(self, uid: str) -> float | None:
        """Return when a guest expires, in epoch seconds; None for a user who is not a guest."""
        score = await self._execute("ZSCORE", keys.GUESTS, uid)
        return None if score is None else float(score)

    async def remove_expired(self) -> float:
        """Remove all expired guests; return how many seconds to wait before the next time."""
        while await self.sweep():
            pass
        return _SWEEP_S

    async def sweep(self, *, most: int = 50) -> int:
        """Remove expired guests, from sessions too if 100ms does so within an hour; return how many. Usage stays."""
        now = int(time.time())
        expired = await self._execute("ZRANGEBYSCORE", keys.GUESTS, "-inf", now, "LIMIT", 0, most)
        long_expired = await self._execute("ZRANGEBYSCORE", keys.GUESTS, "-inf", now - _RETRY_S, "LIMIT", 0, most)
        removed = 0
        for place in expired:
            uid = place.decode()
            if await self._leaves_sessions(uid) or place in long_expired:
                await self._forget(uid)
                removed += 1
        return removed

    async def _add(self, display_name: str, terms: Guests) -> User:
        name = f"guest-{secrets.token_hex(8)}"
        user = await self._accounts.add(name, None, roles=[terms.role], display_name=display_name or "Guest")
        try:
            await self._execute("ZADD", keys.GUESTS, int(time.time()) + terms.lasts_s, user.id)
        except BaseException:
            await self._forget(user.id)  # a guest who is not in the list would never be removed
            raise
        return user

    async def _forget(self, uid: str, *unlisted: str) -> None:
        """Erase a guest's name, session and relations, including those to rooms that are not in their list yet."""
        await self._members.forget(uid, *unlisted)
        await self._sessions.end_all(uid)
        try:
            await self._accounts.erase(await self._accounts.get(uid))
        except UnknownUser:
            pass  # another worker or an operator has erased them
        except ChangedMeanwhile:
            return  # the next sweep finds them, if they are still a guest
        await self._execute("ZREM", keys.GUESTS, uid)

    async def _leaves_sessions(self, uid: str) -> bool:
        """Remove a guest from every running session; return whether 100ms did so."""
        try:
            for room_id in await self._members.rooms_of(uid):
                room = await self._rooms.get(room_id)
                if room is not None:
                    await self._members.remove_peers(room, uid, reason="your time as a guest is over")
        except HmsError as error:
            log.warning("an expired guest may still be in a session: %s", type(error).__name__)
            return False
        return True


@asynccontextmanager
async def no_longer_guest(execute: Execute, uid: str) -> AsyncIterator[None]:
    """Remove a user who gets other roles from the list of guests, so that none is swept; undo it if that fails."""
    ends_at = await execute("ZSCORE", keys.GUESTS, uid)
    await execute("ZREM", keys.GUESTS, uid)
    try:
        yield
    except BaseException:
        if ends_at is not None:
            await execute("ZADD", keys.GUESTS, float(ends_at), uid)
        raise

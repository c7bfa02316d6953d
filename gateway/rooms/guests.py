"""Guests: users without an account, for one room and a few hours.

Key: `gu:1`, guests by the instant (epoch s) their time is up. Whose roles somebody changes is none any more
(`user_admin`): he is no longer in it, and stays.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from auth.accounts import Accounts, User
from auth.errors import ChangedMeanwhile, UnknownUser
from auth.sessions import Grant, Sessions
from gateway.hms.client import HmsError
from gateway.rooms.registry import Rooms
from gateway.rooms.relations import Members

log = logging.getLogger("gateway")

Execute = Callable[..., Awaitable[Any]]

GUESTS = "gu:1"
_INSIST_S = 3600  # on throwing a guest out before he is forgotten; by himself he can do nothing then


class GuestBook:
    """Makes guests and sees them out when their time is up."""

    def __init__(
        self, execute: Execute, accounts: Accounts, sessions: Sessions, rooms: Rooms, members: Members
    ) -> None:
        self._execute = execute
        self._accounts = accounts
        self._sessions = sessions
        self._rooms = rooms
        self._members = members

    async def add(self, display_name: str, *, role: str, lasts_s: int) -> User:
        """Make a user of that role whose time is up in so many seconds."""
        name = f"guest-{secrets.token_hex(8)}"
        user = await self._accounts.add(name, None, roles=[role], display_name=display_name or "Guest")
        try:
            await self._execute("ZADD", GUESTS, int(time.time()) + lasts_s, user.id)
        except BaseException:
            await self.forget(user.id)  # or he would never be seen out
            raise
        return user

    async def log_in(self, user: User, *, lasts_s: int, address: str, agent: str) -> Grant:
        """Open the one session that a guest has."""
        return await self._sessions.open(user, address=address, agent=agent, lasts_ms=lasts_s * 1000)

    async def ends_at(self, uid: str) -> float | None:
        """Return when a guest's time is up, in epoch seconds; None for whoever is none."""
        score = await self._execute("ZSCORE", GUESTS, uid)
        return None if score is None else float(score)

    async def sweep(self, *, most: int = 50) -> int:
        """Throw out guests whose time is up and forget them; return how many are gone. Counters stay.

        Whom 100ms does not throw out is tried again with the next sweep, for an hour.
        """
        now = int(time.time())
        over = await self._execute("ZRANGEBYSCORE", GUESTS, "-inf", now, "LIMIT", 0, most)
        long_over = await self._execute("ZRANGEBYSCORE", GUESTS, "-inf", now - _INSIST_S, "LIMIT", 0, most)
        gone = 0
        for place in over:
            uid = place.decode()
            if await self._is_out(uid) or place in long_over:
                await self.forget(uid)
                gone += 1
        return gone

    async def forget(self, uid: str, *unlisted: str) -> None:
        """Erase a guest: name, session and relations, also to rooms that are not in his list yet."""
        await self._members.forget(uid, *unlisted)
        await self._sessions.end_all(uid)
        try:
            await self._accounts.erase(await self._accounts.get(uid))
        except UnknownUser:
            pass  # another worker was faster, or an operator
        except ChangedMeanwhile:
            return  # if he is a guest all the same, the next sweep finds him
        await self._execute("ZREM", GUESTS, uid)

    async def _is_out(self, uid: str) -> bool:
        """Throw a guest out wherever he may be; tell whether 100ms did."""
        try:
            for room_id in await self._members.rooms_of(uid):
                room = await self._rooms.get(room_id)
                if room is not None:
                    await self._members.remove_peers(room, uid, reason="your time as a guest is up")
        except HmsError as error:
            log.warning("a guest whose time is up may still be in a session: %s", type(error).__name__)
            return False
        return True

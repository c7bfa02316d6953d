"""Sessions and their refresh tokens.

A refresh token is `v1.<uid>.<sid>.<counter>.<mac>`: nothing secret is stored, and the next token of a session is a
function of its counter, so that racing refreshes of several tabs get the same one. Each rotation and each reuse check
is one call of `rotate.lua`. Reuse detection as in RFC 9700 section 4.14.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from .accounts import User
from .errors import InvalidCredentials, InvalidGrant
from .keys import KeyRing
from .tokens import Principal

Execute = Callable[..., Awaitable[Any]]

IDLE_MS = 14 * 86_400_000
ABSOLUTE_MS = 30 * 86_400_000
GRACE_MS = 30_000  # two tabs, or one lost reply, never log anybody out
MOST_PER_USER = 20

_OPEN = files(__package__).joinpath("open.lua").read_text()
_ROTATE = files(__package__).joinpath("rotate.lua").read_text()
_TOKEN = re.compile(r"v1\.(u[a-z2-7]{20})\.([0-9a-f]{20})\.([1-9][0-9]{0,14})\.([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class Grant:
    """What a login or a refresh gives: who, for which session, and the refresh token for the next time.

    `rotated` is False where a racing or repeated refresh was given the tokens that another one had made.
    """

    principal: Principal
    refresh_token: str
    refresh_expires_s: int
    auth_time: int
    rotated: bool = True

    def __repr__(self) -> str:
        return f"Grant(principal={self.principal!r})"


class Sessions:
    """Opens, refreshes and ends sessions."""

    def __init__(self, execute: Execute, ring: KeyRing) -> None:
        self._execute = execute
        self._ring = ring

    async def open(self, user: User) -> Grant:
        """Start a session of an authenticated user.

        Raises:
            InvalidCredentials: he was disabled or deleted since his password was checked.
        """
        sid = secrets.token_hex(10)
        stem = f"s:1:{{{user.id}}}:"
        keys = [stem + sid, f"us:1:{{{user.id}}}", f"u:1:{{{user.id}}}"]
        reply = await self._execute("EVAL", _OPEN, 3, *keys, sid, IDLE_MS, ABSOLUTE_MS, MOST_PER_USER, stem)
        if not reply:
            raise InvalidCredentials
        principal = Principal(user.id, sid, user.roles, user.ver)
        return Grant(principal, self._token(user.id, sid, 1), IDLE_MS // 1000, int(reply[0]) // 1000)

    async def refresh(self, token: str) -> Grant:
        """Exchange a refresh token for the next; roles and version are those of this moment.

        Raises:
            InvalidGrant: everything that can be wrong with it.
        """
        uid, sid, counter = self._read(token)
        keys = [f"s:1:{{{uid}}}:{sid}", f"u:1:{{{uid}}}", f"us:1:{{{uid}}}"]
        reply = await self._execute("EVAL", _ROTATE, 3, *keys, sid, counter, GRACE_MS, IDLE_MS, ABSOLUTE_MS)
        verdict, *rest = (word.decode() for word in reply)
        if verdict not in ("ok", "again"):
            raise InvalidGrant(reused_by=uid if verdict == "reused" else None)
        following, idle_ms, opened_ms, roles, ver = rest
        principal = Principal(uid, sid, tuple(roles.split()), int(ver))
        token = self._token(uid, sid, int(following))
        return Grant(principal, token, int(idle_ms) // 1000, int(opened_ms) // 1000, verdict == "ok")

    def owner_of(self, token: str) -> tuple[str, str]:
        """Return (uid, sid) of a genuine refresh token, alive or not. Raises: InvalidGrant"""
        uid, sid, _ = self._read(token)
        return uid, sid

    async def is_live(self, uid: str, sid: str) -> bool:
        return bool(await self._execute("EXISTS", f"s:1:{{{uid}}}:{sid}"))

    async def end(self, uid: str, sid: str) -> None:
        """End one session; ending one that is gone is no error."""
        await self._end(uid, [sid])

    async def end_all(self, uid: str, *, but: str | None = None) -> None:
        """End every session of a user, except one if asked."""
        sids = [sid.decode() for sid in await self._execute("ZRANGE", f"us:1:{{{uid}}}", 0, -1)]
        await self._end(uid, [sid for sid in sids if sid != but])

    async def _end(self, uid: str, sids: list[str]) -> None:
        if sids:
            await asyncio.gather(
                self._execute("DEL", *(f"s:1:{{{uid}}}:{sid}" for sid in sids)),
                self._execute("ZREM", f"us:1:{{{uid}}}", *sids),
            )

    @staticmethod
    def guards(principal: Principal) -> list[tuple[str, str, str]]:
        """Return what must hold for a principal to act, as (key, field, expected): session alive, version current."""
        uid = principal.uid
        return [(f"s:1:{{{uid}}}:{principal.sid}", "live", "1"), (f"u:1:{{{uid}}}", "ver", str(principal.ver))]

    def _token(self, uid: str, sid: str, counter: int) -> str:
        body = f"v1.{uid}.{sid}.{counter}"
        return f"{body}.{self._ring.mac(body)}"

    def _read(self, token: str) -> tuple[str, str, int]:
        """Check the MAC before Redis hears of the token."""
        match = _TOKEN.fullmatch(token) if len(token) <= 128 else None
        if match is None or not self._ring.check(token.rpartition(".")[0], match[4]):
            raise InvalidGrant
        return match[1], match[2], int(match[3])

"""Sessions and their refresh tokens.

A refresh token is `v1.<uid>.<sid>.<counter>.<mac>`: nothing secret is stored, and the next token of a session is a
function of its counter, so that racing refreshes of several tabs get the same one. Each rotation and each reuse check
is one call of `rotate.lua`. Reuse detection as in RFC 9700 section 4.14.
"""

import asyncio
import re
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from . import Execute
from .errors import InvalidCredentials, InvalidGrant
from .keys import KeyRing
from .tokens import Principal
from .users import User, number_of, text_of

IDLE_MS = 14 * 86_400_000
ABSOLUTE_MS = 30 * 86_400_000
GRACE_MS = 30_000  # two tabs, or one lost reply, never log a user out
MOST_PER_USER = 20

_OPEN = files(__package__).joinpath("open.lua").read_text()
_ROTATE = files(__package__).joinpath("rotate.lua").read_text()
# KEYS 1 s of the session. ARGV 1 the user's version that it counts as opened at. An ended session stays ended.
_KEEP = "if redis.call('HEXISTS', KEYS[1], 'live') == 1 then redis.call('HSET', KEYS[1], 'ver', ARGV[1]) end return 0"
_FIELDS = ("opened", "at", "until", "address", "agent")
_TOKEN = re.compile(r"v1\.(u[a-z2-7]{20})\.([0-9a-f]{20})\.([1-9][0-9]{0,14})\.([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class Session:
    """One place where a user is logged in; times in epoch ms. `used_ms` is the last login or refresh."""

    id: str
    opened_ms: int
    used_ms: int
    expires_ms: int
    address: str
    agent: str


@dataclass(frozen=True, slots=True)
class Grant:
    """The result of a login or a refresh. `rotated` is False if an earlier refresh had made the same token."""

    principal: Principal
    refresh_token: str = field(repr=False)
    refresh_expires_s: int
    auth_time: int
    rotated: bool = True


class Sessions:
    """Opens, refreshes and ends sessions."""

    def __init__(self, execute: Execute, ring: KeyRing) -> None:
        self._execute = execute
        self._ring = ring

    async def open(
        self, user: User, *, address: str = "", agent: str = "", lasts_ms: int = ABSOLUTE_MS, ext: str = ""
    ) -> Grant:
        """Start a session of a user, unless they have changed since their password was verified: InvalidCredentials.

        `ext` names the session of an identity provider that it follows from; see `end_external`.
        """
        sid = secrets.token_hex(10)
        stem = f"s:1:{{{user.id}}}:"
        keys = [stem + sid, f"us:1:{{{user.id}}}", f"u:1:{{{user.id}}}"]
        args = [sid, min(IDLE_MS, lasts_ms), lasts_ms, MOST_PER_USER, stem, user.ver, address, agent, ext]
        reply = await self._execute("EVAL", _OPEN, 3, *keys, *args)
        if not reply:
            raise InvalidCredentials(uid=user.id)
        principal = Principal(user.id, sid, user.roles, user.ver)
        return Grant(principal, self._token(user.id, sid, 1), min(IDLE_MS, lasts_ms) // 1000, int(reply[0]) // 1000)

    async def refresh(self, token: str) -> Grant:
        """Exchange a refresh token for the next, with the current roles and version. Raises: InvalidGrant"""
        uid, sid, counter = self._read(token)
        keys = [f"s:1:{{{uid}}}:{sid}", f"u:1:{{{uid}}}", f"us:1:{{{uid}}}"]
        reply = await self._execute("EVAL", _ROTATE, 3, *keys, sid, counter, GRACE_MS, IDLE_MS)
        verdict, *rest = reply
        if verdict not in (b"ok", b"again"):
            raise InvalidGrant(reused_by=uid if verdict == b"reused" else None)
        following, idle_ms, opened_ms, roles, ver = rest
        principal = Principal(uid, sid, tuple(text_of(roles).split()), number_of(ver))
        token = self._token(uid, sid, int(following))
        return Grant(principal, token, int(idle_ms) // 1000, int(opened_ms) // 1000, verdict == b"ok")

    def owner_of(self, token: str) -> tuple[str, str]:
        """Return (uid, sid) of a genuine refresh token, even if its session has ended. Raises: InvalidGrant"""
        uid, sid, _ = self._read(token)
        return uid, sid

    async def is_live(self, uid: str, sid: str) -> bool:
        """Tell whether a session could still be refreshed."""
        opened, since = await asyncio.gather(
            self._execute("HGET", f"s:1:{{{uid}}}:{sid}", "ver"), self._execute("HGET", f"u:1:{{{uid}}}", "since")
        )
        return _outlives(opened, since)

    async def is_current(self, principal: Principal) -> bool:
        """Tell whether a principal's token has the current version of its account; its session may still have ended."""
        ver = await self._execute("HGET", f"u:1:{{{principal.uid}}}", "ver")
        return bool(ver == str(principal.ver).encode())

    async def current(self, uid: str) -> list[Session]:
        """Return a user's live sessions, the newest first."""
        sids = [sid.decode() for sid in await self._execute("ZRANGE", f"us:1:{{{uid}}}", 0, -1, "REV")]
        since, *rows = await asyncio.gather(
            self._execute("HGET", f"u:1:{{{uid}}}", "since"),
            *(self._execute("HMGET", f"s:1:{{{uid}}}:{sid}", "ver", *_FIELDS) for sid in sids),
        )
        return [_session(sid, row) for sid, (ver, *row) in zip(sids, rows, strict=True) if _outlives(ver, since)]

    async def last_login_ms(self, uid: str) -> int | None:
        """Return when a user last logged in, None if they never have."""
        opened = await self._execute("HGET", f"u:1:{{{uid}}}", "login_ms")
        return None if opened is None else number_of(opened)

    async def keep(self, user: User, sid: str) -> None:
        """Preserve one session after a change of its user, to this version, has ended all of them."""
        await self._execute("EVAL", _KEEP, 1, f"s:1:{{{user.id}}}:{sid}", user.ver)

    async def end(self, uid: str, sid: str) -> bool:
        """End one session; tell whether it was live."""
        return await self._end(uid, [sid]) > 0

    async def end_all(self, uid: str, *, but: str | None = None) -> int:
        """End every session of a user, except `but`; return how many were live."""
        sids = [sid.decode() for sid in await self._execute("ZRANGE", f"us:1:{{{uid}}}", 0, -1)]
        return await self._end(uid, [sid for sid in sids if sid != but])

    async def end_external(self, uid: str, ends: Callable[[str], bool]) -> int:
        """End the sessions of a user that follow from one of a provider, if `ends` says so of its `ext`."""
        sids = [sid.decode() for sid in await self._execute("ZRANGE", f"us:1:{{{uid}}}", 0, -1)]
        rows = await asyncio.gather(*(self._execute("HGET", f"s:1:{{{uid}}}:{sid}", "ext") for sid in sids))
        return await self._end(uid, [sid for sid, ext in zip(sids, rows, strict=True) if ext and ends(text_of(ext))])

    async def _end(self, uid: str, sids: list[str]) -> int:
        if not sids:
            return 0
        ended, _ = await asyncio.gather(
            self._execute("DEL", *(f"s:1:{{{uid}}}:{sid}" for sid in sids)),
            self._execute("ZREM", f"us:1:{{{uid}}}", *sids),
        )
        return int(ended)

    async def hold(self, principals: Sequence[Principal]) -> list[bool]:
        """Tell of each principal whether their session is live and their version current. One round trip."""
        guards = [[*self.guards(one), *([one.key.guard] if one.key else ())] for one in principals]
        replies = iter(
            await asyncio.gather(*(self._execute("HGET", key, field) for own in guards for key, field, _ in own))
        )
        return [all([next(replies) == expected.encode() for _, _, expected in own]) for own in guards]

    @staticmethod
    def guards(principal: Principal) -> list[tuple[str, str, str]]:
        """Return the guards of a principal as (key, field, expected): the session is live, the version is current.

        For a user for whom a service key acts, only the second: the key has its own guard, in another cluster slot.
        """
        uid = principal.uid
        is_current = (f"u:1:{{{uid}}}", "ver", str(principal.ver))
        if principal.key is None:
            return [(f"s:1:{{{uid}}}:{principal.sid}", "live", "1"), is_current]
        return [is_current] if principal.is_acting else [principal.key.guard]

    def _token(self, uid: str, sid: str, counter: int) -> str:
        body = f"v1.{uid}.{sid}.{counter}"
        return f"{body}.{self._ring.mac(body)}"

    def _read(self, token: str) -> tuple[str, str, int]:
        """Check the MAC and split the token; nothing is sent to Redis. Raises: InvalidGrant"""
        match = _TOKEN.fullmatch(token) if len(token) <= 128 else None
        if match is None or not self._ring.check(token.rpartition(".")[0], match[4]):
            raise InvalidGrant
        return match[1], match[2], int(match[3])


def _outlives(ver: bytes | None, since: bytes | None) -> bool:
    """Tell whether a session opened at a version (None: no session) is still valid: older ones than `since` are not."""
    return ver is not None and number_of(ver) >= number_of(since, damaged=sys.maxsize)


def _session(sid: str, row: Sequence[bytes | None]) -> Session:
    opened, used, until, address, agent = (word.decode() if word else "" for word in row)
    expires_ms = min(int(until), int(used) + IDLE_MS)
    return Session(sid, int(opened), int(used), expires_ms, address, agent)

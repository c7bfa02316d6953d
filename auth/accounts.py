"""Accounts: who exists, with which roles. Keys: `u:1:{uid}` the user, `un:1:<name>` name -> uid, `ui:1` all users."""

from __future__ import annotations

import asyncio
import base64
import random
import secrets
import time
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import BadUsername, InvalidCredentials, UnknownUser, UserExists
from .passwords import Passwords, check_strength

Execute = Callable[..., Awaitable[Any]]

FAILURE_FLOOR_S = 0.25  # a refused login takes at least this long, whatever the reason
_FAILURE_JITTER_S = 0.05
_FIELDS = ("username", "display_name", "roles", "status", "ver", "created_ms")
# Every change of roles or status bumps `ver` in the same call: a token issued before is refused from then on.
_CHANGE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return redis.call('HINCRBY', KEYS[1], 'ver', 1)
"""


@dataclass(frozen=True, slots=True)
class User:
    """One account. `id` is opaque plain ASCII; `ver` counts the changes that made older tokens void."""

    id: str
    username: str
    display_name: str
    roles: tuple[str, ...]
    status: str
    ver: int
    created_ms: int

    @property
    def is_active(self) -> bool:
        return self.status == "active"


def name_key(username: str) -> str:
    """Return the form of a name under which it is unique: NFKC and case-folded (UTS 39 would go further).

    Raises:
        BadUsername: too short, too long, or with white space or control characters.
    """
    key = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", username).casefold())
    if not 3 <= len(key) <= 64 or len(username) > 64:
        raise BadUsername("a user name has 3 to 64 characters")
    if any(unicodedata.category(char)[0] in "ZC" for char in username + key):
        raise BadUsername("a user name has no spaces and no invisible or control characters")
    return key


class Accounts:
    """Creates, finds and authenticates users."""

    def __init__(self, execute: Execute, passwords: Passwords) -> None:
        self._execute = execute
        self._passwords = passwords

    async def add(self, username: str, password: str, *, roles: Sequence[str], display_name: str = "") -> User:
        """Create an account.

        The user is written first and his name claimed second, in one step that only one can win: a crash in between
        leaves a row that no name leads to, never a name that leads nowhere.

        Raises:
            UserExists, BadUsername, WeakPassword, Busy
        """
        key = name_key(username)
        check_strength(password, username=username)
        if await self._execute("EXISTS", f"un:1:{key}"):
            raise UserExists(f"There is already a user named {username!r}.")
        hashed = await self._passwords.hash(password)
        # 100 random bits in lower-case base32: plain ASCII, no dots (refresh tokens are split at them)
        uid = "u" + base64.b32encode(secrets.token_bytes(13)).decode().lower().rstrip("=")[:20]
        created_ms = time.time_ns() // 1_000_000
        user = User(uid, username, display_name or username, tuple(roles), "active", 1, created_ms)
        row = {"username": username, "display_name": user.display_name, "roles": " ".join(roles), "status": "active"}
        row |= {"ver": "1", "created_ms": str(created_ms), "password": hashed}
        await self._execute("HSET", f"u:1:{{{uid}}}", *(word for item in row.items() for word in item))
        if not await self._execute("SET", f"un:1:{key}", uid, "NX"):
            await self._execute("DEL", f"u:1:{{{uid}}}")
            raise UserExists(f"There is already a user named {username!r}.")
        await self._execute("ZADD", "ui:1", created_ms, uid)
        return user

    async def get(self, uid: str) -> User:
        """Raises: UnknownUser"""
        return _user(uid, await self._execute("HMGET", f"u:1:{{{uid}}}", *_FIELDS))

    async def find(self, username: str) -> User:
        """Find a user by name, in any case. Raises: UnknownUser"""
        try:
            uid = await self._execute("GET", f"un:1:{name_key(username)}")
        except BadUsername:
            uid = None
        if uid is None:
            raise UnknownUser(f"There is no user named {username!r}.")
        return await self.get(uid.decode())

    async def lookup(self, user: str) -> User:
        """Find a user by name or by id. Raises: UnknownUser"""
        try:
            return await self.find(user)
        except UnknownUser:
            return await self.get(user)

    async def count(self) -> int:
        return int(await self._execute("ZCARD", "ui:1"))

    async def page(self, *, after: int = 0, size: int = 100) -> tuple[list[User], int | None]:
        """Return users from the oldest on, and where the next page starts (None: nowhere)."""
        uids = [uid.decode() for uid in await self._execute("ZRANGE", "ui:1", after, after + size)]
        rows = await asyncio.gather(*(self._execute("HMGET", f"u:1:{{{uid}}}", *_FIELDS) for uid in uids[:size]))
        users = [_user(uid, row) for uid, row in zip(uids, rows, strict=False) if row[0] is not None]
        return users, after + size if len(uids) > size else None

    async def authenticate(self, username: str, password: str) -> User:
        """Return the user who gave his right password.

        Unknown, disabled and wrong take the same path and the same time, and end in the same error.

        Raises:
            InvalidCredentials, Busy
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        user, stored = await self._with_password(username)
        if await self._passwords.verify(password, stored) and user is not None and user.is_active:
            return user
        # The floor hides what a few milliseconds of Redis or argon2 would tell; the jitter hides the floor's edge.
        jitter_s = random.uniform(0, _FAILURE_JITTER_S)  # noqa: S311  blurs a duration, keeps no secret
        await asyncio.sleep(max(0.0, begun + FAILURE_FLOOR_S + jitter_s - loop.time()))
        raise InvalidCredentials

    async def set_roles(self, uid: str, roles: Sequence[str]) -> User:
        """Replace a user's roles; his tokens of before are void at once. Raises: UnknownUser"""
        return await self._change(uid, "roles", " ".join(roles))

    async def set_status(self, uid: str, status: str) -> User:
        """Set `active` or `disabled`; his tokens of before are void at once. Raises: UnknownUser"""
        return await self._change(uid, "status", status)

    async def _change(self, uid: str, field: str, value: str) -> User:
        if not await self._execute("EVAL", _CHANGE, 1, f"u:1:{{{uid}}}", field, value):
            raise UnknownUser(f"There is no user {uid!r}.")
        return await self.get(uid)

    async def _with_password(self, username: str) -> tuple[User | None, str | None]:
        try:
            key = name_key(username)
        except BadUsername:
            return None, None
        uid = await self._execute("GET", f"un:1:{key}")
        if uid is None:
            return None, None
        row = await self._execute("HMGET", f"u:1:{{{uid.decode()}}}", *_FIELDS, "password")
        if row[0] is None or row[-1] is None:
            return None, None
        return _user(uid.decode(), row[:-1]), row[-1].decode()


def _user(uid: str, row: Sequence[bytes | None]) -> User:
    if row[0] is None:
        raise UnknownUser(f"There is no user {uid!r}.")
    username, display_name, roles, status, ver, created_ms = (word.decode() if word else "" for word in row)
    return User(uid, username, display_name, tuple(roles.split()), status, int(ver), int(created_ms))

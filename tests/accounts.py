"""Users and sessions of an installation, written without the API, which hashes passwords and waits for the disk."""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import AsyncIterator, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from auth.accounts import Accounts
from auth.keys import KeyRing
from auth.passwords import Passwords
from auth.sessions import Sessions
from auth.tokens import LoginTokens
from auth.users import User
from gateway.redis.topology import connect, open_store

T = TypeVar("T")


@functools.cache
def password_of(name: str) -> str:
    """Return the password that a name has in all installations of this process."""
    return secrets.token_hex(16)  # contains no user name


@dataclass(frozen=True, slots=True)
class Office:
    """The gateway's own classes, on the Redis of an installation."""

    accounts: Accounts
    sessions: Sessions
    tokens: LoginTokens

    async def log_in(self, user: User) -> str:
        """Return an access token of a new session."""
        grant = await self.sessions.open(user)
        return self.tokens.issue(grant.principal, auth_time=grant.auth_time)


@asynccontextmanager
async def office(url: str, env: Mapping[str, str]) -> AsyncIterator[Office]:
    store = open_store(connect(url), deadline_s=5)
    ring = env["GATEWAY_SECRET"].split(",")
    passwords = _Hashes()
    yield Office(
        Accounts(store.execute, passwords),
        Sessions(store.execute, KeyRing(ring, "refresh")),
        LoginTokens(KeyRing(ring, "login-token")),
    )
    passwords.close()
    await store.close()


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, also in a test that is one itself."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


class _Hashes(Passwords):
    """Hashes each password once in this process."""

    _known: dict[str, str] = {}  # noqa: RUF012  of all instances

    async def hash(self, password: str, *, replacing: str = "") -> str:
        if password not in self._known:
            self._known[password] = await super().hash(password)
        return self._known[password]

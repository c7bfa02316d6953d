"""Passwords: argon2id (OWASP Password Storage Cheat Sheet), off the event loop, in a bounded number of threads."""

import asyncio
import os
import re
import unicodedata
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from passlib.hash import argon2

from .errors import Busy

MEMORY_KIB, PASSES, LANES = 19456, 2, 1  # OWASP's floor for argon2id
MOST_MEMORY_KIB, MOST_PASSES, _MOST_LANES = 1 << 20, 16, 16  # a stored hash with higher parameters is not ours
MAX_BYTES = 1024
_QUEUE = 128
_WAIT_S = 2.0

_PARAMETERS = re.compile(r"\$argon2id\$v=19\$m=([0-9]{1,10}),t=([0-9]{1,10}),p=([0-9]{1,10})\$")


class DamagedHash(ValueError):
    """A stored hash was not made by this gateway or has been altered: no password matches it."""

    def __init__(self) -> None:
        super().__init__("the stored password hash is damaged")


class Passwords:
    """Hashes and verifies passwords in a bounded pool of threads (argon2 releases the interpreter lock).

    `workers` is the number of gateway processes that share this machine's cores. `memory_kib` and `passes` are the
    cost of a new hash. At most as many hashes as the pool has threads use that memory at once.
    """

    def __init__(self, *, workers: int = 1, memory_kib: int = MEMORY_KIB, passes: int = PASSES) -> None:
        at_once = max(1, (os.cpu_count() or 1) // workers)
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="argon2")
        self._slots = asyncio.Semaphore(at_once)
        self._waiting = 0
        self._memory_kib, self._passes = memory_kib, passes
        self._hasher = argon2.using(type="ID", memory_cost=memory_kib, time_cost=passes, parallelism=LANES)
        self._decoy = ""

    @property
    def waiting(self) -> int:
        """How many wait for a thread."""
        return self._waiting

    async def warm(self) -> None:
        """Hash the decoy that unknown names are verified against, so that the first such login costs the same."""
        if not self._decoy:
            self._decoy = await self.hash("a decoy that no user has")

    async def hash(self, password: str, *, replacing: str = "") -> str:
        """Return the argon2id hash of a password, no weaker than the stored hash it replaces. Raises: Busy"""
        hasher = self._hasher
        match = _PARAMETERS.match(replacing) if _is_bearable(replacing) else None
        if match is not None:
            memory_kib, passes = max(int(match[1]), self._memory_kib), max(int(match[2]), self._passes)
            hasher = hasher.using(memory_cost=memory_kib, time_cost=passes)
        async with self._slot():
            loop = asyncio.get_running_loop()
            return str(await loop.run_in_executor(self._pool, hasher.hash, _normal(password)))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Tell whether a password matches a stored hash. None (an unknown user) takes as long and returns False.

        Raises: Busy, or DamagedHash if no password can match it, which takes as long as a wrong password.
        """
        damaged = stored is not None and not _is_bearable(stored)
        await self.warm()
        candidate = _normal(password)
        fits = len(candidate) <= MAX_BYTES
        given = candidate if fits else b"-"
        against = self._decoy if stored is None or damaged else stored
        async with self._slot():
            loop = asyncio.get_running_loop()
            try:
                matches = await loop.run_in_executor(self._pool, self._hasher.verify, given, against)
            except ValueError:  # damaged: the answer must not be faster for it
                damaged = True
                await loop.run_in_executor(self._pool, self._hasher.verify, given, self._decoy)
        if damaged:
            raise DamagedHash
        return bool(matches) and stored is not None and fits

    def is_outdated(self, stored: str) -> bool:
        """Tell whether a hash is weaker than the configured cost. Stronger hashes stay."""
        match = _PARAMETERS.match(stored)
        return match is None or int(match[1]) < self._memory_kib or int(match[2]) < self._passes

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._waiting >= _QUEUE:
            raise Busy("Too many logins right now. Try again in a few seconds.")
        self._waiting += 1
        try:
            async with asyncio.timeout(_WAIT_S):
                await self._slots.acquire()
        except TimeoutError:
            raise Busy("Too many logins right now. Try again in a few seconds.") from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()


def _normal(password: str) -> bytes:
    # surrogatepass: a lone surrogate in JSON is a wrong password, not an error
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def _is_bearable(stored: str) -> bool:
    """Tell whether a hash's parameters are within bounds: argon2 allocates memory before it fails."""
    match = _PARAMETERS.match(stored)
    if match is None:
        return False
    memory, passes, lanes = (int(number) for number in match.groups())
    return memory <= MOST_MEMORY_KIB and passes <= MOST_PASSES and lanes <= _MOST_LANES

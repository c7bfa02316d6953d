"""One process performs the chores of metering: the holder of a lock, which expires soon after its process ends."""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from redis.exceptions import RedisError

from gateway.redis.refusals import log_refusal
from gateway.redis.store import StoreError
from limits import Execute

from .keys import LEADER

log = logging.getLogger("gateway.metering")

# A process that dies is replaced after 4.5 s at most. A slow one loses the lock and goes on for a moment beside the
# next one, which does no harm: every chore may be done twice.
LEASE_S, RENEW_S = 3.5, 1.0
STORE_RETRY_S, BUG_RETRY_S = 1.0, 30.0

# KEYS  1 the lock   ARGV  1 the asking process   2 ms to hold it   Reply 1: this process holds it, 0: another one does
_HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
# KEYS  1 the lock   ARGV  1 the process that releases it
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


@dataclass(frozen=True, slots=True)
class Chore:
    """Work of the leader. `work` returns how many seconds to wait before the next time; it must be idempotent."""

    name: str
    work: Callable[[], Awaitable[float]]


class Leader:
    """Competes for the lock and performs the chores while it holds it."""

    def __init__(self, execute: Execute, *chores: Chore) -> None:
        self._execute = execute
        self._chores = chores
        # Shows an operator which process it is.
        self._name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"
        self._leads = asyncio.Event()
        self._until = 0.0

    @property
    def leads(self) -> bool:
        """Whether this process holds the lock."""
        return self._leads.is_set()

    async def run(self) -> None:
        """Run until cancelled, then release the lock, so that another process need not wait until it expires."""
        tasks = [asyncio.create_task(self._repeat(chore)) for chore in self._chores]
        try:
            while True:
                await self._compete()
                await asyncio.sleep(RENEW_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(StoreError, RedisError):
                await self._execute("EVAL", _RELEASE, 1, LEADER, self._name)

    async def _compete(self) -> None:
        asked_at = asyncio.get_running_loop().time()
        try:
            if await self._execute("EVAL", _HOLD, 1, LEADER, self._name, int(LEASE_S * 1000)):
                self._until = asked_at + LEASE_S
                self._leads.set()
                return
            self._until = 0.0
        except StoreError:
            pass  # the lock may still be ours until it ends
        except RedisError as error:
            log_refusal(error)
        if asyncio.get_running_loop().time() >= self._until:
            self._leads.clear()

    async def _repeat(self, chore: Chore) -> None:
        while True:
            await self._leads.wait()
            try:
                pause_s = await chore.work()
            except StoreError:  # reported by the store
                pause_s = STORE_RETRY_S
            except RedisError as error:
                log_refusal(error)
                pause_s = STORE_RETRY_S
            except Exception:
                log.exception("the chore %s failed", chore.name)
                pause_s = BUG_RETRY_S
            await asyncio.sleep(pause_s)

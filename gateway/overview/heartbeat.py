"""Every worker says every few seconds that it is alive, and how it is."""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Callable

import msgspec
from redis.exceptions import RedisError

from gateway import __version__
from gateway.redis.refusals import log_refusal
from gateway.redis.store import Clock, StoreError
from limits import Execute

WORKERS = "wk:1"
"""The last heartbeat of each worker: a hash."""

EVERY_S = 5.0
ALIVE_MS = 15_000  # three heartbeats: one may be late
_KEEP_S = 60
_SAMPLES = 20  # of the event loop's lag, between two heartbeats


class Vitals(msgspec.Struct, frozen=True):
    """What a process knows of its connections: states of circuit breakers, and when 100ms last answered and failed."""

    redis: str
    hms: str
    hms_answered_ms: int | None
    hms_failed_ms: int | None


class Worker(msgspec.Struct, frozen=True):
    """One heartbeat. `lag_ms`: how late a timer was at most since the one before; requests wait as long."""

    host: str
    pid: int
    version: str
    started_ms: int
    at_ms: int
    lag_ms: int
    vitals: Vitals


class Heartbeat:
    """Writes the heartbeats of this process."""

    def __init__(self, execute: Execute, clock: Clock, vitals: Callable[[], Vitals]) -> None:
        self._execute = execute
        self._clock = clock
        self._vitals = vitals
        self._host, self._pid = socket.gethostname(), os.getpid()
        self._name = f"{self._host}:{self._pid}:{secrets.token_hex(8)}"
        self._started_ms = 0

    async def run(self) -> None:
        """Go on until cancelled, then say that this process is gone."""
        lag_s = 0.0
        try:
            while True:
                try:
                    await self.beat(lag_s)
                except StoreError:
                    pass  # reported by the store
                except RedisError as error:
                    log_refusal(error)
                lag_s = await _lag_s()
        finally:
            with contextlib.suppress(StoreError, RedisError):  # then it is forgotten after a while
                await self._execute("HDEL", WORKERS, self._name)

    async def beat(self, lag_s: float) -> None:
        """Write one heartbeat, and forget the workers that have not written any for a minute."""
        now_ms = await self._clock()
        self._started_ms = self._started_ms or now_ms
        version, lag_ms = __version__, round(lag_s * 1000)
        one = Worker(self._host, self._pid, version, self._started_ms, now_ms, lag_ms, self._vitals())
        _, _, found = await asyncio.gather(
            self._execute("HSET", WORKERS, self._name, msgspec.json.encode(one)),
            self._execute("EXPIRE", WORKERS, _KEEP_S),
            self._execute("HGETALL", WORKERS),
        )
        gone = [name for name, value in found.items() if _read(value).at_ms < now_ms - _KEEP_S * 1000]
        if gone:
            await self._execute("HDEL", WORKERS, *gone)


async def workers_alive(execute: Execute, now_ms: int) -> list[Worker]:
    """Return the last heartbeat of each worker that is alive, the one that started first first."""
    found = [_read(value) for value in (await execute("HVALS", WORKERS))]
    return sorted((one for one in found if one.at_ms > now_ms - ALIVE_MS), key=lambda one: (one.started_ms, one.pid))


def _read(value: bytes) -> Worker:
    """Read a heartbeat; that of a version with other fields is as good as none."""
    try:
        return msgspec.json.decode(value, type=Worker)
    except msgspec.DecodeError:
        return Worker("", 0, "", 0, 0, 0, Vitals("", "", None, None))


async def _lag_s() -> float:
    """Wait for the next heartbeat; return how late a timer was at most."""
    loop = asyncio.get_running_loop()
    most = 0.0
    for _ in range(_SAMPLES):
        due = loop.time() + EVERY_S / _SAMPLES
        await asyncio.sleep(EVERY_S / _SAMPLES)
        most = max(most, loop.time() - due)
    return most

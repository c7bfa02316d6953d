"""The health of the installation: its workers, Redis, 100ms."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from gateway.metering.keys import LEADER
from gateway.metering.webhooks import Webhooks, WebhookState
from gateway.overview.heartbeat import Worker, workers_alive
from gateway.redis.info import Each, info_of_all
from gateway.redis.store import Clock, StoreError
from limits import Execute

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class RedisState:
    """What Redis says of itself, all masters of a cluster together; None or an empty text if it does not say.

    `most_memory` is 0 without a limit; `silent` are masters that do not answer.
    """

    server: str
    version: str
    answered_ms: float
    memory: int
    most_memory: int
    has_aof: bool | None
    writes_aof: bool | None
    silent: list[str]


@dataclass(frozen=True, slots=True)
class HmsState:
    """Whether any worker finds 100ms broken (a circuit breaker's state), and when it last answered and failed."""

    state: str
    answered_ms: int | None
    failed_ms: int | None


@dataclass(frozen=True, slots=True)
class Status:
    """None stands for a part that a lost master of a cluster has.

    `leader`: the worker that performs the chores of metering, as `host:pid`; empty if there is none at the moment.
    """

    workers: list[Worker] | None
    leader: str | None
    redis: RedisState
    hms: HmsState | None
    webhooks: WebhookState | None


async def status_of(execute: Execute, clock: Clock, each: Each, webhooks: Webhooks) -> Status:
    """Return the health of the installation. Raises: StoreError if no Redis answers, and what it refuses"""
    info, silent = await info_of_all(each)  # before the clock, which is then that of a master that answers
    begun = time.perf_counter()
    now_ms = await clock()
    answered_ms = (time.perf_counter() - begun) * 1000
    found = await asyncio.gather(
        workers_alive(execute, now_ms), _leader(execute), webhooks.state(), return_exceptions=True
    )
    workers, leader, state = _known(found[0]), _known(found[1]), _known(found[2])
    hms = None if workers is None else _hms(workers)
    return Status(workers, leader, _redis(info, silent, answered_ms), hms, state)


def _known(part: Part | BaseException) -> Part | None:
    """Return a part, None if its master did not answer. Raises what else went wrong."""
    if isinstance(part, BaseException) and not isinstance(part, StoreError):
        raise part
    return None if isinstance(part, BaseException) else part


async def _leader(execute: Execute) -> str:
    """Read who holds the lock: host, process id and a random word."""
    holder = await execute("GET", LEADER)
    return holder.decode().rpartition(":")[0] if holder else ""


def _redis(info: dict[str, str], silent: list[str], answered_ms: float) -> RedisState:
    name = "Valkey" if "valkey_version" in info else "Redis"
    aof, written = info.get("aof_enabled"), info.get("aof_last_write_status")
    return RedisState(
        server=name,
        version=info.get(f"{name.lower()}_version", ""),
        answered_ms=answered_ms,
        memory=int(info.get("used_memory", 0)),
        most_memory=int(info.get("maxmemory", 0)),
        has_aof=None if aof is None else aof == "1",
        writes_aof=None if written is None else written == "ok",
        silent=silent,
    )


def _hms(workers: Sequence[Worker]) -> HmsState:
    states = {one.vitals.hms for one in workers}
    answered = [one.vitals.hms_answered_ms for one in workers if one.vitals.hms_answered_ms is not None]
    failed = [one.vitals.hms_failed_ms for one in workers if one.vitals.hms_failed_ms is not None]
    worst = next((state for state in ("open", "half-open") if state in states), "closed")
    return HmsState(worst, max(answered, default=None), max(failed, default=None))

"""Connections are reset, by a proxy on the way: to Redis, to 100ms, from clients."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.chaos.conftest import start
from tests.chaos.table import Row
from tests.chaos.trial import AWAY, Expected, Trial, in_thread, unavailable
from tests.chaos.wire import Wire
from tests.servers import HOST, Installation

pytestmark = pytest.mark.alone

RESETS, EVERY_S = 6, 0.2


@dataclass(frozen=True, slots=True)
class Wired:
    """An installation, and the proxies on its three ways."""

    own: Installation
    to_redis: Wire
    to_100ms: Wire
    from_clients: Wire


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wired]:
    with ExitStack() as stack:

        def wire(target: int) -> Wire:
            return stack.enter_context(Wire(target))

        def rewire(made: Installation) -> None:
            ways = Wired(made, wire(made.valkey.port), wire(made.emulator_port), wire(made.port))
            made.env["REDIS_URL"] = f"redis://{HOST}:{ways.to_redis.port}/0"
            made.env["HMS_API_URL"] = f"http://{HOST}:{ways.to_100ms.port}/v2"
            found.append(ways)

        found: list[Wired] = []
        stack.enter_context(start(tmp_path_factory.mktemp("wired"), rewire))
        yield found[0]


async def reset_repeatedly(trial: Trial, wire: Wire) -> None:
    await trial.calm()
    trial.strike()
    for _ in range(RESETS):
        trial.moment()
        await in_thread(wire.reset)
        await asyncio.sleep(EVERY_S)
    trial.repair()


async def test_connections_to_redis_are_reset(wired: Wired, row: Row) -> None:
    """All connections of the gateway to Redis are reset, six times in 1.2 s"""
    async with Trial(wired.own) as trial:
        await reset_repeatedly(trial, wired.to_redis)
    errors = {name: RESETS * most for name, most in unavailable(wired.own).items()}
    measured = await trial.check(Expected(codes=AWAY, seen=["503 unavailable"], errors=errors))
    row(measured, may_lose="nothing but audit entries of requests under way")


async def test_connections_to_100ms_are_reset(wired: Wired, row: Row) -> None:
    """All connections of the gateway to 100ms, which takes 0.1 s to answer, are reset, six times in 1.2 s"""
    async with Trial(wired.own) as trial:
        await in_thread(lambda: wired.own.break_upstream("delay=0.1"))
        await reset_repeatedly(trial, wired.to_100ms)
        await in_thread(wired.own.mend_upstream)
    codes = ("upstream_error", "idempotency_conflict")
    measured = await trial.check(Expected(codes=codes, actions={"create"}, slowest_s=3))
    assert any("retrying" in line["message"] for line in trial.log()), "no call was made again"
    row(measured, may_lose="nothing")


async def test_connections_of_clients_are_reset(wired: Wired, row: Row) -> None:
    """All connections of clients to the gateway are reset, six times in 1.2 s"""
    async with Trial(wired.own, port=wired.from_clients.port) as trial:
        await reset_repeatedly(trial, wired.from_clients)
    measured = await trial.check(Expected(codes=("idempotency_conflict",), seen=["no answer"], may_break=True))
    row(measured, may_lose="nothing")

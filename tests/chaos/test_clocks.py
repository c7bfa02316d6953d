"""A clock is set: that of Redis, which times limits and sessions, or that of the gateway, which times tokens."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.chaos.clock import LIBRARY, GatewayClock, ValkeyWithClock
from tests.chaos.conftest import start
from tests.chaos.people import BURST
from tests.chaos.table import Row
from tests.chaos.trial import Expected, Measured, Trial
from tests.servers import Installation

pytestmark = pytest.mark.alone
NEEDS_LIBRARY = pytest.mark.skipif(LIBRARY is None and "CI" not in os.environ, reason="needs libfaketime")

HOUR_S = 3600
BACK_S = 3  # less than the six seconds in which the limits of the crowd refill: more would deny them for the rest


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> ValkeyWithClock:
    return ValkeyWithClock(tmp_path_factory.mktemp("valkey"))


@pytest.fixture(scope="module")
def redis_clock(tmp_path_factory: pytest.TempPathFactory, valkey: ValkeyWithClock) -> Iterator[Installation]:
    with start(tmp_path_factory.mktemp("redis-clock"), valkey=valkey) as running:
        yield running


async def set_clock(own: Installation, valkey: ValkeyWithClock, offset_s: int, expected: Expected) -> Measured:
    async with Trial(own) as trial:
        await trial.calm()
        trial.strike()
        valkey.set_clock(offset_s)
        with valkey.client() as client:
            seconds, _ = client.time()
        assert abs(seconds - time.time() - offset_s) < 2, "the clock of Redis is set"
        trial.repair()
    return await trial.check(expected)


@NEEDS_LIBRARY
async def test_clock_of_redis_is_set_forward(redis_clock: Installation, valkey: ValkeyWithClock, row: Row) -> None:
    """The clock of Redis is set one hour forward, and stays there"""
    measured = await set_clock(redis_clock, valkey, HOUR_S, Expected(more_admitted=BURST))
    row(measured, may_lose="nothing; each limit gives back a burst, once")


@NEEDS_LIBRARY
async def test_clock_of_redis_is_set_back(redis_clock: Installation, valkey: ValkeyWithClock, row: Row) -> None:
    """The clock of Redis is set 3 s back, and stays there"""
    measured = await set_clock(redis_clock, valkey, HOUR_S - BACK_S, Expected())
    row(measured, may_lose="nothing; what is used up refills 3 s later")


@pytest.fixture(scope="module")
def gateway_clock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, GatewayClock]]:
    clocks: list[GatewayClock] = []
    with start(tmp_path_factory.mktemp("gateway-clock"), lambda made: clocks.append(GatewayClock(made))) as running:
        yield running, clocks[0]


async def test_clock_of_the_gateway_is_wrong_for_a_while(
    gateway_clock: tuple[Installation, GatewayClock], row: Row
) -> None:
    """The clock of the gateway is one hour fast for 1.2 s; clients whose token it refuses get another one and go on"""
    own, clock = gateway_clock
    async with Trial(own) as trial:
        await trial.calm()
        trial.strike()
        clock.set(HOUR_S)
        await trial.calm(1.2)
        trial.repair()
        clock.set(0)
    codes, seen = ("token_expired", "invalid_token", "upstream_error"), ("401 token_expired", "502 upstream_error")
    measured = await trial.check(Expected(codes=codes, seen=seen, errors={"100ms rejected our credentials": 50}))
    row(measured, may_lose="nothing; anyone who logged in meanwhile must log in again")

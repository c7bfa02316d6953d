"""The contract of the limiter on fakeredis: fast, and without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from limits import Execute
from limits.limiter import Limiter
from limits.policy import US_PER_S, Charge, Decision, Limit
from tests.fake_redis import fake_redis
from tests.unit.limits.contract import LimiterContract


class TestLimiterOnFakeRedis(LimiterContract):
    @pytest.fixture
    async def execute(self) -> AsyncIterator[Execute]:
        redis = fake_redis()
        yield redis.execute_command
        await redis.aclose()


async def test_what_was_decided_is_reported_and_looks_are_not() -> None:
    seen: list[Decision] = []
    limiter = Limiter(fake_redis().execute_command, on_decision=seen.append)
    charge = Charge(Limit("api", 60, 60 * US_PER_S, 1))
    first, second = await limiter.take("u", [charge]), await limiter.take("u", [charge])
    await limiter.peek("u", [charge])
    assert seen == [first, second]
    assert [one.allowed for one in seen] == [True, False]

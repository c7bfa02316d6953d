"""The contract of the limiter on fakeredis: fast, and without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from limits import Execute
from tests.fake_redis import fake_redis
from tests.unit.limits.contract import LimiterContract


class TestLimiterOnFakeRedis(LimiterContract):
    @pytest.fixture
    async def execute(self) -> AsyncIterator[Execute]:
        redis = fake_redis()
        yield redis.execute_command
        await redis.aclose()

"""The contract of the limiter on a real server, through the store of the process."""

from __future__ import annotations

import pytest

from gateway.redis.store import Store
from limits import Execute
from tests.unit.limits.contract import LimiterContract


class TestLimiterOnARealServer(LimiterContract):
    @pytest.fixture
    def execute(self, store: Store) -> Execute:
        return store.execute

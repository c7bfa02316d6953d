"""The contract of metering on a real server, through the store of the process."""

from __future__ import annotations

import pytest

from gateway.redis.store import Store
from limits import Execute
from tests.unit.limits.metered_contract import MeteredContract


class TestMeteredOnARealServer(MeteredContract):
    @pytest.fixture
    def execute(self, store: Store) -> Execute:
        return store.execute

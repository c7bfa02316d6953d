"""The contract of accrual, reconciliation and sweep on fakeredis."""

from __future__ import annotations

import pytest

from limits import Execute
from tests.fake_redis import fake_redis
from tests.unit.gateway.metering.upkeep_contract import UpkeepContract


class TestUpkeepOnFakeRedis(UpkeepContract):
    @pytest.fixture
    def execute(self, impatient: None) -> Execute:
        return fake_redis().execute_command

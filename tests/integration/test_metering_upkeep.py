"""The contract of accrual, reconciliation and sweep on a real server."""

from __future__ import annotations

import pytest
import stamina

from gateway.hms.calls import ATTEMPTS
from gateway.redis.store import Store
from limits import Execute
from tests.unit.gateway.metering.upkeep_contract import UpkeepContract


class TestUpkeepOnARealServer(UpkeepContract):
    @pytest.fixture
    def execute(self, store: Store) -> Execute:
        return store.execute

    @pytest.fixture(autouse=True)
    def impatient(self) -> object:
        with stamina.set_testing(True, attempts=ATTEMPTS, cap=True):
            yield

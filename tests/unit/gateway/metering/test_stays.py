"""The contract of stays on an in-memory Redis."""

from __future__ import annotations

import pytest

from limits import Execute
from tests.fake_redis import fake_redis
from tests.unit.gateway.metering.stays_contract import StaysContract


class TestStaysInMemory(StaysContract):
    @pytest.fixture
    def execute(self) -> Execute:
        return fake_redis().execute_command

"""Metering on an in-memory Redis; and the intervals that it refuses."""

from __future__ import annotations

import pytest

from limits import Execute
from limits.metered import ENDED, MOST_MS, OPEN, Interval
from tests.fake_redis import fake_redis
from tests.unit.limits.metered_contract import MeteredContract


class TestMeteredInMemory(MeteredContract):
    @pytest.fixture
    def execute(self) -> Execute:
        return fake_redis().execute_command


@pytest.mark.parametrize(
    ("start", "left", "rank", "text"),
    [
        (10, 9, ENDED, ""),
        (-1, 5, ENDED, ""),
        (0, MOST_MS + 1, ENDED, ""),
        (0, 1, 3, ""),
        (0, 1, OPEN, ""),
        (0, 1, ENDED, "{}"),
    ],
)
def test_impossible_intervals_are_refused(start: int, left: int, rank: int, text: str) -> None:
    with pytest.raises(ValueError, match="an interval must"):
        Interval("a", "a", start, left, rank, 0, "", text)

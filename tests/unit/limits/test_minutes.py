"""Totals by minute: which seconds lie in which, and what is read of them."""

from __future__ import annotations

import pytest

from limits.minutes import place_of, read_minutes, spread
from tests.fake_redis import fake_redis

NOON = 1_795_608_000 // 60  # 2026-11-25


@pytest.mark.parametrize(
    ("end_s", "change_s", "minutes"),
    [
        (NOON * 60 + 59, 30, {0: 30}),
        (NOON * 60 + 60, 60, {0: 60}),
        (NOON * 60 + 61, 62, {-1: 1, 0: 60, 1: 1}),
        (NOON * 60 + 30, -60, {0: -30, 1: -30}),
        (NOON * 60, 0, {}),
    ],
)
def test_credited_time_lies_before_its_end_and_corrected_time_after_it(
    end_s: int, change_s: int, minutes: dict[int, int]
) -> None:
    assert {minute - NOON: seconds for minute, seconds in spread(end_s * 1000 + 999, change_s)} == minutes


async def test_minutes_are_read_over_hours_and_no_others() -> None:
    redis = fake_redis()
    for minute, count in ((NOON - 2, 1), (NOON - 1, 2), (NOON, 3), (NOON + 61, 4), (NOON + 62, 5)):
        key, field = place_of(minute)
        await redis.execute_command("HSET", key, f"{field}:ok", count, f"{field}:seconds", 60)
    found = await read_minutes(redis.execute_command, NOON - 1, NOON + 61)
    assert list(found) == list(range(NOON - 1, NOON + 62))
    assert {minute - NOON: counts for minute, counts in found.items() if counts} == {
        -1: {"ok": 2, "seconds": 60},
        0: {"ok": 3, "seconds": 60},
        61: {"ok": 4, "seconds": 60},
    }
    steps = await read_minutes(redis.execute_command, NOON - 1, NOON + 61, step=30)
    assert {minute - NOON: counts for minute, counts in steps.items()} == {
        -1: {"ok": 5, "seconds": 120},
        29: {},
        59: {"ok": 4, "seconds": 60},
    }
    await redis.aclose()

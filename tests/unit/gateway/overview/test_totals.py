"""Totals of the installation over time, by minute, day and month."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from auth import Execute
from gateway.overview.points import Point
from gateway.overview.totals import Denial, Range, Total, Totals, total_of
from limits.counters import Counters
from limits.derived import Derived
from tests.fake_redis import fake_redis

NOW = datetime(2026, 11, 25, 12, 3, 30, tzinfo=UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000


@pytest.fixture
async def execute() -> AsyncIterator[Execute]:
    redis = fake_redis()
    yield redis.execute_command
    await redis.aclose()


@pytest.fixture
def totals(execute: Execute) -> Totals:
    return Totals(execute, Counters(execute).daily)


async def write(execute: Execute, key: str, **fields: Any) -> None:
    await execute("HSET", key, *(word for item in fields.items() for word in item))


async def some(totals: Totals, wanted: Range) -> tuple[int, dict[str, Total]]:
    """Return how many steps there are, and those with any use."""
    series = await totals.series(wanted, NOW)
    return len(series.points), {f"{at:%m-%d %H:%M}": one for at, one in series.points if one != Total()}


async def test_requests_and_time_in_rooms_are_shown_in_their_minute(execute: Execute, totals: Totals) -> None:
    sent: list[tuple[Any, ...]] = []
    derived = Derived(execute, lambda *words: sent.append(words))
    derived.note("ann", "api.ok", NOW_US)
    derived.note("bob", "tokens.mint.denied.api", NOW_US - 59 * 60_000_000)
    derived.note("bob", "api.ok", NOW_US - 60 * 60_000_000)
    derived.note_seconds(NOW_US // 1000, 40)
    derived.flush()
    for words in sent:
        await execute(*words)
    assert await some(totals, "1h") == (
        60,
        {"11-25 11:04": Total(denied=1), "11-25 12:02": Total(seconds=10), "11-25 12:03": Total(ok=1, seconds=30)},
    )
    assert await some(totals, "24h") == (
        288,
        {"11-25 11:00": Total(ok=1, denied=1), "11-25 12:00": Total(ok=1, seconds=40)},
    )
    assert (await totals.series("24h", NOW)).step_s == 300


async def test_days_and_months_sum_all_actions_and_count_minutes_once(execute: Execute, totals: Totals) -> None:
    november = {"25:api.ok": 3, "25:tokens.mint.ok": 2, "25:tokens.mint.failed": 1, "25:minutes.ok": 90}
    november |= {"25:api.refused.not_found": 4, "25:people.peak": 7, "25:api.would_deny.api": 9, "*:api.ok": 3}
    await write(execute, "uc:1:{all}:2026-11", **november, **{"01:api.denied.api": 5})
    await write(execute, "uc:1:{all}:2025-12", **{"31:api.ok": 1, "30:minutes.ok": 60})
    await write(execute, "uc:1:{all}:2025-11", **{"30:api.ok": 1})
    today = Total(ok=5, refused=4, failed=1, seconds=90)
    assert await some(totals, "30d") == (30, {"11-01 00:00": Total(denied=5), "11-25 00:00": today})
    size, months = await some(totals, "12mo")
    assert size == 12
    assert months == {
        "12-01 00:00": Total(ok=1, seconds=60),
        "11-01 00:00": Total(ok=5, denied=5, refused=4, failed=1, seconds=90),
    }
    assert (await totals.series("12mo", NOW)).step_s is None
    assert total_of((await totals.series("12mo", NOW)).points) == Total(6, 5, 4, 1, 150)


async def test_days_and_months_begin_at_midnight_of_the_zone(execute: Execute, totals: Totals) -> None:
    await write(execute, "uc:1:{all}:2026-11", **{"26:api.ok": 3, "26:zone.Asia/Kolkata": 1})
    now = datetime(2026, 11, 25, 19, tzinfo=UTC).astimezone(ZoneInfo("Asia/Kolkata"))
    for wanted, begin in (("30d", "2026-11-26T00:00:00+05:30"), ("12mo", "2026-11-01T00:00:00+05:30")):
        at, total = (await totals.series(wanted, now)).points[-1]  # type: ignore[arg-type]
        assert (Point.of_step((at, total), None).at, total) == (begin, Total(ok=3))
    at, _ = (await totals.series("1h", now)).points[-1]
    assert Point.of_step((at, Total()), None).at == "2026-11-25T19:00:00Z"


async def test_a_minute_whose_corrections_exceed_it_shows_no_negative_time(execute: Execute, totals: Totals) -> None:
    await write(execute, "mn:1:2026-11-25T12", **{"03:seconds": -5, "03:ok": 1})
    assert (await some(totals, "1h"))[1] == {"11-25 12:03": Total(ok=1)}


async def test_denials_have_their_day_limit_and_action(execute: Execute, totals: Totals) -> None:
    await write(execute, "uc:1:{all}:2026-11", **{"01:tokens.mint.denied.mints": 5, "02:api.denied.api": 1})
    await write(execute, "uc:1:{all}:2026-11", **{"02:api.ok": 9, "02:tokens.mint.denied.api": 2, "03:api.denied.x": 1})
    assert await totals.denials((date(2026, 11, 1), date(2026, 11, 2))) == [
        Denial(date(2026, 11, 1), "mints", "tokens.mint", 5),
        Denial(date(2026, 11, 2), "api", "api", 1),
        Denial(date(2026, 11, 2), "api", "tokens.mint", 2),
    ]

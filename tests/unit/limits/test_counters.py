"""Reading the counters that `take` and `amend` wrote, as tallies per action."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date

import pytest

from limits import Execute
from limits.counters import Counters, Tally, tally
from tests.fake_redis import fake_redis

NOV_22_US = 1_795_348_800 * 1_000_000 + 1  # 2026-11-22, 12:00 UTC


@pytest.fixture
async def execute() -> AsyncIterator[Execute]:
    redis = fake_redis()
    yield redis.execute_command
    await redis.aclose()


async def write(execute: Execute, key: str, **counts: int) -> None:
    for field, count in counts.items():
        await execute("HSET", key, field, count)


async def fill(execute: Execute) -> None:
    november = {"22:tokens.mint.ok": 3, "21:tokens.mint.ok": 1, "*:tokens.mint.ok": 4, "22:tokens.mint.refused.gone": 1}
    await write(execute, "uc:1:{u}:2026-11", **november)
    await write(execute, "uc:1:{u}:all", **{"tokens.mint.ok": 9, "tokens.mint.failed": 2})
    await write(execute, "dn:1:{u}:2026-11", **{"22:tokens.mint.denied.api": 5, "*:tokens.mint.denied.api": 5})
    await write(execute, "dn:1:{u}:all", **{"tokens.mint.denied.api": 6, "tokens.mint.would_deny.new": 1})
    await write(execute, "uc:1:{u}:2026-10", **{"31:rooms.create.ok": 2, "*:rooms.create.ok": 2})


async def test_usage_is_reported_for_today_this_month_and_in_total(execute: Execute) -> None:
    await fill(execute)
    usage = await Counters(execute).usage("u", NOV_22_US)
    assert usage.today == {"tokens.mint": Tally(3, {"api": 5}, {"gone": 1})}
    assert usage.month == {"tokens.mint": Tally(4, {"api": 5})}
    assert usage.total == {"tokens.mint": Tally(9, {"api": 6}, failed=2, would_deny={"new": 1})}


async def test_days_include_both_ends_of_the_range(execute: Execute) -> None:
    await fill(execute)
    days = await Counters(execute).daily("u", date(2026, 10, 31), date(2026, 11, 21))
    assert days == {date(2026, 10, 31): {"rooms.create.ok": 2}, date(2026, 11, 21): {"tokens.mint.ok": 1}}


async def test_a_user_without_requests_has_no_usage(execute: Execute) -> None:
    counters = Counters(execute)
    usage = await counters.usage("nobody", NOV_22_US)
    assert (usage.today, usage.month, usage.total) == ({}, {}, {})
    assert await counters.daily("nobody", date(2026, 1, 1), date(2026, 12, 31)) == {}


async def test_counters_of_different_subjects_are_separate(execute: Execute) -> None:
    await fill(execute)
    assert (await Counters(execute).usage("u2", NOV_22_US)).total == {}


def test_the_names_of_actions_and_limits_may_contain_dots() -> None:
    counts = [("tokens.mint.denied.rooms.create", 2), ("tokens.mint.refused.not_found", 1), ("api.ok", 4)]
    assert tally(counts) == {
        "tokens.mint": Tally(denied={"rooms.create": 2}, refused={"not_found": 1}),
        "api": Tally(4),
    }


def test_a_limit_may_have_the_name_of_an_outcome() -> None:
    assert tally([("api.denied.ok", 1)]) == {"api": Tally(denied={"ok": 1})}


def test_fields_that_are_not_metrics_and_zero_counts_are_omitted() -> None:
    assert tally([("ok", 3), ("something.else", 1), ("api.ok", 0)]) == {}


def test_the_same_metric_of_several_sources_adds_up() -> None:
    assert tally([("api.ok", 1), ("api.ok", 2), ("api.denied.a", 1), ("api.denied.a", 1)]) == {
        "api": Tally(3, {"a": 2})
    }

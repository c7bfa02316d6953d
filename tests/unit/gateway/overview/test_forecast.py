"""Budgets that are nearest to their end, and their forecasts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.overview.forecast import Forecasts
from limits.derived import Derived
from tests.fake_redis import fake_redis
from tests.unit.gateway.metering.budget_bench import ANN, BEN, BUDGETS, NOW_MS, OWNER, BudgetBench, policy_with

ROOM = "6" * 24
TODAY = datetime.fromtimestamp(NOW_MS / 1000, UTC)
DAY_S, PASSED_S = 86_400, 11 * 3600 + 1800


@pytest.fixture
async def bench() -> BudgetBench:
    bench = BudgetBench(fake_redis().execute_command, policy_with(BUDGETS.format(more="")))
    await bench.account(OWNER, "host")
    await bench.execute("HSET", f"rm:1:{{{ROOM}}}", "owner", OWNER, "template", "default")
    for uid in (ANN, BEN):
        await bench.account(uid, "member")
        await bench.execute("ZADD", f"tp:1:{TODAY:%Y-%m-%d}:minutes.ok", 60, uid)
    await bench.execute("ZADD", f"tp:1:{TODAY:%Y-%m}:owned.ok", 60, OWNER)
    return bench


def forecasts(bench: BudgetBench) -> Forecasts:
    return Forecasts(bench.budgets, Derived(bench.execute, lambda *_: None), bench.policy)


async def test_the_installation_comes_first_then_whoever_has_used_the_largest_share(bench: BudgetBench) -> None:
    await bench.stay(ANN, ROOM, 15)
    await bench.stay(BEN, ROOM, 12)
    found = await forecasts(bench).nearest(10, NOW_MS * 1000)
    assert [(one.scope, one.subject, one.state.name, one.state.counted) for one in found] == [
        ("all", "all", "everybody", 27 * 60),
        ("user", ANN, "mine", 15 * 60),
        ("user", BEN, "mine", 12 * 60),
        ("owner", OWNER, "rooms", 27 * 60),
    ]
    assert [round(one.share, 3) for one in found] == [0.054, 0.5, 0.4, 0.27]
    assert len(await forecasts(bench).nearest(2, NOW_MS * 1000)) == 2


async def test_a_budget_is_expected_to_go_on_as_since_its_period_began(bench: BudgetBench) -> None:
    await bench.stay(ANN, ROOM, 14)
    await bench.stay(BEN, ROOM, 15)
    _, ben, ann, _ = await forecasts(bench).nearest(10, NOW_MS * 1000)
    assert ann.expected_s == 14 * 60 * DAY_S // PASSED_S < 30 * 60
    assert ann.runs_out_us is None
    assert ben.expected_s == 15 * 60 * DAY_S // PASSED_S > 30 * 60
    midnight_us = NOW_MS * 1000 - PASSED_S * 1_000_000
    assert ben.runs_out_us == midnight_us + 2 * PASSED_S * 1_000_000


async def test_a_spent_budget_runs_out_now_and_a_new_one_not_at_all(bench: BudgetBench) -> None:
    installation, *others = await forecasts(bench).nearest(10, NOW_MS * 1000)
    assert (installation.expected_s, installation.runs_out_us) == (0, None)
    assert len(others) == 3
    await bench.stay(ANN, ROOM, 31)
    _, ann, *_ = await forecasts(bench).nearest(10, NOW_MS * 1000)
    assert (ann.subject, ann.runs_out_us) == (ANN, NOW_MS * 1000)


async def test_without_budgets_there_is_nothing_to_forecast() -> None:
    bench = BudgetBench(fake_redis().execute_command, policy_with(""))
    assert await forecasts(bench).nearest(10, NOW_MS * 1000) == []


async def test_a_deleted_user_has_no_budget_of_their_own(bench: BudgetBench) -> None:
    await bench.execute("DEL", f"u:1:{{{ANN}}}")
    assert ANN not in {one.subject for one in await forecasts(bench).nearest(10, NOW_MS * 1000)}

"""Top lists of finished days and months are kept short."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date, timedelta

import pytest

from auth import Execute
from gateway.usage import tops
from gateway.usage.tops import TopLists
from limits import derived
from limits.derived import Derived
from tests.fake_redis import fake_redis

FIRST, LAST = date(2026, 10, 30), date(2026, 11, 22)
HANNA, MARK, OLA = ("u" + letter * 20 for letter in "hmo")


@pytest.fixture
async def execute() -> AsyncIterator[Execute]:
    redis = fake_redis()
    yield redis.execute_command
    await redis.aclose()


@pytest.fixture
def lists(execute: Execute, monkeypatch: pytest.MonkeyPatch) -> Derived:
    monkeypatch.setattr(derived, "MOST_KEPT", 2)
    monkeypatch.setattr(derived, "_AT_ONCE", 1)  # one list takes several calls
    return Derived(execute, lambda *words: None)


async def count(execute: Execute, period: str, metric: str, *scores: tuple[str, int]) -> None:
    """Write a top list, and that its metric was counted for the installation."""
    for uid, score in scores:
        await execute("ZADD", f"tp:1:{period}:{metric}", score, uid)
    await execute("HSET", f"uc:1:{{all}}:{period[:7]}", f"{period[8:] or '*'}:{metric}", 9)


async def names(execute: Execute, period: str, metric: str) -> list[str]:
    return [uid.decode() for uid in await execute("ZREVRANGE", f"tp:1:{period}:{metric}", 0, -1)]


ALL = [(f"u{n:020}", n) for n in range(1, 6)] + [(HANNA, 40), (MARK, 30)]


@pytest.mark.parametrize("period", ["2026-10-30", "2026-10", "2026-11-22"])
async def test_a_finished_list_keeps_its_first(execute: Execute, lists: Derived, period: str) -> None:
    await count(execute, period, "tokens.mint.ok", *ALL)
    assert await lists.shorten(FIRST, LAST) == 5
    assert await names(execute, period, "tokens.mint.ok") == [HANNA, MARK]


@pytest.mark.parametrize("period", ["2026-10-29", "2026-11-23", "2026-11"])
async def test_other_periods_keep_everybody(execute: Execute, lists: Derived, period: str) -> None:
    await count(execute, period, "tokens.mint.ok", *ALL)
    assert await lists.shorten(FIRST, LAST) == 0
    assert len(await names(execute, period, "tokens.mint.ok")) == 7


async def test_lists_that_totals_do_not_name_are_shortened_too(execute: Execute, lists: Derived) -> None:
    await count(execute, "2026-11-22", "api.denied.api", (HANNA, 1))
    for metric in ("denials", "minutes.ok", "owned.ok"):
        await execute("ZADD", f"tp:1:2026-11-22:{metric}", 1, HANNA, 2, MARK, 3, OLA)
    assert await lists.shorten(FIRST, LAST) == 3
    for metric in ("denials", "minutes.ok", "owned.ok"):
        assert await names(execute, "2026-11-22", metric) == [OLA, MARK]


async def test_a_correction_of_a_removed_user_changes_no_place_before(execute: Execute, lists: Derived) -> None:
    await count(execute, "2026-11-22", "minutes.ok", (HANNA, 40), (MARK, 30), (OLA, 20))
    await lists.shorten(FIRST, LAST)
    await execute("ZINCRBY", "tp:1:2026-11-22:minutes.ok", 5, OLA)
    assert await lists.top("2026-11-22", "minutes.ok", 2) == [(HANNA, 40), (MARK, 30)]


async def test_the_chore_begins_with_all_days_and_goes_on_with_new_ones(
    execute: Execute, lists: Derived, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[date, date]] = []

    async def shorten(since: date, through: date) -> int:
        asked.append((since, through))
        return 0

    monkeypatch.setattr(lists, "shorten", shorten)
    chore = TopLists(lists)
    for days in (0, 0, 1):
        monkeypatch.setattr(tops, "last_settled_day", lambda zone, days=days: LAST + timedelta(days=days))
        assert await chore.work() > 0
    tomorrow = LAST + timedelta(days=1)
    assert asked == [(LAST - timedelta(days=399), LAST), (tomorrow, tomorrow)]

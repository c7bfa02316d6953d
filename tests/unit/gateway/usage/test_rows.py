"""Counters as people read them."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from msgspec import UNSET

from gateway.policy.model import Prices
from gateway.usage.rows import day_of, minutes_of, money_of, rows_of

PRICES = Prices("EUR", Decimal("4.00"))


@pytest.mark.parametrize(
    ("seconds", "minutes"),
    [
        (0, 0),
        (1, 0.02),
        (59, 0.98),
        (60, 1),
        (61, 1.02),
        (3599, 59.98),
        (3, 0.05),
        (9, 0.15),
        (100_000_000, 1666666.67),
    ],
)
def test_minutes_have_two_decimals_rounded_half_up(seconds: int, minutes: float) -> None:
    assert minutes_of(seconds) == minutes


@pytest.mark.parametrize(
    ("seconds", "money"), [(0, "0.00"), (60_000, "4.00"), (75, "0.01"), (74, "0.00"), (60_000_075, "4000.01")]
)
def test_money_is_computed_from_exact_seconds_and_rounded_to_cents(seconds: int, money: str) -> None:
    assert str(money_of(seconds, PRICES)) == money


def test_without_prices_there_is_no_money() -> None:
    (row,) = rows_of({"minutes.ok": 90}, action=None, prices=None, keys={})
    assert (row.ok, row.seconds, row.money) == (1.5, 90, UNSET)
    assert "money" not in msgspec.to_builtins(row)


def test_only_time_has_seconds_and_a_price() -> None:
    counts = {"tokens.mint.ok": 3, "minutes.ok": 60_000, "owned.ok": 30_000, "tokens.mint.denied.api": 2}
    rows = {row.action: row for row in rows_of(counts, action=None, prices=PRICES, keys={"user_id": "u"})}
    assert list(rows) == ["minutes", "owned", "tokens.mint"]
    assert (rows["minutes"].ok, rows["minutes"].seconds, rows["minutes"].money) == (1000, 60_000, Decimal("4.00"))
    assert (rows["owned"].ok, rows["owned"].money) == (500, Decimal("2.00"))
    mints = rows["tokens.mint"]
    assert (mints.ok, mints.seconds, mints.money, mints.denied) == (3, UNSET, UNSET, {"api": 2})


def test_a_day_has_the_peak_of_people_beside_its_counts() -> None:
    day = day_of("2026-11-22", {"minutes.ok": 90, "people.peak": 7, "tokens.mint.ok": 2})
    assert day.people_peak == 7
    assert {action: counts.ok for action, counts in day.usage.items()} == {"minutes": 1.5, "tokens.mint": 2}

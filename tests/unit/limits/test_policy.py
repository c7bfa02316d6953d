"""Limits and quotas as values: arithmetic and validation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limits.policy import (
    MAX_REFILL_US,
    MOST_UNITS,
    US_PER_S,
    Charge,
    Decision,
    Limit,
    LimitState,
    Quota,
    most_generous,
    parse_rate,
    write_rate,
)

MINUTE_US = 60 * US_PER_S


def limit(count: int = 60, period_us: int = MINUTE_US, burst: int = 10, **rest: object) -> Limit:
    return Limit("api", count, period_us, burst, **rest)  # type: ignore[arg-type]


@given(st.integers(1, 10**6), st.integers(1, 10**12))
def test_emission_interval_is_the_smallest_integer_that_never_exceeds_the_rate(count: int, period_us: int) -> None:
    period_us = max(period_us, count)
    interval = limit(count, period_us, 1).emission_us
    assert interval * count >= period_us
    assert (interval - 1) * count < period_us


def test_a_rate_that_does_not_divide_its_period_is_rounded_to_the_slower_side() -> None:
    assert limit(7, MINUTE_US).emission_us == 8_571_429


@given(st.integers(2, 10_000), st.data())
def test_no_window_of_a_strict_limit_admits_more_than_its_count(count: int, data: st.DataObject) -> None:
    burst = data.draw(st.integers(1, count - 1))
    strict = limit(count, MINUTE_US, burst, strict=True)
    # The GCRA bound of any half-open window: the burst, and one unit per interval that fits into it.
    assert burst + MINUTE_US // strict.emission_us <= count


def test_strict_interval_is_the_window_divided_by_the_count_beyond_the_burst() -> None:
    assert limit(100, MINUTE_US, 40, strict=True).emission_us == MINUTE_US // 60


@pytest.mark.parametrize(
    ("text", "count", "period_s"),
    [
        ("120/min", 120, 60),
        ("10/h", 10, 3600),
        ("10/hour", 10, 3600),
        ("5/s", 5, 1),
        ("5/sec", 5, 1),
        ("1000/d", 1000, 86_400),
        ("1/day", 1, 86_400),
        ("100/10min", 100, 600),
        (" 3 / 2 h ", 3, 7200),
    ],
)
def test_rates_are_parsed_from_the_form_of_a_policy(text: str, count: int, period_s: int) -> None:
    assert parse_rate(text) == (count, period_s * US_PER_S)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "10/",
        "/min",
        "0/min",
        "-1/min",
        "1.5/min",
        "10/0min",
        "10/week",
        "10/MIN",
        "1e3/h",
        "10/min/h",
        "٣/min",
    ],
)
def test_a_rate_of_another_form_is_refused_with_the_known_forms(text: str) -> None:
    with pytest.raises(ValueError, match="is not of the form 120/min, 10/h or 100/10min"):
        parse_rate(text)


@given(st.integers(1, 10**9 - 1), st.integers(1, 9999), st.sampled_from(["s", "sec", "min", "h", "hour", "d", "day"]))
def test_a_formatted_rate_parses_to_the_same_rate(count: int, times: int, unit: str) -> None:
    rate = parse_rate(f"{count}/{times}{unit}")
    assert parse_rate(write_rate(*rate)) == rate


def test_a_rate_is_written_in_its_largest_whole_unit() -> None:
    assert [write_rate(3, s * US_PER_S) for s in (1, 90, 60, 600, 3600, 7200, 86_400)] == [
        "3/s",
        "3/90s",
        "3/min",
        "3/10min",
        "3/h",
        "3/2h",
        "3/d",
    ]


@pytest.mark.parametrize(
    ("numbers", "rule"),
    [
        ({"count": 0}, "at least one unit per period"),
        ({"period_us": 0}, "at least one unit per period"),
        ({"burst": 0}, f"burst must be from 1 to {MOST_UNITS}"),
        ({"burst": MOST_UNITS + 1}, f"burst must be from 1 to {MOST_UNITS}"),
        ({"count": 10, "burst": 10, "strict": True}, "a strict limit needs a burst below its count"),
        ({"count": 10, "period_us": 9}, "finer than one unit per microsecond"),
        ({"count": 1, "period_us": 10 * 86_400 * US_PER_S, "burst": 1000}, "more than ten years to refill"),
    ],
)
def test_an_invalid_limit_is_refused_with_the_rule(numbers: dict[str, int], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        limit(**numbers)


@pytest.mark.parametrize("name", ["", "Api", "1st", "a b", "a:b", "a}", "*", "block", "ä", "a" * 41, 'a"b'])
def test_names_that_could_break_a_key_a_field_or_a_header_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a name is 1 to 40 of"):
        Limit(name, 1, US_PER_S, 1)
    with pytest.raises(ValueError, match="a name is 1 to 40 of"):
        Quota(name, "tokens.mint", 1, "day")


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"amount": 0}, "amount must be from 1"),
        ({"amount": MOST_UNITS + 1}, "amount must be from 1"),
        ({"period": "year"}, "period must be one of: day, week, month"),
        ({"zone": "Europe/Atlantis"}, "there is no time zone 'Europe/Atlantis'"),
        ({"zone": "../etc/passwd"}, "there is no time zone"),
        ({"zone": ""}, "there is no time zone"),
    ],
)
def test_an_invalid_quota_is_refused_with_the_rule(changed: dict[str, object], rule: str) -> None:
    numbers = {"id": "month", "counter": "tokens.mint", "amount": 10, "period": "month"} | changed
    with pytest.raises(ValueError, match=rule):
        Quota(**numbers)  # type: ignore[arg-type]


def test_a_quota_uses_the_counter_itself_only_if_the_counters_have_its_periods() -> None:
    kinds = [("day", "UTC"), ("month", "UTC"), ("week", "UTC"), ("day", "Europe/Berlin"), ("month", "Europe/Berlin")]
    quotas = [Quota("q", "tokens.mint", 1, period, zone) for period, zone in kinds]  # type: ignore[arg-type]
    assert [quota.is_counter("UTC") for quota in quotas] == [True, True, False, False, False]
    assert [quota.is_counter("Europe/Berlin") for quota in quotas] == [False, False, False, True, True]


def test_the_largest_numbers_stay_exact_in_the_doubles_of_lua() -> None:
    year_2200_us = 7_258_118_400 * US_PER_S
    assert year_2200_us + 2 * MAX_REFILL_US < 2**53


def test_a_negative_cost_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match=r"refunds go through Limiter\.amend"):
        Charge(limit(), -1)


def test_several_roles_give_the_fastest_rate_and_the_largest_burst() -> None:
    fast, roomy = limit(120, MINUTE_US, 5), limit(60, MINUTE_US, 50)
    combined = most_generous([roomy, fast])
    assert (combined.rate, combined.burst) == ("120/min", 50)
    assert most_generous([fast, roomy]) == combined


def test_the_limit_of_a_single_role_is_unchanged() -> None:
    for only in (limit(strict=True), limit(shadow=True)):
        assert most_generous([only]) == only


@given(st.lists(st.tuples(st.integers(2, 500), st.integers(1, 500), st.booleans()), min_size=1, max_size=4))
def test_several_roles_are_never_stricter_than_any_one_of_them(numbers: list[tuple[int, int, bool]]) -> None:
    limits = [limit(count, MINUTE_US, burst, strict=strict and burst < count) for count, burst, strict in numbers]
    combined = most_generous(limits)
    assert combined.emission_us == min(one.emission_us for one in limits)
    assert combined.burst == max(one.burst for one in limits)


def denied(*retries_us: int) -> Decision:
    states = tuple(LimitState(limit(), retry == 0, 0, retry, 0, US_PER_S, 10) for retry in retries_us)
    return Decision("id", "u", "m", 0, False, states)


def test_a_denial_waits_for_the_slowest_denying_limit() -> None:
    assert denied(5, 0, 7, 3).retry_us == 7
    assert len(denied(5, 0, 7, 3).violated) == 3


def test_a_denial_by_a_cost_above_the_burst_never_ends() -> None:
    assert denied(5, -1).never
    assert not denied(5, 0).never

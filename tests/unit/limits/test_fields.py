"""RateLimit fields per draft-ietf-httpapi-ratelimit-headers-11, read back by an independent parser of RFC 9651."""

from __future__ import annotations

from typing import Any

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limits import fields
from limits.fields import ratelimit_fields, retry_after_s
from limits.policy import US_PER_S, BlockState, Decision, Lease, LeaseState, Limit, LimitState, Quota, QuotaState, State

NOW_US = 1_795_000_000 * US_PER_S
DAY_US = 86_400 * US_PER_S


def limit_state(
    name: str, remaining: int, *, allowed: bool = True, retry_us: int = 0, shadow: bool = False, into_us: int = 0
) -> LimitState:
    """The state of 30 at once and one every 2 s; `into_us` is how much of the next unit has already come back."""
    limit = Limit(name, 30, 60 * US_PER_S, 30, shadow=shadow)
    full_again_us = (30 - remaining) * limit.emission_us - into_us
    return LimitState(limit, allowed, remaining, retry_us, full_again_us, limit.emission_us, 30)


def quota_state(name: str, used: int, *, allowed: bool = True, ends_in_us: int = 10 * DAY_US) -> QuotaState:
    retry_us = 0 if allowed else ends_in_us
    quota = Quota(name, "tokens.mint", 5000, "month")
    return QuotaState(quota, allowed, used, 5000, NOW_US + ends_in_us, retry_us, 30 * 86_400)


def decision(*states: State, block: BlockState | None = None) -> Decision:
    limits = tuple(state for state in states if isinstance(state, LimitState))
    quotas = tuple(state for state in states if isinstance(state, QuotaState))
    leases = tuple(state for state in states if isinstance(state, LeaseState))
    allowed = not block and all(state.allowed or not state.decides for state in states)
    return Decision("id", "u", "m", NOW_US, allowed, limits, quotas, leases, block)


def parsed(of: Decision) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    return {name: list(http_sf.parse(value.encode(), tltype="list")) for name, value in ratelimit_fields(of).items()}


def test_the_example_of_the_specification_is_reproduced() -> None:
    assert ratelimit_fields(decision(limit_state("tokens", 12), quota_state("tokens-month", 790))) == {
        "RateLimit-Policy": '"tokens";q=30;w=60, "tokens-month";q=5000;w=2592000',
        "RateLimit": '"tokens";r=12;t=24, "tokens-month";r=4210;t=864000',
    }


def test_both_fields_are_lists_of_strings_with_whole_parameters() -> None:
    found = parsed(decision(limit_state("rooms.create", 3), quota_state("m", 1)))
    for items in found.values():
        for name, parameters in items:
            assert type(name) is str
            assert all(type(value) is int and value >= 0 for value in parameters.values())
    assert [set(parameters) for _, parameters in found["RateLimit-Policy"]] == [{"q", "w"}] * 2
    assert [set(parameters) for _, parameters in found["RateLimit"]] == [{"r", "t"}] * 2


def test_policy_field_has_the_burst_and_the_seconds_to_refill_it() -> None:
    odd = Limit("odd", 7, 60 * US_PER_S, 5)  # 5 x 8.571429 s
    state = LimitState(odd, True, 4, 0, odd.emission_us, odd.emission_us, 5)
    assert parsed(decision(state))["RateLimit-Policy"] == [("odd", {"q": 5, "w": 43})]


def test_overrides_replace_the_numbers_of_the_policy_in_the_fields() -> None:
    base = limit_state("api", 30)
    changed = LimitState(base.limit, True, 99, 0, US_PER_S, US_PER_S, 100)
    found = parsed(decision(changed))
    assert found == {"RateLimit-Policy": [("api", {"q": 100, "w": 100})], "RateLimit": [("api", {"r": 99, "t": 99})]}


@given(st.integers(1, 30))
def test_reset_is_the_time_over_which_the_remaining_units_may_be_used(remaining: int) -> None:
    assert parsed(decision(limit_state("api", remaining)))["RateLimit"] == [
        ("api", {"r": remaining, "t": 2 * remaining})
    ]


@pytest.mark.parametrize(("into_us", "reset_s"), [(0, 2), (1, 2), (US_PER_S, 1), (2 * US_PER_S - 1, 1)])
def test_with_nothing_left_reset_is_the_time_until_the_next_unit(into_us: int, reset_s: int) -> None:
    assert parsed(decision(limit_state("api", 0, into_us=into_us)))["RateLimit"] == [("api", {"r": 0, "t": reset_s})]


def test_reset_of_a_denied_limit_is_never_before_the_request_would_pass() -> None:
    state = limit_state("api", 0, allowed=False, retry_us=9 * US_PER_S + 1)  # it requested several units
    assert parsed(decision(state))["RateLimit"] == [("api", {"r": 0, "t": 10})]


def test_reset_is_never_zero() -> None:
    fast = Limit("fast", 1000, US_PER_S, 1000)
    assert parsed(decision(LimitState(fast, True, 1, 0, 999_000, 1000, 1000)))["RateLimit"][0][1]["t"] == 1
    assert parsed(decision(quota_state("q", 1, ends_in_us=1)))["RateLimit"][0][1]["t"] == 1


def test_a_quota_overspent_after_lowering_reports_zero_left() -> None:
    assert parsed(decision(quota_state("q", 6000, allowed=False)))["RateLimit"][0][1]["r"] == 0


def test_denying_limits_come_first_and_then_the_tightest() -> None:
    states = (
        limit_state("roomy", 20),
        limit_state("tight", 2),
        quota_state("month", 4990),
        limit_state("denied-short", 0, allowed=False, retry_us=1),
        limit_state("denied-long", 0, allowed=False, retry_us=US_PER_S),
    )
    found = parsed(decision(*states))
    assert [name for name, _ in found["RateLimit"]] == ["denied-long", "denied-short", "tight", "month"]
    assert [name for name, _ in found["RateLimit-Policy"]] == [name for name, _ in found["RateLimit"]]


def test_at_most_four_limits_are_reported() -> None:
    states = [limit_state(f"limit{left}", left) for left in range(9, 1, -1)]
    found = parsed(decision(*states))
    assert [name for name, _ in found["RateLimit"]] == ["limit2", "limit3", "limit4", "limit5"]
    assert len(found["RateLimit-Policy"]) == 4


def test_shadow_limits_are_not_reported() -> None:
    shadow = limit_state("shadow", 0, allowed=False, retry_us=5, shadow=True)
    assert [name for name, _ in parsed(decision(shadow, limit_state("api", 3)))["RateLimit"]] == ["api"]
    assert ratelimit_fields(decision(shadow)) == {}


def test_without_limits_there_are_no_fields() -> None:
    assert ratelimit_fields(decision()) == {}
    assert ratelimit_fields(Decision("", "u", "m", 0, False, failed_guard=0)) == {}


def test_leases_and_blocks_are_not_reported_as_rate_limits() -> None:
    lease = LeaseState(Lease("joins", 2, US_PER_S), False, 2, US_PER_S)
    assert ratelimit_fields(decision(lease, block=BlockState(US_PER_S))) == {}


def test_parameter_names_are_those_of_the_draft(monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = {"quota": "q", "window": "w", "remaining": "left", "reset": "in"}
    monkeypatch.setitem(fields._PARAMETERS, fields.DRAFT, renamed)
    assert ratelimit_fields(decision(limit_state("api", 3)))["RateLimit"] == '"api";left=3;in=6'


@given(st.integers(1, 400 * DAY_US))
def test_retry_after_is_never_early_and_at_most_a_tenth_or_five_seconds_late(retry_us: int) -> None:
    least = -(-retry_us // US_PER_S)
    seconds = retry_after_s(decision(block=BlockState(retry_us)))
    assert seconds is not None
    assert max(1, least) <= seconds <= least + min(5, least // 10)


def test_retry_after_uses_its_whole_range_of_jitter() -> None:
    blocked = decision(block=BlockState(30 * US_PER_S))
    assert {retry_after_s(blocked) for _ in range(500)} == {30, 31, 32, 33}
    long_blocked = decision(block=BlockState(3600 * US_PER_S))
    assert {retry_after_s(long_blocked) for _ in range(500)} == set(range(3600, 3606))


def test_a_wait_under_ten_seconds_has_no_jitter() -> None:
    assert {retry_after_s(decision(block=BlockState(9 * US_PER_S))) for _ in range(100)} == {9}


def test_retry_after_is_the_longest_wait_of_the_denying_limits() -> None:
    states = (
        limit_state("short", 0, allowed=False, retry_us=US_PER_S),
        limit_state("long", 0, allowed=False, retry_us=7 * US_PER_S),
        limit_state("allowed", 3, retry_us=0),
        limit_state("shadow", 0, allowed=False, retry_us=60 * US_PER_S, shadow=True),
    )
    assert retry_after_s(decision(*states)) == 7


@given(st.integers(0, 29), st.integers(1, 60 * US_PER_S))
def test_retry_after_is_never_before_the_reset_of_a_violated_limit(remaining: int, retry_us: int) -> None:
    of = decision(limit_state("api", remaining, allowed=False, retry_us=retry_us))
    seconds = retry_after_s(of)
    assert seconds is not None
    assert seconds >= parsed(of)["RateLimit"][0][1]["t"]


def test_a_cost_above_the_burst_gets_no_retry_after() -> None:
    never = limit_state("big", 30, allowed=False, retry_us=-1)
    assert retry_after_s(decision(never)) is None
    assert retry_after_s(decision(never, limit_state("api", 0, allowed=False, retry_us=US_PER_S))) is None
    assert parsed(decision(never))["RateLimit"] == [("big", {"r": 30, "t": 60})]


def test_a_shadow_limit_that_could_never_pass_does_not_hide_retry_after() -> None:
    never = limit_state("shadow", 30, allowed=False, retry_us=-1, shadow=True)
    assert retry_after_s(decision(never, limit_state("api", 0, allowed=False, retry_us=US_PER_S))) == 2

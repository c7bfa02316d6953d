"""Limits of one process alone."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from limits.local import LocalBuckets
from limits.policy import US_PER_S, Charge, Limit

API = Limit("api", 60, 60 * US_PER_S, 3)
TIGHT = Limit("tight", 60, 60 * US_PER_S, 1)
SHADOW = Limit("shadow", 60, 60 * US_PER_S, 1, shadow=True)


@dataclass
class Clock:
    now_us: int = 1_795_000_000 * US_PER_S

    def __call__(self) -> int:
        return self.now_us


def passes(buckets: LocalBuckets, *limits: Limit, subject: str = "a", cost: int = 1) -> bool:
    return buckets.take(subject, [Charge(limit, cost) for limit in limits])[1]


def test_the_burst_passes_at_once_and_then_one_per_interval() -> None:
    clock = Clock()
    buckets = LocalBuckets(clock)
    assert [passes(buckets, API) for _ in range(5)] == [True, True, True, False, False]
    clock.now_us += US_PER_S - 1
    assert not passes(buckets, API)
    clock.now_us += 1
    assert passes(buckets, API)


def test_a_denied_request_charges_no_limit() -> None:
    buckets = LocalBuckets(Clock())
    assert [passes(buckets, API, TIGHT) for _ in range(4)] == [True, False, False, False]
    states, _ = buckets.take("a", [Charge(API, 0)])
    assert states[0].remaining == 2


def test_states_tell_what_is_left_and_how_long_to_wait() -> None:
    buckets = LocalBuckets(Clock())
    (state,), _ = buckets.take("a", [Charge(API, 2)])
    assert (state.allowed, state.remaining, state.retry_us, state.full_again_us) == (True, 1, 0, 2 * US_PER_S)
    (state,), _ = buckets.take("a", [Charge(API, 3)])
    assert (state.allowed, state.remaining, state.retry_us) == (False, 1, 2 * US_PER_S)
    (state,), _ = buckets.take("a", [Charge(API, 4)])
    assert (state.allowed, state.retry_us) == (False, -1)


def test_a_shadow_limit_decides_nothing_and_is_not_charged_where_it_would_have_denied() -> None:
    buckets = LocalBuckets(Clock())
    assert [passes(buckets, API, SHADOW) for _ in range(2)] == [True, True]
    (_, shadow), allowed = buckets.take("a", [Charge(API), Charge(SHADOW)])
    assert (allowed, shadow.allowed, shadow.remaining, shadow.retry_us) == (True, False, 0, US_PER_S)
    assert not passes(buckets, API, SHADOW)
    (state,), _ = buckets.take("a", [Charge(SHADOW, 0)])
    assert (state.remaining, state.full_again_us) == (0, US_PER_S)


def test_idling_never_raises_what_may_pass_at_once() -> None:
    clock = Clock()
    buckets = LocalBuckets(clock)
    passes(buckets, API)
    clock.now_us += 10**15
    assert sum(passes(buckets, API) for _ in range(10)) == 3


def test_a_clock_set_back_costs_at_most_one_refill() -> None:
    clock = Clock()
    buckets = LocalBuckets(clock)
    assert passes(buckets, API, cost=3)
    clock.now_us -= 10**12
    assert buckets.take("a", [Charge(API)])[0][0].retry_us == US_PER_S
    clock.now_us += US_PER_S
    assert [passes(buckets, API) for _ in range(2)] == [True, False]


def test_subjects_and_limits_are_counted_apart() -> None:
    buckets = LocalBuckets(Clock())
    assert passes(buckets, TIGHT)
    assert passes(buckets, TIGHT, subject="b")
    assert passes(buckets, API)
    assert not passes(buckets, TIGHT)


def test_whoever_was_seen_longest_ago_is_forgotten_first() -> None:
    buckets = LocalBuckets(Clock(), most=2)
    for subject in ("old", "young", "new"):
        assert passes(buckets, TIGHT, subject=subject)
    assert not passes(buckets, TIGHT, subject="young")
    assert passes(buckets, TIGHT, subject="old")
    assert len(buckets._tats) == 2


def test_looking_makes_nobody_forgotten() -> None:
    buckets = LocalBuckets(Clock(), most=1)
    assert passes(buckets, TIGHT, subject="a")
    passes(buckets, TIGHT, subject="b", cost=0)
    assert not passes(buckets, TIGHT, subject="a")


@given(st.lists(st.integers(0, 3 * US_PER_S), max_size=60))
def test_any_interval_admits_at_most_the_burst_and_what_refilled(waits_us: list[int]) -> None:
    clock = Clock()
    buckets = LocalBuckets(clock)
    admitted = []
    for wait_us in waits_us:
        clock.now_us += wait_us
        if passes(buckets, API):
            admitted.append(clock.now_us)
    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            assert last - first + 1 <= 3 + (admitted[last] - admitted[first]) // API.emission_us

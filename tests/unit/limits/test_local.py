"""Limits in the memory of one process."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from limits.local import LocalBuckets
from limits.policy import US_PER_S, Limit

API = Limit("api", 60, 60 * US_PER_S, 3)
TIGHT = Limit("tight", 60, 60 * US_PER_S, 1)
SHADOW = Limit("shadow", 60, 60 * US_PER_S, 1, shadow=True)


@dataclass
class Clock:
    now_us: int = 1_795_000_000 * US_PER_S

    def __call__(self) -> int:
        return self.now_us


def passes(buckets: LocalBuckets, limit: Limit, subject: str = "a") -> bool:
    return buckets.take(subject, limit) is None


def test_the_burst_passes_at_once_and_then_one_per_interval() -> None:
    clock = Clock()
    buckets = LocalBuckets(clock)
    assert [passes(buckets, API) for _ in range(5)] == [True, True, True, False, False]
    clock.now_us += US_PER_S - 1
    assert not passes(buckets, API)
    clock.now_us += 1
    assert passes(buckets, API)


def test_a_denied_request_charges_nothing() -> None:
    clock = Clock()
    buckets = LocalBuckets(clock)
    assert [passes(buckets, TIGHT) for _ in range(4)] == [True, False, False, False]
    clock.now_us += US_PER_S
    assert passes(buckets, TIGHT)


def test_state_of_a_denial_tells_what_is_left_and_how_long_to_wait() -> None:
    buckets = LocalBuckets(Clock())
    assert [passes(buckets, API) for _ in range(3)] == [True, True, True]
    state = buckets.take("a", API)
    assert state is not None
    assert (state.allowed, state.remaining, state.retry_us, state.full_again_us) == (False, 0, US_PER_S, 3 * US_PER_S)
    assert (state.limit, state.emission_us, state.burst, state.decides) == (API, US_PER_S, 3, True)


def test_a_shadow_limit_says_that_it_does_not_decide() -> None:
    buckets = LocalBuckets(Clock())
    assert passes(buckets, SHADOW)
    for _ in range(2):  # and is not charged where it would have denied
        state = buckets.take("a", SHADOW)
        assert state is not None
        assert (state.decides, state.remaining, state.retry_us, state.full_again_us) == (False, 0, US_PER_S, US_PER_S)


def test_idle_time_never_raises_the_burst() -> None:
    clock = Clock()
    buckets = LocalBuckets(clock)
    passes(buckets, API)
    clock.now_us += 10**15
    assert sum(passes(buckets, API) for _ in range(10)) == 3


def test_a_clock_set_back_costs_at_most_one_refill() -> None:
    clock = Clock()
    buckets = LocalBuckets(clock)
    assert [passes(buckets, API) for _ in range(3)] == [True, True, True]
    clock.now_us -= 10**12
    state = buckets.take("a", API)
    assert state is not None
    assert state.retry_us == US_PER_S
    clock.now_us += US_PER_S
    assert [passes(buckets, API) for _ in range(2)] == [True, False]


def test_subjects_and_limits_are_counted_separately() -> None:
    buckets = LocalBuckets(Clock())
    assert passes(buckets, TIGHT)
    assert passes(buckets, TIGHT, subject="b")
    assert passes(buckets, API)
    assert not passes(buckets, TIGHT)


def test_the_least_recently_seen_subject_is_evicted_first() -> None:
    buckets = LocalBuckets(Clock(), most=2)
    for subject in ("old", "young", "new"):
        assert passes(buckets, TIGHT, subject=subject)
    assert not passes(buckets, TIGHT, subject="young")
    assert passes(buckets, TIGHT, subject="old")
    assert len(buckets._tats) == 2


def test_a_denied_request_makes_nobody_forgotten() -> None:
    buckets = LocalBuckets(Clock(), most=2)
    assert passes(buckets, TIGHT, subject="a")
    assert passes(buckets, TIGHT, subject="b")
    assert not passes(buckets, TIGHT, subject="a")
    assert passes(buckets, TIGHT, subject="c")
    assert not passes(buckets, TIGHT, subject="b")


@given(st.lists(st.integers(0, 3 * US_PER_S), max_size=60))
def test_any_interval_admits_at_most_the_burst_plus_the_refill(waits_us: list[int]) -> None:
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

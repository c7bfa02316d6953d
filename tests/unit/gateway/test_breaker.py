"""The circuit breaker, on a test clock."""

from __future__ import annotations

import pytest

from gateway.breaker import LEAST_CALLS, OPEN_S, WINDOW_S, Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(now=clock)


def test_it_can_be_opened_whatever_the_share_of_failures(breaker: Breaker, clock: Clock) -> None:
    for _ in range(1000):
        breaker.succeeded()
    breaker.open()
    assert not breaker.allows()
    clock.now += OPEN_S
    assert breaker.allows()  # the probe
    breaker.succeeded()
    assert breaker.state == "closed"


def test_a_few_failures_do_not_open_it(breaker: Breaker) -> None:
    for _ in range(LEAST_CALLS - 1):
        breaker.failed()
    assert breaker.state == "closed"
    assert breaker.allows()


def test_half_of_enough_calls_failing_opens_it(breaker: Breaker) -> None:
    for _ in range(LEAST_CALLS // 2):
        breaker.succeeded()
    for _ in range(LEAST_CALLS // 2 - 1):
        breaker.failed()
    assert breaker.state == "closed"
    breaker.failed()
    assert breaker.state == "open"
    assert not breaker.allows()


def test_less_than_half_failing_leaves_it_closed(breaker: Breaker) -> None:
    for _ in range(51):
        breaker.succeeded()
    for _ in range(50):
        breaker.failed()
    assert breaker.state == "closed"


def test_failures_older_than_the_window_are_forgotten(breaker: Breaker, clock: Clock) -> None:
    for _ in range(LEAST_CALLS - 1):
        breaker.failed()
    clock.now += WINDOW_S
    breaker.failed()
    assert breaker.state == "closed"


def _open(breaker: Breaker) -> None:
    for _ in range(LEAST_CALLS):
        breaker.failed()
    assert breaker.state == "open"


def test_after_a_while_exactly_one_caller_probes(breaker: Breaker, clock: Clock) -> None:
    _open(breaker)
    clock.now += OPEN_S
    assert [breaker.allows() for _ in range(5)] == [True, False, False, False, False]
    assert breaker.state == "half-open"


def test_a_probe_that_succeeds_closes_it_and_forgets_the_failures(breaker: Breaker, clock: Clock) -> None:
    _open(breaker)
    clock.now += OPEN_S
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.state == "closed"
    breaker.failed()
    assert breaker.state == "closed"


def test_a_probe_that_fails_opens_it_again(breaker: Breaker, clock: Clock) -> None:
    _open(breaker)
    clock.now += OPEN_S
    assert breaker.allows()
    breaker.failed()
    assert breaker.state == "open"
    clock.now += OPEN_S / 2
    assert not breaker.allows()


def test_a_probe_that_never_reports_does_not_keep_it_open(breaker: Breaker, clock: Clock) -> None:
    _open(breaker)
    clock.now += OPEN_S
    assert breaker.allows()
    clock.now += OPEN_S
    assert breaker.allows()


def test_a_call_that_began_before_the_last_recovery_does_not_count(breaker: Breaker, clock: Clock) -> None:
    began = breaker.generation
    _open(breaker)
    clock.now += OPEN_S
    assert breaker.allows()
    breaker.succeeded()
    for _ in range(2 * LEAST_CALLS):
        breaker.failed(began)
    assert breaker.state == "closed"
    for _ in range(LEAST_CALLS):
        breaker.failed(breaker.generation)
    assert breaker.state == "open"

"""The attack suite's comparison of times finds differences and ignores noise."""

from __future__ import annotations

import random

import pytest

from tests.attack.timing import MOST_APART_S, assert_alike

TRIALS = 200


class Machine:
    """A clock on which requests take a given number of seconds, and sometimes much longer."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now_s = 0.0

    def ask(self, least_s: float) -> None:
        self.now_s += least_s + self.random.uniform(0, 0.05)
        if self.random.random() < 0.2:
            self.now_s += self.random.uniform(0, 1)

    def clock(self) -> float:
        return self.now_s


def are_alike(seed: int, *leasts_s: float) -> bool:
    machine = Machine(seed)
    asks = {str(number): (lambda least_s=least_s: machine.ask(least_s)) for number, least_s in enumerate(leasts_s)}
    try:
        assert_alike(asks, clock=machine.clock, order=machine.random)
    except AssertionError:
        return False
    return True


def test_noise_is_not_a_difference() -> None:
    assert sum(are_alike(seed, 0.25, 0.25, 0.25) for seed in range(TRIALS)) == TRIALS


@pytest.mark.parametrize("more_s", [2 * MOST_APART_S, 0.25])
def test_a_difference_is_found_despite_noise(more_s: float) -> None:
    """Seeds make each trial the same."""
    assert sum(are_alike(seed, 0.25, 0.25, 0.25 + more_s) for seed in range(TRIALS)) <= TRIALS // 100

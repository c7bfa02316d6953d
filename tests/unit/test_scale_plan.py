"""The plan and the simulation of benchmarks/scale.py, against what is known exactly."""

from __future__ import annotations

import argparse
import random
from dataclasses import fields

import pytest

from benchmarks import scale
from benchmarks.footprint import Footprint
from benchmarks.scale import KINDS, Kind, plan, simulate

WEIGHS = Footprint(**{one.name: 100.0 for one in fields(Footprint)})
COSTS = [Kind(kind.name, kind.daily, gateway_us=200, redis_us=50) for kind in KINDS]
OPTIONS = argparse.Namespace(seed=1, sample=20_000, crowd=20_000, outage=5.0)


@pytest.mark.parametrize("busy", [0.3, 0.7])
def test_waits_are_those_of_a_queue_with_one_server(busy: float) -> None:
    used, waits = scale._queue(random.Random(1), busy / 100e-6, [(100.0, 1.0)])
    assert used == pytest.approx(busy, rel=0.02)
    # M/D/1 (Pollaczek-Khinchine): the mean wait is the service time times busy / (2 (1 - busy)).
    assert sum(waits) / len(waits) == pytest.approx(100e-6 * busy / (2 * (1 - busy)), rel=0.05)


def test_a_master_that_is_gone_refuses_everybody_once_a_second_and_then_serves_them() -> None:
    refused, first_second, _ = scale._outage(random.Random(1), 1000, [(1.0, 1.0)], 3.0)
    # Those of the first second come again after 1.05 s on average, and again: 2.9 + 1.9 + 0.9 of a second's requests.
    assert refused == pytest.approx(5_700, rel=0.03)
    # Four seconds' arrivals, without those whose last refusal was so late that they come after that second: 3 x 50.
    assert first_second == pytest.approx(3_850, rel=0.03)


def test_twice_as_many_active_people_need_twice_as_much() -> None:
    half, all_ = (plan(10_000_000, active, COSTS, WEIGHS) for active in (5_000_000, 10_000_000))
    assert all_.per_s == pytest.approx(2 * half.per_s)
    assert all_.gateway_cores == pytest.approx(2 * half.gateway_cores)
    assert all_.redis_cores == pytest.approx(all_.per_s * 50 / 1e6 / scale.UTILIZATION)
    assert all_.gb < all_.gb_without


def test_users_lie_evenly_on_the_masters_and_a_crowd_keeps_one_busier() -> None:
    found = simulate(plan(10_000_000, 1_000_000, COSTS, WEIGHS), COSTS, 5.0, OPTIONS)
    assert 1 <= found.memory < 1.1
    assert found.hot_used == pytest.approx(found.used + OPTIONS.crowd / 60 * 50 / 1e6, abs=0.01)
    assert found.after_peak > 3

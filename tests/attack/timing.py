"""Measures whether the time of an answer reveals its case, on a machine with more noise than the tolerance."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from statistics import mean

MOST_APART_S = 0.025  # half of what the cheapest password hash of these tests takes
SAMPLES = 16


def assert_alike(
    asks: Mapping[str, Callable[[], None]],
    *,
    clock: Callable[[], float] = time.monotonic,
    order: random.Random | None = None,
) -> dict[str, float]:
    """Return the time of each request in seconds; fail if they differ.

    Sends every request equally often, in a changing order, so that other load on the machine affects all of them
    equally. Noise only ever adds time: the mean of the fastest quarter hides no work that is always done, and
    is steadier than the median.
    """
    times: dict[str, list[float]] = {name: [] for name in asks}
    order = order or random.Random()
    for _ in range(SAMPLES):
        for name in order.sample(sorted(asks), len(asks)):
            begun = clock()
            asks[name]()
            times[name].append(clock() - begun)
    fastest = {name: mean(sorted(values)[: SAMPLES // 4]) for name, values in times.items()}
    shown = {name: f"{value * 1000:.0f} ms" for name, value in fastest.items()}
    assert max(fastest.values()) - min(fastest.values()) < MOST_APART_S, f"the times differ: {shown}"
    return fastest

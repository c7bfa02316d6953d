"""Whether the time of an answer tells which of several cases it was, on a machine noisier than the limit is wide."""

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
    """Return the time of each ask in seconds; fail if they are apart.

    Every ask is made the same number of times, in an order that changes, so that whatever else the machine does affects
    all of them alike. Noise only ever adds time: the mean of the fastest quarter hides no work that is always done, and
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
    assert max(fastest.values()) - min(fastest.values()) < MOST_APART_S, f"the time tells them apart: {shown}"
    return fastest

"""Measures whether the time of an answer reveals its case, on a machine with more noise than the tolerance."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median

MOST_APART_S = 0.025  # failures are blurred by up to 50 ms, and their least time is asserted beside
# The median of fewer still varies too much where an answer is blurred by 50 ms and one in five is disturbed.
SAMPLES = 48


def assert_alike(
    asks: Mapping[str, Callable[[], None]],
    *,
    every_s: float = 0,
    clock: Callable[[], float] = time.monotonic,
    order: random.Random | None = None,
) -> dict[str, float]:
    """Return the median time of each request in seconds; fail if the medians differ.

    Sends every request equally often, in a changing order, so that other load on the machine affects all of them
    equally: one after the other, or, for answers that mostly wait, one every `every_s`.
    """
    times: dict[str, list[float]] = {name: [] for name in asks}

    def ask(name: str) -> None:
        begun = clock()
        asks[name]()
        times[name].append(clock() - begun)

    order = order or random.Random()
    turns = [name for _ in range(SAMPLES) for name in order.sample(sorted(asks), len(asks))]
    if every_s:
        _start_every(every_s, [partial(ask, name) for name in turns])
    else:
        for name in turns:
            ask(name)
    medians = {name: median(values) for name, values in times.items()}
    shown = {name: f"{value * 1000:.0f} ms" for name, value in medians.items()}
    assert max(medians.values()) - min(medians.values()) < MOST_APART_S, f"the times differ: {shown}"
    return medians


def _start_every(every_s: float, calls: list[Callable[[], None]]) -> None:
    """Start one call after the other, whether or not the last has returned; return when all have."""
    with ThreadPoolExecutor(8) as pool:
        running = []
        for call in calls:
            running.append(pool.submit(call))
            time.sleep(every_s)
    for one in running:
        one.result()

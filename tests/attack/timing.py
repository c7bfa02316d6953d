"""Whether the time of an answer tells which of several cases it was, on a machine noisier than the limit is wide."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from statistics import median

MOST_APART_S = 0.025  # half of what the cheapest password hash of these tests takes
_BATCHES = 12


def assert_alike(
    asks: Mapping[str, Callable[[], None]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.monotonic,
    order: random.Random | None = None,
) -> dict[str, float]:
    """Return each ask's median time in seconds; fail if the medians stay apart.

    The asks take turns in an order that changes, so that whatever else the machine does hits all of them alike. They
    are alike once their medians are so after two batches of `rounds` turns in succession; noise gets further batches to
    even out in, which a real difference would not.
    """
    times: dict[str, list[float]] = {name: [] for name in asks}
    medians: dict[str, float] = {}
    agreed = 0
    order = order or random.Random()
    for _ in range(_BATCHES):
        for _ in range(rounds):
            for name in order.sample(sorted(asks), len(asks)):
                begun = clock()
                asks[name]()
                times[name].append(clock() - begun)
        medians = {name: median(values) for name, values in times.items()}
        agreed = agreed + 1 if max(medians.values()) - min(medians.values()) < MOST_APART_S else 0
        if agreed == 2:
            return medians
    shown = {name: f"{value * 1000:.0f} ms" for name, value in medians.items()}
    raise AssertionError(f"the time of an answer tells them apart: {shown}, {_BATCHES * rounds} times each")

"""A circuit breaker: when most calls fail, stop making them for a moment, then try one."""

from __future__ import annotations

import time
from collections.abc import Callable

WINDOW_S = 10
LEAST_CALLS = 20
OPEN_S = 0.5  # short, because the probe is one cheap call and recovery should not be ours to delay


class Breaker:
    """Opens when at least half of at least 20 calls of the last 10 s failed; one probe then decides on closing.

    `now` returns monotonic seconds. Not shared: each process sees its own calls.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._seconds = [0] * WINDOW_S  # which second each slot counts
        self._good = [0] * WINDOW_S
        self._bad = [0] * WINDOW_S
        self._open_until = 0.0
        self._probing_until = 0.0
        self.state = "closed"
        self.generation = 0  # how often it has closed

    def allows(self) -> bool:
        """Tell whether a call may be made. While open, one caller at a time is let through as the probe."""
        if self.state == "closed":
            return True
        now = self._now()
        if now < self._open_until or now < self._probing_until:
            return False
        self.state = "half-open"
        # A probe that never reports, because its caller was cancelled, does not keep the breaker open for ever.
        self._probing_until = now + OPEN_S
        return True

    def succeeded(self) -> None:
        if self.state == "closed":
            self._good[self._slot()] += 1
        else:
            self._close()

    def failed(self, generation: int | None = None) -> None:
        """Report a failure. `generation`: the breaker's when the call began, for calls that may last.

        A call that began before the last recovery and fails after it says nothing of now.
        """
        if generation is not None and generation != self.generation:
            return
        if self.state == "half-open":
            self._open()
            return
        self._bad[self._slot()] += 1
        if self.state == "closed":
            good, bad = self._recent()
            if good + bad >= LEAST_CALLS and bad >= good:
                self._open()

    def _slot(self) -> int:
        second = int(self._now())
        slot = second % WINDOW_S
        if self._seconds[slot] != second:
            self._seconds[slot], self._good[slot], self._bad[slot] = second, 0, 0
        return slot

    def _recent(self) -> tuple[int, int]:
        oldest = int(self._now()) - WINDOW_S
        live = [slot for slot in range(WINDOW_S) if self._seconds[slot] > oldest]
        return sum(self._good[slot] for slot in live), sum(self._bad[slot] for slot in live)

    def _open(self) -> None:
        self.state = "open"
        self._open_until = self._now() + OPEN_S

    def _close(self) -> None:
        self.state = "closed"
        self.generation += 1
        self._probing_until = 0.0
        self._good, self._bad = [0] * WINDOW_S, [0] * WINDOW_S

"""A circuit breaker: when most calls fail, it stops them briefly, then lets one through as a probe."""

import time
from collections.abc import Callable

WINDOW_S = 10
LEAST_CALLS = 20
OPEN_S = 0.5  # short: the probe is one cheap call, and recovery must not be delayed


class Breaker:
    """Opens when at least half of at least 20 calls in the last 10 s failed; then one probe decides if it closes."""

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
        """Return whether a call may be made. While open, one call at a time is allowed as the probe."""
        if self.state == "closed":
            return True
        now = self._now()
        if now < self._open_until or now < self._probing_until:
            return False
        self.state = "half-open"
        # A probe whose caller was cancelled never reports; after this time another is allowed.
        self._probing_until = now + OPEN_S
        return True

    def succeeded(self, calls: int = 1) -> None:
        if self.state == "closed":
            self._good[self._slot()] += calls
        else:
            self._close()

    def failed(self, generation: int | None = None) -> None:
        """Report a failure; that of a call from an earlier `generation` says nothing about the present."""
        if generation is not None and generation != self.generation:
            return
        if self.state == "half-open":
            self.open()
            return
        self._bad[self._slot()] += 1
        if self.state == "closed":
            good, bad = self._recent()
            if good + bad >= LEAST_CALLS and bad >= good:
                self.open()

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

    def open(self) -> None:
        """Stop calls for a while, whatever the share of failures."""
        self.state = "open"
        self._open_until = self._now() + OPEN_S

    def _close(self) -> None:
        self.state = "closed"
        self.generation += 1
        self._probing_until = 0.0
        self._good, self._bad = [0] * WINDOW_S, [0] * WINDOW_S

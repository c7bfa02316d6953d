"""Limits in the memory of one process: they stop a flood before Redis is asked. Processes share nothing."""

from collections import OrderedDict

from .policy import Clock, Limit, LimitState


class LocalBuckets:
    """GCRA in memory for a bounded number of subjects; the one seen longest ago is dropped first.

    A dropped subject starts full again, so a flood from more than `most` addresses weakens the limit. It protects this
    process and replaces no limit in Redis.
    """

    def __init__(self, clock: Clock, *, most: int = 10_000) -> None:
        self._clock = clock
        self._most = most
        self._tats: OrderedDict[tuple[str, str], int] = OrderedDict()

    def take(self, subject: str, limit: Limit) -> LimitState | None:
        """Spend one unit; return the limit's state if it has none left. The caller decides on shadow limits."""
        now, emission_us = self._clock(), limit.emission_us
        key, full = (subject, limit.id), limit.burst * emission_us
        tat = self._tats.get(key, now)
        if tat > now + full:  # the clock was set back: that costs one refill at most
            tat = self._tats[key] = now + full
        base = max(now, tat)
        wait = base + emission_us - full - now
        if wait > 0:
            return LimitState(limit, False, 0, wait, base - now, emission_us, limit.burst)
        self._tats[key] = base + emission_us
        self._tats.move_to_end(key)
        if len(self._tats) > self._most:
            self._tats.popitem(last=False)
        return None

"""Limits in the memory of one process: they stop a flood before Redis is asked. Processes share nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from .policy import Charge, Clock, Limit, LimitState


class LocalBuckets:
    """GCRA in memory for a bounded number of subjects; the one seen longest ago is dropped first.

    A dropped subject starts full again, so a flood from more than `most` addresses weakens the limit. It protects this
    process and replaces no limit in Redis.
    """

    def __init__(self, clock: Clock, *, most: int = 10_000) -> None:
        self._clock = clock
        self._most = most
        self._tats: OrderedDict[tuple[str, str], int] = OrderedDict()

    def take(self, subject: str, charges: Sequence[Charge]) -> tuple[tuple[LimitState, ...], bool]:
        """Charge every limit or none; return their states and whether all allowed."""
        now = self._clock()
        bases = [self._base(subject, charge.limit, now) for charge in charges]
        states = [_state(charge, base, now, charged=False) for charge, base in zip(charges, bases, strict=True)]
        if not all(state.allowed or state.limit.shadow for state in states):
            return tuple(states), False
        for at, (charge, base) in enumerate(zip(charges, bases, strict=True)):
            if charge.cost and states[at].allowed:
                states[at] = _state(charge, base, now, charged=True)
                key = (subject, charge.limit.id)
                self._tats[key] = now + states[at].full_again_us
                self._tats.move_to_end(key)
        while len(self._tats) > self._most:
            self._tats.popitem(last=False)
        return tuple(states), True

    def _base(self, subject: str, limit: Limit, now: int) -> int:
        key, most = (subject, limit.id), now + limit.burst * limit.emission_us
        tat = self._tats.get(key, now)
        if tat > most:  # the clock was set back: wait one refill at most
            tat = self._tats[key] = most
        return max(now, tat)


def _state(charge: Charge, base: int, now: int, *, charged: bool) -> LimitState:
    limit = charge.limit
    full = limit.burst * limit.emission_us
    new = base + charge.cost * limit.emission_us
    wait = new - full - now
    at = new if charged else base
    retry = 0 if wait <= 0 else -1 if charge.cost > limit.burst else wait
    remaining = (now + full - at) // limit.emission_us
    return LimitState(limit, wait <= 0, remaining, retry, at - now, limit.emission_us, limit.burst)

"""Limits of one process alone: for floods before Redis is asked, and for when Redis is away. Nothing here is shared."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from .policy import Charge, Clock, LimitState


class LocalBuckets:
    """GCRA in memory, for a bounded number of subjects; whoever was seen longest ago is forgotten first.

    Forgetting forgives, so a flood from more addresses than `most` weakens it: it protects this process, and replaces
    no limit in Redis.
    """

    def __init__(self, clock: Clock, *, most: int = 10_000) -> None:
        self._clock = clock
        self._most = most
        self._tats: OrderedDict[tuple[str, str], int] = OrderedDict()

    def take(self, subject: str, charges: Sequence[Charge]) -> tuple[tuple[LimitState, ...], bool]:
        """Charge every limit or none; return their states and whether all allowed."""
        now = self._clock()
        news: dict[tuple[str, str], tuple[int, int]] = {}
        allowed = True
        for charge in charges:
            limit = charge.limit
            full = limit.burst * limit.emission_us
            base = max(now, min(self._tats.get((subject, limit.id), now), now + full))
            new = base + charge.cost * limit.emission_us
            news[subject, limit.id] = base, new
            allowed = allowed and (new - full <= now or limit.shadow)
        states = tuple(self._state(charge, *news[subject, charge.limit.id], now, charged=allowed) for charge in charges)
        if allowed:
            for key, (_, new) in news.items():
                self._tats[key] = new
                self._tats.move_to_end(key)
            while len(self._tats) > self._most:
                self._tats.popitem(last=False)
        return states, allowed

    @staticmethod
    def _state(charge: Charge, base: int, new: int, now: int, *, charged: bool) -> LimitState:
        limit = charge.limit
        full = limit.burst * limit.emission_us
        wait = new - full - now
        at = new if charged else base
        retry = 0 if wait <= 0 else -1 if charge.cost > limit.burst else wait
        remaining = (now + full - at) // limit.emission_us
        return LimitState(limit, wait <= 0, max(0, remaining), retry, at - now, limit.emission_us, limit.burst)

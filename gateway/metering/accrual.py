"""Credits open stays up to the present every few seconds, so that budgets and reports need no estimate of their own."""

import asyncio
from collections.abc import Sequence
from itertools import chain

from gateway.redis.store import Clock
from limits import Execute
from limits.metered import MS_PER_DAY

from .events import Stay
from .keys import INSTALLATION, SESSIONS_DUE, open_stays, queued, session
from .stays import FIRST_LOOK_MS, OpenStay, Stays, read_open

LEAST_S = 2.0
STAYS_PER_S = 1000  # 5,000 open stays are credited every 5 s
# A session ends after 12 h (100ms docs, api-reference/Sessions/object); the rest is for clocks that differ.
MOST_STAY_MS = MS_PER_DAY // 2 + 5 * 60_000
_PART = 50  # credited at once; others run in between


class Accrual:
    """Credits every open stay up to the present, but not beyond its session's close, nor beyond 12 hours."""

    def __init__(self, execute: Execute, stays: Stays, clock: Clock) -> None:
        self._execute = execute
        self._stays = stays
        self._clock = clock
        self.credited_ms = 0  # until when open stays are credited; some until a little earlier

    async def work(self) -> float:
        """Credit all open stays once; return how many seconds to wait before the next time."""
        now_ms = await self._clock()
        found: dict[bytes, bytes] = await self._execute("HGETALL", open_stays(INSTALLATION))
        # By session, so that one call credits many stays to the same room, owner and installation.
        stays = sorted(map(read_open, found.values()), key=lambda stay: (stay.room, stay.session))
        for at in range(0, len(stays), _PART):
            now_ms = await self._clock()
            await self._credit(stays[at : at + _PART], now_ms)
        self.credited_ms = now_ms
        return max(LEAST_S, len(stays) / STAYS_PER_S)

    async def _credit(self, stays: Sequence[OpenStay], now_ms: int) -> None:
        sessions = list(dict.fromkeys((stay.room, stay.session) for stay in stays))
        asked = [self._execute("HGET", session(*at), "closed_ms") for at in sessions]
        closed = dict(zip(sessions, await asyncio.gather(*asked), strict=True))

        def until(stay: OpenStay) -> Stay:
            closed_ms = int(closed[stay.room, stay.session] or now_ms)
            return stay.until(min(now_ms, closed_ms, stay.joined_ms + MOST_STAY_MS))

        await self._stays.credit([until(stay) for stay in stays])
        # An open stay whose session is not queued, for whatever reason, would stay open forever.
        dues = ((now_ms + FIRST_LOOK_MS, queued(*at)) for at in sessions)
        await self._execute("ZADD", SESSIONS_DUE, "NX", *chain.from_iterable(dues))

"""Looks at sessions that are due for reconciliation, oldest first, at no more than 30 a minute.

A session is due soon after its close, and while it runs now and then, because its close may get lost.
"""

import logging

from gateway.hms.client import HmsClient
from gateway.hms.errors import HmsBusy, HmsError
from gateway.hms.replies import ROOM_ID
from gateway.redis.store import Clock
from limits import Execute

from .keys import SESSIONS_DUE, session
from .reconcile import Reconciliation

log = logging.getLogger("gateway.metering")

EVERY_S = 2.0  # between two looks: 30 a minute, each one call to 100ms
IDLE_S = 1.0
SOONEST_MS, LATEST_MS = 5 * 60_000, 60 * 60_000  # from one look at a running session to the next
RETRY_MS = 60_000
LONGEST_BACKOFF_S = 300.0
UNKNOWN_FROM_MS = 10 * 60_000  # of age; a younger session that 100ms does not know may only not be there yet

# KEYS 1 the queue. ARGV: entry, when it was due, when it is due next. Nothing changes if it has
# become due at another time meanwhile, for example because the session closed.
_POSTPONE = """
if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1])) == tonumber(ARGV[2]) then
  redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
end
"""


class Sweep:
    """Takes the next session that is due, asks 100ms about it, and reconciles it."""

    def __init__(self, execute: Execute, hms: HmsClient, reconciliation: Reconciliation, clock: Clock) -> None:
        self._execute = execute
        self._clock = clock
        self._hms = hms
        self._reconciliation = reconciliation
        self._failures = 0

    async def work(self) -> float:
        """Look at one session; return how many seconds to wait before the next look."""
        now_ms = await self._clock()
        due = await self._execute("ZRANGE", SESSIONS_DUE, "-inf", now_ms, "BYSCORE", "LIMIT", 0, 1, "WITHSCORES")
        if not due:
            return IDLE_S
        [[entry, due_ms]] = due
        room_id, _, session_id = entry.decode().partition("|")
        retry_ms = now_ms + RETRY_MS
        await self._postpone(entry, due_ms, retry_ms)  # first, so that one that fails does not block those behind it
        try:
            found = await self._hms.get_session(session_id) if ROOM_ID.fullmatch(session_id) else None
        except HmsError as error:
            self._failures += 1
            wait_s: float = min(EVERY_S * 2 ** min(self._failures, 10), LONGEST_BACKOFF_S)
            log.warning("100ms did not answer about a session; next try in %.0f s: %s", wait_s, error)
            return max(wait_s, float(error.retry_after_s)) if isinstance(error, HmsBusy) else wait_s
        self._failures = 0
        if found is not None and found.room_id == room_id:
            finding = await self._reconciliation.apply(found)
            if finding.state == "running":
                await self._postpone(entry, retry_ms, now_ms + await self._pause_ms(now_ms - found.started_ms))
        elif await self._is_young(room_id, session_id, now_ms):
            await self._postpone(entry, retry_ms, now_ms + SOONEST_MS)
        else:
            await self._reconciliation.apply_unknown(room_id, session_id)
        return EVERY_S

    async def _pause_ms(self, age_ms: int) -> int:
        """Return how long to wait before the next look at a running session.

        As long as it has run, so that looks become rarer; and so long that the looks at all running sessions take half
        of the budget, because ended ones must not wait behind them.
        """
        queued: int = await self._execute("ZCARD", SESSIONS_DUE)
        return max(min(max(age_ms, SOONEST_MS), LATEST_MS), int(2 * EVERY_S * 1000) * queued)

    async def _is_young(self, room_id: str, session_id: str, now_ms: int) -> bool:
        opened_ms = await self._execute("HGET", session(room_id, session_id), "opened_ms")
        return opened_ms is not None and now_ms - int(opened_ms) < UNKNOWN_FROM_MS

    async def _postpone(self, entry: bytes, due_ms: float, next_ms: int) -> None:
        await self._execute("EVAL", _POSTPONE, 1, SESSIONS_DUE, entry, int(due_ms), next_ms)

"""Corrects the stays of a session by what 100ms's sessions API says, which wins over webhooks. May be repeated."""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from gateway.audit import NO_USER, Audit
from gateway.hms.replies import HmsSession
from gateway.redis.store import Clock
from limits import Execute
from limits.metered import CONFIRMED

from .events import SessionFact, Stay
from .feed import Feed
from .keys import SESSIONS_DUE, STATISTICS, ledger, queued, session
from .settle import settle, settle_unknown
from .stays import Stays

State = Literal["running", "ended", "unknown"]


class Finding(Struct, frozen=True):
    """What one look at a session found: how many of its stays were corrected, and by how many seconds in all."""

    room_id: str
    session_id: str
    state: State
    stays: int
    corrected: int
    seconds: int


class Reconciliation:
    """Credits what 100ms says about a session, counts and audits the corrections, and publishes confirmed stays."""

    def __init__(self, execute: Execute, stays: Stays, audit: Audit, clock: Clock) -> None:
        self._execute = execute
        self._clock = clock
        self._stays = stays
        self._audit = audit
        self._feed = Feed(execute)

    async def apply(self, found: HmsSession, *, by: str = NO_USER) -> Finding:
        """Credit a session as 100ms describes it now."""
        known = await self.known(found.room_id, found.id)
        # It ended and has no peers: 100ms has forgotten them, as every session has had some.
        if known and not found.active and not found.stays:
            return await self.apply_unknown(found.room_id, found.id, by=by)
        ended_ms = None if found.active else found.changed_ms
        fact = SessionFact(found.room_id, found.id, found.started_ms, ended_ms, has_closed=not found.active)
        stays = settle(found, known, await self._clock())
        return await self._finish(fact, stays, "running" if found.active else "ended", by)

    async def apply_unknown(self, room_id: str, session_id: str, *, by: str = NO_USER) -> Finding:
        """Confirm the stays of a session that 100ms does not know as they were last credited."""
        stays = settle_unknown(await self.known(room_id, session_id), await self._clock())
        ended_ms = max((stay.left_ms for stay in stays), default=None)
        return await self._finish(
            SessionFact(room_id, session_id, None, ended_ms, has_closed=True), stays, "unknown", by
        )

    async def known(self, room_id: str, session_id: str) -> list[Stay]:
        """Return the stays of a session that are in the ledger of its room."""
        rows: dict[bytes, bytes] = await self._execute("HGETALL", ledger(room_id, session_id))
        return [_stay(room_id, session_id, place.decode(), value.decode()) for place, value in rows.items()]

    async def _finish(self, fact: SessionFact, stays: Sequence[Stay], state: State, by: str) -> Finding:
        at = fact.room, fact.session
        owner = (await self._stays.learn({at: fact}))[at].owner
        changes = [seconds for seconds in await self._stays.credit(stays) if seconds]
        finding = Finding(*at, state, len(stays), len(changes), sum(changes))
        await self._record(finding, owner, moved_s=sum(map(abs, changes)), by=by)
        await self._feed.publish(owner, [stay for stay in stays if stay.rank == CONFIRMED])
        if state != "running":
            # Only now: a process that dies before leaves the session in the queue, for another look.
            await self._execute("HSET", session(*at), "reconciled_ms", await self._clock())
            await self._execute("ZREM", SESSIONS_DUE, queued(*at))
        return finding

    async def _record(self, finding: Finding, owner: str, *, moved_s: int, by: str) -> None:
        place = {"room": finding.room_id, "session": finding.session_id}
        if finding.corrected:
            words = {"stays": finding.corrected, "seconds": finding.seconds}
            await self._audit.record("minutes.corrected", by=by, subject=owner, **place, **words)
            await self._execute("HINCRBY", STATISTICS, "corrected", finding.corrected)
            await self._execute("HINCRBY", STATISTICS, "corrected_s", moved_s)
        if finding.state == "unknown" and finding.stays:
            await self._audit.record("minutes.unconfirmed", by=by, subject=owner, **place, stays=finding.stays)


def _stay(room_id: str, session_id: str, place: str, value: str) -> Stay:
    joined_ms, _, peer = place.partition(":")
    left_ms, rank, stamp_ms, user = value.split(":", 3)
    return Stay(room_id, session_id, peer, user, "", int(joined_ms), int(left_ms), int(rank), int(stamp_ms))

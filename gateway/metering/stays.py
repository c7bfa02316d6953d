"""Credits stays to the participant, the room, the room's owner and the installation: once each, in any order.

Each account has its own ledger in its own cluster slot. A caller whose process dies in between repeats the call, which
changes only what had not arrived.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from auth.names import UID
from gateway.metering import keys
from gateway.metering.events import SessionFact, Stay
from gateway.rooms import keys as room_keys
from gateway.usage.rollup import CHANGED
from limits import Execute
from limits.derived import Derived
from limits.metered import CONFIRMED, MOST_MS, MS_PER_DAY, OPEN, Account, Calendars, Credited, Interval, Metered
from limits.minutes import KEEP_S as KEEP_MINUTES_S
from limits.periods import Zone, day_of, utc

KEEP_SESSION_MS = 40 * MS_PER_DAY  # longer than a report about it is accepted, so that its owner stays the same
FIRST_LOOK_MS = 5 * 60_000  # after a session was first seen; its close may get lost
AFTER_CLOSE_MS = 5_000  # the last leaves may come after the close
_MOST_REMEMBERED = 10_000
_MOST_AT_ONCE = 100  # stays; building the calls for one takes some 40 us, in which no request is served

# KEYS the session, its room. ARGV opened_ms or '', closed_ms or '', ms to keep, the time zone of reports.
# Reply owner, template, zone, reconciled_ms. Owner and zone are those at first sight: what is credited to a user or a
# day stays theirs when the room is handed over, or the zone changed.
_LEARN = """
if redis.call('HEXISTS', KEYS[1], 'owner') == 0 then
  local row = redis.call('HMGET', KEYS[2], 'owner', 'template')
  redis.call('HSET', KEYS[1], 'owner', row[1] or '', 'template', row[2] or '', 'zone', ARGV[4])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
if ARGV[1] ~= '' then redis.call('HSETNX', KEYS[1], 'opened_ms', ARGV[1]) end
if ARGV[2] ~= '' then redis.call('HSETNX', KEYS[1], 'closed_ms', ARGV[2]) end
return redis.call('HMGET', KEYS[1], 'owner', 'template', 'zone', 'reconciled_ms')
"""


class Session(Struct, frozen=True):
    """What the gateway knows of a session: owner and template of its room when it was first seen, or empty texts.

    `zone` is that of reports at the same moment. All of its stays are counted by the days of this zone, however late
    they are corrected: otherwise a change of the zone would take from one day what had been counted on another.
    """

    owner: str
    template: str
    zone: str


class OpenStay(Struct, frozen=True):
    """A stay that goes on, as it is kept among the open ones."""

    room: str
    session: str
    peer: str
    user: str
    owner: str
    role: str
    joined_ms: int

    def until(self, now_ms: int) -> Stay:
        """Return the stay, still open, credited up to an instant, as far as a stay can last."""
        until_ms = min(max(self.joined_ms, now_ms), self.joined_ms + MOST_MS)
        who = (self.room, self.session, self.peer, self.user, self.role)
        return Stay(*who, self.joined_ms, until_ms, OPEN, until_ms)


def read_open(value: bytes) -> OpenStay:
    """Read an entry of the open stays."""
    return msgspec.json.decode(value, type=OpenStay)


class Stays:
    """Credits stays, and knows whose rooms sessions are in.

    `zone` is that of reports, `calendars` those of the policy's metered quotas.
    """

    def __init__(
        self,
        execute: Execute,
        derived: Derived,
        *,
        zone: Zone = utc,
        calendars: Callable[[], Calendars] = tuple,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self._execute = execute
        self._metered = Metered(execute)
        self._derived = derived
        self._zone = zone
        self._calendars = calendars
        self._now_ms = now_ms or (lambda: time.time_ns() // 1_000_000)
        self._sessions: dict[tuple[str, str], Session] = {}

    async def credit(self, stays: Sequence[Stay]) -> list[int]:
        """Credit stays to all their accounts; return what each changed in its room, in seconds.

        Returns when everything is credited. If it raises, part of it may be; repeating it completes it.
        """
        parts = (stays[at : at + _MOST_AT_ONCE] for at in range(0, len(stays), _MOST_AT_ONCE))
        return [one.change_s for part in parts for one in await self.apply(part)]

    async def apply(self, stays: Sequence[Stay]) -> list[Credited]:
        """Credit stays like `credit`; return for each also whether it is new to its room, and whether it changed."""
        sessions = await self.learn({(stay.room, stay.session): SessionFact(stay.room, stay.session) for stay in stays})
        work: dict[Account, list[Interval]] = {}
        places: list[tuple[Account, int]] = []
        for stay in stays:
            session = sessions[stay.room, stay.session]
            for account in _accounts(stay, session):
                intervals = work.setdefault(account, [])
                intervals.append(_interval(stay, session.owner, of_room=account.counters.startswith("rc")))
            places.append((account, len(intervals) - 1))  # the room comes last
        # Before the credit: if the process dies after it, the repetition would see no change in what came late.
        ended = ((stay, sessions[stay.room, stay.session].zone) for stay in stays if stay.rank != OPEN)
        await self._note_past((day, zone) for stay, zone in ended for day in _days_if_past(stay, zone, self._now_ms()))
        calendars = self._calendars()
        changes = dict(
            zip(
                work,
                await asyncio.gather(*(self._metered.credit(one, list_, calendars) for one, list_ in work.items())),
                strict=True,
            )
        )
        for account, done in changes.items():
            subject = account.counters.partition("{")[2].rstrip("}")
            if subject == keys.INSTALLATION:
                self._note_minutes(work[account], done.each)
                self._derived.mark(done.periods, account.zone)
            elif account.counters.startswith("uc"):
                self._derived.rank(subject, f"{account.metric}.ok", done.periods)
        await self._note_past((name, account.zone) for account, done in changes.items() for name in done.periods)
        result = [changes[account].each[at] for account, at in places]
        await self._queue_again(stay for stay, one in zip(stays, result, strict=True) if one.is_new)
        return result

    def _note_minutes(self, intervals: Sequence[Interval], changes: Sequence[Credited]) -> None:
        """Count what changed in the totals by minute, which are of the last two days."""
        oldest_ms = self._now_ms() - KEEP_MINUTES_S * 1000
        for interval, change in zip(intervals, changes, strict=True):
            if change.change_s and interval.left_ms > oldest_ms:
                self._derived.note_seconds(interval.left_ms, change.change_s)

    async def _note_past(self, periods: Iterable[tuple[str, str]]) -> None:
        """Note past days, given with their zones, so that they are copied to the archive again."""
        now_ms = self._now_ms()
        days = {name for name, zone in periods if len(name) == len("2026-11-22") and name < _day(now_ms, zone)}
        if days:
            await self._execute("SADD", CHANGED, *days)

    async def _queue_again(self, new: Iterable[Stay]) -> None:
        """Queue the sessions of new stays, which may have been reconciled before these came."""
        late = {keys.queued(stay.room, stay.session) for stay in new if stay.rank != CONFIRMED}
        if late:
            due_ms = self._now_ms() + FIRST_LOOK_MS
            await self._execute("ZADD", keys.SESSIONS_DUE, "NX", *(word for one in late for word in (due_ms, one)))

    async def learn(self, facts: dict[tuple[str, str], SessionFact]) -> dict[tuple[str, str], Session]:
        """Note what is known about sessions, and return each with its owner.

        A session that is new, or has closed, is queued for reconciliation.
        """
        wanted = {at: fact for at, fact in facts.items() if fact.has_closed or at not in self._sessions}
        found = await asyncio.gather(*(self._learn(fact) for fact in wanted.values()))
        result = {at: self._sessions[at] for at in facts if at not in wanted} | dict(zip(wanted, found, strict=True))
        if len(self._sessions) > _MOST_REMEMBERED:
            self._sessions.clear()
        self._sessions |= zip(wanted, found, strict=True)
        return result

    async def _learn(self, fact: SessionFact) -> Session:
        at = (keys.session(fact.room, fact.session), room_keys.room(fact.room))
        known = [_word(fact.opened_ms), _word(fact.closed_ms), KEEP_SESSION_MS, self._zone()]
        owner, template, zone, reconciled_ms = await self._execute("EVAL", _LEARN, 2, *at, *known)
        if reconciled_ms is None:
            entry = keys.queued(fact.room, fact.session)
            if fact.has_closed:
                await self._execute("ZADD", keys.SESSIONS_DUE, self._now_ms() + AFTER_CLOSE_MS, entry)
            else:
                await self._execute("ZADD", keys.SESSIONS_DUE, "NX", self._now_ms() + FIRST_LOOK_MS, entry)
        # A session that was first seen before zones were kept is counted in UTC.
        return Session(owner.decode(), template.decode(), (zone or b"UTC").decode())


def _accounts(stay: Stay, session: Session) -> Iterable[Account]:
    day, zone = _day(stay.joined_ms, "UTC"), session.zone
    month = day[:7]
    if UID.fullmatch(stay.user):
        yield keys.of_user(stay.user, month, zone)
    if session.owner:
        yield keys.of_owner(session.owner, month, zone)
    yield keys.of_all(day, zone)
    yield keys.of_room(stay.room, stay.session, zone)


def _day(at_ms: int, zone: str) -> str:
    return day_of(at_ms * 1000, zone).name


def _days_if_past(stay: Stay, zone: str, now_ms: int) -> set[str]:
    """Return the first and the last day of a stay that ended before today, and one in between."""
    if _day(stay.left_ms, zone) >= _day(now_ms, zone):
        return set()
    return {_day(at_ms, zone) for at_ms in (stay.joined_ms, (stay.joined_ms + stay.left_ms) // 2, stay.left_ms)}


def _interval(stay: Stay, owner: str, *, of_room: bool) -> Interval:
    digest, is_open = stay.digest, ""
    if stay.rank == OPEN:
        kept = OpenStay(stay.room, stay.session, stay.peer, stay.user, owner, stay.role, stay.joined_ms)
        is_open = msgspec.json.encode(kept).decode()
    return Interval(
        stay.place if of_room else digest,
        digest,
        stay.joined_ms,
        stay.left_ms,
        stay.rank,
        stay.stamp_ms,
        stay.user if of_room else "",
        is_open,
    )


def _word(value: Any) -> Any:
    return "" if value is None else value

"""What 100ms's sessions API says about the stays of a session, compared with what is in the ledger: pure functions."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from msgspec.structs import replace

from gateway.hms.replies import HmsSession, HmsStay
from limits.metered import CONFIRMED, MOST_MS, OPEN

from .events import Stay, is_recorder, stay_of, text_of

# The webhook and the API may cut the same instant to different fractions of a second.
SAME_MS = 1000


def settle(session: HmsSession, known: Sequence[Stay], now_ms: int) -> list[Stay]:
    """Return the stays as they are to be credited: those that 100ms shows, and corrections of those it does not show.

    A session shows one stay per peer id, so that an earlier stay of an id that was used again is missing. It then ends
    where the next one begins. A peer that an ended session does not show at all was not there.
    """
    told = [_told(session, one, known, now_ms) for one in session.stays if not is_recorder(one.role, one.user_id)]
    places = {stay.place for stay in told}
    untold = (stay for stay in known if stay.place not in places)
    return told + [one for stay in untold if (one := _untold(session, stay, told, known, now_ms)) is not None]


def settle_unknown(known: Iterable[Stay], now_ms: int) -> list[Stay]:
    """Return the stays of a session that 100ms does not know: those that are open end when they were last credited."""
    return [_confirmed(stay, stay.left_ms, now_ms) for stay in known]


def _told(session: HmsSession, one: HmsStay, known: Sequence[Stay], now_ms: int) -> Stay:
    joined_ms = _joined_ms(one, known)
    left_ms = one.left_ms if one.left_ms is not None or session.active else session.changed_ms
    most_ms = joined_ms + MOST_MS
    return stay_of(
        session.room_id, session.id, one.peer_id, one.user_id, one.role, joined_ms,
        left_ms=left_ms and min(max(left_ms, joined_ms), most_ms), confirmed_ms=now_ms,
    )  # fmt: skip


def _joined_ms(one: HmsStay, known: Sequence[Stay]) -> int:
    """Return when a stay began, as its ledger says if the stay is there: that is part of its name."""
    peer = text_of(one.peer_id)
    near = [stay.joined_ms for stay in known if stay.peer == peer and abs(stay.joined_ms - one.joined_ms) < SAME_MS]
    return min(near, key=lambda joined_ms: abs(joined_ms - one.joined_ms), default=one.joined_ms)


def _untold(session: HmsSession, stay: Stay, told: Sequence[Stay], known: Sequence[Stay], now_ms: int) -> Stay | None:
    """Return a stay that the session does not show as it must be, or None if that is not known yet."""
    shown = [one for one in told if one.peer == stay.peer]
    if not shown:
        return None if session.active else _confirmed(stay, stay.joined_ms, now_ms)
    if any(one.rank != OPEN and one.joined_ms <= stay.joined_ms < one.left_ms for one in shown):
        return _confirmed(stay, stay.joined_ms, now_ms)  # within the one that is shown: counted there
    begins = min(_begins_after(stay, chain(told, known)), default=None)
    if begins is not None:
        return _confirmed(stay, begins if stay.rank == OPEN else min(stay.left_ms, begins), now_ms)
    if session.active:
        return None
    return _confirmed(stay, session.changed_ms if stay.rank == OPEN else stay.left_ms, now_ms)


def _begins_after(stay: Stay, others: Iterable[Stay]) -> Iterator[int]:
    return (one.joined_ms for one in others if one.peer == stay.peer and one.joined_ms > stay.joined_ms)


def _confirmed(stay: Stay, left_ms: int, now_ms: int) -> Stay:
    left_ms = min(max(left_ms, stay.joined_ms), stay.joined_ms + MOST_MS)
    return replace(stay, left_ms=left_ms, rank=CONFIRMED, stamp_ms=now_ms)

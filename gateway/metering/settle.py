"""What 100ms's sessions API says about the stays of a session, compared with what is in the ledger: pure functions."""

from collections.abc import Iterable, Sequence
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
    shown_by_peer: dict[str, list[HmsStay]] = {}
    for one in session.stays:
        if not is_recorder(one.role, one.user_id):
            shown_by_peer.setdefault(text_of(one.peer_id), []).append(one)
    known_by_peer: dict[str, list[Stay]] = {}
    for stay in known:
        known_by_peer.setdefault(stay.peer, []).append(stay)
    peers = dict.fromkeys((*shown_by_peer, *known_by_peer))
    parts = (_of_peer(session, shown_by_peer.get(one, ()), known_by_peer.get(one, ()), now_ms) for one in peers)
    return list(chain.from_iterable(parts))


def settle_unknown(known: Iterable[Stay], now_ms: int) -> list[Stay]:
    """Return the stays of a session that 100ms does not know: those that are open end when they were last credited."""
    return [_confirmed(stay, stay.left_ms, now_ms) for stay in known]


def _of_peer(session: HmsSession, shown: Iterable[HmsStay], known: Sequence[Stay], now_ms: int) -> list[Stay]:
    stays = [_shown(session, one, known, now_ms) for one in shown]
    places = {stay.place for stay in stays}
    missing = (_not_shown(session, stay, stays, known, now_ms) for stay in known if stay.place not in places)
    return stays + [stay for stay in missing if stay is not None]


def _shown(session: HmsSession, one: HmsStay, known: Iterable[Stay], now_ms: int) -> Stay:
    # The ledger says when it began if it is there: that is part of its name.
    near = [stay.joined_ms for stay in known if abs(stay.joined_ms - one.joined_ms) < SAME_MS]
    joined_ms = min(near, key=lambda joined_ms: abs(joined_ms - one.joined_ms), default=one.joined_ms)
    left_ms = one.left_ms if one.left_ms is not None or session.active else session.changed_ms
    if left_ms is not None:
        left_ms = min(max(left_ms, joined_ms), joined_ms + MOST_MS)
    shown = HmsStay(one.peer_id, one.user_id, one.role, joined_ms, left_ms)
    return stay_of(session.room_id, session.id, shown, confirmed_ms=now_ms)


def _not_shown(
    session: HmsSession, stay: Stay, shown: Sequence[Stay], known: Sequence[Stay], now_ms: int
) -> Stay | None:
    """Return a stay that the session does not show as it must be, or None if that is not known yet."""
    if not shown:
        return None if session.active else _confirmed(stay, stay.joined_ms, now_ms)
    # Within the one that is shown: counted there. One that is still open contains nothing yet.
    if any(one.joined_ms <= stay.joined_ms < one.left_ms for one in shown):
        return _confirmed(stay, stay.joined_ms, now_ms)
    begins = [one.joined_ms for one in (*shown, *known) if one.joined_ms > stay.joined_ms]
    if begins:
        return _confirmed(stay, min(begins) if stay.rank == OPEN else min(stay.left_ms, *begins), now_ms)
    if session.active:
        return None
    return _confirmed(stay, session.changed_ms if stay.rank == OPEN else stay.left_ms, now_ms)


def _confirmed(stay: Stay, left_ms: int, now_ms: int) -> Stay:
    left_ms = min(max(left_ms, stay.joined_ms), stay.joined_ms + MOST_MS)
    return replace(stay, left_ms=left_ms, rank=CONFIRMED, stamp_ms=now_ms)

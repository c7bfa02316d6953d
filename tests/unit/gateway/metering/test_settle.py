"""How the stays of the ledger are compared with those that 100ms shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hms.replies import HmsSession, HmsStay
from gateway.metering.events import Stay, text_of
from gateway.metering.settle import settle, settle_unknown
from limits.metered import CONFIRMED, ENDED, OPEN

ROOM, SESSION = "6" * 24, "7" * 24
BEGUN = 1_795_341_600_000
NOW = BEGUN + 4000_000
Shown = tuple[str, int, int | None]


def session(*shown: Shown, ended: int | None = None) -> HmsSession:
    """Return a session with stays as (peer, joined, left), in seconds after its begin."""
    stays = tuple(
        HmsStay(peer, "ann", "guest", BEGUN + joined * 1000, None if left is None else BEGUN + left * 1000)
        for peer, joined, left in shown
    )
    return HmsSession(SESSION, ROOM, ended is None, BEGUN, BEGUN + (ended or 0) * 1000, stays)


def known(peer: str, joined: int, left: int, rank: int) -> Stay:
    times = (BEGUN + joined * 1000, BEGUN + left * 1000, rank, BEGUN + left * 1000)
    return Stay(ROOM, SESSION, peer, "ann", "", *times)


def spans(stays: list[Stay]) -> list[tuple[str, int, int, int]]:
    found = [(stay.peer, (stay.joined_ms - BEGUN) // 1000, (stay.left_ms - BEGUN) // 1000, stay.rank) for stay in stays]
    return sorted(found)


def test_a_peer_that_100ms_shows_as_connected_stays_open() -> None:
    [stay] = settle(session(("p", 0, None)), [known("p", 0, 3000, OPEN)], NOW)
    assert (stay.rank, stay.left_ms, stay.stamp_ms) == (OPEN, BEGUN, BEGUN)  # changes nothing that is credited


def test_a_lost_leave_is_taken_from_100ms() -> None:
    [stay] = settle(session(("p", 0, 90)), [known("p", 0, 3000, OPEN)], NOW)
    assert (spans([stay]), stay.stamp_ms) == ([("p", 0, 90, CONFIRMED)], NOW)


def test_a_peer_without_a_leave_left_when_the_session_ended() -> None:
    assert spans(settle(session(("p", 5, None), ended=60), [], NOW)) == [("p", 5, 60, CONFIRMED)]


@pytest.mark.parametrize(("user", "role"), [("100ms_bot", "guest"), ("ann", "__internal_recorder")])
def test_recorders_are_not_people(user: str, role: str) -> None:
    recorder = HmsStay("p", user, role, BEGUN, None)
    assert settle(HmsSession(SESSION, ROOM, True, BEGUN, BEGUN, (recorder,)), [], NOW) == []


@pytest.mark.parametrize("difference_ms", [-999, 999])
def test_a_stay_keeps_its_name_if_100ms_writes_its_time_with_other_fractions(difference_ms: int) -> None:
    shown = HmsStay("p", "ann", "guest", BEGUN + 5000 + difference_ms, BEGUN + 60_000)
    found = settle(HmsSession(SESSION, ROOM, False, BEGUN, BEGUN + 60_000, (shown,)), [known("p", 5, 60, ENDED)], NOW)
    assert spans(found) == [("p", 5, 60, CONFIRMED)]


def test_ids_that_are_no_plain_texts_are_recognized() -> None:
    odd = "é" * 70
    assert len(settle(session((odd, 0, 60), ended=60), [known(text_of(odd), 0, 60, ENDED)], NOW)) == 1


@pytest.mark.parametrize(
    ("shown", "rank", "expected"),
    [
        # 100ms shows only the last stay of an id. An earlier one whose leave was lost ends where the next one begins.
        (("p", 40, 60), OPEN, ("p", 10, 40, CONFIRMED)),
        (("p", 40, 60), ENDED, ("p", 10, 30, CONFIRMED)),
        (("p", 20, 60), ENDED, ("p", 10, 20, CONFIRMED)),
        # It lies within the one that is shown.
        (("p", 5, 60), OPEN, ("p", 10, 10, CONFIRMED)),
        (("p", 5, 60), ENDED, ("p", 10, 10, CONFIRMED)),
        # It came after the one that is shown; only the webhook tells of it.
        (("p", 0, 9), ENDED, ("p", 10, 30, CONFIRMED)),
        (("p", 0, 9), OPEN, ("p", 10, 100, CONFIRMED)),
        # That peer was never there.
        (("q", 0, 9), ENDED, ("p", 10, 10, CONFIRMED)),
        (("q", 0, 9), OPEN, ("p", 10, 10, CONFIRMED)),
    ],
)
def test_a_stay_that_an_ended_session_does_not_show(
    shown: Shown, rank: int, expected: tuple[str, int, int, int]
) -> None:
    found = spans(settle(session(shown, ended=100), [known("p", 10, 30, rank)], NOW))
    assert found == sorted([(*shown, CONFIRMED), expected])


@pytest.mark.parametrize("shown", [("q", 0, None), ("p", 0, None), ("p", 0, 9)])
def test_a_stay_that_a_running_session_does_not_show_yet_is_left_alone(shown: Shown) -> None:
    found = settle(session(shown), [known("p", 10, 30, OPEN)], NOW)
    assert [(stay.peer, stay.joined_ms) for stay in found] == [(shown[0], BEGUN)]


def test_an_earlier_stay_of_a_peer_that_is_connected_again_ends_where_the_next_one_begins() -> None:
    stays = [known("p", 10, 90, OPEN), known("p", 20, 30, ENDED)]
    assert spans(settle(session(("p", 40, None)), stays, NOW)) == [
        ("p", 10, 20, CONFIRMED), ("p", 20, 30, CONFIRMED), ("p", 40, 40, OPEN),
    ]  # fmt: skip


def test_stays_of_a_session_that_100ms_does_not_know_end_where_they_were_last_credited() -> None:
    stays = [known("p", 10, 90, OPEN), known("q", 20, 30, ENDED)]
    assert spans(settle_unknown(stays, NOW)) == [("p", 10, 90, CONFIRMED), ("q", 20, 30, CONFIRMED)]


moments = st.integers(0, 50)
intervals = st.tuples(st.sampled_from("pq"), moments, moments).map(lambda one: (one[0], min(one[1:]), max(one[1:])))


@given(
    shown=st.lists(intervals, max_size=2, unique_by=lambda one: one[0]),
    ledger=st.lists(st.tuples(intervals, st.sampled_from([OPEN, ENDED])), max_size=6, unique_by=lambda one: one[0][:2]),
)
def test_settling_an_ended_session_again_changes_nothing(
    shown: list[tuple[str, int, int]], ledger: list[tuple[tuple[str, int, int], int]]
) -> None:
    found = session(*shown, ended=50)
    first = settle(found, [known(*interval, rank) for interval, rank in ledger], NOW)
    assert {stay.rank for stay in first} <= {CONFIRMED}
    assert spans(settle(found, first, NOW)) == spans(first)

"""Webhook events are read tolerantly; only an event without what a stay or a session needs is malformed."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hms.replies import HmsStay
from gateway.metering.events import (
    KNOWN_TYPES,
    OTHER,
    Event,
    Malformed,
    SessionFact,
    Stay,
    is_recorder,
    read_event,
    stay_of,
    text_of,
)
from limits.metered import CONFIRMED, ENDED, OPEN

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
ROOM, SESSION = "6" * 24, "7" * 24


def at(**ago: float) -> str:
    return f"{(NOW - timedelta(**ago)).isoformat().removesuffix('+00:00')}Z"


def body(kind: str = "peer.leave.success", **changes: Any) -> bytes:
    data = {
        "room_id": ROOM,
        "session_id": SESSION,
        "peer_id": "p1",
        "user_id": "u1",
        "role": "guest",
        "joined_at": at(minutes=10),
        "left_at": at(minutes=4),
    }
    data = {name: value for name, value in (data | changes).items() if value is not ...}
    return json.dumps({"type": kind, "data": data}).encode()


def read(raw: bytes) -> Event:
    return read_event(raw, NOW_MS)


def test_a_leave_is_a_stay_that_has_ended() -> None:
    joined_ms, left_ms = NOW_MS - 600_000, NOW_MS - 240_000
    event = read(body(session_started_at=at(minutes=11)))
    assert event.stay == Stay(ROOM, SESSION, "p1", "u1", "guest", joined_ms, left_ms, ENDED, left_ms)
    assert event.stay.seconds == 360
    assert event.session == SessionFact(ROOM, SESSION, NOW_MS - 660_000)


def test_a_join_is_an_open_stay_credited_up_to_its_start() -> None:
    stay = read(body("peer.join.success", left_at=...)).stay
    assert stay is not None
    assert (stay.rank, stay.left_ms, stay.stamp_ms) == (OPEN, stay.joined_ms, stay.joined_ms)


@pytest.mark.parametrize("fraction", ["", ".5", ".12", ".123", ".1234", ".97291247", ".939011796", ".000000001"])
def test_times_may_have_any_number_of_digits_and_are_cut_to_milliseconds(fraction: str) -> None:
    stay = read(body("peer.join.success", joined_at=f"2026-11-22T11:00:00{fraction}Z")).stay
    assert stay is not None
    assert stay.joined_ms % 1000 == int(f"{fraction.removeprefix('.')}000"[:3])


def test_unknown_fields_and_a_missing_app_id_are_tolerated() -> None:
    event = json.loads(body()) | {"id": 5, "version": None, "is_replay": True, "new": [{}]}
    assert read(json.dumps(event).encode()).stay is not None


@pytest.mark.parametrize("kind", sorted(KNOWN_TYPES - {"peer.join.success", "peer.leave.success"}))
def test_other_known_types_are_counted_by_name(kind: str) -> None:
    event = read(body(kind))
    assert (event.kind, event.stay) == (kind, None)


@pytest.mark.parametrize("kind", ["peer.moved", "x" * 100_000, "", "type:other", "\x00"])
def test_the_sender_cannot_choose_the_name_under_which_an_unknown_type_is_counted(kind: str) -> None:
    assert read(body(kind)) == Event(OTHER)


@pytest.mark.parametrize(
    "who", [{"role": "__internal_recorder"}, {"user_id": "100ms_0b1c"}, {"user_id": "100ms_", "peer_id": ...}]
)
def test_the_peer_of_a_recording_is_not_a_person(who: dict[str, Any]) -> None:
    event = read(body(**who))
    assert (event.stay, event.is_recorder) == (None, True)
    assert not is_recorder("guest", "x100ms_")


def test_a_close_says_when_if_it_can_be_read() -> None:
    closed = read(body("session.close.success", session_stopped_at=at(minutes=1)))
    assert closed.session == SessionFact(ROOM, SESSION, None, NOW_MS - 60_000, has_closed=True)
    unclear = read(body("session.close.success", session_stopped_at="20XX-01-01T00:00:00Z"))
    assert unclear.session == SessionFact(ROOM, SESSION, None, None, has_closed=True)


@pytest.mark.parametrize(
    "change",
    [
        *({name: value} for name in ("room_id", "session_id", "peer_id") for value in (..., "", None, 5, ["x"])),
        *({name: value} for name in ("room_id", "session_id") for value in ("a}b", "{a", "a b", "a\n", "x" * 65, "é")),
        *({"room_id": value} for value in ("all", "u" + "a" * 20, "2026-11", "6" * 23, "6" * 25, "G" * 24)),
        *({"joined_at": value} for value in (..., None, "", 1e3, "0001-01-01T00:00:00Z", "20XX-01-01T00:00:00Z")),
        {"joined_at": "2026-11-22T10:00:00.0123456789Z"},
        {"joined_at": at(days=35, seconds=1), "left_at": at(days=35)},
        {"joined_at": at(days=-1, seconds=-1), "left_at": at(days=-1, seconds=-1)},
        {"joined_at": "9999-12-31T23:59:59Z", "left_at": "9999-12-31T23:59:59Z"},
        {"joined_at": "1969-12-31T23:59:59Z"},
        {"left_at": at(minutes=10, seconds=1)},
        {"left_at": ...},
        {"joined_at": at(hours=25, seconds=1), "left_at": at()},
        {"left_at": at(days=-2)},
    ],
)
def test_a_stay_without_ids_or_possible_times_is_malformed(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        read(body(**change))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b"{}",
        b'{"type": 5}',
        b'{"type": "peer.join.success"}',
        b'{"type": "peer.join.success", "data": []}',
        b'{"type": "peer.join.success", "data": {"joined_at": NaN}}',
        b'{"type": "peer.join.success", "data": {"joined_at": 1e400}}',
        b'{"type": "peer.join.success", "data": {"duration": ' + b"9" * 5000 + b"}}",
        b'{"type": "peer.join.success", "data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"type": "peer.join.success", "data": ' + b'{"a":' * 40_000 + b"1" + b"}" * 40_000 + b"}",
        b'\xff{"type": "x"}',
        b"\x1f\x8b\x08\x00",
        b'{"type": "\\ud800"}',
    ],
)
def test_what_cannot_be_read_is_malformed_and_its_text_quotes_nothing(raw: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        read(raw)
    assert len(str(refused.value)) < 80


@given(raw=st.binary(max_size=300))
def test_any_bytes_are_an_event_or_malformed(raw: bytes) -> None:
    with contextlib.suppress(Malformed):
        read(raw)


values = st.one_of(
    st.sampled_from([ROOM, at(minutes=5), at(minutes=2), None, True, [], {}, [[]], {"a": 1}, 10**400, 1e308, -0.5]),
    st.integers(),
    st.text(max_size=70),
)
FIELDS = ("room_id", "session_id", "peer_id", "user_id", "role", "joined_at", "left_at", "session_started_at")


@given(
    kind=st.sampled_from(["peer.join.success", "peer.leave.success", "session.close.success"]),
    data=st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, values)),
)
def test_fields_of_any_type_are_read_or_malformed(kind: str, data: dict[str, Any]) -> None:
    try:
        event = read(json.dumps({"type": kind, "data": data}).encode())
    except Malformed:
        return
    if event.stay is not None:
        assert event.stay.user.isascii()
        assert len(event.stay.peer) <= 64


@pytest.mark.parametrize("text", ["x" * 65, "é", "a\n", "\x00", "~", "~abc", "\ud800"])
def test_unusual_texts_of_clients_become_a_hash_and_stay_distinct(text: str) -> None:
    assert text_of(text).startswith("~")
    assert len(text_of(text)) == 17
    assert text_of(text) != text_of(text + "x")


@pytest.mark.parametrize("value", [None, 5, ["x"], {}])
def test_a_user_id_that_is_not_a_text_becomes_empty(value: object) -> None:
    stay = read(body(user_id=value)).stay
    assert stay is not None
    assert stay.user == ""


def test_a_confirmed_stay_is_of_when_it_was_confirmed_unless_it_is_open() -> None:
    ended = stay_of(ROOM, SESSION, HmsStay("p", "u", "r", 1000, 5000), confirmed_ms=9000)
    assert (ended.rank, ended.left_ms, ended.stamp_ms) == (CONFIRMED, 5000, 9000)
    goes_on = stay_of(ROOM, SESSION, HmsStay("p", "u", "r", 1000, None), confirmed_ms=9000)
    assert (goes_on.rank, goes_on.left_ms, goes_on.stamp_ms) == (OPEN, 1000, 1000)

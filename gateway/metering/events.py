"""Webhook events of 100ms as values (100ms docs, how-to-guides/configure-webhooks/webhook).

Unknown types, fields and values are tolerated. An event is malformed only without what a stay or a session needs.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import msgspec
from msgspec import Struct

from gateway.hms.replies import ROOM_ID, HmsStay, epoch_ms
from limits.metered import CONFIRMED, ENDED, MOST_MS, MS_PER_DAY, OPEN

RECORDER_ROLE = "__internal_recorder"
RECORDER_USER = "100ms_"
MOST_AHEAD_MS = MS_PER_DAY
MOST_AGE_MS = 35 * MS_PER_DAY  # ledgers are kept for longer
OTHER = "other"
_JOIN, _LEAVE, _OPENED, _CLOSED = (
    "peer.join.success",
    "peer.leave.success",
    "session.open.success",
    "session.close.success",
)
# Types are counted by name. Everything else is `other`: the sender must not choose names of fields in Redis.
KNOWN_TYPES = frozenset(
    f"{stem}.{outcome}"
    for stem, outcomes in {
        "session.open": "success",
        "session.close": "success",
        "peer.join": "success failure",
        "peer.leave": "success failure",
        "room.end": "success failure",
        "role.change": "success failure",
        "track.recording.started": "success",
        "track.recording": "success failure",
        "stream.recording": "success failure",
        "recording": "success failed",
        "beam.started": "success",
        "beam.stopped": "success",
        "beam.recording": "success",
        "beam": "failure",
        "hls.started": "success",
        "hls.stopped": "success",
        "hls.recording": "success",
        "hls": "failure",
        "transcription.started": "success",
        "transcription": "success failure failed",
        "ingest.start": "success failure",
        "ingest.end": "success",
        "ingest": "failure",
    }.items()
    for outcome in outcomes.split()
)
_SESSION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOST_CHARS = 64


class Malformed(ValueError):
    """An event cannot be understood. The text says why and quotes nothing of it."""


class Stay(Struct, frozen=True):
    """One peer in one session, from `joined_ms` on, credited until `left_ms`, which is of `rank` as of `stamp_ms`.

    Peer and user are texts that clients may have chosen, in the form of `text_of`.
    """

    room: str
    session: str
    peer: str
    user: str
    role: str
    joined_ms: int
    left_ms: int
    rank: int
    stamp_ms: int

    @property
    def seconds(self) -> int:
        """What it counts: from the second in which it begins to the second in which it ends."""
        return self.left_ms // 1000 - self.joined_ms // 1000

    @property
    def digest(self) -> str:
        """A short id that is unique across rooms, and stays the same."""
        return digest_of(f"{self.session}:{self.joined_ms}:{self.peer}")

    @property
    def place(self) -> str:
        """Its id in its room's ledger of the session."""
        return f"{self.joined_ms}:{self.peer}"


class SessionFact(Struct, frozen=True):
    """That a session is open since, or has closed at, an instant; None if that is not known."""

    room: str
    session: str
    opened_ms: int | None = None
    closed_ms: int | None = None
    has_closed: bool = False


class Event(Struct, frozen=True):
    """A webhook event: its type, or `other`; and what it says about a stay or a session, if anything.

    `is_recorder`: it is about the peer of a recording, who is not a person.
    """

    kind: str
    stay: Stay | None = None
    session: SessionFact | None = None
    is_recorder: bool = False


def read_event(body: bytes, now_ms: int) -> Event:
    """Read the body of a webhook. Raises: Malformed"""
    try:
        event = msgspec.json.decode(body)
    except (ValueError, RecursionError):  # DecodeError and UnicodeDecodeError are ValueErrors
        raise Malformed("the body is not JSON") from None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise Malformed("the body is not an object with a type")
    kind, data = event["type"], event.get("data")
    if kind not in KNOWN_TYPES:
        return Event(OTHER)
    if kind not in (_JOIN, _LEAVE, _OPENED, _CLOSED):
        return Event(kind)
    if not isinstance(data, dict):
        raise Malformed("data is not an object")
    if kind in (_JOIN, _LEAVE):
        if is_recorder(data.get("role"), data.get("user_id")):
            return Event(kind, is_recorder=True)
        stay = _stay(data, now_ms, has_left=kind == _LEAVE)
        return Event(kind, stay, _session(data, now_ms, has_closed=False))
    return Event(kind, session=_session(data, now_ms, has_closed=kind == _CLOSED))


def is_recorder(role: object, user: object) -> bool:
    """Return whether a peer is one of 100ms's own, which records a room."""
    return role == RECORDER_ROLE or (isinstance(user, str) and user.startswith(RECORDER_USER))


def stay_of(room: str, session: str, one: HmsStay, *, confirmed_ms: int | None = None) -> Stay:
    """Make a stay of a peer as 100ms reports it; `confirmed_ms`: when its sessions API said so."""
    left_ms = one.left_ms
    rank = OPEN if left_ms is None else ENDED if confirmed_ms is None else CONFIRMED
    until = one.joined_ms if left_ms is None else left_ms
    stamp = until if confirmed_ms is None or left_ms is None else confirmed_ms
    who = (text_of(one.peer_id), text_of(one.user_id), text_of(one.role))
    return Stay(room, session, *who, one.joined_ms, until, rank, stamp)


def text_of(text: str) -> str:
    """Return a text that a client chose in a form that is safe in keys and logs: at most 64 characters of ASCII.

    Another one becomes `~` and a hash of it, so that it stays distinct.
    """
    if len(text) <= _MOST_CHARS and text.isascii() and text.isprintable() and not text.startswith("~"):
        return text
    return "~" + digest_of(text)


def digest_of(text: str) -> str:
    """Return 16 characters of base64url of a text's SHA-256: 96 bits."""
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:12]).decode()


def _stay(data: dict[str, Any], now_ms: int, *, has_left: bool) -> Stay:
    joined_ms, left_ms = epoch_ms(data.get("joined_at")), None
    if joined_ms is None:
        raise Malformed("joined_at is not a time")
    if not now_ms - MOST_AGE_MS <= joined_ms <= now_ms + MOST_AHEAD_MS:
        raise Malformed("joined_at is more than 35 days ago, or more than a day ahead")
    if has_left:
        left_ms = epoch_ms(data.get("left_at"))
        if left_ms is None:
            raise Malformed("left_at is not a time")
        if not joined_ms <= left_ms <= min(joined_ms + MOST_MS, now_ms + MOST_AHEAD_MS):
            raise Malformed("left_at is before joined_at, more than 25 hours after it, or more than a day ahead")
    peer = data.get("peer_id")
    if not isinstance(peer, str) or not peer:
        raise Malformed("peer_id is missing")
    user, role = (value if isinstance(value := data.get(name), str) else "" for name in ("user_id", "role"))
    return stay_of(*_ids(data), HmsStay(peer, user, role, joined_ms, left_ms))


def _session(data: dict[str, Any], now_ms: int, *, has_closed: bool) -> SessionFact:
    ids = _ids(data)
    times = epoch_ms(data.get("session_started_at")), epoch_ms(data.get("session_stopped_at"))
    opened_ms, closed_ms = (one if one is not None and 0 <= one <= now_ms + MOST_AHEAD_MS else None for one in times)
    return SessionFact(*ids, opened_ms, closed_ms if has_closed else None, has_closed)


def _ids(data: dict[str, Any]) -> tuple[str, str]:
    """Return the room and the session. Keys are made of them, so no room may have the id of a user, or be `all`."""
    found = []
    for name, form in (("room_id", ROOM_ID), ("session_id", _SESSION_ID)):
        value = data.get(name)
        if not isinstance(value, str) or not form.fullmatch(value):
            raise Malformed(f"{name} is missing or has another form")
        found.append(value)
    return found[0], found[1]

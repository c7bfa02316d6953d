"""Every Redis key of metering, and the accounts that stays are credited to.

A Redis cluster places a key by the part in braces.
"""

from gateway.policy.actions import MINUTES, OWNED
from limits.metered import Account

EVENTS = "wh:1"
"""Webhook events that wait for a consumer: a stream."""

DEAD_LETTERS = f"wd:1:{{{EVENTS}}}"
"""Events that cannot be understood: a stream, in the slot of the events, so that a replay is one step."""

STATISTICS = "wm:1"
"""Numbers of events by what became of them: a hash."""

SESSIONS_DUE = "sq:1"
"""Sessions to reconcile, `<room>|<session>`, by when (ms): a zset."""

LOCKED = "bl:1"
"""Rooms that budgets have locked, `<scope>|<subject>|<budget>|<room>`, by when to look at the budget (ms): a zset."""

LEADER = "lk:1:metering"
"""The process that performs the chores: a string."""

INSTALLATION = "all"
"""The subject of the whole installation. No user has this id."""


def session(room: str, session_id: str) -> str:
    """Return the key of what is known about a session: a hash."""
    return f"se:1:{{{room}}}:{session_id}"


def ledger(subject: str, suffix: str) -> str:
    """Return the key of the stays credited to a subject, in a month or a session: a hash."""
    return f"sl:1:{{{subject}}}:{suffix}"


def open_stays(subject: str) -> str:
    """Return the key of the open stays of a user, a room or the installation: a hash."""
    return f"op:1:{{{subject}}}"


def open_in_rooms_of(uid: str) -> str:
    """Return the key of the open stays in the rooms that a user owns: a hash."""
    return f"op:1:{{{uid}}}:{OWNED}"


def budget_notices(subject: str) -> str:
    """Return the key of the budgets whose exhaustion has been audited: a hash."""
    return f"bn:1:{{{subject}}}"


def of_user(uid: str, month: str, zone: str) -> Account:
    """Return the account of a participant.

    As everywhere here, `month` is the one (UTC) in which the stay began, and `zone` that of the counters' days.
    """
    return Account(ledger(uid, month), open_stays(uid), _counters(uid), _own(uid), MINUTES, zone=zone)


def of_owner(uid: str, month: str, zone: str) -> Account:
    """Return the account of all rooms that a user owns. It has its own ledger: an owner may stay in their own room."""
    ours = ledger(uid, f"o:{month}"), open_in_rooms_of(uid)
    return Account(*ours, _counters(uid), _own(uid), OWNED, counts_most=True, zone=zone)


def of_all(day: str, zone: str) -> Account:
    """Return the account of the installation. Its ledger is of one day (UTC), because it names everybody's stays."""
    ours = ledger(INSTALLATION, day), open_stays(INSTALLATION), _counters(INSTALLATION), _own(INSTALLATION)
    return Account(*ours, MINUTES, counts_most=True, zone=zone)


def of_room(room: str, session_id: str, zone: str) -> Account:
    """Return the account of a room in one session."""
    ours = ledger(room, session_id), open_stays(room), f"rc:1:{{{room}}}", _own(room)
    return Account(*ours, MINUTES, counts_most=True, zone=zone)


def _counters(subject: str) -> str:
    return f"uc:1:{{{subject}}}"


def _own(subject: str) -> str:
    return f"qt:1:{{{subject}}}"


def published(room: str, session_id: str) -> str:
    """Return the key of what the feed has published of the stays of a session: a hash."""
    return f"sp:1:{{{room}}}:{session_id}"


def queued(room: str, session_id: str) -> str:
    """Return a session's entry in `SESSIONS_DUE`."""
    return f"{room}|{session_id}"

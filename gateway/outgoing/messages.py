"""Events as JSON, made from entries of the audit trail, and the Redis keys of those that wait to be sent.

An event names users and rooms by their ids. It has no texts that people wrote, no names, no addresses, no secrets.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from gateway.audit import Facts
from gateway.policy.live import PolicyInForce
from limits.overrides import BLOCK

INBOX = "ow:1"
"""Events that have not been shared out among the endpoints yet: a stream."""

DEAD = f"od:1:{{{INBOX}}}"
"""Events that could not be delivered: a stream."""

MOST_IN_INBOX = 10_000
TEST = "webhook.test"

_Event = tuple[str, dict[str, Any]]


def queue(endpoint: str) -> str:
    """Return the key of what waits to be delivered to an endpoint, by when (ms): a zset.

    In the slot of the inbox, as the dead letters are: an event moves from one to the other in one step.
    """
    return f"oq:1:{{{INBOX}}}:{endpoint}"


def statistics(endpoint: str) -> str:
    """Return the key of the numbers of an endpoint: a hash."""
    return f"os:1:{{{endpoint}}}"


class Message(Struct, frozen=True):
    """An event on its way. `body` is sent as it is; `id` stays the same however often that is tried."""

    id: str
    type: str
    body: str
    attempts: int = 0


def new_message(kind: str, data: Mapping[str, Any]) -> Message:
    """Return an event that happens now, with an id of its own."""
    now = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = msgspec.json.encode({"type": kind, "timestamp": now, "data": data}).decode()
    return Message(f"msg_{secrets.token_hex(12)}", kind, body)


class Announcer:
    """Turns entries of the audit trail into events, if an endpoint of the policy wants them."""

    def __init__(self, policy: PolicyInForce) -> None:
        self._policy = policy

    def __call__(self, action: str, facts: Facts) -> tuple[Any, ...] | None:
        """Return the command that stores the event of an entry; None if there is none, or no endpoint wants it."""
        make = _EVENTS.get(action)
        event = make(facts) if make and self._policy.now.endpoints else None
        if event is None or not any(event[0] in endpoint.events for endpoint in self._policy.now.endpoints):
            return None
        text = msgspec.json.encode(new_message(*event)).decode()
        return "XADD", INBOX, "MAXLEN", "~", MOST_IN_INBOX, "*", "message", text


def _budget_reached(facts: Facts) -> _Event:
    said = {name: facts[name] for name in ("budget", "scope", "percent", "period", "minutes")}
    return "budget.reached", {"user": facts["subject"] or None, **said}


def _room_ended(facts: Facts) -> _Event:
    budget = facts.get("budget")
    said = {"room": facts["room"], "by": facts["by"] or None, "why": "budget" if budget else "requested"}
    return "room.ended", said | {"budget": budget, "locked": bool(facts["lock"])}


def _override(facts: Facts) -> _Event | None:
    if facts["name"] != BLOCK:
        return None
    until = datetime.fromtimestamp(int(facts["until_us"]) // 1_000_000, UTC).isoformat().replace("+00:00", "Z")
    return "user.blocked", _user(facts) | {"until": until}


def _lift(facts: Facts) -> _Event | None:
    return ("user.unblocked", _user(facts)) if facts["name"] == BLOCK else None


def _user(facts: Facts) -> dict[str, Any]:
    return {"user": facts["subject"], "by": facts["by"]}


# By action of the audit trail.
_EVENTS: dict[str, Callable[[Facts], _Event | None]] = {
    "budget.reached": _budget_reached,
    "room.ended": _room_ended,
    "limits.override": _override,
    "limits.lift": _lift,
    "user.disabled": lambda facts: ("user.disabled", _user(facts)),
    "user.enabled": lambda facts: ("user.enabled", _user(facts)),
}

"""How many connections a process keeps, and which of them it closes for a new one.

Without a bound, whoever opens many connections uses up the process's file descriptors: no one else is accepted, and
no new connection to Redis or 100ms can be opened. nginx closes connections that wait for a request in the same way.
"""

import logging
import resource
import time
from contextlib import suppress
from typing import Protocol
from weakref import WeakKeyDictionary

from uvicorn.server import ServerState

log = logging.getLogger("gateway")

MOST_CONNECTIONS = 10_000  # of one process: an idle one takes 7 KB
OTHER_FILES = 240  # for Redis, calls to 100ms, files; and for what is accepted before it is counted
_LEAST = 16
_WARN_EVERY_S = 60.0


def raise_file_limit() -> None:
    """Raise the limit on open files, which processes inherit, to what `MOST_CONNECTIONS` takes, if the system allows.

    Many systems give 1,024 and allow more: select() cannot handle more, and nothing here uses it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections() -> int:
    """Return how many connections this process may keep."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(_LEAST, min(MOST_CONNECTIONS, soft - OTHER_FILES))


class _Connection(Protocol):
    def give_up(self) -> None:
        """Close at once."""


class Places:
    """The connections on which the client has to send something: a request, or the rest of one."""

    def __init__(self, state: ServerState, most: int) -> None:
        self._state = state
        self._most = most
        self._waiting: dict[_Connection, None] = {}  # in the order in which they began to wait
        self._warned_at = -_WARN_EVERY_S

    def enter(self, one: _Connection) -> None:
        """Let a new connection wait for its first request. If there are too many, close what has waited longest."""
        self._waiting[one] = None
        if len(self._state.connections) > self._most:
            self._warn()
            longest = next(iter(self._waiting))  # the new one itself, if all others are being served
            del self._waiting[longest]
            longest.give_up()

    def wait(self, one: _Connection) -> None:
        """Let a connection wait, from now on."""
        self._waiting.pop(one, None)
        self._waiting[one] = None

    def leave(self, one: _Connection) -> None:
        self._waiting.pop(one, None)

    def _warn(self) -> None:
        now = time.monotonic()
        if now - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = now
            log.warning(
                "this process has %d connections, as many as its limit on open files allows or %d; for each new one it "
                "closes the one that has waited longest for a request",
                self._most,
                MOST_CONNECTIONS,
            )


_places: WeakKeyDictionary[ServerState, Places] = WeakKeyDictionary()


def places_of(state: ServerState) -> Places:
    """Return the places of a server, which all its connections share."""
    found = _places.get(state)
    if found is None:
        found = _places[state] = Places(state, most_connections())
    return found

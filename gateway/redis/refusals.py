"""Refusals of a running Redis: out of memory, a read-only replica, a failed disk, a missing permission.

Such a refusal affects most requests until its cause is removed. It is therefore an outage, which is logged once with
the server's whole text, not an error of one request.
"""

import logging
import os
import re
import socket
import time

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.redis.tls import tls_failure

log = logging.getLogger("gateway.store")

QUIET_S = 60.0  # refusals of one kind that are less than this apart belong to the same outage
# The first word of an error reply is its kind.
_OUTAGE = re.compile(
    r"(OOM|READONLY|MISCONF|NOREPLICAS|LOADING|BUSY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOPERM|NOAUTH|WRONGPASS) "
)
_CLOSED = "Connection closed by server."  # the text of redis-py
_NO_HOST = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_last_s: dict[str, float] = {}


class NotFound(RedisConnectionError):
    """No server is known that takes commands. The text says why and has no address."""


def reply_text(error: BaseException) -> str:
    """Return an error reply in the server's words, on one line, or why TLS or the connection failed.

    Of any other error only its type: it may hold the address of the server, and its URL the password.
    """
    if broken := tls_failure(error):
        return broken
    if isinstance(error, NotFound):
        return str(error)
    code = getattr(error, "status_code", None)  # redis-py removes the codes that it knows from the text
    if code is None and not isinstance(error, ResponseError):
        return _fault(error) or _fault(error.__cause__ or error.__context__) or type(error).__name__
    return " ".join(f"{code or ''} {error}".split())


def _fault(error: BaseException | None) -> str:
    """Say in words why a connection failed, without any address; empty if that is not known."""
    if isinstance(error, TimeoutError | RedisTimeoutError):
        return "timed out"
    if isinstance(error, socket.gaierror):
        return "no such host" if error.errno in _NO_HOST else "the name of the host cannot be looked up now"
    if isinstance(error, InvalidResponse):
        return "the server does not speak the protocol of Redis"
    if isinstance(error, RedisConnectionError) and str(error) == _CLOSED:
        return "the server closed the connection"
    if not isinstance(error, OSError):
        return ""
    # For a name with several addresses asyncio puts the errors of all of them into one text.
    several = re.search(r"\[Errno (\d+)\]", str(error))
    number = error.errno or (int(several[1]) if several else 0)
    return os.strerror(number).lower() if number else ""


def is_outage(error: BaseException) -> bool:
    """Tell whether an error of Redis concerns most commands, not only the one that it answers."""
    return isinstance(error, RedisError) and (
        not isinstance(error, ResponseError) or _OUTAGE.match(reply_text(error)) is not None
    )


def log_refusal(error: RedisError) -> None:
    """Log an error reply: one line per outage for a refusal of that kind; other errors each time, with a traceback."""
    text = reply_text(error)
    outage = _OUTAGE.match(text)
    if outage is None:
        log.error("Redis refused a command: %s", text, exc_info=error)
        return
    kind, now = outage[1], time.monotonic()
    if now - _last_s.get(kind, -QUIET_S) >= QUIET_S:
        log.error("Redis refuses commands: %s", text)
    _last_s[kind] = now

"""Refusals of a running Redis: out of memory, a read-only replica, a failed disk, a missing permission.

Such a refusal affects most requests until its cause is removed. It is therefore an outage, which is logged once with
the server's whole text, not an error of one request.
"""

import logging
import re
import time

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from gateway.redis.tls import tls_failure

log = logging.getLogger("gateway.store")

QUIET_S = 60.0  # refusals of one kind that are less than this apart belong to the same outage
# The first word of an error reply is its kind.
_OUTAGE = re.compile(
    r"(OOM|READONLY|MISCONF|NOREPLICAS|LOADING|BUSY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOPERM|NOAUTH|WRONGPASS) "
)
_last_s: dict[str, float] = {}


class NotFound(RedisConnectionError):
    """No server is known that takes commands. The text says why and has no address."""


def reply_text(error: BaseException) -> str:
    """Return an error reply in the server's words, on one line, or why TLS failed; for any other error, only its type.

    Other errors may hold the address of the server, and its URL may hold the password.
    """
    if broken := tls_failure(error):
        return broken
    if isinstance(error, NotFound):
        return str(error)
    code = getattr(error, "status_code", None)  # redis-py removes the codes that it knows from the text
    if code is None and not isinstance(error, ResponseError):
        return type(error).__name__
    return " ".join(f"{code or ''} {error}".split())


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

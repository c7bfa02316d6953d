"""Receives webhooks of 100ms: checks their secret and stores the event, which a consumer processes later."""

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Iterable, Sequence

from gateway.metering import keys
from limits import Execute

log = logging.getLogger("gateway")

PATH = "/hooks/100ms"
MOST_WAITING = 1_000_000  # days of a busy installation; more would fill Redis, which then refuses everything
_SAID_EVERY_S = 60.0

# KEYS the stream. ARGV most entries, body, ms. Reply 1 if the event is stored, 0 if the stream is full.
_STORE = """
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('XADD', KEYS[1], '*', 'body', ARGV[2], 'at', ARGV[3])
return 1
"""


class NoWebhook(Exception):
    """No secret is set, so no webhook is accepted."""


class WrongSecret(Exception):
    """A webhook without the secret, or with another one."""


class IntakeFull(Exception):
    """Too many events wait for a consumer. 100ms sends an event again that is not answered 200."""


class SecretCheck:
    """Checks the secret that a webhook has in a header. A list of secrets allows rotation: each is accepted."""

    def __init__(self, secrets: Sequence[str], header: str) -> None:
        self._digests = [_digest(secret.encode()) for secret in secrets]
        self._header = header.lower().encode()

    @property
    def is_set(self) -> bool:
        return bool(self._digests)

    def accepts(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Return whether there is one such header and it holds a secret. Takes the same time for every value."""
        sent = [value for name, value in headers if name == self._header]
        digest = _digest(sent[0] if len(sent) == 1 else b"")
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches)

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Refuse a webhook without a secret. Raises: NoWebhook, WrongSecret"""
        if not self.is_set:
            raise NoWebhook("This address does not exist.")
        if not self.accepts(headers):
            raise WrongSecret("The header with the webhook's secret is missing or wrong.")


class Intake:
    """Stores events for the consumers. `wake` is set by every one that is stored, for the consumer of this process."""

    def __init__(self, execute: Execute, post: Callable[..., None], *, most_waiting: int = MOST_WAITING) -> None:
        self._execute = execute
        self._post = post
        self._most_waiting = most_waiting
        self._said_at = -_SAID_EVERY_S
        self.wake = asyncio.Event()

    async def store(self, body: bytes) -> None:
        """Store an event as it came; when this returns, Redis has it. Raises: IntakeFull, StoreError"""
        now_ms = time.time_ns() // 1_000_000
        if not await self._execute("EVAL", _STORE, 1, keys.EVENTS, self._most_waiting, body, now_ms):
            self._say_full()
            raise IntakeFull("Too many events are waiting to be processed.")
        self._post("HINCRBY", keys.STATISTICS, "received", 1)
        self._post("HSET", keys.STATISTICS, "last_ms", now_ms)
        self.wake.set()

    def _say_full(self) -> None:
        now = time.monotonic()
        if now - self._said_at >= _SAID_EVERY_S:
            self._said_at = now
            log.error("%d webhook events are waiting to be processed; more are refused", self._most_waiting)


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()

"""What operators see change while it happens: one reader for all streams of the process.

A stream is an answer that goes on (`text/event-stream`). It ends with an event `end` that says why: the token or
key has expired, the session has ended or the key has changed, or Redis cannot be read.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import msgspec
from redis.exceptions import RedisError

from auth.errors import InvalidToken, TokenExpired
from auth.sessions import Sessions
from auth.tokens import LoginTokens, Principal
from gateway.metering.webhooks import Webhooks
from gateway.overview.points import Point
from gateway.overview.presence import Presence
from gateway.overview.totals import Totals
from gateway.policy.live import PolicyInForce
from gateway.redis.store import StoreError

log = logging.getLogger("gateway")

MOST_STREAMS, MOST_OF_USER = 50, 10  # of one process
EVERY_S = 2.0
HEARTBEAT_S = 15.0  # shorter than the idle timeouts of proxies
PERMISSION = "usage:read-any"
_CHECK_EVERY = 2  # readings: a stream outlives its session by 4 s at most
_HEARTBEAT = b": the connection is alive\n\n"


class TooManyStreams(Exception):
    """This process, or this user, has as many streams as are allowed."""

    def __init__(self) -> None:
        super().__init__("Too many live views are open. Close one, or try again later.")


class Now(msgspec.Struct, frozen=True):
    """One event. `points`: the minute before and this one."""

    people_now: int
    rooms_now: int
    points: list[Point]
    webhooks_waiting: int
    webhook_lag_ms: int
    dead_letters: int


class _Stream:
    """One open stream: whose it is, and what it has to send next."""

    def __init__(self, principal: Principal, token: str) -> None:
        self.principal = principal
        self.token = token
        self.todo: bytes | None = None
        self.ended = ""
        self.awake = asyncio.Event()

    def offer(self, event: bytes) -> None:
        """Replace what has not been sent yet: only the newest numbers matter."""
        self.todo = event
        self.awake.set()

    def end(self, why: str) -> None:
        self.ended = self.ended or why
        self.awake.set()


class Live:
    """Reads every two seconds while there are streams, and tells them what has changed."""

    def __init__(
        self,
        totals: Totals,
        presence: Presence,
        webhooks: Webhooks,
        tokens: LoginTokens,
        sessions: Sessions,
        policy: PolicyInForce,
    ) -> None:
        self._totals = totals
        self._presence = presence
        self._webhooks = webhooks
        self._tokens = tokens
        self._sessions = sessions
        self._policy = policy
        self._streams: list[_Stream] = []
        self._reader: asyncio.Task[None] | None = None
        self._latest = b""

    async def follow(self, principal: Principal, token: str) -> AsyncGenerator[bytes]:
        """Return a stream for the bearer of an access token or a service key. Raises: TooManyStreams"""
        own = sum(one.principal.uid == principal.uid for one in self._streams)
        if own >= MOST_OF_USER or len(self._streams) >= MOST_STREAMS:
            raise TooManyStreams
        stream = _Stream(principal, token)
        self._streams.append(stream)
        try:
            yield _HEARTBEAT
            if self._reader is None:
                self._reader = asyncio.create_task(self._read())
            elif self._latest:
                stream.offer(self._latest)
            while not stream.ended:
                yield await _next(stream)
            yield _event("end", {"reason": stream.ended})
        finally:
            self._streams.remove(stream)

    async def close(self) -> None:
        """Stop reading. Streams end with their connections."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        """Read until there are no streams."""
        reading = 0
        try:
            while self._streams:
                if reading % _CHECK_EVERY == 0:
                    await self._end_void()
                event = _event("overview", await self._now())
                if event != self._latest:
                    self._latest = event
                    for stream in self._streams:
                        stream.offer(event)
                reading += 1
                await asyncio.sleep(EVERY_S)
        except (StoreError, RedisError):
            self._end_all("unavailable")
        except Exception:
            log.exception("the live view could not be read")
            self._end_all("unavailable")
        finally:
            self._reader, self._latest = None, b""

    async def _end_void(self) -> None:
        """End the streams whose tokens would not be accepted any more."""
        streams = list(self._streams)
        for stream, holds in zip(streams, await self._sessions.hold([one.principal for one in streams]), strict=True):
            if not holds:
                stream.end("session_ended")
        for stream in streams:
            principal = self._verified(stream)
            if principal is None:
                stream.end("token_expired")
            elif PERMISSION not in self._policy.of(principal).permissions(principal.roles):
                stream.end("forbidden")

    def _verified(self, stream: _Stream) -> Principal | None:
        """Return whose stream it is, None once the credential has expired."""
        if (key := stream.principal.key) is not None:  # its guard held
            return stream.principal if key.state(time.time_ns() // 1_000_000) == "active" else None
        try:
            return self._tokens.verify(stream.token)
        except (TokenExpired, InvalidToken):
            return None

    def _end_all(self, why: str) -> None:
        for stream in self._streams:
            stream.end(why)

    async def _now(self) -> Now:
        (people, rooms), state, steps = await asyncio.gather(
            self._presence.now(), self._webhooks.state(), self._totals.last_minutes(datetime.now(UTC))
        )
        points = [Point.of_step(step, self._policy.now.prices) for step in steps]
        return Now(people, rooms, points, state.waiting, state.lag_ms, state.dead_letters)


async def _next(stream: _Stream) -> bytes:
    """Wait for something to send; after a while, send a comment, by which a client that has gone is noticed."""
    try:
        async with asyncio.timeout(HEARTBEAT_S):
            await stream.awake.wait()
    except TimeoutError:
        return _HEARTBEAT
    stream.awake.clear()
    event, stream.todo = stream.todo, None
    return event or b""


def _event(name: str, data: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))

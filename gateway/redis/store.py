"""The Redis client of the process: concurrent requests share one connection and its writes.

Commands issued in the same iteration of the event loop are sent in one write (auto-pipelining); replies arrive in
order. A cancelled call keeps its place in the queue, so its reply cannot reach another caller.

`EVAL script` is sent as EVALSHA and, if the server does not know the script, again as EVAL. Callers always use EVAL.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from hiredis import pack_command  # in C: redis-py's packer takes longer than the rest of this module
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from gateway.breaker import Breaker
from gateway.redis.link import Call, Link
from gateway.redis.refusals import reply_text
from gateway.redis.server import CONNECT_S, Source
from gateway.redis.server import connect as connect

log = logging.getLogger("gateway.store")

REPORT_DEADLINE_S = 2.0  # for reports and the command line, which read much and decide nothing
CONNECT_PATIENCE_S = 0.25  # how long callers wait for it, at least: opening one takes several round trips

_TOO_OFTEN = "Redis failed too often in the last seconds; the command was not sent"
_PROBE = "pr:1"  # written because it is refused like any write: maxmemory, a read-only replica, too few replicas
_PROBE_KEPT_S = 60
_PROBE_S = 1.0
_REOPEN_S = 0.1  # a server that stays read-only is not left more often than this


Clock = Callable[[], Awaitable[int]]
"""Returns the present in epoch milliseconds."""

OnSend = Callable[[asyncio.Future[Any]], None] | None
"""Receives the future of each command that a caller will wait for."""

OnRefusal = Callable[[Call, ResponseError], bool] | None
"""Receives each call that Redis refused; returns whether it has taken care of it."""

OnState = Callable[[bool], None] | None
"""Receives whether Redis is available, whenever that changes."""


class StoreError(Exception):
    """Redis did not answer in time or cannot be reached. The command may or may not have taken effect."""


class Store:
    """Sends commands over one pipelined connection. `deadline_s`: how long Redis may send no reply at all.

    A server that answers READONLY is no master any more: the connection is given up for one to the present master, and
    what was refused is sent again, once. Calls whose outcome is unknown are never sent again.
    """

    def __init__(
        self,
        source: Source,
        *,
        deadline_s: float,
        on_send: OnSend = None,
        on_refusal: OnRefusal = None,
        on_state: OnState = None,
    ) -> None:
        self._source = source
        self._on_send = on_send
        self._on_refusal = on_refusal
        self._on_state = on_state
        self._deadline_s = deadline_s
        self._waiting: deque[Call] = deque()
        self._flush_planned = False
        self._link: Link | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._shas: dict[str, str] = {}
        self._patient_until = 0.0
        self._available = True
        self._closed = False
        self._writable_until = 0.0
        self._reopened_at = 0.0
        self._breaker = Breaker()
        self.failures = 0  # commands without a reply, so far

    @property
    def state(self) -> str:
        """The breaker's state: closed (Redis works), open (calls fail at once) or half-open (one call probes)."""
        return self._breaker.state

    @property
    def is_available(self) -> bool:
        """Tell whether the last thing that Redis did was to answer, or nothing yet."""
        return self._available

    @property
    def is_busy(self) -> bool:
        """Tell whether calls wait for a connection or for a reply."""
        return bool(self._waiting or (self._link is not None and self._link.unanswered))

    def execute(self, *words: Any) -> asyncio.Future[Any]:
        """Send one command with the next flush; await the result for its reply.

        A future, not a coroutine: several calls in a row are sent in one write, without a task for each. Await them one
        after the other: `asyncio.gather` takes 2 us for each. When awaited it raises ResponseError of redis-py, or
        StoreError: no reply within the deadline, no connection, or too many such failures recently.
        """
        future = asyncio.get_running_loop().create_future()
        if not self._breaker.allows():
            _fail(future, StoreError(_TOO_OFTEN))
            return future
        call = Call(words, future)
        if words[0] == "EVAL":
            call.script = words
            call.words = ("EVALSHA", self._sha(words[1]), *words[2:])
        self._enqueue(call)
        if self._on_send is not None:
            self._on_send(future)
        return future

    async def now_ms(self) -> int:
        """Return the time of Redis, the one clock of all processes, in epoch milliseconds."""
        seconds, us = await self.execute("TIME")
        return int(seconds) * 1000 + int(us) // 1000

    async def check(self, key: str = _PROBE) -> list[str]:
        """Check that Redis answers and, at most once a second, that it accepts writes. Raises as `execute`.

        Returns the names of what is missing: with one server, nothing.
        """
        now = asyncio.get_running_loop().time()
        if now < self._writable_until:
            await self.execute("PING")
        else:
            await self.execute("SET", key, "", "EX", _PROBE_KEPT_S)
            self._writable_until = now + _PROBE_S
        return []

    async def each(self, *words: Any) -> dict[str, Any]:
        """Send a command to every server with data, here to one; return the replies, or what was raised, by name."""
        try:
            return {self._source.name: await self.execute(*words)}
        except (StoreError, RedisError) as error:
            return {self._source.name: error}

    def resend(self, *calls: Call) -> None:
        """Send calls that another server has refused or was never sent, with the next write and in this order."""
        for call in calls:
            if self._breaker.allows():
                self._enqueue(call)
            else:
                _fail(call.future, StoreError(_TOO_OFTEN))

    def unsent(self) -> list[Call]:
        """Take away the calls that wait for a connection."""
        if self._link is not None:
            return []
        calls, self._waiting = [*self._waiting], deque()
        return calls

    def post(self, *words: Any) -> None:
        """Send one command with the next write, without waiting; errors are ignored. Not for scripts."""
        if self._breaker.allows():
            self._enqueue(Call(words, None))

    async def close(self) -> None:
        """Close the connection; waiting calls fail."""
        if self._connecting:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        self._closed = True  # a close is not an outage and is not reported
        self._drop(StoreError("the store is closed"))
        if self._watch:
            self._watch.cancel()
        await self._source.close()

    def _sha(self, script: str) -> str:
        sha = self._shas.get(script)
        if sha is None:
            sha = self._shas[script] = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        return sha

    def _enqueue(self, call: Call) -> None:
        self._waiting.append(call)
        if not self._flush_planned:
            self._flush_planned = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_planned = False
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        link = self._link
        if link is None:
            if self._connecting is None:
                self._connecting = loop.create_task(self._connect())
            if not self._patient_until:
                self._patient_until = loop.time() + max(self._deadline_s, CONNECT_PATIENCE_S)
            self._plan_watch(self._patient_until)
            return
        if not link.unanswered:
            link.alive_at = loop.time()
        packed: list[bytes] = []
        calls, self._waiting = self._waiting, deque()
        for call in calls:
            try:
                packed.append(pack_command(call.words))
                link.unanswered.append(call)
            except (ValueError, TypeError) as error:  # an error of this caller alone
                _fail(call.future, error)
        self._plan_watch(loop.time() + self._deadline_s)
        try:
            link.send(packed)
        except Exception as error:  # noqa: BLE001  after a failed write the connection cannot be used
            self._drop(StoreError(f"writing to Redis failed: {type(error).__name__}"))

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                connection = await self._source.open()
            link = Link(connection, self._settle, self._lose)
        except Exception as error:  # noqa: BLE001  after any error the next call must be able to connect
            self._connecting = None
            # Without the address and the URL: the URL may hold the password.
            self._fail_waiting(StoreError(f"connecting to Redis failed: {reply_text(error)}"))
            return
        self._connecting = None
        self._patient_until = 0.0
        self._link = link
        self._flush()

    def _settle(self, link: Link, replies: list[Any]) -> None:
        """Pass each reply to the oldest unanswered call."""
        link.alive_at = asyncio.get_running_loop().time()
        if not replies or link is not self._link:
            return
        if len(replies) > len(link.unanswered):
            self._drop(StoreError("Redis sent a reply to no command"))
            return
        self._breaker.succeeded(len(replies))
        self._say_available()
        is_master = True
        for reply in replies:
            call = link.unanswered.popleft()
            if isinstance(reply, ResponseError):
                is_master = self._refused(call, reply) and is_master
            elif call.future is not None and not call.future.done():
                call.future.set_result(reply)
        if not is_master:
            self._reopen(link)

    def _refused(self, call: Call, error: ResponseError) -> bool:
        """Answer a call that Redis refused, or send it again; return False if the server is no master any more."""
        if call.future is not None and call.future.done():
            return True
        if isinstance(error, NoScriptError) and call.script is not None:
            self._enqueue(Call(call.script, call.future, sent=call.sent))
        elif self._on_refusal is not None and self._on_refusal(call, error):
            pass
        elif isinstance(error, ReadOnlyError) and not call.sent and self._may_reopen():
            call.sent += 1
            self._enqueue(call)
            return False
        else:
            _fail(call.future, error)
        return True

    def _may_reopen(self) -> bool:
        return asyncio.get_running_loop().time() >= self._reopened_at + _REOPEN_S

    def _reopen(self, link: Link) -> None:
        """Leave a server that is no master any more; what it has not answered yet may have taken effect."""
        self._reopened_at = asyncio.get_running_loop().time()
        self._link = None
        link.abort()
        self._fail(link.unanswered, StoreError("Redis is not the master any more"))

    def _lose(self, link: Link, error: Exception | None) -> None:
        """Abandon a connection that broke, or that the server closed."""
        if link is self._link:
            self._drop(StoreError(f"the connection to Redis broke: {reply_text(error or ConnectionError())}"))

    def _plan_watch(self, due: float) -> None:
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_at(due, self._check_deadline, due)

    def _check_deadline(self, due: float) -> None:
        self._watch = None
        loop = asyncio.get_running_loop()
        link, now = self._link, loop.time()
        if now - due > self._deadline_s / 5:
            # The timer is late, so this event loop was busy. Replies may be unread; check again shortly.
            if self._waiting or (link and link.unanswered):
                self._plan_watch(now + self._deadline_s / 2)
        elif link is None and now < self._patient_until:
            self._plan_watch(self._patient_until)
        elif link is None and self._waiting:
            self._miss(StoreError("Redis did not accept a connection in time"))
        elif link and link.unanswered:
            lost_at = link.alive_at + self._deadline_s
            if lost_at <= now:
                self._miss(StoreError("Redis did not answer in time"))
            else:
                self._plan_watch(lost_at)

    def _miss(self, error: StoreError) -> None:
        """Give up after a missed deadline. A second one without a reply in between opens the breaker."""
        if not self._available:
            self._breaker.open()
        self._drop(error)

    def _drop(self, error: StoreError) -> None:
        """Abandon the connection and fail its unanswered calls; the next call reconnects."""
        link, self._link = self._link, None
        if link is not None:
            link.abort()
            self._fail(link.unanswered, error)
        self._fail_waiting(error)

    def _fail_waiting(self, error: StoreError) -> None:
        if self._available and not self._closed:
            self._available = False
            log.error("%s is unavailable: %s", self._source.name, error)
            if self._on_state is not None:
                self._on_state(False)
        self._patient_until = 0.0
        calls, self._waiting = self._waiting, deque()
        self._fail(calls, error)

    def _fail(self, calls: deque[Call], error: StoreError) -> None:
        self.failures += len(calls)
        for call in calls:
            if not self._closed:
                self._breaker.failed()
            _fail(call.future, StoreError(*error.args))

    def _say_available(self) -> None:
        if not self._available:
            self._available = True
            log.warning("%s is available again", self._source.name)
            if self._on_state is not None:
                self._on_state(True)


def _fail(future: asyncio.Future[Any] | None, error: Exception) -> None:
    """Fail a call. Of calls sent together, callers await the first that fails; asyncio must not log the others."""
    if future is not None and not future.done():
        future.set_exception(error)
        future.exception()

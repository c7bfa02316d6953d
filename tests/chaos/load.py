"""Requests at a fixed rate from one process, over kept connections, with a record of what became of each.

The rate does not depend on the answers: while the gateway is silent, as many requests leave as before.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from tests.servers import HOST

RATE = 200  # requests a second
CONNECTIONS = 16
WITHIN_S = 15.0
UNASKED: list[bytes] = []
"""How answers began that came without a request: there must be none."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `action` names its kind, `route` is its path in the API description, `who` a user's id."""

    action: str
    method: str
    route: str
    path: str
    who: str = ""
    token: str = field(default="", repr=False)
    body: Any = None
    fields: tuple[tuple[str, str], ...] = ()
    learn: Callable[[Result], None] | None = None

    def encoded(self) -> bytes:
        content = b"" if self.body is None else json.dumps(self.body).encode()
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {HOST}"]
        lines += [f"{name}: {value}" for name, value in self.fields]
        if self.token:
            lines.append(f"Authorization: Bearer {self.token}")
        if content:
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        return "\r\n".join((*lines, "", "")).encode() + content


@dataclass(slots=True, eq=False)
class Result:
    """What became of a request, with times of the monotonic clock. Status 0: no answer, and `lost` says why.

    `was_sent` is False if not even a connection was made: then the gateway cannot have acted.
    """

    ask: Ask
    due: float
    sent: float = 0.0
    done: float = 0.0
    status: int = 0
    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    lost: str = ""
    was_sent: bool = True

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300

    @property
    def took_ms(self) -> float:
        """The time since it was due, in ms: a client that is late itself hides nothing."""
        return (self.done - self.due) * 1000

    @property
    def code(self) -> str:
        """The code of a problem document."""
        return str(self.json()["code"]) if self.fields.get("content-type") == "application/problem+json" else ""

    def json(self) -> Any:
        return json.loads(self.body)

    def __str__(self) -> str:
        return f"{self.ask.action} {self.status or self.lost} {self.code}".rstrip()


class _Connection(asyncio.Protocol):
    """A kept connection with at most one request at a time."""

    def __init__(self, on_free: Callable[[_Connection], None], on_lost: Callable[[_Connection], None]) -> None:
        self._on_free, self._on_lost = on_free, on_lost
        self._received = b""
        self._waiting: asyncio.Future[tuple[int, dict[str, str], bytes]] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, dict[str, str], bytes]]:
        assert self.transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._waiting

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if len(body) < int(fields.get("content-length", "0")):
            return
        waiting, self._waiting = self._waiting, None
        if waiting is None or len(body) > int(fields.get("content-length", "0")):
            UNASKED.append(self._received[:200])
            self.close()
            return
        self._received = b""
        if fields.get("connection") == "close":
            self.close()
        else:
            self._on_free(self)
        if not waiting.done():
            waiting.set_result((int(first.split(" ")[1]), fields, body))

    def connection_lost(self, error: Exception | None) -> None:
        self._on_lost(self)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionResetError("reset" if error else "closed"))

    def close(self) -> None:
        self._on_lost(self)
        if self.transport is not None:
            self.transport.close()


class Pool:
    """Kept connections to one port of this machine, used by turns; more are opened when all are busy."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: deque[_Connection] = deque()
        self._all: set[_Connection] = set()

    async def open(self, count: int) -> None:
        """Open connections, each of which a process has accepted."""
        hello = Ask("hello", "GET", "/health/live", "/health/live").encoded()
        for _ in range(count):
            await (await self._connect()).ask(hello)

    async def perform(self, result: Result) -> None:
        """Send a request and note what became of it in its result."""
        result.sent = time.monotonic()
        try:
            async with asyncio.timeout(WITHIN_S):
                result.was_sent = False
                connection = self._idle.popleft() if self._idle else await self._connect()
                result.was_sent = True
                result.status, result.fields, result.body = await connection.ask(result.ask.encoded())
        except TimeoutError:
            result.lost = "timeout"
        except OSError as error:
            result.lost = str(error) if result.was_sent else "refused"
        result.done = time.monotonic()

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: _Connection(self._idle.append, self._forget), HOST, self._port
        )
        self._all.add(connection)
        return connection

    def _forget(self, connection: _Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        for connection in tuple(self._all):
            connection.close()


class Load:
    """Sends what `asks` yields, at a fixed rate, from `start` to `stop`. `results` are in the order of sending.

    `notice` gets every result.
    """

    def __init__(self, port: int, asks: Iterator[Ask], notice: Callable[[Result], None], *, rate: int = RATE) -> None:
        self._asks = asks
        self._notice = notice
        self._rate = rate
        self._pool = Pool(port)
        self._stopped = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._driver: asyncio.Task[None] | None = None
        self.results: list[Result] = []
        self.begun = self.ended = 0.0

    async def open(self, count: int = CONNECTIONS) -> None:
        """Open connections before the start."""
        await self._pool.open(count)

    def start(self) -> None:
        self._driver = asyncio.create_task(self._drive())

    async def stop(self) -> None:
        """Send nothing more by itself, and wait until everything is answered or given up."""
        assert self._driver is not None
        self._stopped = True
        await self._driver
        if self._tasks:
            await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        self._pool.close()
        await asyncio.sleep(0.01)  # connections close in the next turns of the event loop

    async def abandon(self) -> None:
        """Stop at once: the test has failed."""
        tasks = [task for task in (self._driver, *self._tasks) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.close()

    async def ask(self, ask: Ask) -> Result:
        """Send one request beside the others, and wait for its answer."""
        result = Result(ask, due=time.monotonic())
        self.results.append(result)
        await self._finish(result)
        return result

    async def _drive(self) -> None:
        self.begun = time.monotonic()
        for number in itertools.count():
            due = self.begun + number / self._rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if self._stopped:
                self.ended = due
                return
            result = Result(next(self._asks), due)
            self.results.append(result)
            task = asyncio.create_task(self._finish(result))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _finish(self, result: Result) -> None:
        await self._pool.perform(result)
        self._notice(result)
        if result.ask.learn is not None:
            result.ask.learn(result)

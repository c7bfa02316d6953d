"""Clients that hold connections or send what costs much, in a process of their own beside the one that measures.

    python -m tests.chaos.attackers

reads one line of JSON (`Order`), opens the connections, prints `ready`, attacks until standard input ends or its time
is over, and prints a line of JSON (`Report`). It calls this machine only.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
DRIP_S = 1.0
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of attack: how many connections send these starts by turns, then a drip each second.

    Where `reads` is false, answers stay unread. A connection that ends is opened again after `again_s`.
    """

    count: int
    starts: list[str]
    drip: str = ""
    reads: bool = True
    again_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the connections of one kind."""

    opened: int = 0
    ended: int = 0
    lasted_s: list[float] = field(default_factory=list)  # of those that ended
    answers: dict[str, int] = field(default_factory=dict)  # by status


class Attack:
    """A running attack."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.most_files = 0  # of the attacked gateway
        self.reports: dict[str, Report] = {}

    def stop(self) -> None:
        """Leave all connections and read the reports."""
        if self.reports:
            return
        said, _ = self._process.communicate(timeout=30)
        assert self._process.returncode == 0
        self.reports = {name: Report(**report) for name, report in json.loads(said).items()}


@contextmanager
def attack(port: int, *, most_s: float = 60, **kinds: Kind) -> Iterator[Attack]:
    """Attack from another process, once all connections have been opened."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.attackers"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    order = {"port": port, "most_s": most_s, "kinds": {name: asdict(kind) for name, kind in kinds.items()}}
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    try:
        assert process.stdout.readline() == "ready\n"
        running = Attack(process)
        yield running
        running.stop()
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


class _Client(asyncio.Protocol):
    """One connection, for as long as it lasts."""

    def __init__(self, start: bytes, statuses: Counter[str]) -> None:
        self._start = start
        self._statuses = statuses
        self._received = b""
        self._transport: Any = None
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.write(self._start)

    def data_received(self, data: bytes) -> None:
        *lines, self._received = (self._received + data).rsplit(b"\r\n", 1)
        for line in b"".join(lines).split(b"\r\n"):
            if line.startswith(b"HTTP/1.1 "):
                self._statuses[line[9:12].decode()] += 1

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def leave(self) -> None:
        self._transport.abort()


class _Crowd:
    """All connections of one kind."""

    def __init__(self, port: int, kind: Kind) -> None:
        self._port, self._kind = port, kind
        self._starts = cycle([start.encode("latin-1") for start in kind.starts])
        self.opened = 0
        self.ended = 0
        self.lasted_s: list[float] = []
        self.statuses: Counter[str] = Counter()

    async def one(self, offset_s: float) -> None:
        """Keep one connection open, over and over."""
        while True:
            begun = time.monotonic()
            hold = self._drip if self._kind.reads else self._ignore
            try:
                await hold(next(self._starts), offset_s)
                self.lasted_s.append(round(time.monotonic() - begun, 2))
                self.ended += 1
            except OSError:  # refused, or reset while it was opened
                await asyncio.sleep(0.1)
            await asyncio.sleep(self._kind.again_s)

    async def _drip(self, start: bytes, offset_s: float) -> None:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: _Client(start, self.statuses), HOST, self._port)
        self.opened += 1
        try:
            if not self._kind.drip:
                await client.over
                return
            await asyncio.sleep(offset_s)
            while not client.over.done():
                client.write(self._kind.drip.encode())
                await asyncio.wait((client.over,), timeout=DRIP_S)
        finally:
            client.leave()

    async def _ignore(self, start: bytes, _: float) -> None:
        """Send without reading, until the connection is reset."""
        loop = asyncio.get_running_loop()
        with socket.socket() as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            link.setblocking(False)
            await loop.sock_connect(link, (HOST, self._port))
            self.opened += 1
            await loop.sock_sendall(link, start)
            while not link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):  # noqa: ASYNC110  a reset has no event
                await asyncio.sleep(0.5)


async def _run(order: dict[str, Any]) -> dict[str, Any]:
    crowds = {name: _Crowd(order["port"], Kind(**kind)) for name, kind in order["kinds"].items()}
    tasks = []
    for name, crowd in crowds.items():
        count = order["kinds"][name]["count"]
        for number in range(count):
            tasks.append(asyncio.create_task(crowd.one(DRIP_S * number / count)))
            if number % 100 == 99:  # no more at once than a backlog takes
                await asyncio.sleep(0.02)
    while any(crowd.opened < order["kinds"][name]["count"] for name, crowd in crowds.items()):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    loop.add_reader(0, lambda: over.done() or over.set_result(None))
    await asyncio.wait((over,), timeout=order["most_s"])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {name: asdict(Report(c.opened, c.ended, c.lasted_s, dict(c.statuses))) for name, c in crowds.items()}


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    order = json.loads(sys.stdin.buffer.raw.readline())  # type: ignore[attr-defined]  # unbuffered: what follows is an end
    print(json.dumps(asyncio.run(_run(order))), flush=True)


if __name__ == "__main__":
    main()

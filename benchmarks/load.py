"""A load of HTTP requests over kept connections, each sent as soon as the one before it is answered."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


@dataclass(slots=True)
class Load:
    """The answers of one load: latency in seconds of each, by arrival, and how many had which status."""

    latencies: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    def percentile(self, share: float) -> float:
        return sorted(self.latencies)[min(int(len(self.latencies) * share), len(self.latencies) - 1)]


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], load: Load, done: asyncio.Future[None]) -> None:
        self._requests, self._load, self._done = requests, load, done
        self._received = b""
        self._sent_at = 0.0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n") if separator else None
        if length is None or len(body) < int(length[1]):
            return
        status = int(head[9:12])
        self._load.latencies.append(time.perf_counter() - self._sent_at)
        self._load.statuses[status] = self._load.statuses.get(status, 0) + 1
        self._received = b""
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(error or ConnectionError("the server closed a connection"))

    def _send(self) -> None:
        assert self._transport is not None
        request = next(self._requests, None)
        self._sent_at = time.perf_counter()
        if request is None:
            self._done.set_result(None)
            self._transport.close()
        else:
            self._transport.write(request)


async def send_load(port: int, requests: list[bytes], *, seconds: float) -> Load:
    """Send each request over and over on a connection of its own, to this machine only, for so many seconds."""
    until = time.perf_counter() + seconds

    def again(request: bytes) -> Iterator[bytes]:
        while time.perf_counter() < until:
            yield request

    async with asyncio.timeout(seconds + 30):
        return await _send(port, [again(request) for request in requests])


async def send_each(port: int, requests: Iterator[bytes], *, connections: int) -> Load:
    """Send each request once, to this machine only, on the connection that is free first."""
    return await _send(port, [requests] * connections)


async def _send(port: int, requests: list[Iterator[bytes]]) -> Load:
    loop, load = asyncio.get_running_loop(), Load()
    done = [loop.create_future() for _ in requests]
    for one, future in zip(requests, done, strict=True):
        await loop.create_connection(lambda r=one, f=future: _Connection(r, load, f), "127.0.0.1", port)
    await asyncio.gather(*done)
    return load


def request_of(method: str, path: str, *, token: str = "", body: bytes = b"") -> bytes:
    """Return the bytes of one request; a method that changes something has a JSON body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body

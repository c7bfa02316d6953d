"""The HTTP protocol with clients that send a lot and read nothing, on a real uvicorn in this process.

CWE-400, CWE-770; CVE-2019-9511 to 9518 are the same attack over HTTP/2.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from gateway.http import connections, protocol
from gateway.http.dispatch import STOPS
from gateway.http.protocol import MOST_WAITING, BoundedProtocol
from gateway.server import MOST_UNSENT_BYTES, keep_little
from tests.servers import HOST

LARGE = b"x" * 12_000_000  # more than the kernel buffers for a client that does not read
SMALL_GET = b"GET /small HTTP/1.1\r\nHost: gateway\r\n\r\n"
LARGE_GET = b"GET /large HTTP/1.1\r\nHost: gateway\r\n\r\n"


class Running:
    """A server and its requests. Requests to /held wait until `open` is set."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.ended = 0
        self.open = asyncio.Event()
        self.port = 0
        self.server: uvicorn.Server | None = None
        self.clients: list[asyncio.StreamWriter] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        if scope["path"] == "/held":
            await self.open.wait()
        if scope["path"] == "/endless":
            stop = asyncio.get_running_loop().create_future()
            scope[STOPS].append(stop)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            await stop
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        body = LARGE if scope["path"] == "/large" else b"ok"
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self.ended += 1

    def connections(self) -> int:
        assert self.server
        return len(self.server.server_state.connections)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    app = Running()
    config = uvicorn.Config(app, http=BoundedProtocol, lifespan="off", log_config=None, timeout_graceful_shutdown=3)
    app.server = uvicorn.Server(config)
    listening = socket.create_server((HOST, 0))
    keep_little(listening)
    app.port = listening.getsockname()[1]
    serving = asyncio.create_task(app.server.serve(sockets=[listening]))
    await until(lambda: app.server is not None and app.server.started)
    yield app
    for writer in app.clients:
        await leave(writer)
    app.open.set()
    app.server.should_exit = True
    await serving
    listening.close()


async def until(condition: Any, within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  what is waited for is state of uvicorn's
            await asyncio.sleep(0.01)


async def connect(running: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect as a client with a small receive buffer, so that unread data stays at the server."""
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    link.setblocking(False)
    await asyncio.get_running_loop().sock_connect(link, (HOST, running.port))
    reader, writer = await asyncio.open_connection(sock=link, limit=2048)
    running.clients.append(writer)
    return reader, writer


async def _read_all(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


async def leave(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_the_maximum_of_waiting_requests_is_answered_on_one_connection(running: Running) -> None:
    reader, writer = await connect(running)
    writer.write(SMALL_GET * (MOST_WAITING + 1))
    raw = b""
    while raw.count(b"200 OK") < MOST_WAITING + 1:
        raw += await asyncio.wait_for(reader.read(2048), 5)
    writer.write(SMALL_GET)  # the connection continues
    assert b"200 OK" in await asyncio.wait_for(reader.read(2048), 5)


async def test_further_requests_are_not_read_and_earlier_ones_are_answered(running: Running) -> None:
    reader, writer = await connect(running)
    writer.write(b"GET /held HTTP/1.1\r\nHost: gateway\r\n\r\n" + SMALL_GET * 5000)
    await until(lambda: running.asked == ["/held"])
    await asyncio.sleep(0.1)
    running.open.set()
    raw = await asyncio.wait_for(reader.read(-1), 5)  # until the server closes
    assert raw.count(b"HTTP/1.1 ") == raw.count(b"200 OK") == MOST_WAITING + 1
    assert b"connection: close" in raw.rpartition(b"HTTP/1.1 200")[2]
    assert running.asked == ["/held"] + ["/small"] * MOST_WAITING


@pytest.mark.parametrize("request_head", [LARGE_GET, LARGE_GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")])
async def test_unread_answer_is_not_kept(
    running: Running, monkeypatch: pytest.MonkeyPatch, request_head: bytes
) -> None:
    monkeypatch.setattr(protocol, "UNREAD_TIMEOUT_S", 0.5)
    _, writer = await connect(running)
    writer.write(request_head * 2)
    await until(lambda: running.asked)
    await until(lambda: running.connections() == 0)
    await until(lambda: running.ended == len(running.asked))  # no task waits forever


async def test_an_answer_that_is_not_read_takes_little_memory_of_process_and_kernel_and_none_after_its_time(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel would hold 3 MB, and keep them for minutes after the connection is closed."""
    monkeypatch.setattr(protocol, "UNREAD_TIMEOUT_S", 1)
    reader, writer = await connect(running)
    writer.write(LARGE_GET)
    await until(lambda: running.asked)
    await asyncio.sleep(0.3)
    assert running.server
    [one] = running.server.server_state.connections
    assert 0 < one._unread() < MOST_UNSENT_BYTES + 256 * 1024
    await until(lambda: running.connections() == 0)
    with pytest.raises(ConnectionResetError):  # a close alone would let the client read what the kernel has
        await asyncio.wait_for(_read_all(reader), 5)


async def test_a_new_connection_is_served_when_there_are_too_many(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "most_connections", lambda: 5)
    held = [await connect(running) for _ in range(2)]
    for _, writer in held:
        writer.write(b"GET /held HTTP/1.1\r\nHost: gateway\r\n\r\n")
    await until(lambda: running.asked == ["/held"] * 2)
    slow = [await connect(running) for _ in range(3)]
    body = b"POST /held HTTP/1.1\r\nHost: gateway\r\nContent-Length: 9\r\n\r\n1"
    for (_, writer), start in zip(slow, (b"GET /small HTT", body, SMALL_GET), strict=True):
        writer.write(start)
        await asyncio.sleep(0.05)
    assert running.asked == ["/held"] * 3 + ["/small"]
    assert b"200 OK" in await asyncio.wait_for(slow[2][0].readuntil(b"\r\n\r\nok"), 5)
    for reader, _ in slow:
        assert b"200 OK" in await first_line(running, SMALL_GET.decode())
        # Sooner than any timeout would.
        assert await asyncio.wait_for(reader.read(-1), 2) == b"", "what waits longest for its client is closed"
        await connect(running)
    running.open.set()
    for reader, _ in held:
        assert b"200 OK" in await asyncio.wait_for(reader.readline(), 5)


async def test_slowly_read_answer_is_sent_in_full(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "UNREAD_TIMEOUT_S", 1.2)
    reader, writer = await connect(running)
    writer.write(LARGE_GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    size, begun = 0, time.monotonic()
    while part := await asyncio.wait_for(reader.read(300_000), 5):
        size += len(part)
        await asyncio.sleep(4 * len(part) / len(LARGE))
    assert size > len(LARGE)
    assert time.monotonic() - begun > 3 * protocol.UNREAD_TIMEOUT_S


async def test_an_answer_that_is_read_steadily_is_not_cut_off_although_the_kernel_buffers_megabytes(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes no more of an answer until a third of what it buffers is read: 1 MB and more."""
    monkeypatch.setattr(protocol, "UNREAD_TIMEOUT_S", 0.4)
    reader, writer = await connect(running)
    writer.write(LARGE_GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    size, slow_until = 0, time.monotonic() + 4 * protocol.UNREAD_TIMEOUT_S
    while part := await asyncio.wait_for(reader.read(2048), 5):
        size += len(part)
        if time.monotonic() < slow_until:
            await asyncio.sleep(0.01)
    assert size > len(LARGE)


async def test_waiting_requests_of_a_client_that_disconnects_are_dropped(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await connect(running)
    writer.write(b"GET /held HTTP/1.1\r\nHost: gateway\r\n\r\n" + SMALL_GET * 10)
    await until(lambda: running.asked == ["/held"])
    await leave(writer)
    running.open.set()
    await until(lambda: running.connections() == 0)
    await until(lambda: running.ended == len(running.asked))
    assert len(running.asked) < 11
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_stop_ends_answers_that_have_no_end(running: Running) -> None:
    reader, writer = await connect(running)
    writer.write(b"GET /endless HTTP/1.1\r\nHost: gateway\r\n\r\n")
    await asyncio.wait_for(reader.readuntil(b"begun\r\n"), 5)
    assert running.server
    running.server.should_exit = True
    begun = time.monotonic()
    assert await asyncio.wait_for(reader.read(-1), 5) == b"0\r\n\r\n"
    assert time.monotonic() - begun < protocol.DRAIN_S + 0.8  # not the three seconds that the server would wait


HOSTS = [
    "",
    "gateway",
    "gateway:8000",
    "127.0.0.1:1",
    "[::1]:65535",
    "a.b-c_d:",
    "gateway ",
    "gateway:1\t",
    "xn--bcher-kva",
]
NO_HOSTS = ["x:99999999", "x:65536", "x:-1", "x:y", "a b", "user@gateway", "a/b", "[::1", "a,b:1:2"]


@pytest.mark.parametrize("host", HOSTS)
async def test_valid_host_is_accepted(running: Running, host: str) -> None:
    assert b"200 OK" in await first_line(running, f"GET /small HTTP/1.1\r\nHost: {host}\r\n\r\n")


async def first_line(running: Running, head: str) -> bytes:
    reader, writer = await connect(running)
    writer.write(head.encode())
    line = await asyncio.wait_for(reader.readline(), 5)
    await leave(writer)
    return line


@pytest.mark.parametrize("host", NO_HOSTS)
async def test_malformed_host_is_refused_before_the_url_is_used(
    monkeypatch: pytest.MonkeyPatch, running: Running, host: str
) -> None:
    seen: list[str] = []

    def refuse(self: Any) -> None:
        seen.append(self._problem.detail)
        self.transport.close()

    monkeypatch.setattr(BoundedProtocol, "_refuse", refuse)
    assert await first_line(running, f"GET /small HTTP/1.1\r\nHost: {host}\r\n\r\n") == b""
    assert seen == ["The Host header is malformed."]
    assert running.asked == []

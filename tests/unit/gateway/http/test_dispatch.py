"""Files that are sent while they are made, and events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from litestar import Litestar, get

from gateway.http.context import Context
from gateway.http.dispatch import STOPS, Dispatch, Download, EventStream
from gateway.overview.live import TooManyStreams
from gateway.redis.store import StoreError


class Client:
    """Receives a response; `leave` closes the connection, which the gateway learns from `receive` alone."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.leave = asyncio.Event()

    async def send(self, message: Any) -> None:
        self.messages.append(message)

    async def receive(self) -> Any:
        await self.leave.wait()
        return {"type": "http.disconnect"}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.messages[1:])

    async def ask(self, result: AsyncGenerator[bytes] | EventStream, **scope_keys: Any) -> None:
        @get("/file", opt={"access": None})
        async def file() -> Any:
            return result if isinstance(result, EventStream) else Download("usage.csv", "text/csv", result)

        app = Litestar([file], openapi_config=None, logging_config=None)
        handler = next(iter(app.routes[0].route_handlers))  # type: ignore[union-attr]  # not of a static route
        scope: Any = {"type": "http", "path": "/file", "route_handler": handler, "headers": [], **scope_keys}
        await Dispatch(None)(scope, {}, self.receive, self.send)


async def test_each_chunk_leaves_when_it_is_made_and_the_last_message_ends_the_file() -> None:
    client = Client()

    async def chunks() -> AsyncGenerator[bytes]:
        yield b"a,b\r\n"
        assert client.body == b"a,b\r\n"
        yield b"1,2\r\n"

    await client.ask(chunks())
    start, *parts = client.messages
    assert dict(start["headers"]) == {
        b"content-type": b"text/csv",
        b"content-disposition": b'attachment; filename="usage.csv"',
    }
    assert [part["more_body"] for part in parts] == [True, True, False]
    assert client.body == b"a,b\r\n1,2\r\n"


async def test_an_error_before_the_first_chunk_is_answered_with_its_problem() -> None:
    client = Client()

    async def chunks() -> AsyncGenerator[bytes]:
        raise StoreError("Redis is down")
        yield b""

    await client.ask(chunks())
    assert client.messages[0]["status"] == 503


async def test_a_later_error_leaves_the_file_without_its_end() -> None:
    client = Client()

    async def chunks() -> AsyncGenerator[bytes]:
        yield b"a,b\r\n"
        raise StoreError("Redis is down")

    with pytest.raises(StoreError):
        await client.ask(chunks())
    assert [message.get("more_body") for message in client.messages] == [None, True]


async def test_nothing_more_is_read_for_a_client_that_has_gone() -> None:
    client = Client()
    made, closed = [], False

    async def chunks() -> AsyncGenerator[bytes]:
        nonlocal closed
        try:
            for number in range(1000):
                made.append(number)
                if number == 3:
                    client.leave.set()
                await asyncio.sleep(0)
                yield b"%d\r\n" % number
        finally:
            closed = True

    await client.ask(chunks())
    assert len(made) < 10
    assert closed
    assert client.messages[-1]["more_body"] is True


# --- events ---


async def endless(log: list[str]) -> AsyncGenerator[bytes]:
    try:
        yield b"first"
        await asyncio.Event().wait()
    finally:
        log.append("closed")


async def test_events_leave_at_once_and_end_with_their_generator() -> None:
    client = Client()

    async def chunks() -> AsyncGenerator[bytes]:
        yield b"first"
        await asyncio.sleep(0)
        assert client.body == b"first"
        yield b"second"

    await client.ask(EventStream(chunks()))
    start, *parts = client.messages
    assert start["status"] == 200
    assert dict(start["headers"])[b"content-type"] == b"text/event-stream"
    assert [part["body"] for part in parts] == [b"first", b"second", b""]
    assert [part["more_body"] for part in parts] == [True, True, False]


async def test_a_client_that_goes_ends_a_silent_stream() -> None:
    client, log = Client(), list[str]()
    asyncio.get_running_loop().call_later(0.01, client.leave.set)
    async with asyncio.timeout(10):
        await client.ask(EventStream(endless(log)))
    assert log == ["closed"]


async def test_a_server_that_stops_ends_a_silent_stream_with_its_last_message() -> None:
    client, log, stops = Client(), list[str](), list[asyncio.Future[None]]()
    asyncio.get_running_loop().call_later(0.01, lambda: stops[0].set_result(None))
    async with asyncio.timeout(10):
        await client.ask(EventStream(endless(log)), **{STOPS: stops})
    assert client.messages[-1]["more_body"] is False
    assert (log, stops) == (["closed"], [])


async def test_head_gets_the_head_alone() -> None:
    client, log = Client(), list[str]()
    async with asyncio.timeout(10):
        await client.ask(EventStream(endless(log)), **{"gateway.context": Context(is_head=True)})
    assert [message["type"] for message in client.messages] == ["http.response.start", "http.response.body"]
    assert (client.body, log) == (b"", ["closed"])


async def test_an_error_within_a_stream_leaves_it_without_its_end() -> None:
    client = Client()

    async def chunks() -> AsyncGenerator[bytes]:
        yield b"first"
        raise StoreError("Redis is down")

    with pytest.raises(StoreError):
        await client.ask(EventStream(chunks()))
    assert client.messages[-1]["more_body"] is True


async def test_a_stream_that_is_refused_is_answered_with_its_problem() -> None:
    client = Client()

    async def chunks() -> AsyncGenerator[bytes]:
        raise TooManyStreams
        yield b""

    await client.ask(EventStream(chunks()))
    assert client.messages[0]["status"] == 503
    assert (b"retry-after", b"30") in client.messages[0]["headers"]

"""Files that are sent while they are made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from litestar import Litestar, get

from gateway.http.dispatch import Dispatch, Download
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

    async def ask(self, chunks: AsyncGenerator[bytes]) -> None:
        @get("/file", opt={"access": None})
        async def file() -> Any:
            return Download("usage.csv", "text/csv", chunks)

        app = Litestar([file], openapi_config=None)
        handler = next(iter(app.routes[0].route_handlers))  # type: ignore[union-attr]  # not of a static route
        scope: Any = {"type": "http", "path": "/file", "route_handler": handler, "headers": []}
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

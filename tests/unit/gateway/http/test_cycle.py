"""The framing and writing of responses (RFC 9112 section 6)."""

from __future__ import annotations

import asyncio
import logging

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from gateway.http.cycle import OneWriteCycle

PLAIN = (b"content-type", b"text/plain")


class Transport:
    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert data
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


class Exchange:
    """A cycle on a recording transport, with the number of complete responses."""

    def __init__(self, method: str = "GET", *, keep_alive: bool = True) -> None:
        self.transport = Transport()
        self.completed = 0
        self.flow = FlowControl(self.transport)  # type: ignore[arg-type]
        self.cycle = OneWriteCycle(
            scope={"type": "http", "method": method},  # type: ignore[typeddict-item]
            transport=self.transport,  # type: ignore[arg-type]
            flow=self.flow,
            logger=logging.getLogger("test"),
            access_logger=logging.getLogger("test"),
            access_log=False,
            default_headers=[(b"date", b"today")],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=self.complete,
        )

    def complete(self) -> None:
        self.completed += 1

    async def start(self, status: int, *fields: tuple[bytes, bytes]) -> None:
        await self.cycle.send({"type": "http.response.start", "status": status, "headers": [*fields]})

    async def body(self, body: bytes, *, more: bool = False) -> None:
        await self.cycle.send({"type": "http.response.body", "body": body, "more_body": more})


async def test_head_and_body_leave_in_one_write() -> None:
    got = Exchange()
    await got.start(200, PLAIN, (b"Content-Length", b"2"))
    assert got.transport.writes == []
    await got.body(b"hi")
    assert got.transport.writes == [
        b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nhi"
    ]
    assert (got.completed, got.transport.closed) == (1, False)


async def test_body_of_unknown_length_is_chunked_and_each_part_is_sent_at_once() -> None:
    got = Exchange()
    await got.start(200, PLAIN)
    await got.body(b"", more=True)
    await got.body(b"hello world, again", more=True)
    await got.body(b"!")
    head, *parts = got.transport.writes
    assert head.endswith(b"transfer-encoding: chunked\r\n\r\n")
    assert parts == [b"12\r\nhello world, again\r\n", b"1\r\n!\r\n0\r\n\r\n"]
    assert got.completed == 1


@pytest.mark.parametrize("status", [204, 304])
async def test_response_without_a_body_has_no_framing(status: int) -> None:
    got = Exchange()
    await got.start(status)
    await got.body(b"")
    [written] = got.transport.writes
    assert written.endswith(b"\r\ndate: today\r\n\r\n")
    assert got.completed == 1


@pytest.mark.parametrize("fields", [(), ((b"content-length", b"5"),)], ids=["chunked", "length"])
async def test_head_request_gets_only_the_head(fields: tuple[tuple[bytes, bytes], ...]) -> None:
    got = Exchange("HEAD")
    await got.start(200, *fields)
    await got.body(b"hello")
    [written] = got.transport.writes
    assert written.endswith(b"\r\n\r\n")
    assert (b"content-length: 5" in written) == bool(fields)
    assert b"transfer-encoding" not in written
    assert got.completed == 1


async def test_connection_that_is_not_kept_announces_it_and_closes() -> None:
    got = Exchange(keep_alive=False)
    await got.start(204)
    await got.body(b"")
    assert got.transport.writes[0].endswith(b"connection: close\r\n\r\n")
    assert got.transport.closed


async def test_app_may_close_the_connection() -> None:
    got = Exchange()
    await got.start(204, (b"Connection", b"foo, Close"))
    await got.body(b"")
    assert got.transport.writes[0].count(b"onnection") == 1
    assert got.transport.closed


@pytest.mark.parametrize("body", [b"abcd", b"ab"])
async def test_body_of_another_length_than_stated_is_not_written(body: bytes) -> None:
    got = Exchange()
    await got.start(200, (b"content-length", b"3"))
    with pytest.raises(RuntimeError, match="Content-Length"):
        await got.body(body)
    assert (got.transport.writes, got.completed) == ([], 0)


@pytest.mark.parametrize("field", [(b"x-a", b"1\r\nset-cookie: b=c"), (b"x a", b"1"), (b"x-a", b"\x00")])
async def test_field_that_would_split_the_response_is_refused(field: tuple[bytes, bytes]) -> None:
    got = Exchange()
    with pytest.raises(RuntimeError, match="header field"):
        await got.start(200, field)
    assert got.transport.writes == []


async def test_messages_out_of_order_are_refused() -> None:
    got = Exchange()
    with pytest.raises(RuntimeError, match="unexpected"):
        await got.body(b"early")
    await got.start(204)
    with pytest.raises(RuntimeError, match="unexpected"):
        await got.start(204)
    await got.body(b"")
    with pytest.raises(RuntimeError, match="unexpected"):
        await got.body(b"late")
    assert got.completed == 1


async def test_nothing_is_written_once_the_client_has_left() -> None:
    got = Exchange()
    await got.start(200, (b"content-length", b"2"))
    got.cycle.disconnected = True
    await got.body(b"hi")
    assert (got.transport.writes, got.completed) == ([], 0)


async def test_writing_waits_until_the_client_has_read() -> None:
    got = Exchange()
    await got.start(200, (b"content-length", b"2"))
    got.flow.pause_writing()
    writing = asyncio.create_task(got.body(b"hi"))
    await asyncio.sleep(0)
    assert got.transport.writes == []
    got.flow.resume_writing()
    await writing
    assert len(got.transport.writes) == 1


async def test_large_body_leaves_in_parts_as_the_client_reads() -> None:
    got, content = Exchange(), bytes(range(256)) * 600
    got.flow.pause_writing()
    got.transport.write = lambda part: (got.transport.writes.append(part), got.flow.pause_writing())  # type: ignore[assignment, method-assign]  # full after each
    sending = asyncio.create_task(send_all(got, content))
    got.flow.resume_writing()
    for written in range(1, 5):
        await asyncio.sleep(0.001)
        assert len(got.transport.writes) == written, "the rest waits for the client, and is not copied"
        assert got.completed == 0
        got.flow.resume_writing()
    await sending
    assert got.completed == 1
    head, _, body = b"".join(got.transport.writes).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert body == content


async def test_no_more_is_written_of_a_large_body_when_its_client_has_gone() -> None:
    got = Exchange()
    got.transport.write = lambda part: (got.transport.writes.append(part), got.flow.pause_writing())  # type: ignore[assignment, method-assign]  # full after each
    sending = asyncio.create_task(send_all(got, b"x" * 200_000))
    await asyncio.sleep(0.001)
    got.cycle.disconnected = True
    got.flow.resume_writing()
    await sending
    assert (len(got.transport.writes), got.completed) == (1, 0)


async def send_all(got: Exchange, content: bytes) -> None:
    await got.start(200, PLAIN, (b"content-length", str(len(content)).encode()))
    await got.body(content)

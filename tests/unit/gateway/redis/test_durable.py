"""Durable writes against a scripted server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest
from redis.exceptions import ResponseError

from gateway.redis import durable
from gateway.redis.durable import DurableWrites, NotDurable
from gateway.redis.store import StoreError, connect
from tests.servers import HOST, free_port

CONFIRMED, NOT_CONFIRMED = b"*2\r\n:1\r\n:0\r\n", b"*2\r\n:0\r\n:0\r\n"
HELLO = b"%1\r\n$5\r\nproto\r\n:3\r\n"


class FakeRedis:
    """Answers every command with +OK, and WAITAOF as configured; records what each connection received."""

    def __init__(self) -> None:
        self.port = free_port()
        self.waitaof = CONFIRMED
        self.answer: Callable[[list[str]], bytes] = lambda words: b"+OK\r\n"
        self.batches: list[list[list[str]]] = []
        self.delay_s = 0.0
        self.dies_after: int | None = None
        self._server: asyncio.Server | None = None
        self._serving: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def connections(self) -> int:
        return sum(not task.done() for task in self._serving)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port)

    async def stop(self) -> None:
        if self._server:
            self._server.close()
            await self._server.wait_closed()
        for writer in self._writers:
            writer.transport.abort()  # not by cancelling: asyncio reports a cancelled connection as an error
        await asyncio.wait_for(asyncio.gather(*self._serving, return_exceptions=True), 5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.append(task)
        self._writers.append(writer)
        try:
            await self._talk(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        batch: list[list[str]] = []
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readline():
                words = [await self._word(reader) for _ in range(int(head[1:]))]
                if words[0] in ("HELLO", "CLIENT", "SELECT", "AUTH"):
                    writer.write(HELLO if words[0] == "HELLO" else b"+OK\r\n")
                    continue
                if not batch:
                    self.batches.append(batch)
                batch.append(words)
                if self.dies_after is not None and len(batch) > self.dies_after:
                    break
                if words[0] == "WAITAOF":
                    await asyncio.sleep(self.delay_s)
                    writer.write(self.waitaof)
                else:
                    writer.write(self.answer(words))
                await writer.drain()

    async def _word(self, reader: asyncio.StreamReader) -> str:
        size = int((await reader.readline())[1:])
        return (await reader.readexactly(size + 2))[:-2].decode()

    def sent(self) -> list[list[str]]:
        """Return the first words of each batch's commands."""
        return [[" ".join(words[:2]) for words in batch] for batch in self.batches]


@pytest.fixture
async def server() -> AsyncIterator[FakeRedis]:
    made = FakeRedis()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def writes(server: FakeRedis) -> DurableWrites:
    return DurableWrites(connect(f"redis://{HOST}:{server.port}/0"))


async def test_calls_issued_together_form_one_ordered_batch_with_one_wait(
    writes: DurableWrites, server: FakeRedis
) -> None:
    await asyncio.gather(*(writes.execute("SET", n) for n in range(20)))
    assert server.sent() == [[f"SET {n}" for n in range(20)] + ["WAITAOF 1"]]
    assert server.batches[0][-1] == ["WAITAOF", "1", "0", "2000"]


async def test_calls_during_a_batch_form_the_next_one(writes: DurableWrites, server: FakeRedis) -> None:
    server.delay_s = 0.1
    first = asyncio.create_task(writes.execute("SET", "first"))
    await asyncio.sleep(0.05)
    later = [asyncio.create_task(writes.execute("SET", n)) for n in range(30)]
    await asyncio.gather(first, *later)
    assert server.sent() == [["SET first", "WAITAOF 1"], [*(f"SET {n}" for n in range(30)), "WAITAOF 1"]]


async def test_no_call_returns_before_the_disk_has_confirmed(writes: DurableWrites, server: FakeRedis) -> None:
    server.delay_s = 0.2
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert await writes.execute("SET", "a") == b"OK"
    assert loop.time() - begun >= 0.2


async def test_a_write_that_the_disk_did_not_confirm_is_not_durable(
    writes: DurableWrites, server: FakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    server.waitaof = NOT_CONFIRMED
    with pytest.raises(NotDurable):
        await writes.execute("SET", "a")
    assert "did not confirm" in caplog.text
    server.waitaof = CONFIRMED
    assert await writes.execute("SET", "a") == b"OK"


@pytest.mark.parametrize(
    "reply",
    [
        b"-ERR unknown command 'WAITAOF', with args beginning with: '1' '0' '2000' \r\n",
        b"-ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.\r\n",
        b"-NOPERM User gateway has no permissions to run the 'waitaof' command\r\n",
    ],
)
async def test_a_server_that_cannot_confirm_is_accepted_with_one_warning(
    writes: DurableWrites, server: FakeRedis, reply: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis 7.0, a server without an append-only file, and one whose ACL forbids the command."""
    server.waitaof = reply
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        assert await writes.execute("SET", "a") == b"OK"
    assert not await writes.check()
    assert caplog.text.count("accounts may not survive a crash") == 1


async def test_a_server_that_refuses_to_wait_for_another_reason_is_an_error(
    writes: DurableWrites, server: FakeRedis
) -> None:
    server.waitaof = b"-ERR WAITAOF cannot be used with replica instances.\r\n"
    with pytest.raises(StoreError) as caught:
        await writes.execute("SET", "a")
    assert "replica instances" not in str(caught.value)
    with pytest.raises(StoreError):
        await writes.check()


async def test_a_refused_command_fails_only_its_own_caller(writes: DurableWrites, server: FakeRedis) -> None:
    server.answer = lambda words: b"-OOM command not allowed\r\n" if words[1] == "bad" else b"+OK\r\n"
    outcomes = await asyncio.gather(*(writes.execute("SET", n) for n in ("a", "bad", "b")), return_exceptions=True)
    assert outcomes[0] == outcomes[2] == b"OK"
    assert isinstance(outcomes[1], ResponseError)


async def test_a_word_that_cannot_be_encoded_fails_only_its_own_caller(
    writes: DurableWrites, server: FakeRedis
) -> None:
    words = ("a", object(), "\ud800", "b")
    outcomes = await asyncio.gather(*(writes.execute("SET", word) for word in words), return_exceptions=True)
    assert outcomes[0] == outcomes[3] == b"OK"
    assert all(isinstance(outcome, ValueError | TypeError) for outcome in outcomes[1:3])
    assert server.sent() == [["SET a", "SET b", "WAITAOF 1"]]


async def test_a_cancelled_caller_does_not_affect_the_replies_of_others(
    writes: DurableWrites, server: FakeRedis
) -> None:
    server.answer = lambda words: f"+{words[1]}\r\n".encode()
    server.delay_s = 0.05
    tasks = [asyncio.create_task(writes.execute("SET", n)) for n in range(10)]
    await asyncio.sleep(0.02)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes[1::2] == [str(n).encode() for n in range(1, 10, 2)]
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
    assert await writes.execute("SET", "next") == b"next"


async def test_a_broken_connection_fails_only_its_own_batch(writes: DurableWrites, server: FakeRedis) -> None:
    server.dies_after = 2
    outcomes = await asyncio.gather(*(writes.execute("SET", n) for n in range(4)), return_exceptions=True)
    assert all(isinstance(outcome, StoreError) for outcome in outcomes)
    assert not any(isinstance(outcome, NotDurable) for outcome in outcomes)
    server.dies_after = None
    assert await writes.execute("SET", "a") == b"OK"


async def test_the_error_about_an_unreachable_server_omits_its_address() -> None:
    port = free_port()
    writes = DurableWrites(connect(f"redis://:hidden-password@{HOST}:{port}/0"))
    with pytest.raises(StoreError) as caught:
        await writes.execute("SET", "a")
    for text in ("hidden-password", str(port), HOST):
        assert text not in str(caught.value)


async def test_a_silent_server_times_out(
    writes: DurableWrites, server: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "_DEADLINE_S", 0.2)
    server.delay_s = 1
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with pytest.raises(StoreError):
        await writes.execute("SET", "a")
    assert 0.2 <= loop.time() - begun < 0.9


async def test_the_check_sends_only_the_wait(writes: DurableWrites, server: FakeRedis) -> None:
    assert await writes.check()
    assert server.sent() == [["WAITAOF 1"]]

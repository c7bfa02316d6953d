"""Durable writes on a real server, which syncs or reports why it cannot."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from gateway.redis.durable import DurableWrites, NotDurable
from gateway.redis.store import connect
from tests.servers import HOST, Valkey

WAITAOF = "cmdstat_waitaof"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    """A separate server, because a server that is writing its first append-only file ignores requests to stop."""
    with Valkey(tmp_path) as own:
        yield own
        own.kill()


@pytest.fixture
def writes(server: Valkey) -> DurableWrites:
    return DurableWrites(connect(server.url))


def waits(server: Valkey) -> int:
    with server.client() as client:
        return int(client.info("commandstats").get(WAITAOF, {}).get("calls", 0))


async def test_many_writes_share_few_syncs_and_keep_their_order(writes: DurableWrites, server: Valkey) -> None:
    before = waits(server)
    replies = await asyncio.gather(*(writes.execute("RPUSH", "line", n) for n in range(500)))
    assert replies == list(range(1, 501))
    assert 1 <= waits(server) - before <= 3
    with server.client() as client:
        assert client.lrange("line", 0, -1) == [str(n).encode() for n in range(500)]


async def test_a_confirmed_write_is_in_the_file(writes: DurableWrites, server: Valkey) -> None:
    await writes.execute("SET", "confirmed", "a-value-to-look-for")
    folder = server.folder / "appendonlydir"
    assert any(b"a-value-to-look-for" in path.read_bytes() for path in folder.iterdir())


async def test_a_sync_left_to_the_kernel_is_not_a_confirmation(writes: DurableWrites, server: Valkey) -> None:
    """With `appendfsync no` the server never knows that a write is on disk."""
    with server.client() as client:
        client.config_set("appendfsync", "no")
    with pytest.raises(NotDurable):
        await writes.execute("SET", "a", 1)
    with server.client() as client:
        assert client.get("a") == b"1"  # in force nevertheless: the caller has to undo it


async def test_without_an_append_only_file_a_reply_is_enough(
    writes: DurableWrites, server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with server.client() as client:
        client.config_set("appendonly", "no")
    assert await writes.execute("SET", "a", 1) == b"OK"
    assert not await writes.check()
    assert caplog.text.count("append-only file") == 1


async def test_an_acl_without_waitaof_is_distinguished_from_a_failure(
    server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with server.client() as client:
        client.acl_setuser("narrow", enabled=True, passwords=["+pw"], keys="*", commands=["+@all", "-waitaof", "-get"])
    writes = DurableWrites(connect(f"redis://narrow:pw@{HOST}:{server.port}/0"))
    assert await writes.execute("SET", "a", 1) == b"OK"
    with pytest.raises(ResponseError):
        await writes.execute("GET", "a")
    assert caplog.text.count("cannot confirm writes") == 1
    with server.client() as client:
        client.acl_deluser("narrow")


async def test_permission_for_waitaof_is_checked_at_the_start(writes: DurableWrites) -> None:
    assert await writes.check()

"""Writes of accounts, which a crash must not lose: acknowledged only once they are on disk.

`WAITAOF` (Redis 7.2) waits until the append-only file is synced, but only for the writes of its own connection. So
these writes use a separate connection, opened for each batch: after a reconnect `WAITAOF` would confirm nothing. Writes
that arrive while a batch is being written form the next batch: many writes share one sync.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from gateway.redis.refusals import reply_text
from gateway.redis.server import Source
from gateway.redis.store import OnSend, StoreError

log = logging.getLogger("gateway.store")

SYNC_S = 2.0  # everysec syncs once a second; Redis gives up waiting after this
_DEADLINE_S = SYNC_S + 0.5
_WAITAOF: tuple[Any, ...] = ("WAITAOF", 1, 0, int(SYNC_S * 1000))
_CANNOT = ("unknown command", "appendonly is disabled")  # Redis before 7.2; a server without an append-only file


class NotDurable(StoreError):
    """The write is in force but was not confirmed to be on disk in time: a crash may undo it."""


@dataclass(slots=True, eq=False)
class _Write:
    packed: bytes
    future: asyncio.Future[Any]


class DurableWrites:
    """Sends writes that must survive a crash."""

    def __init__(self, source: Source, *, on_send: OnSend = None) -> None:
        self._on_send = on_send
        self._source = source
        self._waiting: list[_Write] = []
        self._sender: asyncio.Task[None] | None = None
        self._warned = False

    @property
    def is_busy(self) -> bool:
        """Tell whether writes are under way."""
        return self._sender is not None and not self._sender.done()

    async def execute(self, *words: Any) -> Any:
        """Send one command; return its reply once the server has it on disk.

        Calls issued together are sent in order. If the server cannot confirm writes, its reply is enough; this is
        logged once. Raises NotDurable if the disk did not confirm in time, StoreError if the write may have taken
        effect, and redis.exceptions.ResponseError if Redis refused it.
        """
        write = self._write(words)
        if self._on_send is not None:
            self._on_send(write.future)
        return await write.future

    async def execute_asking(self, *words: Any) -> Any:
        """Send one command to a node that is taking its slot over, directly after ASKING."""
        asking = self._write(("ASKING",)).future
        asking.add_done_callback(lambda done: done.cancelled() or done.exception())  # no caller asks for it
        return await self.execute(*words)

    def _write(self, words: tuple[Any, ...]) -> _Write:
        loop = asyncio.get_running_loop()
        write = _Write(pack_command(words), loop.create_future())  # an error here does not affect the batch
        self._waiting.append(write)
        if self._sender is None or self._sender.done():
            self._sender = loop.create_task(self._send_all())
        return write

    async def check(self) -> bool:
        """Return whether the server can confirm writes; log a warning if it cannot. Raises: StoreError"""
        _, synced = await self._exchange([])
        return self._is_confirmable(synced)

    async def _send_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                replies, synced = await self._exchange([write.packed for write in batch])
                confirmed = not self._is_confirmable(synced) or int(synced[0]) >= 1
            except Exception as error:  # noqa: BLE001  every caller of the batch gets it
                _fail(batch, error if isinstance(error, StoreError) else StoreError(f"a write failed: {error!r}"))
                continue
            for write, reply in zip(batch, replies, strict=True):
                if write.future.done():
                    continue
                if isinstance(reply, Exception):
                    write.future.set_exception(reply)
                elif confirmed:
                    write.future.set_result(reply)
                else:
                    write.future.set_exception(NotDurable("Redis did not confirm a write to disk in time"))
            if not confirmed:
                log.error("Redis did not confirm a write to disk within %.0f s", SYNC_S)

    async def _exchange(self, commands: list[bytes]) -> tuple[list[Any], Any]:
        """Send commands and one WAITAOF in a single write over a fresh connection; return all replies."""
        packed = [*commands, pack_command(_WAITAOF)]
        try:
            async with asyncio.timeout(_DEADLINE_S):
                connection = await self._source.open()
                try:
                    await connection.send_packed_command(packed)
                    replies = [await _reply(connection) for _ in packed]
                finally:
                    await connection.disconnect(nowait=True)
        except (TimeoutError, RedisError, OSError) as error:
            # Without an address and without the URL: it may hold the password.
            raise StoreError(f"a durable write failed: {reply_text(error)}") from None
        return replies[:-1], replies[-1]

    def _is_confirmable(self, synced: Any) -> bool:
        if not isinstance(synced, ResponseError):
            return True
        forbidden = isinstance(synced, NoPermissionError)  # by an ACL; redis-py removes NOPERM from the text
        if not forbidden and not any(words in str(synced) for words in _CANNOT):
            raise StoreError(f"Redis refused WAITAOF: {type(synced).__name__}")
        if not self._warned:
            self._warned = True
            log.warning(
                "accounts may not survive a crash: Redis cannot confirm writes to disk (%s);"
                " this needs Redis 7.2 or Valkey with an append-only file",
                " ".join(str(synced).split())[:120],
            )
        return False


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def _fail(batch: list[_Write], error: StoreError) -> None:
    for write in batch:
        if not write.future.done():
            write.future.set_exception(type(error)(*error.args))

"""A live connection to Redis: hiredis reads the replies, and each goes to the oldest unanswered call.

redis-py opens the connection (TLS, HELLO, AUTH, SELECT). Then its transport gets this protocol: with redis-py's own
reader, a coroutine per reply, a mint costs the gateway 1.06 times the CPU.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from hiredis import PushNotification, Reader
from msgspec import Struct
from redis._parsers import BaseParser
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import InvalidResponse, RedisError, ResponseError

_INCOMPLETE = object()


class Call(Struct, eq=False):
    """One command and the future of its reply; None if nothing waits for it."""

    words: tuple[Any, ...]
    future: asyncio.Future[Any] | None
    script: tuple[Any, ...] | None = None  # the EVAL to send if the server answers NOSCRIPT
    sent: int = 0  # how often it was sent again, because a server refused it as not its own


class Link(asyncio.Protocol):
    """A live connection, its unanswered calls, and the time of its last reply.

    The deadline runs from that reply: a Redis that answers call after call is available, however long the queue is.
    `on_replies` gets all replies of one read; `on_lost` gets the error (None: the server closed the connection).
    """

    def __init__(
        self,
        connection: AbstractConnection,
        on_replies: Callable[[Link, list[Any]], None],
        on_lost: Callable[[Link, Exception | None], None],
    ) -> None:
        self.unanswered: deque[Call] = deque()
        self.alive_at = 0.0
        self._on_replies = on_replies
        self._on_lost = on_lost
        self._reader = Reader(
            protocolError=InvalidResponse, replyError=BaseParser.parse_error, notEnoughData=_INCOMPLETE
        )
        writer = connection._writer
        if writer is None:
            raise ConnectionError("not connected")
        self._writer = writer  # kept, because it closes its transport when it is collected
        connection._writer = None  # for the same reason
        writer.transport.set_protocol(self)

    def send(self, packed: list[bytes]) -> None:
        """Write commands. The transport buffers them: the deadline bounds the buffer, and callers do not wait."""
        self._writer.transport.writelines(packed)

    def abort(self) -> None:
        """Close the connection at once."""
        self._writer.transport.abort()

    def data_received(self, data: bytes) -> None:
        replies, lost = [], None
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                if isinstance(reply, Exception) and not isinstance(reply, ResponseError):
                    raise reply  # redis-py's kind of error for a server that is loading or closing
                if not isinstance(reply, PushNotification):
                    replies.append(reply)
        except RedisError as error:
            lost = error
        self._on_replies(self, replies)
        if lost:
            self._on_lost(self, lost)

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost(self, exc)

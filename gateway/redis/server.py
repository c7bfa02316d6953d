"""One Redis server, and how connections to it are opened."""

from typing import Any, Protocol

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.redis import tls

CONNECT_S = 1.0


class Source(Protocol):
    """Opens connections to the server that takes writes. `name` is for log lines and has no secrets."""

    name: str

    async def open(self) -> AbstractConnection:
        """Return a new connection, ready for commands. The caller limits the time and closes it."""

    async def close(self) -> None:
        """Give up what is kept between connections."""


class Server:
    """The server of a URL."""

    def __init__(self, pool: ConnectionPool, name: str, options: dict[str, Any]) -> None:
        self._pool = pool
        self.name = name
        self.options = options  # of TLS

    async def open(self) -> AbstractConnection:
        """Return a new connection. What redis-py raises passes through."""
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            if await connection.can_read():
                raise ConnectionError("a reply to no command")
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def close(self) -> None:
        """Close what redis-py keeps."""
        await self._pool.aclose()


def connect(url: str, name: str = "Redis", *, like: Server | None = None) -> Server:
    """Return a server whose connections never retry: an EVALSHA that timed out must not be sent again.

    `like` is a server that is trusted in the same way: reading the CAs of the system again takes 20 ms.
    Raises: ValueError
    """
    plain_url, options = tls.split(url) if like is None else (url.partition("?")[0], like.options)
    pool = ConnectionPool(
        **{**parse_url(plain_url), **options},
        protocol=3,  # HGETALL answers a dict, scores are floats: no module decodes flat lists
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=CONNECT_S,
        socket_timeout=None,
        health_check_interval=0,
    )
    return Server(pool, name, options)


async def ask(source: Source, *words: str) -> object:
    """Return the reply to one command over a connection of its own. What redis-py raises passes through."""
    connection = await source.open()
    try:
        await connection.send_command(*words)
        return await connection.read_response()
    finally:
        await connection.disconnect(nowait=True)

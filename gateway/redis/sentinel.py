"""The master that Sentinels name: asked for anew with every connection, so that a failover needs no other trigger.

All Sentinels are asked at once and the first who knows a living master is believed; redis-py asks one after the other,
and one that hangs would take all the time there is for a connection. The server must then say itself that it is the
master, because a Sentinel may learn last of a failover.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection

from gateway.redis.refusals import NotFound
from gateway.redis.server import Server, ask

_UNUSABLE = ("s_down", "o_down", "disconnected")


class Sentinels:
    """A source of connections to the master of a service. `server` returns the one at `host:port`."""

    def __init__(self, sentinels: Sequence[Server], service: str, server: Callable[[str], Server]) -> None:
        self.name = "Redis"
        self._sentinels = sentinels
        self._service = service
        self._server_at = server
        self._master: tuple[str, Server] | None = None

    async def open(self) -> AbstractConnection:
        """Return a connection to the present master. Raises: NotFound, and what redis-py raises"""
        connection = await (await self._find()).open()
        try:
            await connection.send_command("ROLE")
            role = await connection.read_response()
            if role[0] != b"master":
                raise NotFound("the server that the Sentinels name is not the master yet")
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def close(self) -> None:
        """Close what redis-py keeps."""
        for one in (*self._sentinels, *([self._master[1]] if self._master else [])):
            await one.close()

    async def _find(self) -> Server:
        address = await self._ask_all()
        if self._master is None or self._master[0] != address:
            self._master = (address, self._server_at(address))
        return self._master[1]

    async def _ask_all(self) -> str:
        tasks = [asyncio.create_task(self._ask(one)) for one in self._sentinels]
        errors: list[Exception] = []
        try:
            for answer in asyncio.as_completed(tasks):
                try:
                    return await answer
                except Exception as error:  # noqa: BLE001  the others may know better
                    errors.append(error)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        raise max(errors, key=_says)

    async def _ask(self, sentinel: Server) -> str:
        reply: Any = await ask(sentinel, "SENTINEL", "MASTERS")
        rows = [row if isinstance(row, dict) else dict(zip(row[::2], row[1::2], strict=True)) for row in reply]
        state = next((row for row in rows if row[b"name"] == self._service.encode()), None)
        if state is None:
            raise NotFound("the Sentinels watch no service of the name in REDIS_URL")
        if any(flag in state[b"flags"].decode().split(",") for flag in _UNUSABLE):
            raise NotFound("the Sentinels know no living master")
        host, port = state[b"ip"].decode(), int(state[b"port"])
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _says(error: Exception) -> int:
    """Rank an error by how much it says to an operator."""
    if isinstance(error, NotFound):
        return 2
    return int(getattr(error, "status_code", None) is not None)  # a Redis that refused, such as a wrong password

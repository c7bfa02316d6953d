"""The master that Sentinels name, looked up again for every connection, so that a failover needs no other trigger.

All Sentinels are asked at once; redis-py asks one after the other, and one that hangs would take all the time there is
for a connection. The first server that a Sentinel names and that says itself that it is the master is used: a Sentinel
that did not carry out the failover learns of it seconds later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection

from gateway.redis.refusals import NotFound
from gateway.redis.server import Server

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
        tasks = [asyncio.create_task(self._ask(one)) for one in self._sentinels]
        errors: list[Exception] = []
        tried: set[str] = set()
        try:
            for answer in asyncio.as_completed(tasks):
                try:
                    address = await answer
                    if address not in tried:
                        tried.add(address)
                        return await self._open_master(address)
                except Exception as error:  # noqa: BLE001  another Sentinel may know better
                    errors.append(error)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        raise max(errors, key=_says)

    async def close(self) -> None:
        """Close what redis-py keeps."""
        for one in (*self._sentinels, *([self._master[1]] if self._master else [])):
            await one.close()

    async def _open_master(self, address: str) -> AbstractConnection:
        if self._master is None or self._master[0] != address:
            self._master = (address, self._server_at(address))
        connection = await self._master[1].open()
        try:
            await connection.send_command("ROLE")
            role = await connection.read_response()
            if role[0] != b"master":
                raise NotFound("the server that the Sentinels name is not the master yet")
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def _ask(self, sentinel: Server) -> str:
        """Return the master as a Sentinel knows it; while it carries out a failover, that is the promoted replica."""
        connection = await sentinel.open()
        try:
            await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
            found = await connection.read_response()
            if found is None:
                raise NotFound("the Sentinels watch no service with the name in REDIS_URL")
            await connection.send_command("SENTINEL", "MASTERS")
            rows = [_fields(row) for row in await connection.read_response()]
        finally:
            await connection.disconnect(nowait=True)
        state = next(row for row in rows if row[b"name"] == self._service.encode())
        is_down = any(flag in state[b"flags"].decode().split(",") for flag in _UNUSABLE)
        if is_down and (state[b"ip"], state[b"port"]) == tuple(found):
            raise NotFound("the Sentinels know no living master")
        host, port = (word.decode() for word in found)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _fields(row: Any) -> dict[bytes, bytes]:
    return row if isinstance(row, dict) else dict(zip(row[::2], row[1::2], strict=True))


def _says(error: Exception) -> int:
    """Rank an error by how much it tells an operator."""
    if isinstance(error, NotFound):
        return 2
    return int(getattr(error, "status_code", None) is not None)  # a Redis that refused, such as a wrong password

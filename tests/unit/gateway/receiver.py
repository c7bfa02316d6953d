"""A receiver of webhooks, and the fixtures for tests of deliveries."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.emulator.records import Room, Webhook
from gateway.emulator.state import Workspace
from gateway.emulator.webhooks import Delivery, Webhooks
from tests.unit.gateway.local_100ms import TEMPLATE

ROOM = Room(id="a" * 24, name="r", template_id=TEMPLATE, region="auto", created_at="2024-01-01T00:00:00Z")


class Receiver:
    """An HTTP server that records requests and answers with `answers` in turn, then with 200."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.bodies: list[bytes] = []
        self.pause_s = 0.0
        self.port = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def events(self) -> list[dict[str, Any]]:
        return [event for _, _, event in self.requests]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._answer(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                line, *fields = head.strip().split("\r\n")
                headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
                body = await reader.readexactly(int(headers["content-length"]))
                self.bodies.append(body)
                self.requests.append((line, headers, json.loads(body)))
                await asyncio.sleep(self.pause_s)
                answer = self.answers.pop(0) if self.answers else "200 OK"
                writer.write(f"HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()


class Pauses:
    """Records each pause and does not sleep."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, pause_s: float) -> None:
        self.taken.append(pause_s)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    await made.stop()


@pytest.fixture
async def webhooks(receiver: Receiver, pauses: Pauses) -> AsyncIterator[Webhooks]:
    made = Webhooks(Workspace("key", None), Webhook(url=receiver.url, headers={"X-Secret": "s3cret"}), sleep=pauses)
    yield made
    await made.close()


async def until(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not ready():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


async def settled(webhooks: Webhooks) -> list[Delivery]:
    """Wait until no delivery is pending, and return all deliveries."""
    await until(lambda: not any(delivery.state == "pending" for delivery in webhooks.deliveries()))
    return webhooks.deliveries()

"""Webhook deliveries: destination, order and retries (100ms docs, how-to-guides/configure-webhooks/overview).

An event goes to its room's own webhook, or else to the workspace's. Only status 200 is a success. After a failure the
event is retried 1, 3 and 10 s after the previous attempt, then dropped. The first attempts of a room are made one after
the other. A retry delays no later event, so later events overtake an event that failed.
"""

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from gateway.emulator import webhook_events as events
from gateway.emulator.records import Room, Webhook
from gateway.emulator.sender import NotSentError, Sender
from gateway.emulator.state import Workspace

RETRIES_AFTER_S = (1.0, 3.0, 10.0)
_KEPT_DELIVERIES = 500
_log = logging.getLogger(__name__)


class Attempt(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One POST: the status of the answer, or the reason why there is none."""

    at: str
    status: int | None = None
    error: str | None = None


class Delivery(msgspec.Struct, kw_only=True):
    """The delivery of an event, without the webhook's headers, which are secrets."""

    id: str
    url: str
    event: dict[str, Any]
    state: Literal["held", "pending", "delivered", "failed"] = "pending"
    attempts: list[Attempt] = []


class Webhooks:
    """Delivers events in the background, each to the webhook of its time: its room's, or else `default`."""

    def __init__(
        self,
        workspace: Workspace,
        default: Webhook | None,
        *,
        sender: Sender | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.default = default
        self._workspace = workspace
        self._sender = sender or Sender()
        self._sleep = sleep
        self._log: deque[Delivery] = deque(maxlen=_KEPT_DELIVERIES)
        self._held: list[tuple[Delivery, Webhook]] = []
        self._duplicates_left = 0
        self._holding = 0
        self._tails: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def emit(self, room: Room, kind: str, data: dict[str, Any]) -> None:
        """Send an event of a room if it or the workspace has a webhook."""
        webhook = room.webhook or self.default
        if webhook is not None:
            self.send(webhook, events.envelope(self._workspace, kind, data), chain=room.id)

    def send(self, webhook: Webhook, event: dict[str, Any], *, chain: str) -> None:
        """Send an event unchanged, after the first attempts of the same chain."""
        copies = 1
        if self._duplicates_left:
            self._duplicates_left -= 1
            copies = 2
        for _ in range(copies):
            delivery = Delivery(id=str(uuid.uuid4()), url=webhook.url, event=event)
            self._log.append(delivery)
            if self._holding:
                delivery.state = "held"
                self._held.append((delivery, webhook))
            else:
                self._start(delivery, webhook, chain)
        if self._holding and len(self._held) >= self._holding:
            self.release()

    def disturb(self, *, duplicate: int, reorder: int) -> None:
        """Send the next `duplicate` events twice and the next `reorder` deliveries in reverse order, from now on."""
        self.release()
        self._duplicates_left = duplicate
        self._holding = reorder

    def release(self) -> None:
        """Send the held deliveries, last one first, and stop holding."""
        held, self._held, self._holding = self._held, [], 0
        for delivery, webhook in reversed(held):
            delivery.state = "pending"
            self._start(delivery, webhook, held[0][0].id)

    def deliveries(self) -> list[Delivery]:
        """Return the last deliveries, oldest first."""
        return list(self._log)

    async def close(self) -> None:
        """Drop all events that are not delivered yet."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._sender.close()

    def _start(self, delivery: Delivery, webhook: Webhook, chain: str) -> None:
        before, tried = self._tails.get(chain), asyncio.Event()
        self._tails[chain] = tried
        task = asyncio.get_running_loop().create_task(self._deliver(delivery, webhook, before, tried))
        self._tasks.add(task)

        def forget(done: asyncio.Task[None]) -> None:
            self._tasks.discard(done)
            if self._tails.get(chain) is tried:
                del self._tails[chain]

        task.add_done_callback(forget)

    async def _deliver(
        self, delivery: Delivery, webhook: Webhook, before: asyncio.Event | None, tried: asyncio.Event
    ) -> None:
        try:
            if before is not None:
                await before.wait()
            delivered = await self._attempt(delivery, webhook)
        finally:
            tried.set()
        for pause_s in RETRIES_AFTER_S:
            if delivered:
                break
            await self._sleep(pause_s)
            delivered = await self._attempt(delivery, webhook)
        delivery.state = "delivered" if delivered else "failed"
        if not delivered:
            _log.warning("webhook event %s was dropped: %s", delivery.event.get("type"), delivery.attempts[-1])

    async def _attempt(self, delivery: Delivery, webhook: Webhook) -> bool:
        attempt = Attempt(at=self._workspace.now())
        try:
            attempt.status = await self._sender.post(webhook, delivery.event)
        except NotSentError as error:
            attempt.error = str(error)
        delivery.attempts.append(attempt)
        return attempt.status == 200

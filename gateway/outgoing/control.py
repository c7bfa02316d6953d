"""What operators see of outgoing webhooks, and what they may do: read, send dead letters again, test an endpoint."""

from __future__ import annotations

import asyncio
import re
import time

from msgspec import Struct

from gateway.audit import Audit
from gateway.outgoing import messages
from gateway.outgoing.outbox import ID, DeadMessage, Outbox
from gateway.outgoing.sender import NotSent, Sender
from gateway.policy.endpoints import Endpoint
from gateway.policy.live import PolicyInForce


class UnknownEndpoint(Exception):
    """The policy has no endpoint of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"The policy has no endpoint {name!r}.")


class EndpointState(Struct, frozen=True):
    """An endpoint, and what has become of its events since the installation began. `failed` are attempts.

    `gone_ms`: when it answered 410; it gets nothing until the gateway restarts.
    """

    name: str
    host: str
    events: list[str]
    waiting: int
    delivered: int
    failed: int
    dead: int
    last_delivered_ms: int | None
    last_failed_ms: int | None
    last_failure: str
    gone_ms: int | None


class Trial(Struct, frozen=True):
    """What an endpoint answered to a test: a status, or why there is none; and how long it took."""

    delivered: bool
    status: int | None
    failure: str
    took_ms: int


class Outgoing:
    """Shows endpoints and dead letters, and sends on request."""

    def __init__(self, outbox: Outbox, sender: Sender, policy: PolicyInForce, audit: Audit) -> None:
        self._outbox = outbox
        self._sender = sender
        self._policy = policy
        self._audit = audit

    async def state(self) -> list[EndpointState]:
        """Return all endpoints of the policy. One round trip."""
        return list(await asyncio.gather(*map(self._state, self._policy.now.endpoints)))

    async def dead(self, *, before: str | None = None, size: int) -> tuple[list[DeadMessage], str | None]:
        """Return dead letters, newest first, and where the next page begins."""
        return await self._outbox.dead(before=before, size=size)

    async def count_dead(self) -> int:
        """Return how many dead letters are kept."""
        return await self._outbox.count_dead()

    async def replay(self, letter_id: str, *, by: str) -> bool:
        """Deliver a dead letter after all; tell whether there is one of that id. Raises: UnknownEndpoint"""
        letter = await self._outbox.dead_letter(letter_id) if re.fullmatch(ID, letter_id) else None
        if letter is None:
            return False
        self._find(letter.endpoint)
        if not await self._outbox.replay(letter, _now_ms()):
            return False
        await self._audit.record("webhooks.replayed", by=by, subject="", endpoint=letter.endpoint, letter=letter_id)
        return True

    async def replay_all(self, *, by: str) -> int:
        """Deliver all dead letters that there are now, if the policy still has their endpoint; return how many."""
        known, count, place = {one.name for one in self._policy.now.endpoints}, 0, None
        while True:
            letters, place = await self._outbox.dead(before=place, size=100)
            for letter in letters:
                count += letter.endpoint in known and await self._outbox.replay(letter, _now_ms())
            if place is None:
                break
        if count:
            await self._audit.record("webhooks.replayed", by=by, subject="", count=count)
        return count

    async def test(self, name: str, *, by: str) -> Trial:
        """Send an endpoint an event of the type `webhook.test`, once and now. Raises: UnknownEndpoint"""
        endpoint = self._find(name)
        await self._audit.record("webhooks.tested", by=by, subject="", endpoint=name)
        begun, status, failure = time.perf_counter(), None, ""
        try:
            status = await self._sender.send(endpoint, messages.new_message(messages.TEST, {"endpoint": name}))
        except NotSent as error:
            failure = str(error)
        took_ms = round((time.perf_counter() - begun) * 1000)
        return Trial(status is not None and 200 <= status < 300, status, failure, took_ms)

    def _find(self, name: str) -> Endpoint:
        for endpoint in self._policy.now.endpoints:
            if endpoint.name == name:
                return endpoint
        raise UnknownEndpoint(name)

    async def _state(self, endpoint: Endpoint) -> EndpointState:
        waiting, row = await self._outbox.numbers(endpoint.name)
        numbers = {name: int(value) for name, value in row.items() if name != "last_failure"}
        return EndpointState(
            name=endpoint.name,
            host=endpoint.host,
            events=sorted(endpoint.events),
            waiting=waiting,
            delivered=numbers.get("delivered", 0),
            failed=numbers.get("failed", 0),
            dead=numbers.get("dead", 0),
            last_delivered_ms=numbers.get("last_delivered_ms"),
            last_failed_ms=numbers.get("last_failed_ms"),
            last_failure=row.get("last_failure", ""),
            gone_ms=numbers.get("gone_ms"),
        )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

"""Delivers events: a chore of the one process that performs chores. Endpoints do not wait for one another.

Every event reaches every endpoint that wants it at least once. A process that dies in the middle of an attempt leaves
its message in the queue, so that it is sent again; receivers know it by its id. There is no order.
"""

from __future__ import annotations

import asyncio
import logging

from redis.exceptions import RedisError

from gateway.outgoing.messages import Message
from gateway.outgoing.outbox import Outbox
from gateway.outgoing.sender import NotSent, Sender
from gateway.policy.endpoints import Endpoint
from gateway.policy.live import PolicyInForce
from gateway.redis.refusals import log_refusal
from gateway.redis.store import Clock, StoreError

log = logging.getLogger("gateway.outgoing")

EVERY_S = 0.5
IDLE_S = 5.0  # without an endpoint in the policy
BATCH = 20  # events of an endpoint before this process looks again whether it still performs the chores
GONE = 410
_MOST_SHARED = 100


class Deliveries:
    """Shares new events out among the queues of endpoints, and works each queue off in a task of its own."""

    def __init__(self, outbox: Outbox, sender: Sender, policy: PolicyInForce, clock: Clock) -> None:
        self._outbox = outbox
        self._sender = sender
        self._policy = policy
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._known: set[str] = set()
        self._gone: set[str] = set()  # answered 410 Gone since this process began
        self._failing: set[str] = set()

    async def work(self) -> float:
        """Share out what has arrived and begin what is due; return the seconds until the next time."""
        endpoints = self._policy.now.endpoints
        if not endpoints:
            return IDLE_S
        for endpoint in endpoints:
            if endpoint.name not in self._known:  # a restart gives an endpoint that was gone another chance
                await self._outbox.note(endpoint.name, "gone_ms", None)
                self._known.add(endpoint.name)
        has_more = await self._share(endpoints)
        for endpoint in endpoints:
            task = self._tasks.get(endpoint.name)
            if task is None or task.done():
                self._tasks[endpoint.name] = asyncio.create_task(self._work_off(endpoint))
        return 0.0 if has_more else EVERY_S

    async def settle(self) -> None:
        """Wait for the attempts that are under way."""
        await asyncio.gather(*self._tasks.values())

    async def close(self) -> None:
        """Break off all attempts; they are made again."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._sender.close()

    async def _share(self, endpoints: tuple[Endpoint, ...]) -> bool:
        """Move new events into queues; tell whether there may be more of them."""
        arrived = await self._outbox.arrived(_MOST_SHARED)
        now_ms = await self._clock() if arrived else 0
        for place, message in arrived:
            if message is None:
                log.error("an event at %s cannot be read and is dropped", place)
            wanting = [one.name for one in endpoints if message is not None and message.type in one.events]
            await self._outbox.share(place, message, wanting, now_ms)
        return len(arrived) == _MOST_SHARED

    async def _work_off(self, endpoint: Endpoint) -> None:
        try:
            for message in await self._outbox.due(endpoint.name, await self._clock(), BATCH):
                if not await self._attempt(endpoint, message):
                    break  # an endpoint that is down gets two attempts a second, however many events wait
        except StoreError:  # reported by the store
            pass
        except RedisError as error:
            log_refusal(error)
        except Exception:
            log.exception("the events of the endpoint %s cannot be delivered", endpoint.name)

    async def _attempt(self, endpoint: Endpoint, message: Message) -> bool:
        """Send a message and note what has become of it; tell whether the next may follow at once."""
        name, outbox = endpoint.name, self._outbox
        if name in self._gone:
            await outbox.bury(name, message, "the endpoint has answered 410 Gone", await self._clock())
            return True
        try:
            status = await self._sender.send(endpoint, message)
            why = f"answered {status}"
        except NotSent as error:
            status, why = 0, str(error)
        except Exception as error:  # such a message must not be tried for ever
            log.exception("the event %s could not be sent to the endpoint %s", message.id, name)
            status, why = 0, f"the gateway failed: {type(error).__name__}"
        now_ms = await self._clock()
        if 200 <= status < 300:
            await outbox.delivered(name, message, now_ms)
            self._say_works(name)
            return True
        if status == GONE:
            self._gone.add(name)
            await outbox.note(name, "gone_ms", now_ms)
            await outbox.bury(name, message, why, now_ms)
            log.error("the endpoint %s answered 410 Gone; nothing is sent to it until the gateway restarts", name)
            return True
        self._say_fails(name, why)
        if await outbox.failed(name, message, why, now_ms):
            log.error("the event %s was not delivered to the endpoint %s: %s", message.id, name, why)
        return False

    def _say_fails(self, name: str, why: str) -> None:
        if name not in self._failing:
            self._failing.add(name)
            log.warning("events do not reach the endpoint %s and are tried again: %s", name, why)

    def _say_works(self, name: str) -> None:
        if name in self._failing:
            self._failing.discard(name)
            log.warning("events reach the endpoint %s again", name)

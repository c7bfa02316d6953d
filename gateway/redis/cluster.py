"""Stores and durable writes on a cluster: a pipelined connection for each master, chosen by the slot of the first key.

Every command must have its keys in one slot. MOVED and ASK say that a command was not executed, so it is sent again,
scripts too; a call whose outcome is unknown never is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError, TryAgainError

from gateway.redis.durable import DurableWrites
from gateway.redis.link import Call
from gateway.redis.refusals import log_refusal, reply_text
from gateway.redis.slots import Slots, probe_keys, slot_of
from gateway.redis.store import CONNECT_PATIENCE_S, OnSend, Store, StoreError

_MOST_HOPS = 5
_RETIRE_S = 10.0
_STATES = ("closed", "half-open", "open")
_ASKING = ("ASKING",)  # belongs to the call that follows it, on the same connection


class MasterStore(Store):
    """The store of one master."""

    def __init__(self, cluster: ClusterStore, slots: Slots, address: str, **options: Any) -> None:
        super().__init__(
            slots.server(address),
            on_refusal=lambda call, error: cluster.redirect(self, call, error),
            on_state=lambda is_available: (slots.found if is_available else slots.lost)(self),
            **options,
        )
        self.address = address

    def probe(self) -> None:
        """Send something, so that it is noticed when the master answers again."""
        self.post("PING")


class ClusterStore:
    """Sends each command to the master that has its key. Used like `Store`."""

    def __init__(self, slots: Slots, *, deadline_s: float, on_send: OnSend = None) -> None:
        self._slots = slots
        self._by_slot = slots.by_slot
        self._at: dict[str, MasterStore] = {}
        self._deadline_s = deadline_s
        self._on_send = on_send
        self._held: deque[Call] = deque()  # calls whose slot has no known master
        self._held_until: asyncio.TimerHandle | None = None
        self._leaving: dict[str, asyncio.TimerHandle] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._closed = False
        slots.join(self)

    @property
    def failures(self) -> int:
        """Return how many commands got no reply, so far."""
        return self._failures + sum(node.failures for node in self._at.values())

    @property
    def state(self) -> str:
        """The worst state of a master's breaker; open if no node of the cluster can be asked."""
        if self._slots.error is not None:
            return "open"
        states = {self._at[one].state for one in self._slots.masters if one in self._at}
        return max(states, key=_STATES.index, default="closed")

    def execute(self, *words: Any) -> asyncio.Future[Any]:
        """Send one command with the next flush of its master. A command without a key goes to a master that works.

        Awaited, it raises what `Store.execute` raises.
        """
        address = self._address_of(words)
        if address:
            return (self._at.get(address) or self._node(address)).execute(*words)
        future = asyncio.get_running_loop().create_future()
        if self._on_send is not None:
            self._on_send(future)
        self._hold(Call(words, future, words if words[0] == "EVAL" else None))
        return future

    def post(self, *words: Any) -> None:
        """Send one command with the next write, without waiting; errors are ignored. Not for scripts."""
        address = self._address_of(words)
        if address:
            self._node(address).post(*words)
        else:
            self._hold(Call(words, None))

    async def each(self, *words: Any) -> dict[str, Any]:
        """Send a command without a key to every master; return the replies, or what was raised, by address."""
        if not self._slots.masters:
            await self.execute("PING")  # which waits for the map
        addresses = self._slots.masters
        futures = [self._node(address).execute(*words) for address in addresses]
        return dict(zip(addresses, await asyncio.gather(*futures, return_exceptions=True), strict=True))

    async def now_ms(self) -> int:
        """Return a master's time in epoch milliseconds: of the same master in all processes, while all masters work."""
        seconds, us = await self.execute("TIME")
        return int(seconds) * 1000 + int(us) // 1000

    async def check(self) -> list[str]:
        """Check that masters answer and accept writes; return the slots of those that do not. Raises if none does."""
        if not self._slots.masters:
            await self.execute("PING")
        keys = probe_keys(self._slots, "pr:1")
        done = await asyncio.gather(
            *(self._node(address).check(key) for address, key in keys.items()), return_exceptions=True
        )
        bad = {address: one for address, one in zip(keys, done, strict=True) if isinstance(one, BaseException)}
        for error in bad.values():
            if len(bad) == len(keys) or not isinstance(error, StoreError | ResponseError):
                raise error
            if isinstance(error, ResponseError):
                log_refusal(error)
        missing = (self._slots.ranges(address) for address in ("", *bad))
        return [f"redis slots {text}" for text in missing if text]

    async def close(self) -> None:
        """Close all connections; waiting calls fail."""
        self._closed = True
        await self._slots.leave(self)
        for timer in (*self._leaving.values(), *([self._held_until] if self._held_until else [])):
            timer.cancel()
        self._give_up(StoreError("the store is closed"))
        for node in [*self._at.values()]:
            self._slots.found(node)
            await node.close()

    def mapped(self) -> None:
        """Send calls that wait for a master, and leave servers that are no longer masters."""
        held, self._held = self._held, deque()
        for call in held:
            self._send(call)
        if not self._held and self._held_until is not None:
            self._held_until.cancel()
            self._held_until = None
        for address, node in [*self._at.items()]:
            if address not in self._slots.masters:
                for call in node.unsent():
                    if call.words != _ASKING:
                        self._send(call)
                if address not in self._leaving:
                    self._plan_to_retire(address)

    def redirect(self, node: MasterStore, call: Call, error: ResponseError) -> bool:
        """Handle a call that a master refused as not its own or not now; return False for other refusals."""
        if isinstance(error, TryAgainError | ClusterDownError):
            log_refusal(error)
            self._slots.refresh()
            _fail(call, StoreError(f"the cluster refuses: {reply_text(error)}"))
            return True
        if not isinstance(error, AskError):
            return False
        address = self._slots.redirect(error, node.address)
        if call.sent >= _MOST_HOPS or not address:
            self._slots.refresh()
            _fail(call, StoreError("no node of the cluster takes the command"))
            return True
        call.sent += 1
        if isinstance(error, MovedError):
            self._slots.moved(error.slot_id, address)
            self._node(address).resend(call)
        else:
            # In full: without the script, the node would refuse it and forget ASKING.
            call.words = call.script or call.words
            self._node(address).resend(Call(_ASKING, None), call)
        return True

    def _address_of(self, words: tuple[Any, ...]) -> str:
        slot = slot_of(words)
        if slot is not None:
            return self._by_slot[slot]
        masters = self._slots.masters
        return next((one for one in masters if self._node(one).is_available), masters[0] if masters else "")

    def _node(self, address: str) -> MasterStore:
        node = self._at.get(address)
        if node is None:
            options = {"deadline_s": self._deadline_s, "on_send": self._on_send}
            node = self._at[address] = MasterStore(self, self._slots, address, **options)
        return node

    def _send(self, call: Call) -> None:
        address = self._address_of(call.script or call.words)
        if address:
            self._node(address).resend(call)
        else:
            self._hold(call)

    def _hold(self, call: Call) -> None:
        """Keep a call until the map has a master for it, for a moment."""
        if self._closed:
            _fail(call, StoreError("the store is closed"))
            return
        self._held.append(call)
        self._slots.refresh()
        if self._held_until is None:
            wait_s = max(self._deadline_s, CONNECT_PATIENCE_S)
            self._held_until = asyncio.get_running_loop().call_later(wait_s, self._lose_patience)

    def _lose_patience(self) -> None:
        self._held_until = None
        self._give_up(_unknown(self._slots))

    def _give_up(self, error: StoreError) -> None:
        held, self._held = self._held, deque()
        self._failures += len(held)
        for call in held:
            _fail(call, error)

    def _plan_to_retire(self, address: str) -> None:
        loop = asyncio.get_running_loop()
        self._leaving[address] = loop.call_later(_RETIRE_S, self._retire, address)

    def _retire(self, address: str) -> None:
        """Close the connection to a server that is no longer a master, once it has answered what was sent."""
        del self._leaving[address]
        if address not in self._slots.masters:
            if self._at[address].is_busy:  # it may get slots: during a migration, ASK sends calls to it
                self._plan_to_retire(address)
                return
            node = self._at.pop(address)
            self._failures += node.failures
            closing = asyncio.get_running_loop().create_task(node.close())
            self._retiring.add(closing)  # asyncio itself keeps no task
            closing.add_done_callback(self._retiring.discard)


class ClusterWrites:
    """Sends writes that must survive a crash, each to the master that has its key. Used like `DurableWrites`."""

    def __init__(self, slots: Slots, *, on_send: OnSend = None) -> None:
        self._slots = slots
        self._on_send = on_send
        self._at: dict[str, DurableWrites] = {}

    async def execute(self, *words: Any) -> Any:
        """Send one command; return its reply once the master has it on disk. Raises what `DurableWrites.execute` does.

        Only calls whose keys are in one slot are sent in order.
        """
        address, asking = await self._owner(words), False
        for _ in range(_MOST_HOPS):
            writes = self._writes(address)
            try:
                return await (writes.execute_asking(*words) if asking else writes.execute(*words))
            except AskError as error:  # not executed
                address, asking = self._slots.redirect(error, address), not isinstance(error, MovedError)
                if not address:
                    self._slots.refresh()
                    break
                if not asking:
                    self._slots.moved(error.slot_id, address)
            except (TryAgainError, ClusterDownError) as error:
                log_refusal(error)
                raise StoreError(f"the cluster refuses: {reply_text(error)}") from None
            except StoreError:
                self._slots.refresh()
                raise
        raise StoreError("no node of the cluster takes the command")

    async def check(self) -> bool:
        """Return whether every master can confirm writes. Raises: StoreError"""
        if not self._slots.masters:
            await self._slots.read()
        if not self._slots.masters:
            raise _unknown(self._slots)
        return all([await self._writes(address).check() for address in self._slots.masters])

    async def _owner(self, words: tuple[Any, ...]) -> str:
        """Return the master of a command's key; if none is known, read the map first. Raises: StoreError"""
        slot, by_slot = slot_of(words) or 0, self._slots.by_slot
        if not by_slot[slot]:
            await self._slots.read()
        if not by_slot[slot]:
            raise _unknown(self._slots)
        return by_slot[slot]

    def _writes(self, address: str) -> DurableWrites:
        writes = self._at.get(address)
        if writes is None:
            # Addresses come and go. One without writes under way has no connection.
            gone = [one for one, of in self._at.items() if one not in self._slots.masters and not of.is_busy]
            for one in gone:
                del self._at[one]
            writes = self._at[address] = DurableWrites(self._slots.server(address), on_send=self._on_send)
        return writes


def _fail(call: Call, error: Exception) -> None:
    if call.future is not None and not call.future.done():
        call.future.set_exception(error)
        call.future.exception()  # of calls sent together, callers await the first that fails


def _unknown(slots: Slots) -> StoreError:
    if slots.error is None:
        return StoreError("no master with a known address has the slot of this key")
    return StoreError(f"the nodes of the cluster cannot be asked: {reply_text(slots.error)}")

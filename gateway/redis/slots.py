"""Which master of a cluster has which slot: read from the nodes, and again while calls fail or are redirected.

A process reads the map once. It reads it again when a node answers MOVED, and every 100 ms while a master is lost or a
slot has none, so that a promoted replica is used at once. Nothing is read while all masters answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError

from gateway.redis.refusals import NotFound
from gateway.redis.server import Server, ask

EVERY_S = 0.1
_ASK_S = 0.5  # a node that hangs
_FIRST_ASKED = 2


class Node(Protocol):
    """A connection to one master, as the map sees it."""

    address: str

    def probe(self) -> None:
        """Send something, so that it is noticed when the master answers again."""


class User(Protocol):
    """Something that routes by the map."""

    def mapped(self) -> None:
        """Learn that the map may have changed."""


class Slots:
    """The map of one cluster, for everything in the process that uses it. Addresses are `host:port`.

    `by_slot` has the address of each slot's master, empty if none is known. `server` makes the server at an address.
    """

    def __init__(self, seeds: Sequence[str], server: Callable[[str], Server]) -> None:
        self.by_slot: list[str] = [""] * REDIS_CLUSTER_HASH_SLOTS
        self.masters: tuple[str, ...] = ()
        self.error: Exception | None = None  # why the map could not be read the last time
        self._seeds = tuple(seeds)
        self._nodes: tuple[str, ...] = ()
        self.server = server
        self._users: set[User] = set()
        self._lost: set[Node] = set()
        self._is_wanted = False
        self._task: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._read_at = 0.0

    def join(self, user: User) -> None:
        """Let a user learn of changes, until they `leave`."""
        self._users.add(user)

    async def leave(self, user: User) -> None:
        """Forget a user and, with the last one, stop reading."""
        self._users.discard(user)
        for task in (self._task, self._reading):
            if task is not None and not self._users:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def redirect(self, error: AskError, answered_by: str) -> str:
        """Return the address in MOVED or ASK, empty if the node that answered does not know it."""
        return _address(error.host, error.port, answered_by)

    def moved(self, slot: int, address: str) -> None:
        """Note the master of one slot, and read the map soon: others have probably moved too."""
        self.by_slot[slot] = address
        if address not in self.masters:
            self.masters = tuple(sorted({*self.masters, address}))
        self.refresh()

    def lost(self, node: Node) -> None:
        """Read the map until this master answers again or is no longer a master."""
        self._lost.add(node)
        self.refresh()

    def found(self, node: Node) -> None:
        """Learn that a master answers again."""
        self._lost.discard(node)

    def ranges(self, address: str) -> str:
        """Return the slots of a master, or with an empty address those without one, as `0-99,200-299`."""
        found: list[list[int]] = []
        for slot, owner in enumerate(self.by_slot):
            if owner == address:
                if found and found[-1][1] == slot - 1:
                    found[-1][1] = slot
                else:
                    found.append([slot, slot])
        return ",".join(f"{first}-{last}" for first, last in found)

    def refresh(self) -> None:
        """Read the map, at once if it was not read in the last 100 ms."""
        self._is_wanted = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._follow())

    async def _follow(self) -> None:
        while self._is_wanted or self._lost or self.error or "" in self.by_slot:
            await self.read()
            self._lost = {node for node in self._lost if node.address in self.masters}
            for node in self._lost:
                node.probe()

    async def read(self) -> None:
        """Wait until the map has been read, once for all who wait meanwhile; what went wrong is in `error`."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read())
        await asyncio.wait([self._reading])  # a caller that gives up does not end it for the others

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._read_at + EVERY_S - loop.time())
        self._is_wanted = False  # what is asked for from here on may be newer than the answer
        try:
            self._apply(await self._first_answer())
            self.error = None
        except Exception as error:  # noqa: BLE001  tried again; callers that wait get it
            self.error = error
        self._read_at = loop.time()
        for user in tuple(self._users):
            user.mapped()

    def _apply(self, answer: tuple[str, list[Any]]) -> None:
        asked, rows = answer
        by_slot = [""] * REDIS_CLUSTER_HASH_SLOTS
        nodes: dict[str, None] = {}
        for start, end, *servers in rows:
            addresses = [_address(host, port, asked) for host, port, *_ in servers]
            nodes |= dict.fromkeys(filter(None, addresses))
            by_slot[start : end + 1] = [addresses[0]] * (end - start + 1)
        self.by_slot[:] = by_slot  # in place: users keep the list
        self.masters = tuple(sorted({*by_slot} - {""}))
        self._nodes = tuple(nodes)

    async def _first_answer(self) -> tuple[str, list[Any]]:
        """Ask some nodes that work, then all others; return the first answer and who gave it."""
        lost = {node.address for node in self._lost}
        works = [one for one in self._nodes if one not in lost]
        first = random.sample(works, min(_FIRST_ASKED, len(works)))
        others = [one for one in dict.fromkeys((*works, *self._seeds, *self._nodes)) if one not in first]
        error: Exception = NotFound("no node of the cluster answers")
        for group in (first, others):
            tasks = [asyncio.create_task(self._ask(address)) for address in group]
            try:
                for answer in asyncio.as_completed(tasks):
                    try:
                        return await answer
                    except Exception as failed:  # noqa: BLE001  another node may answer
                        error = failed
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        raise error

    async def _ask(self, address: str) -> tuple[str, list[Any]]:
        async with asyncio.timeout(_ASK_S):
            rows: Any = await ask(self.server(address), "CLUSTER", "SLOTS")
        if not rows:
            raise NotFound("the cluster has no slots yet")
        return address, rows


def _address(host: Any, port: int, asked: str) -> str:
    """Return an address as a node gives it, empty if it does not know it.

    A question mark is a node that should announce a host name and does not: any node, not the one that was asked. Of a
    node without a name, null or empty, only the port differs (redis.io/docs/latest/commands/cluster-slots).
    """
    name = host.decode() if isinstance(host, bytes) else host
    if name == "?":
        return ""
    name = name or asked.rpartition(":")[0].strip("[]")
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


_KEY_AT = {"EVAL": 3, "EVALSHA": 3, "XGROUP": 2}  # of any other command with a key, it is the first word
_KEYLESS = frozenset({"PING", "TIME", "INFO", "CONFIG", "CLUSTER", "ROLE", "ACL", "CLIENT", "WAIT", "SCRIPT"})


def slot_of(words: tuple[Any, ...]) -> int | None:
    """Return the slot of a command's first key, None if it has no key."""
    name = words[0]
    if name in _KEYLESS:
        return None
    at = _KEY_AT.get(name, 1) if name not in ("XREADGROUP", "XREAD") else words.index("STREAMS") + 1
    key = words[at]
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def probe_keys(slots: Slots, stem: str) -> dict[str, str]:
    """Return for each master a key `<stem>:<n>` that it has."""
    found: dict[str, str] = {}
    wanted = set(slots.masters)
    for number in range(REDIS_CLUSTER_HASH_SLOTS):
        if not wanted:
            break
        key = f"{stem}:{number}"
        address = slots.by_slot[key_slot(key.encode())]
        if address in wanted:
            wanted.discard(address)
            found[address] = key
    return found

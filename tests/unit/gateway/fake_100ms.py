"""A fake 100ms that records its calls in order with the commands sent to Redis."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from gateway.hms.replies import HmsPeer, HmsRoom
from gateway.policy.file import load_policy
from gateway.policy.live import PolicyInForce
from gateway.policy.model import Policy
from gateway.redis.store import StoreError

Execute = Callable[..., Awaitable[Any]]

TEMPLATE = "89abcdef0123456789abcdef"
OWNER, COHOST, MEMBER, STRANGER = (f"u{letter * 20}" for letter in "abcd")


class Ledger:
    """Forwards commands to Redis. Records them and the calls to 100ms: ("HSET", key, ...), ("100ms", verb).

    `lost_reply` is a command that Redis executes and whose reply is lost.
    """

    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self.lines: list[tuple[Any, ...]] = []
        self.lost_reply = ""

    async def __call__(self, *words: Any) -> Any:
        self.lines.append(words)
        reply = await self._execute(*words)
        if words[0] == self.lost_reply:
            raise StoreError("the reply was lost")
        return reply

    def upstream(self) -> list[tuple[Any, ...]]:
        return [line[1:] for line in self.lines if line[0] == "100ms"]


class Fake100ms:
    """Numbers its rooms. `peers` are by user and their `roles` by peer; a peer without one is a host.

    `fails` are errors by verb. `meanwhile` is awaited once, within the next call of its verb. With `delays` each call
    waits before and after it acts. `enabled` holds the last state set for each room.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.rooms: dict[str, HmsRoom] = {}
        self.peers: dict[str, list[str]] = {}
        self.roles: dict[str, str] = {}
        self.fails: dict[str, Exception] = {}
        self.meanwhile: dict[str, Callable[[], Awaitable[Any]]] = {}
        self.running = True
        self.enabled: dict[str, bool] = {}
        self.delays: random.Random | None = None

    async def create_room(self, *, name: str, **_: Any) -> HmsRoom:
        known = next((room for room in self.rooms.values() if room.name == name), None)
        room = known or HmsRoom(f"{len(self.rooms) + 1:024x}", name, True, TEMPLATE)
        self.rooms[room.id] = room
        await self._asked("create", name)
        return room

    async def get_room(self, room_id: str) -> HmsRoom | None:
        await self._asked("get", room_id)
        return self.rooms.get(room_id)

    async def update_room(self, room_id: str, *, description: str) -> None:
        await self._asked("update", room_id, description)

    async def switch_room(self, room_id: str, *, enabled: bool) -> None:
        await self._asked("enable" if enabled else "disable", room_id)
        self.enabled[room_id] = enabled
        await self._delay()

    async def end_room(self, room_id: str, *, reason: str, lock: bool) -> bool:
        await self._asked("end", room_id, lock)
        ended = self.running
        if lock and ended:
            self.enabled[room_id] = False
        await self._delay()
        return ended

    async def list_peers(self, _: str, *, user_id: str | None = None) -> tuple[HmsPeer, ...]:
        await self._asked("list", user_id)
        there = ((uid, peer) for uid, peers in self.peers.items() if user_id in (None, uid) for peer in peers)
        return tuple(HmsPeer(peer, uid, self.roles.get(peer, "host")) for uid, peer in there)

    async def remove_peer(self, _: str, peer_id: str, *, reason: str) -> bool:
        await self._asked("remove", peer_id)
        return True

    async def _asked(self, verb: str, *what: Any) -> None:
        self._ledger.lines.append(("100ms", verb, *what))
        if verb in self.meanwhile:
            await self.meanwhile.pop(verb)()
        if verb in self.fails:
            raise self.fails[verb]
        await self._delay()

    async def _delay(self) -> None:
        if self.delays:
            await asyncio.sleep(self.delays.uniform(0, 0.004))


def policy(**rooms: Any) -> PolicyInForce:
    """Return the built-in policy with changes to [rooms]."""
    built_in: Policy = load_policy()
    return PolicyInForce(replace(built_in, template_ids={"default": TEMPLATE}, rooms=replace(built_in.rooms, **rooms)))

"""Shared parts of the tests of rooms: the registry on any Redis, with a 100ms that records its calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.rooms.registry import Rooms, upstream_name
from gateway.rooms.room import NewRoom, Room
from limits.limiter import Limiter
from tests.unit.gateway.fake_100ms import OWNER, Fake100ms, Ledger, policy

Execute = Callable[..., Awaitable[Any]]


class RoomBench:
    """A subclass brings an `execute` fixture on an empty database. Names are unique, places are two."""

    @pytest.fixture
    def ledger(self, execute: Execute) -> Ledger:
        return Ledger(execute)

    @pytest.fixture
    def hms(self, ledger: Ledger) -> Fake100ms:
        return Fake100ms(ledger)

    @pytest.fixture
    def limiter(self, ledger: Ledger) -> Limiter:
        return Limiter(ledger)

    @pytest.fixture
    def rooms(self, ledger: Ledger, hms: Fake100ms, limiter: Limiter) -> Rooms:
        return Rooms(ledger, hms, limiter, policy(unique_names=True, active_per_owner=2))  # type: ignore[arg-type]

    async def create(self, rooms: Rooms, name: str = "Tea", *, uid: str = OWNER, upstream: str = "") -> Room:
        lease = rooms._policy.now.rooms.lease(f"lease of {name}")
        assert (await rooms.locks._limiter.take(uid, (), leases=[lease])).allowed
        new = NewRoom(name, "about", "open", "default")
        return (await rooms.create(uid, new, lease=lease.holder, upstream=upstream or upstream_name(name)))[0]

    async def places(self, rooms: Rooms, uid: str = OWNER) -> int:
        return (await rooms.locks._limiter.peek(uid, (), leases=[rooms._policy.now.rooms.lease("x")])).leases[0].held

    async def now(self, rooms: Rooms, room: Room) -> Room:
        found = await rooms.get(room.id)
        assert found is not None
        return found

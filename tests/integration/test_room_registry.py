"""Rooms, members, invites and Idempotency-Keys on a real server, through the store of the process."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.redis.store import Store
from tests.unit.gateway.rooms.test_create import RoomCreationContract
from tests.unit.gateway.rooms.test_idempotency import IdempotencyContract
from tests.unit.gateway.rooms.test_invites import RoomInvitesContract
from tests.unit.gateway.rooms.test_locks import RoomLocksContract
from tests.unit.gateway.rooms.test_names import RoomNamesContract
from tests.unit.gateway.rooms.test_relations import MembersContract


@pytest.fixture
def execute(store: Store) -> Callable[..., Awaitable[Any]]:
    return store.execute


class TestRoomLocksOnValkey(RoomLocksContract):
    pass


class TestRoomNamesOnValkey(RoomNamesContract):
    pass


class TestMembersOnValkey(MembersContract):
    pass


class TestRoomInvitesOnValkey(RoomInvitesContract):
    pass


class TestIdempotencyOnValkey(IdempotencyContract):
    pass


class TestRoomCreationOnValkey(RoomCreationContract):
    pass

"""Accounts of identities on a real server, through the store of the process."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.redis.store import Store
from tests.unit.auth.test_identities import IdentitiesContract


@pytest.fixture
def execute(store: Store) -> Callable[..., Awaitable[Any]]:
    return store.execute


class TestIdentitiesOnValkey(IdentitiesContract):
    pass

"""A real Valkey server; one for each test process, emptied for each test."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest

from gateway.redis.store import Store, connect
from tests.servers import Valkey

# A process that a shell starts with `&` ignores SIGINT, and so would every process that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How fast examples are generated says something about the machine only.
_calm = hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("usual", _calm)
hypothesis.settings.load_profile("usual")
# For `make quick`: a fifth of the examples.
hypothesis.settings.register_profile("quick", _calm, max_examples=20)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A running server, shared by the session. Tests that stop or kill a server start their own `Valkey`."""
    folder: Path = tmp_path_factory.mktemp("valkey")
    with Valkey(folder) as server:
        yield server


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    """The URL of the shared server, emptied."""
    valkey.flush()
    return valkey.url


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    """A store on the shared server. Its deadline is generous: these tests are about results, not speed."""
    store = Store(connect(redis_url), deadline_s=5)
    yield store
    await store.close()

"""Real Valkey servers, alone or several; one of each for a test process that needs it, emptied for each test."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hiredis import pack_command

from gateway.redis import durable
from gateway.redis import store as store_module
from gateway.redis.topology import AnyStore, connect, open_store
from tests import one_slot
from tests.servers import Valkey
from tests.topologies import Cluster, Watched

# A process that a shell starts with `&` ignores SIGINT, and so would every process that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How fast examples are generated says something about the machine only.
_calm = hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("usual", _calm)
hypothesis.settings.load_profile("usual")
# For `make quick`: a fifth of the examples.
hypothesis.settings.register_profile("quick", _calm, max_examples=20)


def _pack_checked(words: tuple[Any, ...]) -> bytes:
    one_slot.check(words)
    return pack_command(words)


durable.pack_command = store_module.pack_command = _pack_checked


@pytest.fixture(autouse=True)
def every_command_has_its_keys_in_one_slot() -> Iterator[None]:
    """Fail a test that sent, in this process, a command that a cluster would refuse."""
    yield
    violations, one_slot.violations[:] = [*one_slot.violations], []
    assert not violations


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A running server, shared by the session. Tests that stop or kill a server start their own `Valkey`."""
    folder: Path = tmp_path_factory.mktemp("valkey")
    with Valkey(folder) as server:
        yield server


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster, shared by the session. Tests that kill a node start their own."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A running master with replicas and Sentinels, shared by the session."""
    with Watched(tmp_path_factory.mktemp("sentinels")) as watched:
        yield watched


RedisOf = Callable[[str], Valkey | Cluster | Watched]


@pytest.fixture
def redis_of(request: pytest.FixtureRequest) -> RedisOf:
    """Return the shared Redis of a kind, emptied: one `server`, a `cluster`, or one with `sentinels`."""

    def find(kind: str) -> Valkey | Cluster | Watched:
        redis = request.getfixturevalue("valkey" if kind == "server" else kind)
        redis.flush()
        return redis

    return find


@pytest.fixture
def redis_url(request: pytest.FixtureRequest, redis_of: RedisOf) -> str:
    """The URL of a shared Redis, emptied: that of the test's `topology`, usually one server."""
    return redis_of(getattr(request, "param", "server")).url


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of a module marked `topologies` on each of them."""
    mark = metafunc.definition.get_closest_marker("topologies")
    if mark is not None and "redis_url" in metafunc.fixturenames:
        metafunc.parametrize("redis_url", mark.args, indirect=True)


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[AnyStore]:
    """A store on the shared Redis. Its deadline is generous: these tests are about results, not speed."""
    store = open_store(connect(redis_url), deadline_s=5)
    yield store
    await store.close()

"""Stores on a real cluster and a real set of Sentinels: everything that one server does, wherever the keys are."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest
from redis.crc import key_slot
from redis.exceptions import ResponseError

from gateway.redis.topology import AnyStore, AnyWrites, connect, open_store, open_writes
from tests.topologies import Cluster, Watched

INCREMENT = "return redis.call('INCR', KEYS[1])"
KEYS = [f"k:{{{n}}}" for n in range(60)]


@pytest.fixture(params=["cluster", "sentinels"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("redis_of")(request.param).url)


@pytest.fixture
async def store(url: str) -> AsyncIterator[AnyStore]:
    store = open_store(connect(url), deadline_s=5)
    yield store
    await store.close()
    gc.collect()  # an unclosed connection would cause a warning here, which is an error


@pytest.fixture
def writes(url: str) -> AnyWrites:
    return open_writes(connect(url))


async def test_calls_of_one_turn_get_their_own_replies(store: AnyStore) -> None:
    calls = [store.execute("SET", key, n) for n, key in enumerate(KEYS)]
    assert {await call for call in calls} == {b"OK"}
    assert [int(await store.execute("GET", key)) for key in KEYS] == [*range(60)]
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await store.execute("HGET", KEYS[0], "x")


async def test_a_script_is_loaded_wherever_it_is_needed(store: AnyStore) -> None:
    for n in range(1, 3):
        assert [await store.execute("EVAL", INCREMENT, 1, key) for key in KEYS[:9]] == [n] * 9


async def test_all_masters_answer_are_checked_and_have_one_time(store: AnyStore) -> None:
    replies = await store.each("PING")
    assert {*replies.values()} == {b"PONG"}
    assert await store.check() == []
    first, second = await store.now_ms(), await store.now_ms()
    assert 0 <= second - first < 5000
    assert (store.state, store.failures) == ("closed", 0)


async def test_posted_commands_have_arrived_after_a_ping_of_each(store: AnyStore) -> None:
    for key in KEYS[:9]:
        store.post("INCR", key)
    await store.each("PING")
    assert [await store.execute("GET", key) for key in KEYS[:9]] == [b"1"] * 9


async def test_durable_writes_are_confirmed(writes: AnyWrites, store: AnyStore) -> None:
    assert await writes.check()
    assert await asyncio.gather(*(writes.execute("SET", key, "x") for key in KEYS)) == [b"OK"] * 60
    assert {await store.execute("GET", key) for key in KEYS} == {b"x"}


async def test_a_slot_that_moves_while_it_is_used_loses_no_call(redis_of: object) -> None:
    """Resharding as redis-cli does it: MIGRATING and IMPORTING, keys one by one, then the new owner."""
    cluster: Cluster = redis_of("cluster")  # type: ignore[operator]
    store, writes = open_store(connect(cluster.url), deadline_s=5), open_writes(connect(cluster.url))
    keys = [f"{{move}}:{n}" for n in range(20)]
    slot = key_slot(b"move")
    for key in keys:
        await store.execute("SET", key, "0")
    source, target = await _owner_and_other(store, cluster, slot)
    ids = [await asyncio.to_thread(_id_of, node) for node in (source, target)]
    with source.client() as there, target.client() as here:
        here.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        there.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        for key in keys[:10]:
            there.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        replies = [await store.execute("EVAL", INCREMENT, 1, key) for key in keys]
        assert replies == [1] * 20, "ASK for those that have moved, and for a script that the target does not know"
        assert await writes.execute("INCR", keys[0]) == 2
        assert await store.execute("SET", "{move}:new", "1") == b"OK"
        for key in keys[10:]:
            there.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        for client in (here, there):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
    assert [await store.execute("INCR", key) for key in keys] == [3] + [2] * 19
    assert await writes.execute("INCR", keys[0]) == 4
    assert store.failures == 0
    await store.close()
    with source.client() as there, target.client() as here:  # as it was, for the tests that follow
        for key in [*keys, "{move}:new"]:
            here.delete(key)
        for client in (there, here):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[0])


async def _owner_and_other(store: AnyStore, cluster: Cluster, slot: int) -> tuple[object, object]:
    owner = store._by_slot[slot]  # type: ignore[union-attr]
    source = next(node for node in cluster.masters if owner.endswith(f":{node.port}"))
    return source, next(node for node in cluster.masters if node is not source)


def _id_of(node: object) -> str:
    with node.client() as client:  # type: ignore[attr-defined]
        return str(client.execute_command("CLUSTER", "MYID").decode())


def test_what_is_watched_has_a_master(redis_of: object) -> None:
    watched: Watched = redis_of("sentinels")  # type: ignore[operator]
    assert watched.master is watched.servers[0]

"""How nodes of a cluster say where they are: by an IPv6 address, a host name, no name, or a question mark."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot

from gateway.redis.store import StoreError
from gateway.redis.topology import connect, open_store, open_writes
from tests.servers import wait_until
from tests.topologies import Cluster

KEYS = [f"k:{{{n}}}" for n in range(30)]


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


async def masters_used(url: str) -> set[str]:
    """Write to all masters in both ways, follow MOVED, and return what the masters are called."""
    store, writes = open_store(connect(url), deadline_s=5), open_writes(connect(url))
    try:
        assert await asyncio.gather(*(writes.execute("SET", key, "x") for key in KEYS)) == [b"OK"] * len(KEYS)
        assert {await store.execute("GET", key) for key in KEYS} == {b"x"}
        for one in (store, writes):
            slots: Any = one._slots  # type: ignore[union-attr]
            slots.by_slot[:] = [slots.masters[0]] * len(slots.by_slot)
        assert {await store.execute("GET", key) for key in KEYS} == {b"x"}
        assert {await writes.execute("SET", key, "y") for key in KEYS} == {b"OK"}
        assert (await store.check(), {key_slot(key.encode()) // 5462 for key in KEYS}) == ([], {0, 1, 2})
        return {*await store.each("PING")}
    finally:
        await store.close()


@pytest.mark.skipif(not has_ipv6() and "CI" not in os.environ, reason="this machine has no IPv6")
async def test_a_cluster_with_ipv6_addresses(tmp_path: Path) -> None:
    with Cluster(tmp_path, host="::1") as cluster:
        assert await masters_used(cluster.url) == {f"[::1]:{node.port}" for node in cluster.masters}


@pytest.fixture
def prefer(redis_of: Callable[[str], Cluster]) -> Iterator[Callable[..., Cluster]]:
    """Let all nodes of the shared cluster announce another kind of address."""
    cluster = redis_of("cluster")

    def set_all(kind: str, host: str = "", *, expected: object) -> Cluster:
        for node in cluster.nodes:
            with node.client() as client:
                client.config_set("cluster-announce-hostname", host)
                client.config_set("cluster-preferred-endpoint-type", kind)
        for node in cluster.nodes:
            with node.client() as client:
                wait_until(lambda c=client: hosts(c) == {expected}, f"the nodes announce {expected}")
        return cluster

    def hosts(client: Any) -> set[object]:
        return {host for _, _, *servers in client.execute_command("CLUSTER", "SLOTS") for host, *_ in servers}

    yield set_all
    set_all("ip", expected=b"127.0.0.1")


async def test_a_cluster_with_host_names(prefer: Callable[..., Cluster]) -> None:
    cluster = await asyncio.to_thread(prefer, "hostname", "localhost", expected=b"localhost")
    assert await masters_used(cluster.url) == {f"localhost:{node.port}" for node in cluster.masters}


async def test_a_cluster_whose_nodes_are_reached_where_it_was_asked(prefer: Callable[..., Cluster]) -> None:
    cluster = await asyncio.to_thread(prefer, "unknown-endpoint", expected=None)
    url = cluster.url.replace("127.0.0.1", "localhost")
    assert await masters_used(url) == {f"localhost:{node.port}" for node in cluster.masters}


async def test_a_node_that_should_announce_a_host_name_and_does_not_is_not_used(prefer: Callable[..., Cluster]) -> None:
    cluster = await asyncio.to_thread(prefer, "hostname", expected=b"?")
    with pytest.raises(StoreError, match="no master with a known address has the slot of this key"):
        await masters_used(cluster.url)

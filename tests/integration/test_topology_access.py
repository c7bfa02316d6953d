"""Several Redis servers: the rights that docs/deploy.md names suffice, and every node's certificate is verified."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.redis.store import StoreError
from gateway.redis.topology import AnyStore, connect, open_store, open_writes
from gateway.settings import redis_url
from tests.servers import HOST, Valkey, wait_until
from tests.tls import Authority, TlsProxy
from tests.topologies import SLOTS, Cluster, Node, Watched

PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()
KEYS = [f"uc:1:{{{n}}}:all" for n in range(30)]


def rights(kind: str) -> list[str]:
    """Return the words of the page's ACL SETUSER, with those that it names for this kind of several servers."""
    rules = PAGE[PAGE.index("    ACL SETUSER gateway ") :].partition("\n\n")[0].split()[3:]
    where = {"cluster": "in a cluster also with `", "sentinels": "Sentinels also with `"}[kind]
    words = " ".join(PAGE.split()).partition(where)[2].partition("`")[0].split()
    assert words
    return [*rules, *words]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[AnyStore]:
    store = open_store(connect(url), deadline_s=5)
    try:
        yield store
    finally:
        await store.close()


async def use(url: str) -> None:
    """Do with a Redis what the gateway does with its keys, wherever they are."""
    async with opened(url) as store:
        writes = open_writes(connect(url))
        assert await asyncio.gather(*(writes.execute("SET", key, "x") for key in KEYS[:2])) == [b"OK", b"OK"]
        script = "return redis.call('HSET', KEYS[1], 'n', ARGV[1])"
        assert {await store.execute("EVAL", script, 1, key, 1) for key in KEYS[2:]} <= {0, 1}
        assert await store.check() == []
        assert {*(await store.each("PING")).values()} == {b"PONG"}


@pytest.mark.parametrize("kind", ["cluster", "sentinels"])
async def test_the_rights_of_the_page_suffice(kind: str, redis_of: Callable[[str], Cluster | Watched]) -> None:
    redis = redis_of(kind)
    servers: list[Valkey] = [*redis.nodes] if isinstance(redis, Cluster) else redis.servers
    words = [word.replace("PASSWORD", "pass-word") for word in rights(kind)]
    for server in servers:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "gateway", *words)
            client.acl_log_reset()
    try:
        await use(redis.url.replace("://", "://gateway:pass-word@"))
        for server in servers:
            with server.client() as client:
                assert client.acl_log() == []
                assert kind != "cluster" or client.execute_command("ACL", "DRYRUN", "gateway", "ASKING") == b"OK"
    finally:
        for server in servers:
            with server.client() as client:
                client.acl_deluser("gateway")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A cluster of one node."""
    with Node(tmp_path / "node", timeout_ms=1000) as node, node.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
        wait_until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"), "the cluster is whole")
        yield node


async def test_the_certificate_of_every_node_of_a_cluster_is_verified(node: Node, tmp_path: Path) -> None:
    """The node that the URL names shows a certificate of the CA, and the one that it leads to does or does not."""
    ca = Authority(tmp_path)
    good, other = ca.sign("good"), ca.sign("other", by_itself=True)
    with TlsProxy(node.port, good) as first, TlsProxy(node.port, good) as second, node.client() as client:
        client.config_set("cluster-announce-port", second.port)
        client.config_set("requirepass", "pass-word")
        client.execute_command("AUTH", "pass-word")
        env = {"REDIS_URL": f"rediss+cluster://:pass-word@{HOST}:{first.port}", "REDIS_CA_FILE": str(ca.path)}
        await use(redis_url(env))
        assert b"HSET" in second.heard

        second.show(other)
        second.heard = b""
        async with opened(redis_url(env)) as store:
            with pytest.raises(StoreError, match=f"no CA in REDIS_CA_FILE; its fingerprint is {other.fingerprint}"):
                await store.execute("GET", KEYS[0])
        assert second.heard == b""
        await use(
            redis_url(env | {"REDIS_CA_FILE": "", "REDIS_FINGERPRINT": f"{good.fingerprint},{other.fingerprint}"})
        )

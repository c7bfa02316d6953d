"""Several Redis servers: the rights that docs/deploy.md names suffice, and every node's certificate is verified."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from redis.crc import key_slot
from redis.exceptions import ResponseError

from gateway.redis.store import StoreError
from gateway.redis.topology import AnyStore, connect, open_store, open_writes
from gateway.settings import redis_url
from tests.servers import HOST, Valkey, wait_until
from tests.tls import Authority, TlsProxy
from tests.topologies import SLOTS, Cluster, Node, Watched

PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()
KEYS = [f"uc:1:{{{n}}}:all" for n in range(30)]


def named(after: str) -> list[str]:
    """Return the words that the page has between backquotes after a text."""
    words = " ".join(PAGE.split()).partition(f"{after} `")[2].partition("`")[0].split()
    assert words
    return words


MORE = {"cluster": named("in a cluster also with"), "sentinels": named("Sentinels also with")}
OF_SENTINELS = named("The Sentinels' own user, if they have one, needs")


def rights(kind: str) -> list[str]:
    """Return the words of the page's ACL SETUSER, with those that it names for this kind of several servers."""
    rules = PAGE[PAGE.index("    ACL SETUSER gateway ") :].partition("\n\n")[0].split()[3:]
    return [*rules, *MORE[kind]]


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


@contextmanager
def user(servers: Sequence[Valkey], name: str, words: Sequence[str]) -> Iterator[None]:
    """Let servers have a user; in the end, check that nothing was refused to it."""
    for server in servers:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", name, "reset", *words)
            client.execute_command("ACL", "LOG", "RESET")
    try:
        yield
        for server in servers:
            with server.client() as client:
                assert client.execute_command("ACL", "LOG") == []
    finally:
        for server in servers:
            with server.client() as client:
                client.execute_command("ACL", "DELUSER", name)


def servers_of(redis: Cluster | Watched) -> Sequence[Valkey]:
    return redis.nodes if isinstance(redis, Cluster) else redis.servers


@contextmanager
def moving(redis: Cluster | Watched) -> Iterator[str]:
    """Let a slot of a cluster be on its way to another master; return a key in it, which is asked for there."""
    key = "uc:1:{moving}:all"
    if isinstance(redis, Watched):
        yield key
        return
    slot, source = key_slot(key.encode()), redis.master_of(key)
    target = next(node for node in redis.masters if node is not source)
    with source.client() as there, target.client() as here:
        ids = [client.execute_command("CLUSTER", "MYID").decode() for client in (there, here)]
        here.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        there.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        try:
            yield key
        finally:
            here.execute_command("ASKING")
            here.delete(key)
            for client in (there, here):
                client.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")


@pytest.mark.parametrize("kind", ["cluster", "sentinels"])
async def test_the_rights_of_the_page_suffice_and_each_that_is_added_is_needed(
    kind: str, redis_of: Callable[[str], Cluster | Watched]
) -> None:
    redis = redis_of(kind)
    words = [word.replace("PASSWORD", "pass-word") for word in rights(kind)]
    url = redis.url.replace("://", "://gateway:pass-word@")

    async def work() -> None:
        await use(url)
        with moving(redis) as key:
            async with opened(url) as store:
                assert await store.execute("HSET", key, "n", 1) == 1

    with user(servers_of(redis), "gateway", words):
        await work()
    for more in MORE[kind]:
        fewer = [word for word in words if word != more]
        with pytest.raises((StoreError, ResponseError, AssertionError)), user(servers_of(redis), "gateway", fewer):
            await work()


async def test_a_user_of_the_sentinels_needs_the_rights_of_the_page(redis_of: Callable[[str], Watched]) -> None:
    redis = redis_of("sentinels")
    own = ["on", ">pass-word", "resetchannels", "-@all"]
    url = f"{redis.url}?sentinel_username=watcher&sentinel_password=pass-word"
    with user(redis.sentinels, "watcher", [*own, *OF_SENTINELS]):
        await use(url)
    for one in OF_SENTINELS:
        fewer = [word for word in OF_SENTINELS if word != one]
        with pytest.raises((StoreError, AssertionError)), user(redis.sentinels, "watcher", [*own, *fewer]):
            await use(url)


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

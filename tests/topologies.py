"""Clusters and Sentinels that tests start: real servers on loopback, each in its own folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import redis
from redis.crc import key_slot

from tests.servers import HOST, Valkey, free_port, wait_until

SLOTS = 16384
MASTERS = 3
PATIENT_MS = 15_000  # a busy machine must not cause a failover

Front = Callable[[Valkey], int]
"""Puts a proxy in front of a server; returns its port, which the server then announces to others."""


class Sentinel(Valkey):
    """A Sentinel, which keeps its state in a configuration file of its own."""

    def __init__(self, folder: Path, master: int, down_after_ms: int, password: str) -> None:
        folder.mkdir()
        super().__init__(folder)
        auth = f"sentinel auth-pass main {password}\n" if password else ""
        (folder / "sentinel.conf").write_text(
            f"sentinel monitor main {HOST} {master} 2\n"
            f"sentinel down-after-milliseconds main {down_after_ms}\n"
            "sentinel failover-timeout main 5000\n" + auth
        )

    @property
    def command(self) -> list[str]:
        where = ["--bind", HOST, "--port", str(self.port), "--dir", str(self.folder)]
        return [self.binary, str(self.folder / "sentinel.conf"), "--sentinel", *where]


class Node(Valkey):
    """A node of a cluster; `bus` is where the nodes talk to each other."""

    def __init__(self, folder: Path, timeout_ms: int, *options: str, host: str = HOST) -> None:
        self.bus = free_port()  # the usual one, 10,000 above the other, may be one of those of outgoing connections
        cluster = ("--cluster-enabled", "yes", "--cluster-port", str(self.bus))
        quick = ("--cluster-node-timeout", str(timeout_ms), "--repl-diskless-sync-delay", "0")
        apart = ("--cluster-require-full-coverage", "no")  # a lost master stops no other
        super().__init__(_made(folder), options=(*cluster, *quick, *apart, *options), host=host)


class Cluster:
    """Three masters with a replica each, or none, and the whole of them as one Redis, used like `Valkey`.

    A replica takes the place of a master that has not answered the others for `timeout_ms`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        timeout_ms: int = PATIENT_MS,
        host: str = HOST,
        replicas: int = MASTERS,
        front: Front | None = None,
        password: str = "",
    ) -> None:
        self.nodes = [Node(folder / f"node{n}", timeout_ms, host=host) for n in range(MASTERS + replicas)]
        for node in self.nodes:
            if password:
                node.lock(password)
            if front:
                node.options = (*node.options, "--cluster-announce-port", str(front(node)))
        self.masters, self.replicas = self.nodes[:MASTERS], self.nodes[MASTERS:]
        self._links: list[redis.Redis] = []

    @property
    def url(self) -> str:
        return f"redis+cluster://{_login(self.nodes[0])}" + ",".join(node.address for node in self.masters)

    def client(self) -> redis.RedisCluster:
        return redis.RedisCluster(host=self.nodes[0].host, port=self.nodes[0].port, socket_timeout=5)

    def start(self) -> None:
        for node in self.nodes:
            node.spawn()
        for node in self.nodes:
            node.wait()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(node.client()) for node in self.nodes]
            ids = [client.execute_command("CLUSTER", "MYID").decode() for client in clients]
            for number, client in enumerate(clients[:MASTERS]):
                span = number * SLOTS // MASTERS, (number + 1) * SLOTS // MASTERS - 1
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", *span)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            for number, client in enumerate(clients):
                for node in self.nodes[number + 1 :]:  # all at once: word of mouth takes its time
                    client.execute_command("CLUSTER", "MEET", node.host, node.port, node.bus)
            for client, master in zip(clients[MASTERS:], ids, strict=False):
                wait_until(lambda c=client, m=master: _knows(c, m), "the nodes know each other")
                client.execute_command("CLUSTER", "REPLICATE", master)
            for client in clients:
                wait_until(lambda c=client: self._knows_all(c), "the cluster is whole")

    def flush(self) -> None:
        """Empty the masters, as long as they are those of the start."""
        if not self._links:
            self._links = [node.client() for node in self.masters]
        for link in self._links:
            link.flushall()

    def master_of(self, key: str) -> Valkey:
        """Return the master that has a key now."""
        slot = key_slot(key.encode())
        with next(node for node in self.nodes if node.process is not None).client() as client:
            rows = client.execute_command("CLUSTER", "SLOTS")
        port = next(first[1] for start, end, first, *_ in rows if start <= slot <= end)
        return next(node for node in self.nodes if node.port == port)

    def is_whole(self) -> bool:
        """Tell whether all nodes work and know it."""
        with contextlib.ExitStack() as stack:
            return all(self._knows_all(stack.enter_context(node.client())) for node in self.nodes)

    def _knows_all(self, client: redis.Redis) -> bool:
        info = dict(line.split(":") for line in client.execute_command("CLUSTER", "INFO").decode().split())
        wanted = {"cluster_state": "ok", "cluster_known_nodes": str(len(self.nodes)), "cluster_slots_ok": str(SLOTS)}
        return wanted.items() <= info.items()  # the state is ok with missing slots, too

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for link in self._links:
            link.close()
        for node in self.nodes:
            node.stop()


class Watched:
    """A master with two replicas and three Sentinels that watch it, used like `Valkey`.

    A replica takes the place of a master that has not answered the Sentinels for `timeout_ms`.
    """

    def __init__(
        self, folder: Path, *, timeout_ms: int = PATIENT_MS, front: Front | None = None, password: str = ""
    ) -> None:
        self.servers = [Valkey(_made(folder / f"server{n}")) for n in range(3)]
        ports = [front(one) if front else one.port for one in self.servers]
        for one, port in zip(self.servers, ports, strict=True):
            if password:
                one.lock(password)
            replica = () if one is self.servers[0] else ("--replicaof", f"{HOST} {ports[0]}")
            announced = ("--replica-announce-port", str(port), "--repl-diskless-sync-delay", "0")
            one.options = (*one.options, *announced, *replica)
        self.sentinels = [Sentinel(folder / f"sentinel{n}", ports[0], timeout_ms, password) for n in range(3)]

    @property
    def url(self) -> str:
        at = ",".join(one.address for one in self.sentinels)
        return f"redis+sentinel://{_login(self.servers[0])}{at}/main/0"

    def start(self) -> None:
        master = self.servers[0]
        for one in self.servers:
            one.spawn()
        for one in self.servers:
            one.wait()
        with master.client() as client:  # before the Sentinels look, which they do every 10 s
            wait_until(lambda: client.info("replication")["connected_slaves"] == 2, "the replicas are connected")
        for one in self.sentinels:
            one.spawn()
        for one in self.sentinels:
            one.wait()
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                wait_until(lambda c=client: _watches(c), "the Sentinels know all servers")

    @property
    def master(self) -> Valkey:
        """The server that takes writes now."""
        return next(filter(is_master, self.servers))

    def client(self) -> redis.Redis:
        return self.master.client()

    def flush(self) -> None:
        self.master.flush()

    def __enter__(self) -> Watched:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in (*self.sentinels, *self.servers):
            one.stop()


def _login(server: Valkey) -> str:
    return f":{server.password}@" if server.password else ""


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _knows(client: redis.Redis, node_id: str) -> bool:
    return node_id.encode() in client.execute_command("CLUSTER", "NODES")


def _watches(client: redis.Redis) -> bool:
    state = client.sentinel_master("main")
    return state["num-slaves"] == 2 and state["num-other-sentinels"] == 2


def is_master(server: Valkey) -> bool:
    """Tell whether a server takes writes now."""
    return server.process is not None and _role(server) == b"master"


def _role(server: Valkey) -> bytes:
    with server.client() as client:
        return client.execute_command("ROLE")[0]

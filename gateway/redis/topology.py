"""Opens the Redis in REDIS_URL: one server, the master that Sentinels name, or a cluster.

The only module that distinguishes them.
"""

from gateway.redis.cluster import ClusterStore, ClusterWrites
from gateway.redis.durable import DurableWrites
from gateway.redis.sentinel import Sentinels
from gateway.redis.server import Server
from gateway.redis.server import connect as connect_to_one
from gateway.redis.slots import Slots
from gateway.redis.store import OnSend, Store
from gateway.redis_urls import is_several, read_several

Topology = Server | Sentinels | Slots
AnyStore = Store | ClusterStore
AnyWrites = DurableWrites | ClusterWrites


def connect(url: str) -> Topology:
    """Return the Redis that a URL names, which the settings have checked. Connects on use. Raises: ValueError"""
    if not is_several(url):
        return connect_to_one(url)
    several = read_several(url)
    one = connect_to_one(several.server(several.nodes[0]))

    def server(node: str) -> Server:
        name = "Redis" if several.service else f"Redis at {node}"
        return connect_to_one(several.server(node), name, like=one)

    if not several.service:
        return Slots(several.nodes, server)
    sentinels = [connect_to_one(several.sentinel(node), like=one) for node in several.nodes]
    return Sentinels(sentinels, several.service, server)


def open_store(redis: Topology, *, deadline_s: float, on_send: OnSend = None) -> AnyStore:
    """Return a store with connections of its own; `deadline_s` is that of `Store`."""
    if isinstance(redis, Slots):
        return ClusterStore(redis, deadline_s=deadline_s, on_send=on_send)
    return Store(redis, deadline_s=deadline_s, on_send=on_send)


def open_writes(redis: Topology, *, on_send: OnSend = None) -> AnyWrites:
    """Return what sends writes that must survive a crash."""
    if isinstance(redis, Slots):
        return ClusterWrites(redis, on_send=on_send)
    return DurableWrites(redis, on_send=on_send)

"""Routing in a cluster: scripted nodes that redirect, refuse, hang and die."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.crc import key_slot
from redis.exceptions import ResponseError

from gateway.redis import cluster
from gateway.redis import slots as slots_module
from gateway.redis.cluster import ClusterStore, ClusterWrites
from gateway.redis.durable import NotDurable
from gateway.redis.slots import probe_keys, slot_of
from gateway.redis.store import StoreError
from gateway.redis.topology import connect
from tests.servers import HOST
from tests.unit.gateway.redis.test_durable import NOT_CONFIRMED, FakeRedis

HALF = 8192
LOW, HIGH = "a", "b"  # keys of slots 15495 and 3300: see `test_the_keys_of_these_tests_are_in_two_halves`
Row = tuple[int, int, int]


class Node(FakeRedis):
    """Answers with its number; `special` answers come first."""

    def __init__(self, number: int, nodes: Nodes) -> None:
        super().__init__()
        self.special: Callable[[list[str]], bytes | None] = lambda words: None
        self.got: Counter[str] = Counter()

        def answer(words: list[str]) -> bytes:
            self.got[" ".join(words[:2])] += 1
            if words[0] == "CLUSTER":
                return nodes.slots()
            said = self.special(words)
            return f"+{number}\r\n".encode() if said is None else said

        self.answer = answer


class Nodes:
    """Three nodes, of which the first two are masters of a half each."""

    def __init__(self) -> None:
        self.all = [Node(number, self) for number in range(3)]
        self.rows: list[Row] = [(0, HALF - 1, 0), (HALF, 16383, 1)]
        self.host: str | None = HOST

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.all[:2])

    def slots(self) -> bytes:
        host = b"$-1\r\n" if self.host is None else f"${len(self.host)}\r\n{self.host}\r\n".encode()
        rows = [
            f"*3\r\n:{start}\r\n:{end}\r\n*3\r\n".encode() + host + f":{self.all[n].port}\r\n+id{n}\r\n".encode()
            for start, end, n in self.rows
        ]
        return f"*{len(rows)}\r\n".encode() + b"".join(rows)

    def moved(self, key: str, to: int, kind: str = "MOVED", host: str = HOST) -> bytes:
        return f"-{kind} {key_slot(key.encode())} {host}:{self.all[to].port}\r\n".encode()

    def asked(self) -> int:
        return sum(node.got["CLUSTER SLOTS"] for node in self.all)


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    nodes = Nodes()
    for node in nodes.all:
        await node.start()
    yield nodes
    for node in nodes.all:
        await node.stop()


@pytest.fixture
async def store(nodes: Nodes) -> AsyncIterator[ClusterStore]:
    store = ClusterStore(connect(nodes.url), deadline_s=1)
    yield store
    await store.close()


def test_the_keys_of_these_tests_are_in_two_halves() -> None:
    assert key_slot(LOW.encode()) >= HALF > key_slot(HIGH.encode())


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("GET", "k"), "k"),
        (("EVAL", "return 1", 2, "x{k}", "y{k}"), "k"),
        (("EVALSHA", "sha", 1, "k", "a"), "k"),
        (("XREADGROUP", "GROUP", "g", "me", "COUNT", 1, "STREAMS", "k", ">"), "k"),
        (("XGROUP", "CREATE", "k", "g", "0"), "k"),
        (("DEL", b"k", b"x"), "k"),
    ],
)
def test_a_command_goes_where_its_first_key_is(words: tuple[Any, ...], key: str) -> None:
    assert slot_of(words) == key_slot(key.encode())


@pytest.mark.parametrize("words", [("PING",), ("TIME",), ("INFO", "memory"), ("CONFIG", "GET", "maxmemory")])
def test_commands_without_a_key_have_no_slot(words: tuple[str, ...]) -> None:
    assert slot_of(words) is None


async def test_each_key_goes_to_its_master_after_one_look_at_the_map(nodes: Nodes, store: ClusterStore) -> None:
    calls = [store.execute("GET", key) for key in (LOW, HIGH, LOW)]
    assert [await call for call in calls] == [b"1", b"0", b"1"]
    await asyncio.sleep(3 * slots_module.EVERY_S)
    assert nodes.asked() <= 2, "all seeds are asked at once, and nothing is read while all goes well"


@pytest.mark.parametrize("host", [None, ""])
async def test_a_node_without_a_name_has_that_of_the_one_that_was_asked(
    nodes: Nodes, store: ClusterStore, host: str | None
) -> None:
    nodes.host = host
    nodes.all[1].special = lambda words: nodes.moved(words[1], 2, host="") if words[0] == "GET" else None
    assert await store.execute("GET", LOW) == b"2"
    assert store._slots.masters == tuple(sorted(f"{HOST}:{node.port}" for node in nodes.all))


async def test_a_node_with_a_host_name_is_known_by_it(nodes: Nodes, store: ClusterStore) -> None:
    nodes.host = "localhost"
    assert await store.execute("GET", LOW) == b"1"
    assert {*store._slots.masters} == {f"localhost:{node.port}" for node in nodes.all[:2]}


async def test_a_node_that_is_unknown_gets_no_command(nodes: Nodes, store: ClusterStore) -> None:
    """A question mark is no name: neither of a node in the map, nor of one that MOVED or ASK leads to."""
    writes = ClusterWrites(connect(nodes.url))
    for kind in ("MOVED", "ASK"):
        nodes.all[1].special = lambda words, k=kind: (
            nodes.moved(words[1], 1, k, host="?") if words[0] == "SET" else None
        )
        with pytest.raises(StoreError, match="no node of the cluster takes the command"):
            await store.execute("SET", LOW, kind)
        with pytest.raises(StoreError, match="no node of the cluster takes the command"):
            await writes.execute("SET", LOW, kind)
    assert nodes.all[1].got[f"SET {LOW}"] == 4
    nodes.host = "?"
    store._slots.refresh()
    await asyncio.sleep(3 * slots_module.EVERY_S)
    assert (store._slots.masters, store._slots.ranges("")) == ((), "0-16383")
    for call in (store.execute("GET", LOW), ClusterWrites(connect(nodes.url)).execute("SET", LOW, "1")):
        with pytest.raises(StoreError, match="no master with a known address has the slot of this key"):
            await call
    assert not any(name.startswith("GET ") for node in nodes.all for name in node.got)


def test_an_ipv6_address_stands_in_brackets() -> None:
    asked = "[2001:db8::1]:6379"
    assert slots_module._address(b"2001:db8::2", 7000, asked) == "[2001:db8::2]:7000"
    assert slots_module._address(b"", 7000, asked) == slots_module._address(None, 7000, asked) == "[2001:db8::1]:7000"


async def test_moved_is_followed_at_once_and_the_map_is_read_once(nodes: Nodes, store: ClusterStore) -> None:
    await store.execute("GET", LOW)
    await asyncio.sleep(2 * slots_module.EVERY_S)
    asked = nodes.asked()
    nodes.all[1].special = lambda words: nodes.moved(words[1], 2) if words[0] == "GET" else None
    nodes.rows = [(0, HALF - 1, 0), (HALF, 16383, 2)]
    calls = [store.execute("GET", LOW) for _ in range(20)]
    assert {await call for call in calls} == {b"2"}
    assert await store.execute("GET", "c{a}") == b"2"
    await asyncio.sleep(3 * slots_module.EVERY_S)
    assert nodes.asked() - asked <= 2
    assert nodes.all[1].got[f"GET {LOW}"] == 1 + 20, "only the calls that were under way came to the former master"


async def test_a_script_that_moved_arrives_with_its_text(nodes: Nodes, store: ClusterStore) -> None:
    await store.execute("PING")
    nodes.all[1].special = lambda words: nodes.moved(words[3], 2) if words[0] == "EVALSHA" else None
    nodes.all[2].special = lambda words: b"-NOSCRIPT x\r\n" if words[0] == "EVALSHA" else None
    assert await store.execute("EVAL", "return 1", 1, LOW) == b"2"
    assert nodes.all[2].got["EVAL return 1"] == 1


async def test_what_nobody_waits_for_is_redirected_too(nodes: Nodes, store: ClusterStore) -> None:
    await store.execute("GET", LOW)
    nodes.all[1].special = lambda words: nodes.moved(words[1], 2) if words[0] == "INCR" else None
    store.post("INCR", LOW)
    await asyncio.sleep(0.1)
    assert nodes.all[2].got[f"INCR {LOW}"] == 1


async def test_a_call_that_is_sent_around_in_circles_fails_after_five_hops(nodes: Nodes, store: ClusterStore) -> None:
    for node, to in ((1, 2), (2, 1)):
        nodes.all[node].special = lambda words, to=to: nodes.moved(words[1], to) if words[0] == "GET" else None
    with pytest.raises(StoreError, match="no node of the cluster takes the command"):
        await store.execute("GET", LOW)
    assert nodes.all[1].got[f"GET {LOW}"] + nodes.all[2].got[f"GET {LOW}"] == 6


async def test_ask_sends_asking_and_the_script_in_full_directly_after_it(nodes: Nodes, store: ClusterStore) -> None:
    await store.execute("PING")
    nodes.all[1].special = lambda words: nodes.moved(LOW, 2, "ASK") if words[0] == "EVALSHA" else None
    assert await store.execute("EVAL", "return 1", 1, LOW) == b"2"
    assert [words[0] for batch in nodes.all[2].batches for words in batch if words[0] != "CLUSTER"] == [
        "ASKING",
        "EVAL",
    ]
    assert await store.execute("GET", LOW) == b"1", "the slot stays where it is"


async def test_a_call_that_waits_for_the_node_of_an_ask_is_not_lost_when_the_map_is_read(nodes: Nodes) -> None:
    store = ClusterStore(connect(nodes.url), deadline_s=5)
    await store.execute("GET", LOW)
    with socket.create_server((HOST, 0)) as hanging:  # as a node without a slot, it is not in the map
        asked = f"-ASK {key_slot(LOW.encode())} {HOST}:{hanging.getsockname()[1]}\r\n".encode()
        answers = [asked]
        nodes.all[1].special = lambda words: answers.pop() if words[0] == "GET" and answers else None
        waiting = store.execute("GET", LOW)
        await asyncio.sleep(0.1)
        assert not answers
        store._slots.refresh()
        assert await asyncio.wait_for(waiting, 0.5) == b"1"
    assert not any(words[0] == "ASKING" for node in nodes.all for batch in node.batches for words in batch)
    await store.close()


async def test_a_node_without_slots_is_left_only_when_nothing_waits_for_it(
    nodes: Nodes, store: ClusterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_RETIRE_S", 0.05)
    await store.execute("PING")
    nodes.all[1].special = lambda words: nodes.moved(LOW, 2, "ASK") if words[0] == "GET" else None
    nodes.all[2].special = lambda words: b"" if words[0] == "GET" else None  # no reply
    waiting = store.execute("GET", LOW)
    await asyncio.sleep(0.1)
    store._slots.refresh()
    with pytest.raises(StoreError, match="did not answer in time"):
        await waiting
    await asyncio.sleep(0.2)
    assert not any(address.endswith(f":{nodes.all[2].port}") for address in store._at)


@pytest.mark.parametrize("kind", ["TRYAGAIN", "CLUSTERDOWN"])
async def test_a_cluster_in_trouble_fails_the_call_and_is_not_asked_again(
    nodes: Nodes, store: ClusterStore, kind: str
) -> None:
    nodes.all[1].special = lambda words: f"-{kind} not now\r\n".encode() if words[0] == "INCR" else None
    with pytest.raises(StoreError, match=kind):
        await store.execute("INCR", LOW)
    assert nodes.all[1].got[f"INCR {LOW}"] == 1


async def test_other_refusals_are_the_callers_own(nodes: Nodes, store: ClusterStore) -> None:
    nodes.all[1].special = lambda words: b"-WRONGTYPE x\r\n"
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await store.execute("GET", LOW)


async def test_a_dead_master_fails_only_its_own_calls_until_another_is_promoted(
    nodes: Nodes, store: ClusterStore
) -> None:
    await asyncio.gather(*(store.execute("GET", key) for key in (LOW, HIGH)))
    nodes.all[1].special = lambda words: b"" if words[0] == "INCR" else None
    unknown = store.execute("INCR", LOW)
    await asyncio.sleep(0.05)
    await nodes.all[1].stop()
    with pytest.raises(StoreError):
        await unknown
    for _ in range(60):
        with pytest.raises(StoreError):
            await store.execute("GET", LOW)
    assert await store.execute("GET", HIGH) == b"0"
    assert store.state == "open"
    assert (await store.check()) == ["redis slots 8192-16383"]
    nodes.rows = [(0, HALF - 1, 0), (HALF, 16383, 2)]
    await asyncio.sleep(3 * slots_module.EVERY_S)
    assert await store.execute("GET", LOW) == b"2"
    assert nodes.all[2].got[f"INCR {LOW}"] == 0, "a call whose outcome is unknown is never sent again"
    assert (store.state, await store.check()) == ("closed", [])
    assert store.failures >= 2


async def test_calls_that_wait_for_a_hanging_master_go_to_the_new_one(nodes: Nodes) -> None:
    store = ClusterStore(connect(nodes.url), deadline_s=5)
    await store.execute("GET", LOW)
    await nodes.all[1].stop()
    with socket.create_server((HOST, nodes.all[1].port)):  # accepts connections and never answers
        await asyncio.sleep(0.1)  # the store notices that the connection is gone
        waiting = store.execute("GET", LOW)
        nodes.rows = [(0, HALF - 1, 0), (HALF, 16383, 2)]
        assert await asyncio.wait_for(waiting, 1) == b"2"
    await store.close()


async def test_a_slot_without_a_master_fails_its_calls_and_no_others(nodes: Nodes, store: ClusterStore) -> None:
    nodes.rows = [(0, HALF - 1, 0)]
    with pytest.raises(StoreError, match="no master with a known address has the slot"):
        await store.execute("GET", LOW)
    assert await store.execute("GET", HIGH) == b"0"
    assert await store.check() == ["redis slots 8192-16383"]


async def test_a_server_that_is_no_cluster_is_said_so(nodes: Nodes, store: ClusterStore) -> None:
    for node in nodes.all:
        node.answer = lambda words: b"-ERR This instance has cluster support disabled\r\n"
    with pytest.raises(StoreError, match="cluster support disabled"):
        await store.execute("GET", LOW)
    assert store.state == "open"


async def test_replies_of_all_masters_come_with_their_addresses(nodes: Nodes, store: ClusterStore) -> None:
    names = [f"{HOST}:{node.port}" for node in nodes.all[:2]]
    assert await store.each("INFO") == dict(zip(names, (b"0", b"1"), strict=True))
    nodes.all[0].special = lambda words: b"-NOPERM x\r\n"
    replies = await store.each("INFO")
    assert isinstance(replies[names[0]], ResponseError)
    assert replies[names[1]] == b"1"


async def test_every_master_is_checked_with_a_key_of_its_own(nodes: Nodes, store: ClusterStore) -> None:
    assert await store.check() == []
    for node in nodes.all[:2]:
        assert sum(count for words, count in node.got.items() if words.startswith("SET pr:1:")) == 1
    assert set(probe_keys(store._slots, "pr:1")) == {*store._slots.masters}


async def test_no_master_that_works_is_an_error_of_the_check(nodes: Nodes, store: ClusterStore) -> None:
    await store.execute("PING")
    for node in nodes.all:
        await node.stop()
    while store.state != "open":
        await asyncio.gather(*(store.execute("GET", key) for key in (LOW, HIGH)), return_exceptions=True)
    with pytest.raises(StoreError):
        await store.check()


async def test_a_closed_store_fails_its_calls(nodes: Nodes) -> None:
    store = ClusterStore(connect(nodes.url), deadline_s=1)
    waiting = store.execute("GET", LOW)
    await store.close()
    with pytest.raises(StoreError, match="the store is closed"):
        await waiting
    with pytest.raises(StoreError, match="the store is closed"):
        await store.execute("GET", LOW)


# --- durable writes ---


async def test_durable_writes_go_to_their_masters_and_follow_moved(nodes: Nodes) -> None:
    writes = ClusterWrites(connect(nodes.url))
    assert await asyncio.gather(writes.execute("SET", LOW, "1"), writes.execute("SET", HIGH, "1")) == [b"1", b"0"]
    nodes.all[1].special = lambda words: nodes.moved(words[1], 2) if words[0] == "SET" else None
    nodes.rows = [(0, HALF - 1, 0), (HALF, 16383, 2)]
    assert await writes.execute("SET", LOW, "2") == b"2"
    assert await writes.check()


async def test_a_durable_write_asks_in_the_batch_of_its_confirmation(nodes: Nodes) -> None:
    writes = ClusterWrites(connect(nodes.url))
    nodes.all[1].special = lambda words: nodes.moved(words[1], 2, "ASK") if words[0] == "SET" else None
    assert await writes.execute("SET", LOW, "1") == b"2"
    assert [[words[0] for words in batch] for batch in nodes.all[2].batches] == [["ASKING", "SET", "WAITAOF"]]


async def test_a_master_that_does_not_confirm_fails_only_its_own_writes(nodes: Nodes) -> None:
    writes = ClusterWrites(connect(nodes.url))
    nodes.all[1].waitaof = NOT_CONFIRMED
    assert await writes.execute("SET", HIGH, "1") == b"0"
    with pytest.raises(NotDurable):
        await writes.execute("SET", LOW, "1")


async def test_a_durable_write_to_a_dead_master_fails(nodes: Nodes) -> None:
    writes = ClusterWrites(connect(nodes.url))
    await writes.execute("SET", LOW, "1")
    await nodes.all[1].stop()
    with pytest.raises(StoreError):
        await writes.execute("SET", LOW, "2")
    nodes.rows = [(0, HALF - 1, 0), (HALF, 16383, 2)]
    await asyncio.sleep(2 * slots_module.EVERY_S)
    assert await writes.execute("SET", LOW, "3") == b"2"


async def test_writes_that_wait_for_a_master_share_one_reading_of_the_map(nodes: Nodes) -> None:
    writes = ClusterWrites(connect(nodes.url))
    nodes.rows = [(0, HALF - 1, 0)]
    assert await writes.execute("SET", HIGH, "1") == b"0"
    before, loop = nodes.asked(), asyncio.get_running_loop()
    begun = loop.time()
    for _ in range(3):
        waiting = (writes.execute("SET", LOW, "1") for _ in range(1000))
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert {str(error) for error in errors} == {"no master with a known address has the slot of this key"}
    assert loop.time() - begun >= 2 * slots_module.EVERY_S, "there is a pause between two readings"
    assert nodes.asked() - before <= 3 * len(nodes.all)
    nodes.rows = [(0, HALF - 1, 0), (HALF, 16383, 2)]
    assert {*await asyncio.gather(*(writes.execute("SET", LOW, "1") for _ in range(1000)))} == {b"2"}


async def test_a_write_that_gives_up_does_not_end_the_reading_for_others(nodes: Nodes) -> None:
    writes = ClusterWrites(connect(nodes.url))
    first, second = (asyncio.create_task(writes.execute("SET", LOW, n)) for n in ("1", "2"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == b"1"
    assert first.cancelled()


# --- addresses that change, as those of pods do ---


async def test_addresses_that_have_left_the_map_are_forgotten_with_their_connections(
    nodes: Nodes, store: ClusterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_RETIRE_S", 0.05)
    writes, former = ClusterWrites(connect(nodes.url)), []
    for _ in range(5):
        assert await writes.execute("SET", LOW, "1") == b"1"
        assert await store.execute("GET", LOW) == b"1"
        new = Node(1, nodes)
        await new.start()
        old, nodes.all[1] = nodes.all[1], new
        old.special = lambda words: nodes.moved(words[1], 1) if words[0] in ("GET", "SET") else None
        former.append(old)
    assert await writes.execute("SET", LOW, "1") == b"1"
    assert await store.execute("GET", LOW) == b"1"
    async with asyncio.timeout(5):
        while {*store._at} - {*store._slots.masters} or any(node.connections for node in former):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await writes._slots.read()
    writes._writes(f"{HOST}:1")
    assert {*writes._at} <= {*writes._slots.masters, f"{HOST}:1"}
    for node in former:
        await node.stop()


async def test_writes_to_an_address_that_leaves_the_map_are_confirmed(nodes: Nodes) -> None:
    writes = ClusterWrites(connect(nodes.url))
    nodes.all[1].delay_s = 0.3
    under_way = asyncio.create_task(writes.execute("SET", LOW, "1"))
    await asyncio.sleep(0.1)
    old = f"{HOST}:{nodes.all[1].port}"
    nodes.rows = [(0, HALF - 1, 0), (HALF, 16383, 2)]
    await writes._slots.read()
    assert await writes.execute("SET", LOW, "2") == b"2"
    assert old in writes._at
    assert await under_way == b"1"
    writes._writes(f"{HOST}:1")
    assert old not in writes._at

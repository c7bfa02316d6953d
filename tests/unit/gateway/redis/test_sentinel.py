"""Who is the master: scripted Sentinels, of which some are wrong, late or silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.redis.refusals import NotFound, reply_text
from gateway.redis.sentinel import Sentinels
from gateway.redis.server import connect
from gateway.redis.store import Store, StoreError
from gateway.redis.topology import connect as connect_to
from tests.servers import HOST, free_port
from tests.unit.gateway.redis.test_durable import FakeRedis


def bulk(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)


def masters(port: int, *, flags: str = "master", promoted: int = 0) -> dict[str, bytes]:
    """Return what a Sentinel says of its masters, and of the address of one: that of `promoted` during a failover."""
    rows = b"*1\r\n" + bulk("name", "main", "ip", HOST, "port", str(port), "flags", flags)
    return {"MASTERS": rows, "GET-MASTER-ADDR-BY-NAME": bulk(HOST, str(promoted or port))}


NONE = {"GET-MASTER-ADDR-BY-NAME": b"*-1\r\n"}
SILENT = {"GET-MASTER-ADDR-BY-NAME": b""}


class Setting:
    """Two servers and three Sentinels, which say what `says` has."""

    def __init__(self) -> None:
        self.servers = [FakeRedis(), FakeRedis()]
        self.sentinels = [FakeRedis() for _ in range(3)]
        self.roles = ["master", "slave"]
        self.says = [masters(self.servers[0].port)] * 3
        self.delays_s = [0.0, 0.0, 0.0]
        for server, number in zip(self.servers, range(2), strict=True):
            server.answer = lambda words, n=number: self._server(n, words)
        for sentinel, number in zip(self.sentinels, range(3), strict=True):
            sentinel.answer = lambda words, n=number: self.says[n][words[1]]

    def _server(self, number: int, words: list[str]) -> bytes:
        if words[0] == "ROLE":
            return bulk(self.roles[number], "0")
        if words[0] == "SET" and self.roles[number] != "master":
            return b"-READONLY You can't write against a read only replica.\r\n"
        return f"+{number}\r\n".encode()

    @property
    def url(self) -> str:
        return "redis+sentinel://" + ",".join(f"{HOST}:{one.port}" for one in self.sentinels) + "/main"

    def failover(self) -> None:
        self.roles = ["slave", "master"]
        self.says = [masters(self.servers[1].port)] * 3


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    setting = Setting()
    for one in (*setting.servers, *setting.sentinels):
        await one.start()
    yield setting
    for one in (*setting.servers, *setting.sentinels):
        await one.stop()


@pytest.fixture
async def store(setting: Setting) -> AsyncIterator[Store]:
    store = Store(connect_to(setting.url), deadline_s=2)
    yield store
    await store.close()


async def test_the_first_sentinel_that_knows_a_living_master_is_believed(setting: Setting, store: Store) -> None:
    setting.says[0] = masters(setting.servers[1].port, flags="s_down,master,disconnected")
    setting.says[1] = NONE
    assert await store.execute("PING") == b"0"


async def test_the_sentinel_that_carries_out_a_failover_is_believed_before_the_others_know(
    setting: Setting, store: Store
) -> None:
    old, new = (server.port for server in setting.servers)
    setting.roles = ["master", "master"]
    await setting.servers[0].stop()
    setting.says = [masters(old), masters(old, flags="master,s_down"), masters(old, flags="o_down", promoted=new)]
    assert await store.execute("PING") == b"1"


async def test_a_silent_sentinel_delays_nobody(setting: Setting, store: Store) -> None:
    setting.says[0] = setting.says[1] = SILENT
    async with asyncio.timeout(0.5):
        assert await store.execute("PING") == b"0"


async def test_a_replica_that_a_sentinel_takes_for_the_master_gets_no_command(setting: Setting, store: Store) -> None:
    setting.roles = ["slave", "slave"]
    with pytest.raises(StoreError, match="is not the master yet"):
        await store.execute("GET", "k")
    assert not any(words[0] == "GET" for batch in setting.servers[0].batches for words in batch)


async def test_a_write_that_a_former_master_refuses_goes_to_the_new_one(setting: Setting, store: Store) -> None:
    assert await store.execute("SET", "k", "1") == b"0"
    setting.failover()
    assert await asyncio.gather(store.execute("SET", "k", "2"), store.execute("SET", "k", "3")) == [b"1", b"1"]


async def test_what_a_former_master_has_not_answered_is_not_sent_again(setting: Setting, store: Store) -> None:
    await store.execute("PING")
    answer = setting.servers[0].answer
    setting.servers[0].answer = lambda words: b"" if words[0] == "INCR" else answer(words)
    setting.failover()
    refused, unknown = store.execute("SET", "k", "1"), store.execute("INCR", "n")
    assert await refused == b"1"
    with pytest.raises(StoreError, match="not the master any more"):
        await unknown
    assert not any(words[0] == "INCR" for batch in setting.servers[1].batches for words in batch)


async def test_a_server_that_stays_read_only_refuses_and_is_not_left_for_every_command(
    setting: Setting, store: Store
) -> None:
    await store.execute("PING")
    answer = setting.servers[0].answer
    setting.servers[0].answer = lambda words: b"-READONLY x\r\n" if words[0] == "SET" else answer(words)
    before = len(setting.servers[0].batches)
    for _ in range(5):
        with pytest.raises(Exception, match="x"):
            await store.execute("SET", "k", "1")
    roles = [words for batch in setting.servers[0].batches[before:] for words in batch if words[0] == "ROLE"]
    assert len(roles) == 1


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (NONE, "watch no service with the name"),
        (masters(1, flags="master,o_down"), "know no living master"),
        ({"GET-MASTER-ADDR-BY-NAME": b"-NOAUTH Authentication required.\r\n"}, "NOAUTH"),
    ],
)
async def test_the_error_says_what_the_sentinels_answer(setting: Setting, says: dict[str, bytes], why: str) -> None:
    setting.says = [says] * 3
    server = connect(f"redis://{HOST}:{free_port()}/0")
    sentinels = [server, *(connect(f"redis://{HOST}:{one.port}/0") for one in setting.sentinels)]
    with pytest.raises(Exception) as error:  # noqa: PT011  redis-py's and ours
        await Sentinels(sentinels, "main", lambda node: server).open()
    assert why in reply_text(error.value)
    assert isinstance(error.value, NotFound) or why == "NOAUTH"

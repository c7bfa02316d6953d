"""Streams of events: what they tell, when they end, how many there may be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from auth import Execute
from auth.keys import KeyRing
from auth.service_keys import ServiceKey
from auth.sessions import Sessions
from auth.tokens import DEFAULT_TTL_S, LEEWAY_S, LoginTokens, Principal
from gateway.audit import Audit
from gateway.metering.keys import open_stays
from gateway.metering.webhooks import Webhooks
from gateway.overview import live as module
from gateway.overview.live import MOST_OF_USER, MOST_STREAMS, Live, TooManyStreams
from gateway.overview.presence import Presence
from gateway.overview.totals import Totals
from gateway.policy.file import load_policy
from gateway.policy.live import PolicyInForce
from gateway.policy.scopes import ACT, ROLE
from gateway.redis.store import StoreError
from limits.counters import Counters
from tests.fake_redis import fake_redis

SECRET = ["x8Nw0GqGmTzX5H4tVYtJv7rC2Lb9dKfPqUeSa3Zi"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.01)


class Installation:
    """A live view on a Redis that counts how often it is read, and can be taken away."""

    def __init__(self, execute: Execute) -> None:
        self.redis = execute
        self.reads = 0
        self.is_away = False
        self.now_s = 1_795_608_000.0
        self.tokens = LoginTokens(KeyRing(SECRET, "login-token"), now=lambda: self.now_s)
        self.policy = PolicyInForce(load_policy(None))
        presence = Presence(self.execute, clock=lambda: self.now_s)
        totals, webhooks = Totals(self.execute, Counters(self.execute).daily), Webhooks(self.execute, Audit(execute))
        sessions = Sessions(self.execute, KeyRing(SECRET, "refresh"))
        self.live = Live(totals, presence, webhooks, self.tokens, sessions, self.policy)
        self.streams: list[AsyncGenerator[bytes]] = []

    async def execute(self, *words: Any) -> Any:
        if self.is_away:
            raise StoreError("Redis is down")
        self.reads += words[0] == "HLEN"
        return await self.redis(*words)

    async def open(self, user: str = "a", role: str = "operator") -> AsyncGenerator[bytes]:
        """Return the stream of a new session, from which the first chunk has been read."""
        principal = Principal(f"u{user * 20}", f"{len(self.streams):020x}", (role,), 1)
        for key, field, value in Sessions.guards(principal):
            await self.redis("HSET", key, field, value)
        stream = self.live.follow(principal, self.tokens.issue(principal, auth_time=0))
        self.streams.append(stream)
        assert (await anext(stream)).startswith(b":")
        return stream

    async def stop(self) -> None:
        for stream in self.streams:
            with contextlib.suppress(RuntimeError):
                await stream.aclose()
        await self.live.close()


@pytest.fixture
async def own() -> AsyncIterator[Installation]:
    redis = fake_redis()
    installation = Installation(redis.execute_command)
    yield installation
    await installation.stop()
    await redis.aclose()


async def following(stream: AsyncGenerator[bytes]) -> tuple[str, Any]:
    """Return the name and the data of the next event."""
    async with asyncio.timeout(20):
        chunk = b""
        while not chunk or chunk.startswith(b":"):
            chunk = await anext(stream)
    name, data, *rest = chunk.decode().split("\n")
    assert rest == ["", ""]
    return name.removeprefix("event: "), msgspec.json.decode(data.removeprefix("data: "))


async def test_a_stream_begins_with_what_is_and_tells_what_changes(own: Installation) -> None:
    stream = await own.open()
    name, first = await following(stream)
    assert name == "overview"
    assert (first["people_now"], first["rooms_now"], len(first["points"])) == (0, 0, 2)
    assert (first["webhooks_waiting"], first["webhook_lag_ms"], first["dead_letters"]) == (0, 0, 0)
    await own.redis("HSET", open_stays("all"), "p", '{"room":"a"}')
    _, second = await following(stream)
    assert (second["people_now"], second["rooms_now"]) == (1, 1)


async def test_all_streams_share_one_reader_which_ends_with_the_last_one(own: Installation) -> None:
    one = await own.open()
    await following(one)
    others = [await own.open(user) for user in "bcdefg"]
    for stream in others:
        assert (await following(stream))[0] == "overview"
    before, reads = asyncio.get_running_loop().time(), own.reads
    await asyncio.sleep(0.2)
    assert own.reads - reads <= (asyncio.get_running_loop().time() - before) / module.EVERY_S + 1
    await own.stop()
    reads = own.reads
    await asyncio.sleep(0.05)
    assert own.reads == reads


async def end_of(stream: AsyncGenerator[bytes]) -> str:
    """Return why a stream ends."""
    while True:
        name, data = await following(stream)
        if name == "end":
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
            return str(data["reason"])


@pytest.mark.parametrize("what", ["session", "version"])
async def test_a_stream_ends_with_its_session_and_with_a_change_of_its_user(own: Installation, what: str) -> None:
    stream, other = await own.open("a"), await own.open("b")
    uid = "u" + "a" * 20
    if what == "session":
        await own.redis("DEL", f"s:1:{{{uid}}}:{0:020x}")
    else:
        await own.redis("HSET", f"u:1:{{{uid}}}", "ver", 2)
    assert await end_of(stream) == "session_ended"
    assert (await following(other))[0] == "overview"


async def test_a_stream_does_not_outlive_its_token(own: Installation) -> None:
    stream = await own.open()
    await following(stream)
    own.now_s += DEFAULT_TTL_S + LEEWAY_S
    assert await end_of(stream) == "token_expired"


@pytest.mark.parametrize("acting", [False, True])
@pytest.mark.parametrize("what", ["expires", "changes", "lacks the scope"])
async def test_a_stream_of_a_service_key_ends_with_the_key(own: Installation, what: str, acting: bool) -> None:
    scopes = frozenset({"audit:read", ACT} if what == "lacks the scope" else {"usage:read-any", ACT})
    expires_ms = 1 if what == "expires" else 0
    key = ServiceKey("gwk_abcdefghijkl", "bi", scopes, "active", 1, "cli", expires_ms, (), "m", "d", "", 0, 0)
    uid, role = (f"u{'a' * 20}", "operator") if acting else (key.id, ROLE)
    await own.redis("HSET", f"u:1:{{{uid}}}", "ver", 1)
    await own.redis("HSET", f"sk:1:{{{key.id}}}", "mark", "other" if what == "changes" else "m")
    stream = own.live.follow(Principal(uid, "", (role,), 1, key), "")
    own.streams.append(stream)
    assert (await anext(stream)).startswith(b":")
    reasons = {"expires": "token_expired", "changes": "session_ended", "lacks the scope": "forbidden"}
    assert await end_of(stream) == reasons[what]


async def test_a_stream_ends_when_the_policy_no_longer_permits_it(own: Installation) -> None:
    stream = await own.open()
    own.policy.now = replace(own.policy.now, roles={})
    assert await end_of(stream) == "forbidden"


async def test_without_redis_all_streams_end_and_later_ones_work(own: Installation) -> None:
    stream, other = await own.open("a"), await own.open("b")
    await following(stream)
    own.is_away = True
    assert [await end_of(stream), await end_of(other)] == ["unavailable", "unavailable"]
    own.is_away = False
    assert (await following(await own.open("c")))[0] == "overview"


async def test_streams_are_bounded_per_user_and_per_process(own: Installation) -> None:
    for _ in range(MOST_OF_USER):
        await own.open("a")
    with pytest.raises(TooManyStreams):
        await own.open("a")
    for number in range(MOST_STREAMS - MOST_OF_USER):
        await own.open("bcdefgh"[number % 7])
    with pytest.raises(TooManyStreams):
        await own.open("z")
    await own.streams[0].aclose()
    await own.open("z")


async def test_a_silent_stream_sends_comments(own: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.05)
    stream = await own.open()
    await following(stream)
    async with asyncio.timeout(20):
        while not (await anext(stream)).startswith(b": "):
            pass

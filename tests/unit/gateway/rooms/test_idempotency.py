"""The same request again, by its key. `IdempotencyContract` runs on fakeredis here and on Valkey in integration."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.rooms import idempotency as module
from gateway.rooms.idempotency import KEEP_MS, KEY, Attempt, Idempotency, InFlight, OtherRequest
from tests.fake_redis import fake_redis

Execute = Callable[..., Awaitable[Any]]

UID, OTHER = "u" + "a" * 20, "u" + "b" * 20
ROOM = "0" * 24


class IdempotencyContract:
    """A subclass brings an `execute` fixture on an empty database."""

    @pytest.fixture
    def keys(self, execute: Execute) -> Idempotency:
        return Idempotency(execute)

    async def begin(self, keys: Idempotency, key: str = "k", asked: bytes = b"{}", name: str = "n.1") -> Attempt:
        return await keys.begin(UID, "rooms.create", key, asked, name=name)

    async def test_a_first_request_goes_on_under_its_own_name(self, keys: Idempotency) -> None:
        attempt = await self.begin(keys)
        assert (attempt.name, attempt.room_id) == ("n.1", "")

    async def test_while_the_first_is_under_way_a_second_waits(self, keys: Idempotency) -> None:
        await self.begin(keys)
        with pytest.raises(InFlight):
            await self.begin(keys, name="n.2")

    async def test_a_finished_request_is_told_by_its_room(self, keys: Idempotency) -> None:
        await keys.finish(await self.begin(keys), ROOM)
        for _ in range(3):
            assert (await self.begin(keys, name="n.2")).room_id == ROOM

    async def test_after_a_failure_the_next_goes_on_at_once_under_the_same_name(self, keys: Idempotency) -> None:
        await keys.leave(await self.begin(keys))
        assert (await self.begin(keys, name="n.2")).name == "n.1"
        with pytest.raises(InFlight):
            await self.begin(keys, name="n.3")

    async def test_after_a_crash_the_next_goes_on_when_the_time_of_the_first_is_over(
        self, keys: Idempotency, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_AT_IT_MS", 30)
        await self.begin(keys)
        await asyncio.sleep(0.05)
        assert (await self.begin(keys, name="n.2")).name == "n.1"

    @pytest.mark.parametrize("state", ["under way", "failed", "finished"])
    async def test_another_body_is_refused_whatever_became_of_the_first(self, keys: Idempotency, state: str) -> None:
        attempt = await self.begin(keys)
        if state == "failed":
            await keys.leave(attempt)
        if state == "finished":
            await keys.finish(attempt, ROOM)
        with pytest.raises(OtherRequest):
            await self.begin(keys, asked=b'{"name":"x"}')

    async def test_keys_are_of_one_user_and_one_route(self, keys: Idempotency) -> None:
        await self.begin(keys)
        for uid, route, key in ((OTHER, "rooms.create", "k"), (UID, "invites.make", "k"), (UID, "rooms.create", "K")):
            assert (await keys.begin(uid, route, key, b"{}", name="n.9")).name == "n.9"

    async def test_of_fifty_at_once_one_goes_on(self, keys: Idempotency) -> None:
        outcomes = await asyncio.gather(*(self.begin(keys, name=f"n.{n}") for n in range(50)), return_exceptions=True)
        assert sum(isinstance(one, Attempt) for one in outcomes) == 1
        assert sum(isinstance(one, InFlight) for one in outcomes) == 49

    async def test_a_key_is_remembered_for_a_day_from_its_first_use(self, keys: Idempotency, execute: Execute) -> None:
        attempt = await self.begin(keys)
        await execute("PEXPIRE", attempt.key, 5000)
        await keys.leave(attempt)
        await self.begin(keys)
        await keys.finish(attempt, ROOM)
        assert 0 < await execute("PTTL", attempt.key) <= 5000
        fresh = await self.begin(keys, key="another")
        assert KEEP_MS - 5000 < await execute("PTTL", fresh.key) <= KEEP_MS

    async def test_the_key_itself_is_not_kept(self, keys: Idempotency, execute: Execute) -> None:
        attempt = await self.begin(keys, key="order-of-mr-smith")
        assert "smith" not in attempt.key
        assert re.fullmatch(rf"ik:1:\{{{UID}\}}:[0-9a-f]{{32}}", attempt.key)


@pytest.mark.parametrize("key", ["a", "!", "~" * 128, '"8e03978e-40d5-43e8-bc93-6894a57f9324"'])
def test_a_key_is_visible_ascii(key: str) -> None:
    assert KEY.fullmatch(key)


@pytest.mark.parametrize("key", ["", " ", "a b", "a" * 129, "\u00e9", "a\n", "\x7f"])
def test_what_is_no_key(key: str) -> None:
    assert not KEY.fullmatch(key)


class TestIdempotencyOnFakeredis(IdempotencyContract):
    @pytest.fixture
    def execute(self) -> Execute:
        return fake_redis().execute_command  # type: ignore[no-any-return]

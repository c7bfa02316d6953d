"""Repeated requests with a key. `IdempotencyContract` runs on fakeredis here and on Valkey in integration."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.redis.store import StoreError
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

    async def test_a_first_request_uses_its_own_name(self, keys: Idempotency) -> None:
        attempt = await self.begin(keys)
        assert (attempt.name, attempt.room_id) == ("n.1", "")

    async def test_a_second_request_during_the_first_is_refused(self, keys: Idempotency) -> None:
        await self.begin(keys)
        with pytest.raises(InFlight):
            await self.begin(keys, name="n.2")

    async def test_a_finished_request_returns_its_room(self, keys: Idempotency) -> None:
        await keys.finish(await self.begin(keys), ROOM)
        for _ in range(3):
            assert (await self.begin(keys, name="n.2")).room_id == ROOM

    async def fail(self, keys: Idempotency, attempt: Attempt, error: Exception | None = None) -> None:
        with pytest.raises(type(error or ValueError())):
            async with keys.held(attempt):
                raise error or ValueError

    async def test_after_a_failure_the_next_attempt_begins_at_once_with_the_same_name(self, keys: Idempotency) -> None:
        await self.fail(keys, await self.begin(keys))
        assert (await self.begin(keys, name="n.2")).name == "n.1"
        with pytest.raises(InFlight):
            await self.begin(keys, name="n.3")

    async def test_after_a_failure_of_redis_the_next_attempt_waits_until_the_hold_ends(
        self, keys: Idempotency, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "HOLD_MS", 100)
        await self.fail(keys, await self.begin(keys), StoreError("x"))
        with pytest.raises(InFlight):
            await self.begin(keys)
        await asyncio.sleep(0.12)
        assert (await self.begin(keys, name="n.2")).name == "n.1"

    async def test_after_a_crash_the_next_attempt_begins_within_two_seconds(
        self, keys: Idempotency, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert module.HOLD_MS <= 2000
        monkeypatch.setattr(module, "HOLD_MS", 30)
        await self.begin(keys)
        await asyncio.sleep(0.05)
        assert (await self.begin(keys, name="n.2")).name == "n.1"

    async def test_a_slow_request_keeps_its_hold(self, keys: Idempotency, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "HOLD_MS", 400)
        monkeypatch.setattr(module, "_RENEW_S", 0.05)
        async with keys.held(await self.begin(keys)):
            for _ in range(10):
                await asyncio.sleep(0.1)
                with pytest.raises(InFlight):
                    await self.begin(keys)

    @pytest.mark.parametrize("why", ["Redis is unreachable", "another attempt has begun"])
    async def test_an_attempt_that_cannot_renew_its_hold_is_abandoned(
        self, keys: Idempotency, execute: Execute, monkeypatch: pytest.MonkeyPatch, why: str
    ) -> None:
        monkeypatch.setattr(module, "HOLD_MS", 200)
        monkeypatch.setattr(module, "_RENEW_S", 0.05)
        attempt = await self.begin(keys)

        async def away(*_: Any) -> Any:
            raise StoreError("x")

        if why == "Redis is unreachable":
            monkeypatch.setattr(keys, "_execute", away)
        else:
            await execute("HSET", attempt.record, "by", "another")

        async def work() -> None:
            async with keys.held(attempt):
                await asyncio.sleep(5)

        began = time.monotonic()
        with pytest.raises(InFlight):
            await work()
        assert time.monotonic() - began < 2
        assert await execute("HGET", attempt.record, "until") != b"0", "the hold of another attempt must not change"

    async def test_a_failed_attempt_does_not_release_the_hold_of_the_next_one(
        self, keys: Idempotency, execute: Execute
    ) -> None:
        attempt = await self.begin(keys)
        await execute("HSET", attempt.record, "by", "another")
        await self.fail(keys, attempt)
        with pytest.raises(InFlight):
            await self.begin(keys)

    async def test_a_timeout_of_the_work_itself_does_not_count_as_a_lost_hold(self, keys: Idempotency) -> None:
        await self.fail(keys, await self.begin(keys), TimeoutError("of 100ms"))
        assert (await self.begin(keys, name="n.2")).name == "n.1"

    @pytest.mark.parametrize("state", ["under way", "failed", "finished"])
    async def test_another_body_is_refused_whatever_the_outcome_of_the_first(
        self, keys: Idempotency, state: str
    ) -> None:
        attempt = await self.begin(keys)
        if state == "failed":
            await self.fail(keys, attempt)
        if state == "finished":
            await keys.finish(attempt, ROOM)
        with pytest.raises(OtherRequest):
            await self.begin(keys, asked=b'{"name":"x"}')

    async def test_keys_belong_to_one_user_and_one_route(self, keys: Idempotency) -> None:
        await self.begin(keys)
        for uid, route, key in ((OTHER, "rooms.create", "k"), (UID, "invites.make", "k"), (UID, "rooms.create", "K")):
            assert (await keys.begin(uid, route, key, b"{}", name="n.9")).name == "n.9"

    async def test_one_of_fifty_concurrent_requests_begins(self, keys: Idempotency) -> None:
        outcomes = await asyncio.gather(*(self.begin(keys, name=f"n.{n}") for n in range(50)), return_exceptions=True)
        assert sum(isinstance(one, Attempt) for one in outcomes) == 1
        assert sum(isinstance(one, InFlight) for one in outcomes) == 49

    async def test_a_key_is_kept_for_a_day_from_its_first_use(self, keys: Idempotency, execute: Execute) -> None:
        attempt = await self.begin(keys)
        await execute("PEXPIRE", attempt.record, 5000)
        await self.fail(keys, attempt)
        await self.begin(keys)
        await keys.finish(attempt, ROOM)
        assert 0 < await execute("PTTL", attempt.record) <= 5000
        fresh = await self.begin(keys, key="another")
        assert KEEP_MS - 5000 < await execute("PTTL", fresh.record) <= KEEP_MS

    async def test_the_key_itself_is_not_stored(self, keys: Idempotency, execute: Execute) -> None:
        attempt = await self.begin(keys, key="order-of-mr-smith")
        assert "smith" not in attempt.record
        assert re.fullmatch(rf"ik:1:\{{{UID}\}}:[0-9a-f]{{32}}", attempt.record)


@pytest.mark.parametrize("key", ["a", "!", "~" * 128, '"8e03978e-40d5-43e8-bc93-6894a57f9324"'])
def test_visible_ascii_is_a_valid_key(key: str) -> None:
    assert KEY.fullmatch(key)


@pytest.mark.parametrize("key", ["", " ", "a b", "a" * 129, "\u00e9", "a\n", "\x7f"])
def test_other_texts_are_invalid_keys(key: str) -> None:
    assert not KEY.fullmatch(key)


class TestIdempotencyOnFakeredis(IdempotencyContract):
    @pytest.fixture
    def execute(self) -> Execute:
        return fake_redis().execute_command  # type: ignore[no-any-return]

"""Codes. `VouchersContract` applies to any Redis; it runs on fakeredis here and on Valkey in integration."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from auth.errors import InvalidVoucher
from auth.vouchers import Vouchers, ref_of
from tests.fake_redis import fake_redis

Execute = Callable[..., Awaitable[Any]]

PAYLOAD = {"roles": "host member", "by": "cli"}
HOUR_S = 3600


class VouchersContract:
    """A subclass brings an `execute` fixture on an empty database."""

    @pytest.fixture
    def vouchers(self, execute: Execute) -> Vouchers:
        return Vouchers(execute, "account")

    async def refused(self, vouchers: Vouchers, code: str) -> None:
        for attempt in (vouchers.look, vouchers.spend):
            with pytest.raises(InvalidVoucher) as caught:
                await attempt(code)
            assert len(code) < 4 or code not in str(caught.value)

    async def test_a_code_returns_the_payload_it_was_issued_for(self, vouchers: Vouchers) -> None:
        code = await vouchers.issue(PAYLOAD, ttl_s=HOUR_S)
        voucher = await vouchers.look(code)
        assert (voucher.ref, voucher.payload, voucher.uses_left) == (ref_of(code), PAYLOAD, 1)
        assert HOUR_S - 5 <= voucher.expires_in_s <= HOUR_S
        assert await vouchers.spend(code) == PAYLOAD

    async def test_codes_have_26_characters_and_are_unique(self, vouchers: Vouchers) -> None:
        codes = {await vouchers.issue(PAYLOAD, ttl_s=HOUR_S) for _ in range(50)}
        assert len(codes) == 50
        assert all(re.fullmatch("[a-z2-7]{26}", code) for code in codes)

    async def test_one_of_fifty_racing_spends_succeeds(self, vouchers: Vouchers) -> None:
        code = await vouchers.issue(PAYLOAD, ttl_s=HOUR_S)
        outcomes = await asyncio.gather(*(vouchers.spend(code) for _ in range(50)), return_exceptions=True)
        assert [outcome for outcome in outcomes if not isinstance(outcome, InvalidVoucher)] == [PAYLOAD]

    async def test_racing_spends_succeed_exactly_as_often_as_there_are_uses(self, vouchers: Vouchers) -> None:
        code = await vouchers.issue(PAYLOAD, ttl_s=HOUR_S, uses=7)
        outcomes = await asyncio.gather(*(vouchers.spend(code) for _ in range(50)), return_exceptions=True)
        assert sum(outcome == PAYLOAD for outcome in outcomes) == 7
        await self.refused(vouchers, code)

    async def test_reading_a_voucher_does_not_spend_it(self, vouchers: Vouchers) -> None:
        code = await vouchers.issue(PAYLOAD, ttl_s=HOUR_S)
        for _ in range(5):
            assert (await vouchers.look(code)).uses_left == 1
        assert await vouchers.spend(code) == PAYLOAD

    async def test_a_refunded_use_can_be_spent_again(self, vouchers: Vouchers) -> None:
        code = await vouchers.issue(PAYLOAD, ttl_s=HOUR_S)
        await vouchers.spend(code)
        await self.refused(vouchers, code)
        await vouchers.give_back(code)
        assert await vouchers.spend(code) == PAYLOAD
        await self.refused(vouchers, code)

    async def test_a_refund_neither_prolongs_nor_revives_a_voucher(self, vouchers: Vouchers, execute: Execute) -> None:
        code = await vouchers.issue(PAYLOAD, ttl_s=HOUR_S)
        key = f"vo:1:account:{ref_of(code)}"
        await execute("EXPIRE", key, 100)
        await vouchers.spend(code)
        await vouchers.give_back(code)
        assert 0 < await execute("TTL", key) <= 100
        await vouchers.revoke(ref_of(code))
        await vouchers.give_back(code)
        assert await execute("DBSIZE") == 0
        await self.refused(vouchers, code)

    async def test_an_expired_code_is_gone(self, vouchers: Vouchers, execute: Execute) -> None:
        code = await vouchers.issue(PAYLOAD, ttl_s=HOUR_S)
        await execute("PEXPIRE", f"vo:1:account:{ref_of(code)}", 1)
        await asyncio.sleep(0.02)
        await self.refused(vouchers, code)
        assert await vouchers.find(ref_of(code)) is None

    async def test_a_revoked_code_is_void_at_once_and_its_reference_does_not_reveal_it(
        self, vouchers: Vouchers
    ) -> None:
        code = await vouchers.issue(PAYLOAD, ttl_s=HOUR_S)
        ref = ref_of(code)
        assert code not in ref
        assert await vouchers.revoke(ref)
        assert not await vouchers.revoke(ref)
        await self.refused(vouchers, code)

    async def test_a_used_up_voucher_is_still_found_by_its_reference(self, vouchers: Vouchers) -> None:
        code = await vouchers.issue(PAYLOAD, ttl_s=HOUR_S)
        await vouchers.spend(code)
        found = await vouchers.find(ref_of(code))
        assert found is not None
        assert found.uses_left == 0

    async def test_a_code_of_one_kind_is_refused_as_another(self, vouchers: Vouchers, execute: Execute) -> None:
        code = await vouchers.issue(PAYLOAD, ttl_s=HOUR_S)
        await self.refused(Vouchers(execute, "password"), code)
        assert await vouchers.spend(code) == PAYLOAD

    @pytest.mark.parametrize(
        "spoil",
        [
            str.upper,
            lambda code: code[:-1],
            lambda code: code + "a",
            lambda code: f" {code}",
            lambda code: f"{code}\n",
            lambda code: code[:-1] + ("a" if code[-1] != "a" else "b"),
            lambda code: code.replace(code[0], "\u0430", 1),
            lambda code: "*" * 26,
            lambda code: "0" * 26,
            lambda code: "\ud800" * 26,
            lambda code: "",
        ],
    )
    async def test_foreign_codes_are_refused_and_spend_nothing(
        self, vouchers: Vouchers, spoil: Callable[[str], str]
    ) -> None:
        code = await vouchers.issue(PAYLOAD, ttl_s=HOUR_S)
        await self.refused(vouchers, spoil(code))
        await vouchers.give_back(spoil(code))
        assert (await vouchers.look(code)).uses_left == 1

    async def test_redis_does_not_reveal_codes(self, vouchers: Vouchers, execute: Execute) -> None:
        code = await vouchers.issue(PAYLOAD, ttl_s=HOUR_S)
        [key] = await execute("KEYS", "*")
        stored = repr((key, await execute("HGETALL", key)))
        for part in (code, code[:8], code[-8:]):
            assert part not in stored
        await self.refused(vouchers, key.decode().rpartition(":")[2][:26])  # nor is the key itself a code


@pytest.fixture
def execute() -> Execute:
    return fake_redis().execute_command


class TestVouchers(VouchersContract):
    pass


@pytest.mark.parametrize("code", ["", "short", "A" * 26, "a" * 27, "a" * 25 + "\n", "\ud800" * 26])
async def test_a_malformed_code_never_reaches_redis(code: str) -> None:
    asked = []

    async def execute(*words: Any) -> None:
        asked.append(words)

    vouchers = Vouchers(execute, "account")
    for attempt in (vouchers.look, vouchers.spend):
        with pytest.raises(InvalidVoucher):
            await attempt(code)
    await vouchers.give_back(code)
    assert asked == []

"""What budgets say at a mint: refused once they are spent, else for how long the token may live."""

from __future__ import annotations

import pytest

from gateway.metering.budgets import BudgetSpent
from limits.policy import Decision
from tests.fake_redis import fake_redis
from tests.unit.gateway.metering.budget_bench import ANN, BEN, BUDGETS, OWNER, BudgetBench, policy_with

ROOM = "6" * 24


@pytest.fixture
async def bench() -> BudgetBench:
    bench = BudgetBench(fake_redis().execute_command, policy_with(BUDGETS.format(more="")))
    await bench.account(OWNER, "host")
    await bench.execute("HSET", f"rm:1:{{{ROOM}}}", "owner", OWNER, "template", "default")
    return bench


async def taken(bench: BudgetBench, uid: str, *roles: str) -> Decision:
    """Return the decision of admission on a mint."""
    quotas = bench.policy.now.quotas(roles or ("member",), "tokens.mint")
    return await bench.limiter.take(uid, (), metric="tokens.mint", quotas=quotas)


async def test_a_token_lives_as_long_as_the_tightest_budget_has_left(bench: BudgetBench) -> None:
    async def left_s() -> int | None:
        return await bench.budgets.check_mint(await taken(bench, ANN), OWNER)

    assert await left_s() == 30 * 60
    await bench.stay(ANN, ROOM, 10.5)
    assert await left_s() == 19.5 * 60
    await bench.stay(BEN, ROOM, 80)
    assert await left_s() == 9.5 * 60
    await bench.stay(BEN, "elsewhere", 401)
    assert await left_s() == 8.5 * 60


async def test_a_spent_budget_of_the_owner_refuses_everybody_in_their_rooms_only(bench: BudgetBench) -> None:
    await bench.stay(BEN, ROOM, 100)
    with pytest.raises(BudgetSpent) as refused:
        await bench.budgets.check_mint(await taken(bench, ANN), OWNER)
    assert (refused.value.scope, refused.value.decision.worst.name) == ("owner", "rooms")
    assert await bench.budgets.check_mint(await taken(bench, ANN), BEN) == 30 * 60


async def test_a_spent_budget_of_the_installation_refuses_everybody(bench: BudgetBench) -> None:
    await bench.stay(BEN, "a room of nobody", 500)
    with pytest.raises(BudgetSpent) as refused:
        await bench.budgets.check_mint(await taken(bench, ANN), ANN)
    assert (refused.value.scope, refused.value.decision.worst.name) == ("all", "everybody")


async def test_an_operators_block_of_the_owner_refuses_no_one_else(bench: BudgetBench) -> None:
    await bench.execute("HSET", f"ov:1:{{{OWNER}}}", "*", f'{(bench.now_ms + 60_000) * 1000}::{{"reason":""}}')
    assert await bench.budgets.check_mint(await taken(bench, ANN), OWNER) == 30 * 60


async def test_an_owner_whose_account_is_gone_has_the_smallest_budget() -> None:
    more = BUDGETS.format(more="").replace("amount = 100\n", "")
    text = more + '[roles.small]\npermissions = ["rooms:create"]\nquotas.rooms = 7\n[roles.large]\nquotas.rooms = 70\n'
    text += "".join(f'[roles.{name}.limits]\napi = {{ rate = "1/s", burst = 1 }}\n' for name in ("small", "large"))
    text = text.replace("[roles.small.limits]", '[roles.small.limits]\n"rooms.create" = { rate = "1/s", burst = 1 }')
    bench = BudgetBench(fake_redis().execute_command, policy_with(text))
    await bench.account(BEN, "large")
    assert await bench.budgets.check_mint(await taken(bench, ANN), OWNER) == 7 * 60
    assert await bench.budgets.check_mint(await taken(bench, ANN), BEN) == 30 * 60


async def test_a_shadow_budget_neither_refuses_nor_shortens() -> None:
    bench = BudgetBench(fake_redis().execute_command, policy_with(BUDGETS.format(more="shadow = true")))
    await bench.execute("HSET", f"rm:1:{{{ROOM}}}", "owner", OWNER, "template", "default")
    await bench.account(OWNER, "host")
    await bench.stay(ANN, ROOM, 600)
    assert await bench.budgets.check_mint(await taken(bench, ANN), OWNER) is None


async def test_without_budgets_nothing_is_asked_of_redis() -> None:
    bench = BudgetBench(fake_redis().execute_command, policy_with(""))
    decision = await taken(bench, ANN)
    bench.budgets._execute = None  # type: ignore[assignment]
    bench.budgets._limiter = None  # type: ignore[assignment]
    assert await bench.budgets.check_mint(decision, OWNER) is None


async def test_a_look_writes_nothing(bench: BudgetBench) -> None:
    await bench.stay(BEN, ROOM, 200)
    keys = sorted(await bench.execute("KEYS", "*"))
    dumps = [await bench.execute("DUMP", key) for key in keys]
    for scope in ("user", "owner", "all"):
        await bench.budgets.look(scope, OWNER)
    assert sorted(await bench.execute("KEYS", "*")) == keys
    assert [await bench.execute("DUMP", key) for key in keys] == dumps

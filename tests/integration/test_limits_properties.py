"""Properties of limits on a real server, for all limits, costs and waits."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.redis.store import Store
from gateway.redis.topology import connect, open_store
from limits.counters import Counters
from limits.limiter import Limiter
from limits.policy import MAX_REFILL_US, MOST_UNITS, US_PER_S, Charge, Decision, Limit, Quota
from tests.unit.limits.contract import Clock, Metered, snapshot

MINT = "tokens.mint"
DAY_US = 86_400 * US_PER_S

on_a_server = settings(
    deadline=None,
    max_examples=80,
    # The examples of a test share the fixtures on purpose: each example has its own subject.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_subjects = map("subject-{}".format, itertools.count())


@dataclass
class Oracle:
    """The limits of the specification, in Python's own integers: one request after another."""

    tats: dict[str, int] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)

    def take(
        self, now: int, charges: Sequence[Charge], quotas: Sequence[Quota] = ()
    ) -> tuple[bool, list[tuple[bool, int, int, int]], list[tuple[bool, int]]]:
        """Return whether it passes, per limit (allowed, remaining, retry, full again), per quota (allowed, used)."""
        bases = [max(now, self.tats.get(charge.limit.id, 0)) for charge in charges]
        limits, counted = [], []
        for charge, base in zip(charges, bases, strict=True):
            wait = base + (charge.cost - charge.limit.burst) * charge.limit.emission_us - now
            limits.append(0 if wait <= 0 or not charge.cost else -1 if charge.cost > charge.limit.burst else wait)
        quotas_allow = [self.used.get(quota.id, 0) < quota.amount * quota.unit for quota in quotas]
        passes = not any(limits) and all(quotas_allow)
        states = []
        for charge, base, wait in zip(charges, bases, limits, strict=True):
            limit = charge.limit
            tat = base + charge.cost * limit.emission_us if passes else base
            if passes and charge.cost:
                self.tats[limit.id] = tat
            left = limit.burst - -(-(tat - now) // limit.emission_us)
            states.append((wait == 0, max(left, 0), wait, tat - now))
        for quota, allowed in zip(quotas, quotas_allow, strict=True):
            self.used[quota.id] = self.used.get(quota.id, 0) + (passes and not quota.metered)
            counted.append((allowed, self.used[quota.id]))
        return passes, states, counted


def seen(decision: Decision) -> tuple[bool, list[tuple[bool, int, int, int]], list[tuple[bool, int]]]:
    limits = [(state.allowed, state.remaining, state.retry_us, state.full_again_us) for state in decision.limits]
    return decision.allowed, limits, [(state.allowed, state.counted) for state in decision.quotas]


# Intervals of a minute and more: keys expire by the clock of the server, which these tests do not move.
@st.composite
def limits(draw: st.DrawFn, name: str = "api", most: int = 12) -> Limit:
    count, burst = draw(st.integers(1, 60)), draw(st.integers(1, most))
    longest_us = min(400 * DAY_US, MAX_REFILL_US // most)
    period_us = draw(st.integers(count * 60 * US_PER_S, longest_us))
    return Limit(name, count, period_us, burst, strict=draw(st.booleans()) and burst < count)


@st.composite
def steps(draw: st.DrawFn, limit: Limit, most: int = 25) -> list[tuple[int, int]]:
    """Waits and costs: many at once, some an exact number of intervals, some a microsecond more or less."""
    interval = limit.emission_us
    waits = st.one_of(
        st.just(0),
        st.integers(0, 2 * interval),
        st.builds(lambda units, off: max(units * interval + off, 0), st.integers(0, 15), st.integers(-1, 1)),
    )
    return draw(st.lists(st.tuples(waits, st.integers(0, limit.burst + 1)), max_size=most))


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time_ns() // 1000)


@pytest.fixture
def limiter(store: Store, clock: Clock) -> Limiter:
    return Limiter(store.execute, script_clock=clock)


async def play(limiter: Limiter, clock: Clock, subject: str, limit: Limit, history: list[tuple[int, int]]) -> None:
    for wait_us, cost in history:
        clock.now_us += wait_us
        await limiter.take(subject, [Charge(limit, cost)])


async def passing_now(limiter: Limiter, subject: str, limit: Limit) -> int:
    """Return how many single units pass now before one is denied."""
    passed = 0
    while (await limiter.take(subject, [Charge(limit)])).allowed:
        passed += 1
    return passed


@given(data=st.data())
@on_a_server
async def test_no_instant_admits_more_than_the_burst(limiter: Limiter, clock: Clock, data: st.DataObject) -> None:
    subject, limit = next(_subjects), data.draw(limits())
    await play(limiter, clock, subject, limit, data.draw(steps(limit)))
    clock.now_us += data.draw(st.integers(0, 20 * limit.emission_us))
    assert await passing_now(limiter, subject, limit) <= limit.burst


@given(data=st.data())
@on_a_server
async def test_no_interval_admits_more_than_the_burst_plus_the_refill(
    limiter: Limiter, clock: Clock, data: st.DataObject
) -> None:
    subject, limit = next(_subjects), data.draw(limits())
    passed: list[tuple[int, int]] = []
    for wait_us, cost in data.draw(steps(limit, most=40)):
        clock.now_us += wait_us
        if (await limiter.take(subject, [Charge(limit, cost)])).allowed:
            passed.append((clock(), cost))
    for first in range(len(passed)):
        units = 0
        for at, cost in passed[first:]:
            units += cost
            assert units <= limit.burst + (at - passed[first][0]) // limit.emission_us
            if limit.strict and at - passed[first][0] < limit.period_us:
                assert units <= limit.count


@given(data=st.data())
@on_a_server
async def test_a_denied_request_passes_exactly_at_the_reported_time(
    limiter: Limiter, clock: Clock, data: st.DataObject
) -> None:
    subject = next(_subjects)
    several = [data.draw(limits(f"limit{number}")) for number in range(data.draw(st.integers(1, 3)))]
    for limit in several:
        await play(limiter, clock, subject, limit, data.draw(steps(limit, most=6)))
    asked = [Charge(limit, data.draw(st.integers(1, limit.burst))) for limit in several]
    for _ in range(30):
        decision = await limiter.take(subject, asked)
        if not decision.allowed:
            break
    assume(not decision.allowed)
    assert decision.retry_us == max(state.retry_us for state in decision.limits)
    clock.now_us += decision.retry_us - 1
    early = await limiter.take(subject, asked)
    assert (early.allowed, early.retry_us) == (False, 1)
    clock.now_us += 1
    assert (await limiter.take(subject, asked)).allowed


@given(data=st.data())
@on_a_server
async def test_remaining_is_how_many_calls_would_pass_now(limiter: Limiter, clock: Clock, data: st.DataObject) -> None:
    subject, limit = next(_subjects), data.draw(limits())
    await play(limiter, clock, subject, limit, data.draw(steps(limit)))
    clock.now_us += data.draw(st.integers(0, 5 * limit.emission_us))
    decision = await limiter.take(subject, [Charge(limit, data.draw(st.integers(0, limit.burst)))])
    assert await passing_now(limiter, subject, limit) == decision.limits[0].remaining


@given(data=st.data())
@on_a_server
async def test_a_cost_of_n_is_n_times_a_cost_of_one(
    limiter: Limiter, store: Store, clock: Clock, data: st.DataObject
) -> None:
    at_once, one_by_one, limit = next(_subjects), next(_subjects), data.draw(limits())
    history = data.draw(steps(limit))
    before = clock()
    await play(limiter, clock, at_once, limit, history)
    clock.now_us = before
    await play(limiter, clock, one_by_one, limit, history)
    cost = data.draw(st.integers(1, limit.burst))
    left = (await limiter.peek(at_once, [Charge(limit)])).limits[0].remaining
    whole = await limiter.take(at_once, [Charge(limit, cost)])
    assert whole.allowed == (cost <= left)
    if whole.allowed:
        for _ in range(cost):
            last = await limiter.take(one_by_one, [Charge(limit)])
            assert last.allowed
        assert seen(last) == seen(whole)
    fields = [await store.execute("HGET", f"rl:1:{{{subject}}}", "api") for subject in (at_once, one_by_one)]
    assert fields[0] == fields[1]


@given(data=st.data())
@on_a_server
async def test_a_refund_restores_the_state_exactly_once(limiter: Limiter, clock: Clock, data: st.DataObject) -> None:
    subject = next(_subjects)
    several = [data.draw(limits(f"limit{number}")) for number in range(data.draw(st.integers(1, 3)))]
    quotas = [Quota("week", MINT, 100, "week"), Quota("day", MINT, 100, "day")]
    for limit in several:
        await play(limiter, clock, subject, limit, data.draw(steps(limit, most=6)))
    looks = [Charge(limit) for limit in several]
    before = seen(await limiter.peek(subject, looks, quotas=quotas))
    asked = [Charge(limit, data.draw(st.integers(0, limit.burst))) for limit in several]
    decision = await limiter.take(subject, asked, metric=MINT, quotas=quotas)
    assume(decision.allowed)
    assert await limiter.amend(decision, "failed", refund=True)
    assert seen(await limiter.peek(subject, looks, quotas=quotas)) == before
    assert not await limiter.amend(decision, "failed", refund=True)
    assert seen(await limiter.peek(subject, looks, quotas=quotas)) == before


@given(data=st.data())
@on_a_server
async def test_refunds_in_any_order_leave_the_other_charges(
    limiter: Limiter, clock: Clock, data: st.DataObject
) -> None:
    subject, limit = next(_subjects), data.draw(limits(most=12))
    decisions = [await limiter.take(subject, [Charge(limit)]) for _ in range(limit.burst)]
    refunded = data.draw(st.sets(st.sampled_from(range(limit.burst))))
    order = data.draw(st.permutations(sorted(refunded) * 2))
    done = [await limiter.amend(decisions[at], "failed", refund=True) for at in order]
    assert sum(done) == len(refunded)
    assert (await limiter.peek(subject, [Charge(limit)])).limits[0].remaining == len(refunded)


@given(data=st.data())
@on_a_server
async def test_a_denial_changes_no_byte_of_limits_quotas_and_usage(
    limiter: Limiter, store: Store, clock: Clock, data: st.DataObject
) -> None:
    subject = next(_subjects)
    several = [data.draw(limits(f"limit{number}", most=4)) for number in range(3)]
    quotas = [Quota("week", MINT, data.draw(st.integers(1, 4)), "week"), Quota("month", MINT, 3, "month")]
    for wait_us in data.draw(st.lists(st.integers(0, 90 * US_PER_S), min_size=3, max_size=8)):
        clock.now_us += wait_us
        before = await snapshot(store.execute, subject, without="dn")
        asked = [Charge(limit, data.draw(st.integers(0, 3))) for limit in several]
        decision = await limiter.take(subject, asked, metric=MINT, quotas=quotas)
        assert ((await snapshot(store.execute, subject, without="dn")) == before) == (not decision.allowed)


@given(data=st.data())
@on_a_server
async def test_a_clock_set_back_prolongs_the_wait_by_at_most_as_much(
    limiter: Limiter, clock: Clock, data: st.DataObject
) -> None:
    subject, limit = next(_subjects), data.draw(limits())
    await play(limiter, clock, subject, limit, data.draw(steps(limit)))
    asked = [Charge(limit, data.draw(st.integers(1, limit.burst)))]
    usual_us = (await limiter.peek(subject, asked)).limits[0].full_again_us
    usual_us = max(usual_us + (asked[0].cost - limit.burst) * limit.emission_us, 0)
    back_us = data.draw(st.integers(0, 20 * limit.emission_us))
    clock.now_us -= back_us
    clock.now_us += usual_us + back_us
    assert (await limiter.take(subject, asked)).allowed


@given(data=st.data())
@on_a_server
async def test_a_clock_set_forward_refills_at_most_the_skipped_time_once(
    limiter: Limiter, clock: Clock, data: st.DataObject
) -> None:
    subject, limit = next(_subjects), data.draw(limits())
    await play(limiter, clock, subject, limit, data.draw(steps(limit)))
    await passing_now(limiter, subject, limit)
    forward_us = data.draw(st.integers(0, 20 * limit.emission_us))
    extra = 0
    for _ in range(3):
        clock.now_us += forward_us
        extra += await passing_now(limiter, subject, limit)
        clock.now_us -= forward_us
        extra += await passing_now(limiter, subject, limit)
    assert extra <= min(forward_us // limit.emission_us + 1, limit.burst)


@given(data=st.data())
@on_a_server
async def test_a_changed_limit_keeps_the_used_units_exactly(
    limiter: Limiter, clock: Clock, data: st.DataObject
) -> None:
    subject, old = next(_subjects), data.draw(limits(most=1000))
    used = data.draw(st.integers(1, old.burst))
    await limiter.take(subject, [Charge(old, used)])
    new = data.draw(limits(most=1000))
    look = (await limiter.peek(subject, [Charge(new)])).limits[0]
    assert look.full_again_us == used * new.emission_us
    assert look.remaining == max(new.burst - used, 0)


@given(data=st.data())
@on_a_server
async def test_the_script_computes_like_python_with_the_largest_numbers(
    limiter: Limiter, clock: Clock, data: st.DataObject
) -> None:
    burst = data.draw(st.integers(1, MOST_UNITS))
    interval_us = data.draw(st.integers(1, MAX_REFILL_US // burst))
    assume(burst * interval_us > 60 * US_PER_S)
    limit, subject, oracle = Limit("api", 1, interval_us, burst), next(_subjects), Oracle()
    for cost in data.draw(st.lists(st.integers(0, burst + 1), min_size=1, max_size=6)):
        # Only costs whose key outlives the example by the real clock.
        assume(cost == 0 or cost * interval_us > 60 * US_PER_S)
        clock.now_us += data.draw(st.integers(0, 3 * cost * interval_us // 2))
        clock.now_us = min(clock.now_us, 7_258_118_400 * US_PER_S)
        charge = [Charge(limit, cost)]
        assert seen(await limiter.take(subject, charge)) == oracle.take(clock(), charge)


@given(data=st.data())
@on_a_server
async def test_sequential_requests_on_several_limits_and_quotas_match_the_oracle(
    limiter: Limiter, clock: Clock, data: st.DataObject
) -> None:
    subject, oracle = next(_subjects), Oracle()
    several = [data.draw(limits(f"limit{number}", most=5)) for number in range(4)]
    clock.now_us = clock() // DAY_US * DAY_US  # so that no period of a quota ends meanwhile
    quotas = [Quota("week", MINT, data.draw(st.integers(1, 9)), "month", "Asia/Tokyo"), Quota("month", MINT, 6, "day")]
    least_us = min(limit.emission_us for limit in several)
    for _ in range(data.draw(st.integers(1, 15))):
        clock.now_us += data.draw(st.integers(0, min(3 * least_us, DAY_US // 20)))
        chosen = data.draw(st.lists(st.sampled_from(several), unique=True, max_size=4))
        asked = [Charge(limit, data.draw(st.integers(0, limit.burst + 1))) for limit in chosen]
        decision = await limiter.take(subject, asked, metric=MINT, quotas=quotas)
        assert seen(decision) == oracle.take(clock(), asked, quotas)


@given(data=st.data())
@on_a_server
async def test_limits_beside_quotas_that_something_else_meters_match_the_oracle(
    limiter: Limiter, store: Store, clock: Clock, data: st.DataObject
) -> None:
    subject, oracle = next(_subjects), Oracle()
    several = [data.draw(limits(f"limit{number}", most=5)) for number in range(2)]
    clock.now_us = clock() // DAY_US * DAY_US  # no period ends meanwhile; in Tokyo it is 9 in the morning
    quotas = [Metered.DAY, Metered.WEEK, Metered.TOKYO, Quota("plain", MINT, 6, "week")]
    for _ in range(data.draw(st.integers(1, 15))):
        clock.now_us += data.draw(st.integers(0, 60 * US_PER_S))
        for quota in data.draw(st.lists(st.sampled_from(quotas[:3]), unique=True)):
            seconds = data.draw(st.integers(0, 70))
            await Metered.spend(store.execute, clock, subject, quota, seconds)
            oracle.used[quota.id] = oracle.used.get(quota.id, 0) + seconds
        asked = [Charge(limit, data.draw(st.integers(0, limit.burst + 1))) for limit in several]
        before = await snapshot(store.execute, subject, without="dn")
        decision = await limiter.take(subject, asked, metric=MINT, quotas=quotas)
        assert seen(decision) == oracle.take(clock(), asked, quotas)
        assert ((await snapshot(store.execute, subject, without="dn")) == before) == (not decision.allowed)


@pytest.fixture
async def stores(redis_url: str) -> AsyncIterator[list[Store]]:
    """Several workers, each with its own connection."""
    several = [open_store(connect(redis_url), deadline_s=5) for _ in range(3)]
    yield several
    for store in several:
        await store.close()


@given(data=st.data())
@settings(on_a_server, max_examples=60)
async def test_concurrent_load_on_several_limits_matches_a_sequential_oracle(
    stores: list[Store], data: st.DataObject
) -> None:
    subject, oracle = next(_subjects), Oracle()
    intervals = st.integers(500, 20_000)
    several = [Limit(f"limit{n}", 1, data.draw(intervals), data.draw(st.integers(1, 30))) for n in range(4)]
    quotas = [
        Quota("month", MINT, data.draw(st.integers(5, 80)), "month"),
        Quota("tokyo", MINT, 50, "week", "Asia/Tokyo"),
    ]
    limiters = [Limiter(store.execute) for store in stores]
    requests = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(range(3)),
                st.lists(st.tuples(st.sampled_from(several), st.integers(0, 4)), unique_by=lambda one: one[0].id),
                st.integers(0, 3),
            ),
            min_size=20,
            max_size=120,
        )
    )

    async def attempt(worker: int, costs: list[tuple[Limit, int]], yields: int) -> Decision:
        for _ in range(yields):
            await asyncio.sleep(0)
        asked = [Charge(limit, cost) for limit, cost in costs]
        return await limiters[worker].take(subject, asked, metric=MINT, quotas=quotas)

    decisions = await asyncio.gather(*(attempt(*request) for request in requests))
    # The server runs scripts sequentially; the clock shows the order, which equal readings would leave ambiguous.
    assume(len({decision.now_us for decision in decisions}) == len(decisions))
    for decision in sorted(decisions, key=lambda one: one.now_us):
        assert seen(decision) == oracle.take(decision.now_us, decision.charges, quotas)
    usage = await Counters(stores[0].execute).usage(subject, decisions[-1].now_us)
    tally = usage.total[MINT]
    assert tally.ok == sum(decision.allowed for decision in decisions)
    assert sum(tally.denied.values()) == len(decisions) - tally.ok


@given(data=st.data())
@on_a_server
async def test_shadow_limits_change_no_decision(limiter: Limiter, clock: Clock, data: st.DataObject) -> None:
    with_shadow, without, limit = next(_subjects), next(_subjects), data.draw(limits())
    shadow = replace(data.draw(limits("shadow")), shadow=True)
    for wait_us, cost in data.draw(steps(limit)):
        clock.now_us += wait_us
        asked: list[Any] = [Charge(limit, cost)]
        plain = await limiter.take(without, asked, metric=MINT)
        shadowed = await limiter.take(with_shadow, [*asked, Charge(shadow)], metric=MINT)
        assert (shadowed.allowed, shadowed.retry_us, shadowed.violated) == (
            plain.allowed,
            plain.retry_us,
            plain.violated,
        )
        assert seen(shadowed)[1][0] == seen(plain)[1][0]

"""The contract of the limiter on any Redis: run on fakeredis here and on a real server in integration.

The numbers in the names of the first class are those of the edge cases of the limits' specification. Left to others
there: 14 (cancellation; the store), 15 and 16 (addresses, exempt routes; the gateway), the breaker of 12 (the store).
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from limits import Execute
from limits.counters import Counters
from limits.fields import retry_after_s
from limits.limiter import Guard, Limiter
from limits.overrides import Overrides
from limits.periods import day_of, span_of
from limits.policy import US_PER_S, Charge, Decision, Lease, Limit, Quota

MINUTE_US = 60 * US_PER_S
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

API = Limit("api", 60, MINUTE_US, 5)  # one unit a second
SLOW = Limit("slow", 6, MINUTE_US, 2)  # one unit in ten seconds
MINT = "tokens.mint"


@dataclass
class Clock:
    now_us: int

    def __call__(self) -> int:
        return self.now_us

    def set(self, zone: str, *when: int) -> None:
        """Set the clock to a local time."""
        self.now_us = int(datetime(*when, tzinfo=ZoneInfo(zone)).timestamp()) * US_PER_S  # type: ignore[arg-type,misc]


def charges(*limits: Limit, cost: int = 1) -> list[Charge]:
    return [Charge(limit, cost) for limit in limits]


async def snapshot(execute: Execute, subject: str, *, without: str = "-") -> dict[bytes, bytes]:
    """Return every key of a subject as the server would save it, except those of one kind."""
    keys = [key for key in await execute("KEYS", f"*{{{subject}}}*") if not key.startswith(without.encode())]
    return {key: await execute("DUMP", key) for key in keys}


class Bench:
    """Fixtures for every part of the contract; a subclass provides `execute`."""

    @pytest.fixture
    def clock(self) -> Clock:
        """The clock of the scripts: near the present, because keys expire by the server's own clock."""
        return Clock(time.time_ns() // 1000)

    @pytest.fixture
    def subject(self) -> str:
        return f"user-{secrets.token_hex(6)}"

    @pytest.fixture
    def limiter(self, execute: Execute, clock: Clock) -> Limiter:
        return Limiter(execute, script_clock=clock)

    @pytest.fixture
    def counters(self, execute: Execute) -> Counters:
        return Counters(execute)

    @pytest.fixture
    def overrides(self, execute: Execute, limiter: Limiter, clock: Clock) -> Overrides:
        return Overrides(execute, limiter, clock=clock)


async def admitted(limiter: Limiter, subject: str, *limits: Limit, tries: int) -> int:
    """Return how many of these attempts pass now."""
    return sum([(await limiter.take(subject, charges(*limits))).allowed for _ in range(tries)])


async def remaining(limiter: Limiter, subject: str, limit: Limit) -> int:
    return (await limiter.peek(subject, charges(limit))).limits[0].remaining


class EdgeCases(Bench):
    @pytest.mark.parametrize("cost", [1, 3, 5])
    async def test_01_passes_exactly_at_the_reported_time_and_not_a_microsecond_earlier(
        self, limiter: Limiter, clock: Clock, subject: str, cost: int
    ) -> None:
        await limiter.take(subject, charges(API, cost=5))
        clock.now_us += 234_567
        denied = await limiter.take(subject, charges(API, cost=cost))
        assert not denied.allowed
        assert denied.retry_us == cost * US_PER_S - 234_567
        clock.now_us += denied.retry_us - 1
        early = await limiter.take(subject, charges(API, cost=cost))
        assert (early.allowed, early.retry_us) == (False, 1)
        clock.now_us += 1
        assert (await limiter.take(subject, charges(API, cost=cost))).allowed

    async def test_02_a_cost_of_zero_creates_no_key_and_changes_nothing(
        self, limiter: Limiter, execute: Execute, clock: Clock, subject: str
    ) -> None:
        look = await limiter.take(subject, charges(API, cost=0))
        assert (look.allowed, look.limits[0].remaining) == (True, 5)
        assert await snapshot(execute, subject) == {}
        await limiter.take(subject, charges(API, cost=5))
        before = await snapshot(execute, subject)
        look = await limiter.take(subject, charges(API, cost=0))
        assert (look.allowed, look.limits[0].remaining, look.retry_us) == (True, 0, 0)
        assert await snapshot(execute, subject) == before

    async def test_02_peek_shows_everything_and_writes_nothing(
        self, limiter: Limiter, execute: Execute, subject: str
    ) -> None:
        quotas = [Quota("month", MINT, 3, "month"), Quota("week", MINT, 3, "week")]
        lease = Lease("joins", 2, MINUTE_US, "alice")
        look = await limiter.peek(subject, charges(API), quotas=quotas, leases=[lease])
        assert await snapshot(execute, subject) == {}
        await limiter.take(subject, charges(API), metric=MINT, quotas=quotas, leases=[lease])
        before = await snapshot(execute, subject)
        look = await limiter.peek(subject, charges(API), quotas=quotas, leases=[lease])
        assert [state.remaining for state in look.limits] == [4]
        assert [state.used for state in look.quotas] == [1, 1]
        assert [state.held for state in look.leases] == [1]
        assert await snapshot(execute, subject) == before

    async def test_02_peek_is_never_denied(
        self, limiter: Limiter, overrides: Overrides, clock: Clock, subject: str
    ) -> None:
        quota, lease = Quota("day", MINT, 3, "day"), Lease("joins", 1, MINUTE_US, "alice")
        for _ in range(3):
            await limiter.take(subject, charges(SLOW, cost=0), metric=MINT, quotas=[quota])
        await limiter.take(subject, charges(SLOW, cost=2), leases=[lease])
        await overrides.set_quota(
            subject, replace(quota, amount=1), until_us=clock() + HOUR_US, reason="abuse", by="op"
        )
        look = await limiter.peek(subject, charges(SLOW), quotas=[quota], leases=[lease])
        assert look.allowed
        assert (look.quotas[0].used, look.quotas[0].amount, look.quotas[0].remaining) == (3, 1, 0)

    async def test_02_peek_cannot_be_amended(self, limiter: Limiter, execute: Execute, subject: str) -> None:
        week = Quota("week", MINT, 3, "week")
        await limiter.take(subject, charges(API), metric=MINT, quotas=[week])
        look = await limiter.peek(subject, charges(API), quotas=[week])
        before = await snapshot(execute, subject)
        assert not await limiter.amend(look, "failed", refund=True)
        assert await snapshot(execute, subject) == before

    async def test_03_a_negative_cost_never_reaches_redis(self) -> None:
        with pytest.raises(ValueError, match="negative"):
            Charge(API, -1)

    async def test_04_a_cost_above_the_burst_never_passes_and_gets_no_retry_after(
        self, limiter: Limiter, execute: Execute, clock: Clock, subject: str
    ) -> None:
        for _ in range(2):
            decision = await limiter.take(subject, charges(API, cost=6))
            assert (decision.allowed, decision.never, decision.limits[0].retry_us) == (False, True, -1)
            assert decision.limits[0].remaining == 5
            assert retry_after_s(decision) is None
            clock.now_us += 10**12
        assert await snapshot(execute, subject) == {}

    async def test_05_a_denial_leaves_limits_quotas_and_usage_byte_identical(
        self, limiter: Limiter, execute: Execute, clock: Clock, subject: str
    ) -> None:
        quotas = [Quota("month", MINT, 9, "month"), Quota("berlin", MINT, 9, "day", "Europe/Berlin")]
        for _ in range(2):
            assert (await limiter.take(subject, charges(API, SLOW), metric=MINT, quotas=quotas)).allowed
        before = await snapshot(execute, subject, without="dn")
        assert {key.partition(b":")[0] for key in before} == {b"rl", b"uc", b"qt"}
        for _ in range(3):
            clock.now_us += 1
            assert not (await limiter.take(subject, charges(API, SLOW), metric=MINT, quotas=quotas)).allowed
        assert await snapshot(execute, subject, without="dn") == before
        assert await snapshot(execute, subject) != before

    async def test_06_a_denial_reports_every_limit_and_waits_for_the_slowest(
        self, limiter: Limiter, subject: str
    ) -> None:
        await limiter.take(subject, charges(API, cost=5))
        await limiter.take(subject, charges(SLOW, cost=2))
        roomy = Limit("roomy", 60, MINUTE_US, 50)
        decision = await limiter.take(subject, charges(API, roomy, SLOW))
        assert [(state.name, state.allowed) for state in decision.limits] == [
            ("api", False),
            ("roomy", True),
            ("slow", False),
        ]
        assert [state.name for state in decision.violated] == ["api", "slow"]
        assert [state.retry_us for state in decision.limits] == [US_PER_S, 0, 10 * US_PER_S]
        assert decision.retry_us == 10 * US_PER_S
        assert retry_after_s(decision) in (10, 11)

    async def test_06_a_denial_is_counted_under_the_limit_with_the_longest_wait(
        self, limiter: Limiter, counters: Counters, clock: Clock, subject: str
    ) -> None:
        await limiter.take(subject, charges(API, cost=5))
        await limiter.take(subject, charges(SLOW, cost=2))
        for order in ((API, SLOW), (SLOW, API)):
            decision = await limiter.take(subject, charges(*order), metric=MINT)
            assert decision.worst.name == "slow"
        usage = await counters.usage(subject, clock())
        assert usage.today[MINT].denied == usage.month[MINT].denied == usage.total[MINT].denied == {"slow": 2}

    @pytest.mark.parametrize("back_us", [1, 2 * US_PER_S, 3 * HOUR_US])
    async def test_07_a_clock_set_back_prolongs_the_wait_by_as_much_and_reports_it(
        self, limiter: Limiter, clock: Clock, subject: str, back_us: int
    ) -> None:
        await limiter.take(subject, charges(API, cost=5))
        clock.now_us -= back_us
        assert (await limiter.peek(subject, charges(API))).allowed
        denied = await limiter.take(subject, charges(API))
        assert (denied.limits[0].remaining, denied.retry_us) == (0, US_PER_S + back_us)
        clock.now_us += denied.retry_us - 1
        assert not (await limiter.take(subject, charges(API))).allowed
        clock.now_us += 1
        assert await admitted(limiter, subject, API, tries=9) == 1

    @pytest.mark.parametrize(("forward_us", "extra"), [(2 * US_PER_S, 2), (10**12, 5)])
    async def test_07_a_clock_set_forward_refills_the_skipped_time_only_once(
        self, limiter: Limiter, clock: Clock, subject: str, forward_us: int, extra: int
    ) -> None:
        await limiter.take(subject, charges(API, cost=5))
        clock.now_us += forward_us
        assert await admitted(limiter, subject, API, tries=9) == extra
        clock.now_us -= forward_us
        assert await admitted(limiter, subject, API, tries=9) == 0
        clock.now_us += forward_us
        assert await admitted(limiter, subject, API, tries=9) == 0

    @pytest.mark.parametrize(
        ("count", "period_us", "burst", "left"),
        [
            (6, MINUTE_US, 5, 2),  # ten times slower: the same three units are used
            (600, MINUTE_US, 5, 2),
            (7, MINUTE_US, 5, 2),  # an interval that does not divide its period
            (60, MINUTE_US, 9, 6),
            (1, 30 * DAY_US, 10, 7),
        ],
    )
    async def test_08_a_changed_limit_keeps_the_used_units(
        self, limiter: Limiter, clock: Clock, subject: str, count: int, period_us: int, burst: int, left: int
    ) -> None:
        await limiter.take(subject, charges(API, cost=3))
        changed = Limit("api", count, period_us, burst)
        look = (await limiter.peek(subject, charges(changed))).limits[0]
        assert (look.remaining, look.full_again_us) == (left, (burst - left) * changed.emission_us)
        assert await admitted(limiter, subject, changed, tries=burst + 1) == left
        clock.now_us += changed.emission_us
        assert await admitted(limiter, subject, changed, tries=burst) == 1

    async def test_08_a_burst_below_the_used_units_reports_the_true_wait(
        self, limiter: Limiter, clock: Clock, subject: str
    ) -> None:
        await limiter.take(subject, charges(API, cost=5))
        smaller = replace(API, burst=2)
        assert (await limiter.peek(subject, charges(smaller))).allowed
        denied = await limiter.take(subject, charges(smaller))
        assert (denied.limits[0].remaining, denied.retry_us) == (0, 4 * US_PER_S)
        clock.now_us += denied.retry_us - 1
        assert not (await limiter.take(subject, charges(smaller))).allowed
        clock.now_us += 1
        assert await admitted(limiter, subject, smaller, tries=3) == 1

    async def test_08_changing_a_limit_and_back_restores_it(self, limiter: Limiter, subject: str) -> None:
        odd = Limit("api", 7, 30 * DAY_US, 5)
        await limiter.take(subject, charges(API, cost=2))
        await limiter.take(subject, charges(odd))
        assert await remaining(limiter, subject, API) == 2

    async def test_09_a_redis_that_lost_its_last_writes_refunds_at_most_one_burst(
        self, limiter: Limiter, execute: Execute, clock: Clock, subject: str
    ) -> None:
        passed = await admitted(limiter, subject, API, tries=9)
        await execute("DEL", f"rl:1:{{{subject}}}")
        passed += await admitted(limiter, subject, API, tries=9)
        assert passed == 2 * API.burst
        clock.now_us += US_PER_S
        assert await admitted(limiter, subject, API, tries=9) == 1

    async def test_10_after_a_timeout_nothing_is_sent_again(self, clock: Clock, subject: str) -> None:
        sent: list[Any] = []

        async def late(*words: Any) -> Any:
            sent.append(words)
            raise TimeoutError

        with pytest.raises(TimeoutError):
            await Limiter(late, script_clock=clock).take(subject, charges(API))
        assert len(sent) == 1

    async def test_11_a_refund_restores_the_units_and_moves_the_count(
        self, limiter: Limiter, counters: Counters, clock: Clock, subject: str
    ) -> None:
        decision = await limiter.take(subject, charges(API, SLOW, cost=2), metric=MINT)
        assert await limiter.amend(decision, "failed", refund=True)
        look = await limiter.peek(subject, charges(API, SLOW))
        assert [state.remaining for state in look.limits] == [5, 2]
        usage = await counters.usage(subject, clock())
        for tallies in (usage.today, usage.month, usage.total):
            assert (tallies[MINT].ok, tallies[MINT].failed) == (0, 1)

    async def test_11_a_refusal_keeps_the_units_and_moves_the_count(
        self, limiter: Limiter, counters: Counters, clock: Clock, subject: str
    ) -> None:
        decision = await limiter.take(subject, charges(API), metric=MINT)
        assert await limiter.amend(decision, "refused.not_found", refund=False)
        assert await remaining(limiter, subject, API) == 4
        usage = await counters.usage(subject, clock())
        for tallies in (usage.today, usage.month, usage.total):
            assert (tallies[MINT].ok, tallies[MINT].refused) == (0, {"not_found": 1})

    async def test_11_a_decision_is_amended_once(self, limiter: Limiter, execute: Execute, subject: str) -> None:
        for _ in range(2):
            decision = await limiter.take(subject, charges(API, cost=2), metric=MINT)
        assert await limiter.amend(decision, "failed", refund=True)
        before = await snapshot(execute, subject)
        assert not await limiter.amend(decision, "failed", refund=True)
        assert not await limiter.amend(decision, "refused.gone", refund=False)
        assert await snapshot(execute, subject) == before
        assert await remaining(limiter, subject, API) == 3

    async def test_11_nothing_is_refunded_below_zero(self, limiter: Limiter, clock: Clock, subject: str) -> None:
        decision = await limiter.take(subject, charges(API, cost=3))
        clock.now_us += 30 * US_PER_S  # full again long ago
        await limiter.amend(decision, "failed", refund=True)
        assert await admitted(limiter, subject, API, tries=9) == 5

    async def test_11_a_denial_cannot_be_amended(self, limiter: Limiter, subject: str) -> None:
        await limiter.take(subject, charges(API, cost=5))
        denied = await limiter.take(subject, charges(API))
        with pytest.raises(ValueError, match="denied"):
            await limiter.amend(denied, "failed", refund=True)

    async def test_11_a_decision_older_than_a_minute_cannot_be_amended(
        self, limiter: Limiter, execute: Execute, clock: Clock, subject: str
    ) -> None:
        decision = await limiter.take(subject, charges(API), metric=MINT)
        before = await snapshot(execute, subject)
        clock.now_us += MINUTE_US + 1
        assert not await limiter.amend(decision, "failed", refund=True)
        assert await snapshot(execute, subject) == before

    async def test_11_no_amendment_expires_within_its_minute(
        self, limiter: Limiter, clock: Clock, subject: str
    ) -> None:
        first = await limiter.take(subject, charges(API))
        await limiter.amend(first, "failed", refund=True)
        clock.now_us += MINUTE_US
        await limiter.amend(await limiter.take(subject, charges(API)), "failed", refund=True)
        assert not await limiter.amend(first, "failed", refund=True)

    async def test_11_a_limit_changed_meanwhile_gets_its_units_back(self, limiter: Limiter, subject: str) -> None:
        decision = await limiter.take(subject, charges(API, cost=3))
        changed = Limit("api", 6, MINUTE_US, 5)
        await limiter.take(subject, charges(changed))
        await limiter.amend(decision, "failed", refund=True)
        assert await remaining(limiter, subject, changed) == 4

    async def test_11_a_refund_never_restores_units_that_have_already_refilled(
        self, limiter: Limiter, clock: Clock, subject: str
    ) -> None:
        slow = [await limiter.take(subject, charges(API)) for _ in range(API.burst)]
        clock.now_us += API.burst * API.emission_us
        for _ in range(API.burst):
            assert (await limiter.take(subject, charges(API))).allowed
        for decision in slow:
            assert await limiter.amend(decision, "failed", refund=True)
        assert not (await limiter.take(subject, charges(API))).allowed

    async def test_11_a_request_in_flight_at_a_reset_is_not_refunded_twice(
        self, limiter: Limiter, overrides: Overrides, clock: Clock, subject: str
    ) -> None:
        quotas = [Quota("month", MINT, 5, "month"), Quota("week", MINT, 5, "week", "Europe/Berlin")]
        flying = [await limiter.take(subject, charges(API), metric=MINT, quotas=quotas) for _ in range(5)]
        await overrides.reset(subject, charges(API), quotas)
        for _ in range(5):
            assert (await limiter.take(subject, charges(API), metric=MINT, quotas=quotas)).allowed
        for decision in flying:
            assert await limiter.amend(decision, "failed", refund=True)
        denied = await limiter.take(subject, charges(API), metric=MINT, quotas=quotas)
        assert [state.allowed for state in denied.states] == [False, False, False]

    @pytest.mark.parametrize(
        "asked",
        [
            {},
            {"charges": charges(API)},
            {"guards": [("se:1:{ada}:s", "state", "live")]},
            {"quotas": [Quota("day", MINT, 5, "day")]},
            {"leases": [Lease("joins", 1, MINUTE_US, "alice")]},
        ],
        ids=lambda asked: "".join(asked) or "nothing",
    )
    async def test_12_without_redis_there_is_no_decision(
        self, clock: Clock, subject: str, asked: dict[str, Any]
    ) -> None:
        async def away(*words: Any) -> Any:
            raise StoreAway

        with pytest.raises(StoreAway):
            await Limiter(away, script_clock=clock).take(subject, **({"charges": []} | asked))

    async def test_13_a_failed_guard_writes_nothing_however_often_it_is_repeated(
        self, limiter: Limiter, execute: Execute, subject: str
    ) -> None:
        live: Guard = (f"se:1:{{{subject}}}:s", "state", "live")
        version: Guard = (f"au:1:{{{subject}}}", "ver", "3")
        quotas = [Quota("month", MINT, 3, "month"), Quota("week", MINT, 3, "week")]
        lease = Lease("joins", 1, MINUTE_US, "alice")
        await execute("HSET", live[0], live[1], live[2])
        before = await snapshot(execute, subject)
        for _ in range(9):
            decision = await limiter.take(
                subject, charges(API), metric=MINT, guards=[live, version], quotas=quotas, leases=[lease]
            )
            assert (decision.allowed, decision.failed_guard, decision.states) == (False, 1, ())
        assert await snapshot(execute, subject) == before
        await execute("HSET", version[0], version[1], version[2])
        decision = await limiter.take(subject, charges(API), guards=[live, version])
        assert (decision.allowed, decision.limits[0].remaining, decision.failed_guard) == (True, 4, None)

    async def test_13_a_guard_with_another_value_fails_and_the_first_failure_is_named(
        self, limiter: Limiter, execute: Execute, subject: str
    ) -> None:
        key = f"se:1:{{{subject}}}:s"
        await execute("HSET", key, "state", "ended", "ver", "4")
        guards = [(key, "state", "live"), (key, "ver", "3")]
        assert (await limiter.take(subject, charges(API), guards=guards)).failed_guard == 0

    async def test_13_guards_are_checked_before_limits(self, limiter: Limiter, execute: Execute, subject: str) -> None:
        await limiter.take(subject, charges(API, cost=5))
        decision = await limiter.take(subject, charges(API), metric=MINT, guards=[(f"se:{{{subject}}}", "s", "x")])
        assert (decision.failed_guard, decision.retry_us, decision.limits) == (0, 0, ())

    async def test_17_a_shadow_limit_is_counted_but_never_decides(
        self, limiter: Limiter, counters: Counters, clock: Clock, subject: str
    ) -> None:
        shadow = replace(SLOW, shadow=True)
        decisions = [await limiter.take(subject, charges(API, shadow), metric=MINT) for _ in range(4)]
        assert all(decision.allowed for decision in decisions)
        assert [decision.limits[1].allowed for decision in decisions] == [True, True, False, False]
        assert decisions[-1].violated == ()
        usage = await counters.usage(subject, clock())
        for tallies in (usage.today, usage.month, usage.total):
            assert (tallies[MINT].ok, tallies[MINT].would_deny, tallies[MINT].denied) == (4, {"slow": 2}, {})

    async def test_17_a_shadow_limit_is_not_charged_for_what_it_would_have_denied(
        self, limiter: Limiter, clock: Clock, subject: str
    ) -> None:
        shadow = replace(SLOW, shadow=True)
        for _ in range(5):
            decision = await limiter.take(subject, charges(API, shadow))
        assert decision.limits[1].retry_us == 10 * US_PER_S
        await limiter.amend(decision, "failed", refund=True)
        look = await limiter.peek(subject, charges(API, shadow))
        assert [state.remaining for state in look.limits] == [1, 0]

    async def test_17_a_shadow_limit_does_not_affect_the_wait(self, limiter: Limiter, subject: str) -> None:
        shadow = replace(SLOW, shadow=True)
        await limiter.take(subject, charges(API, cost=5))
        await limiter.take(subject, charges(shadow, cost=2))
        assert (await limiter.take(subject, charges(API, shadow))).retry_us == US_PER_S

    async def test_17_a_shadow_quota_is_counted_but_never_decides(
        self, limiter: Limiter, counters: Counters, clock: Clock, subject: str
    ) -> None:
        quotas = [Quota("d", MINT, 1, "day", shadow=True), Quota("w", MINT, 1, "week", shadow=True)]
        for _ in range(3):
            assert (await limiter.take(subject, charges(API), metric=MINT, quotas=quotas)).allowed
        assert (await counters.usage(subject, clock())).total[MINT].would_deny == {"d": 2, "w": 2}

    @pytest.mark.parametrize("idle_us", [5 * US_PER_S, HOUR_US, 10 * 366 * DAY_US])
    async def test_18_idle_time_never_raises_the_burst(
        self, limiter: Limiter, clock: Clock, subject: str, idle_us: int
    ) -> None:
        await limiter.take(subject, charges(API))
        clock.now_us += idle_us
        assert await admitted(limiter, subject, API, tries=9) == 5


class StoreAway(Exception):
    pass


class Quotas(Bench):
    KINDS = (
        Quota("day", MINT, 3, "day"),
        Quota("month", MINT, 3, "month"),
        Quota("week", MINT, 3, "week"),
        Quota("berlin-day", MINT, 3, "day", "Europe/Berlin"),
        Quota("tokyo-week", MINT, 3, "week", "Asia/Tokyo"),
        Quota("new-york-month", MINT, 3, "month", "America/New_York"),
    )

    @pytest.fixture(params=KINDS, ids=lambda quota: quota.id)
    def quota(self, request: pytest.FixtureRequest) -> Quota:
        return request.param  # type: ignore[no-any-return]

    @staticmethod
    async def mint(limiter: Limiter, subject: str, *quotas: Quota) -> Decision:
        return await limiter.take(subject, [], metric=MINT, quotas=quotas)

    async def test_exactly_the_amount_of_a_quota_passes_until_its_period_ends(
        self, limiter: Limiter, clock: Clock, subject: str, quota: Quota
    ) -> None:
        decisions = [await self.mint(limiter, subject, quota) for _ in range(5)]
        assert [decision.allowed for decision in decisions] == [True] * 3 + [False] * 2
        assert [decision.quotas[0].used for decision in decisions] == [1, 2, 3, 3, 3]
        denied = decisions[-1]
        assert denied.retry_us == denied.quotas[0].ends_us - clock()
        clock.now_us += denied.retry_us - 1
        assert not (await self.mint(limiter, subject, quota)).allowed
        clock.now_us += 1
        fresh = await self.mint(limiter, subject, quota)
        assert (fresh.allowed, fresh.quotas[0].used) == (True, 1)

    async def test_decisions_and_reports_use_the_same_counters(
        self, limiter: Limiter, counters: Counters, clock: Clock, subject: str, quota: Quota
    ) -> None:
        for _ in range(5):
            decision = await self.mint(limiter, subject, quota)
        usage = await counters.usage(subject, clock())
        assert usage.today[MINT].ok == usage.month[MINT].ok == decision.quotas[0].used == 3
        assert usage.today[MINT].denied == {quota.id: 2}

    @pytest.mark.parametrize("outcome", ["refused.not_found", "failed"])
    async def test_a_refused_or_failed_request_is_refunded_to_its_quota(
        self, limiter: Limiter, subject: str, quota: Quota, outcome: str
    ) -> None:
        for _ in range(3):
            decision = await self.mint(limiter, subject, quota)
        assert await limiter.amend(decision, outcome, refund=False)
        assert (await limiter.peek(subject, [], quotas=[quota])).quotas[0].used == 2
        assert not await limiter.amend(decision, outcome, refund=False)
        assert [(await self.mint(limiter, subject, quota)).allowed for _ in range(2)] == [True, False]

    async def test_a_limit_that_denies_charges_no_quota(self, limiter: Limiter, subject: str, quota: Quota) -> None:
        for _ in range(4):
            await limiter.take(subject, charges(SLOW), metric=MINT, quotas=[quota])
        assert (await limiter.peek(subject, [], quotas=[quota])).quotas[0].used == 2

    async def test_a_quota_that_denies_charges_no_limit(self, limiter: Limiter, subject: str, quota: Quota) -> None:
        for _ in range(5):
            await limiter.take(subject, charges(API), metric=MINT, quotas=[quota])
        assert await remaining(limiter, subject, API) == 2

    async def test_a_refund_for_an_ended_period_does_not_reach_the_next(
        self, limiter: Limiter, clock: Clock, subject: str, quota: Quota
    ) -> None:
        before = await self.mint(limiter, subject, quota)
        clock.now_us = before.quotas[0].ends_us - 1
        late = await self.mint(limiter, subject, quota)
        clock.now_us += 1
        assert (await self.mint(limiter, subject, quota)).quotas[0].used == 1
        assert await limiter.amend(late, "failed", refund=True)
        assert (await limiter.peek(subject, [], quotas=[quota])).quotas[0].used == 1

    async def test_all_or_none_holds_between_quotas(self, limiter: Limiter, subject: str) -> None:
        small = Quota("small", MINT, 1, "month", "Asia/Tokyo")
        decisions = [await self.mint(limiter, subject, *self.KINDS, small) for _ in range(2)]
        assert [decision.allowed for decision in decisions] == [True, False]
        assert [state.used for state in decisions[1].quotas] == [1] * 7

    @pytest.mark.parametrize(
        ("zone", "when", "hours"),
        [
            ("Europe/Berlin", (2027, 3, 28), 23),
            ("Europe/Berlin", (2027, 10, 31), 25),
            ("America/New_York", (2027, 3, 14), 23),
            ("America/New_York", (2027, 11, 7), 25),
        ],
    )
    async def test_a_day_of_another_zone_lasts_23_or_25_hours(
        self, limiter: Limiter, clock: Clock, subject: str, zone: str, when: tuple[int, int, int], hours: int
    ) -> None:
        quota = Quota("day", MINT, 1, "day", zone)
        clock.set(zone, *when)
        first = await self.mint(limiter, subject, quota)
        assert first.quotas[0].ends_us - clock() == hours * HOUR_US
        assert first.quotas[0].window_s == hours * 3600
        clock.now_us += hours * HOUR_US - 1
        assert not (await self.mint(limiter, subject, quota)).allowed
        clock.now_us += 1
        assert (await self.mint(limiter, subject, quota)).allowed

    @pytest.mark.parametrize("off_us", [US_PER_S - 11 * HOUR_US, -US_PER_S, -1, 1, US_PER_S, 11 * HOUR_US - US_PER_S])
    @pytest.mark.parametrize("when", [(2026, 11, 22), (2026, 12, 31, 23, 59, 59), (2027, 1, 1), (2028, 2, 29, 12)])
    async def test_the_clock_of_redis_determines_the_period_not_the_workers(
        self, execute: Execute, counters: Counters, clock: Clock, subject: str, off_us: int, when: tuple[int, ...]
    ) -> None:
        clock.set("UTC", *when)
        right = Limiter(execute, script_clock=clock)
        wrong = Limiter(execute, script_clock=clock, wall_clock=lambda: clock() + off_us)
        decisions = [await self.mint(limiter, subject, *self.KINDS) for limiter in (right, wrong, right, wrong)]
        assert [[state.used for state in decision.quotas] for decision in decisions[:3]] == [[1] * 6, [2] * 6, [3] * 6]
        assert not decisions[3].allowed
        assert len({tuple(state.ends_us for state in decision.quotas) for decision in decisions}) == 1
        assert len({tuple(state.window_s for state in decision.quotas) for decision in decisions}) == 1
        at = datetime.fromtimestamp(clock() / 1e6, UTC).date()
        assert (await counters.daily(subject, at, at))[at][f"{MINT}.ok"] == 3

    @pytest.mark.parametrize("off_us", [-HOUR_US, HOUR_US])
    async def test_a_reset_near_midnight_is_found_by_a_worker_with_a_wrong_clock(
        self, execute: Execute, overrides: Overrides, clock: Clock, subject: str, off_us: int
    ) -> None:
        clock.set("UTC", 2026, 11, 22)
        right = Limiter(execute, script_clock=clock)
        for _ in range(3):
            await self.mint(right, subject, *self.KINDS)
        await execute("HSET", f"ov:1:{{{subject}}}", "r:day", "2026-11-22:3", "r:month", "2026-11:3")
        wrong = Limiter(execute, script_clock=clock, wall_clock=lambda: clock() + off_us)
        look = await wrong.peek(subject, [], quotas=self.KINDS[:2])
        assert [state.used for state in look.quotas] == [0, 0]

    async def test_more_than_eight_limits_and_quotas_are_a_programming_error(
        self, limiter: Limiter, subject: str
    ) -> None:
        limits = [Limit(f"limit{i}", 1, US_PER_S, 1) for i in range(3)]
        assert (await limiter.take(subject, charges(*limits[:2]), metric=MINT, quotas=self.KINDS)).allowed
        with pytest.raises(ValueError, match="at most 8"):
            await limiter.take(subject, charges(*limits), metric=MINT, quotas=self.KINDS)


class Zones(Bench):
    """Usage counters of days and months of another zone than UTC."""

    BERLIN = (Quota("day", MINT, 3, "day", "Europe/Berlin"), Quota("month", MINT, 9, "month", "Europe/Berlin"))

    @pytest.mark.parametrize(
        ("zone", "when", "hours"),
        [
            ("Europe/Berlin", (2027, 3, 28), 23),
            ("Europe/Berlin", (2027, 10, 31), 25),
            ("America/St_Johns", (2027, 11, 7), 25),
            ("Asia/Kolkata", (2026, 11, 30), 24),
            ("UTC", (2026, 12, 31), 24),
        ],
        ids=str,
    )
    async def test_requests_are_counted_on_days_and_in_months_of_the_zone(
        self, execute: Execute, clock: Clock, subject: str, zone: str, when: tuple[int, int, int], hours: int
    ) -> None:
        clock.set(zone, *when)
        begin_us = clock()
        right, wrong = (
            Limiter(execute, script_clock=clock, zone=lambda: zone, wall_clock=lambda off=off: clock() + off)  # type: ignore[misc]
            for off in (0, 11 * HOUR_US - US_PER_S)
        )
        for at_us in (begin_us - 1, begin_us, begin_us + hours * HOUR_US - 1, begin_us + hours * HOUR_US):
            clock.now_us = at_us
            for limiter in (right, wrong):
                await limiter.take(subject, [], metric=MINT)
        day = date(*when)
        around = day - timedelta(days=1), day + timedelta(days=1)
        daily = await Counters(execute).daily(subject, *around)
        assert daily == {around[0]: {f"{MINT}.ok": 2}, day: {f"{MINT}.ok": 4}, around[1]: {f"{MINT}.ok": 2}}
        for month in {f"{one:%Y-%m}" for one in daily}:
            count = dict(await Counters(execute).raw_month(subject, month))[f"*:{MINT}.ok"]
            assert count == sum(of[f"{MINT}.ok"] for one, of in daily.items() if f"{one:%Y-%m}" == month)
        usage = await Counters(execute).usage(subject, begin_us, zone)
        assert usage.today[MINT].ok == 4

    async def test_a_quota_of_that_zone_decides_by_the_counter_and_one_of_utc_by_its_own(
        self, execute: Execute, clock: Clock, subject: str
    ) -> None:
        clock.set("UTC", 2026, 11, 30, 23, 30)  # in Berlin it is December
        limiter = Limiter(execute, script_clock=clock, zone=lambda: "Europe/Berlin")
        utc = Quota("utc-month", MINT, 5, "month")
        for _ in range(2):  # before the policy has any quota
            await limiter.take(subject, [], metric=MINT)
        decision = await limiter.take(subject, [], metric=MINT, quotas=[*self.BERLIN, utc])
        assert [state.used for state in decision.quotas] == [3, 3, 1]
        assert list(await execute("HGETALL", f"qt:1:{{{subject}}}")) == [b"utc-month"]
        assert await limiter.amend(decision, "refused.not_found", refund=False)
        look = await limiter.peek(subject, [], quotas=[*self.BERLIN, utc])
        assert [state.used for state in look.quotas] == [2, 2, 0]
        clock.now_us += HOUR_US // 2  # December in UTC, too
        after = await limiter.take(subject, [], metric=MINT, quotas=[*self.BERLIN, utc])
        assert [state.used for state in after.quotas] == [3, 3, 1]

    async def test_a_change_of_the_zone_loses_no_count_and_gives_no_quota_of_the_month_back(
        self, execute: Execute, counters: Counters, clock: Clock, subject: str
    ) -> None:
        clock.set("UTC", 2026, 11, 22, 23, 30)  # in Berlin it is the 23rd
        early, late = (Limiter(execute, script_clock=clock, zone=lambda of=of: of) for of in ("Europe/Berlin", "UTC"))  # type: ignore[misc]
        month = {zone: Quota("month", MINT, 4, "month", zone) for zone in ("Europe/Berlin", "UTC")}
        # Workers adopt the new policy one after the other.
        last = await late.take(subject, [], metric=MINT, quotas=[month["UTC"]])
        for limiter, zone in ((early, "Europe/Berlin"), (late, "UTC"), (early, "Europe/Berlin")):
            assert (await limiter.take(subject, [], metric=MINT, quotas=[month[zone]])).allowed
        assert not (await early.take(subject, [], metric=MINT, quotas=[month["Europe/Berlin"]])).allowed
        assert await early.amend(last, "failed", refund=True), "it was counted in the other zone"
        daily = await counters.daily(subject, date(2026, 11, 1), date(2026, 11, 30))
        assert daily == {
            date(2026, 11, 22): {f"{MINT}.ok": 1, f"{MINT}.failed": 1},
            date(2026, 11, 23): {f"{MINT}.ok": 2, f"{MINT}.denied.month": 1},
        }
        assert (await counters.usage(subject, clock())).total[MINT].ok == 3


class Leases(Bench):
    @staticmethod
    def lease(holder: str = "", *, most: int = 2, lasts_us: int = MINUTE_US) -> Lease:
        return Lease("joins", most, lasts_us, holder)

    async def hold(self, limiter: Limiter, subject: str, holder: str, lasts_us: int = MINUTE_US) -> Decision:
        return await limiter.take(subject, [], leases=[self.lease(holder, lasts_us=lasts_us)])

    async def test_a_lease_has_at_most_its_number_of_holders(self, limiter: Limiter, subject: str) -> None:
        decisions = [await self.hold(limiter, subject, holder) for holder in "abc"]
        assert [decision.allowed for decision in decisions] == [True, True, False]
        assert [decision.leases[0].held for decision in decisions] == [1, 2, 2]
        assert [state.name for state in decisions[2].violated] == ["joins"]

    async def test_a_released_lease_is_free_for_another_holder(self, limiter: Limiter, subject: str) -> None:
        for holder in "ab":
            await self.hold(limiter, subject, holder)
        await limiter.release(subject, self.lease("a"))
        await limiter.release(subject, self.lease("a"))
        await limiter.release(subject, self.lease("never held it"))
        assert [(await self.hold(limiter, subject, holder)).allowed for holder in "cd"] == [True, False]

    async def test_a_lease_expires_exactly_at_its_time(self, limiter: Limiter, clock: Clock, subject: str) -> None:
        await self.hold(limiter, subject, "a", 90 * US_PER_S)
        await self.hold(limiter, subject, "b", 60 * US_PER_S)
        clock.now_us += 10 * US_PER_S
        denied = await self.hold(limiter, subject, "c")
        assert denied.retry_us == 50 * US_PER_S
        clock.now_us += denied.retry_us - 1
        assert not (await self.hold(limiter, subject, "c")).allowed
        clock.now_us += 1
        assert (await self.hold(limiter, subject, "c")).allowed

    async def test_a_refused_request_releases_its_lease(self, limiter: Limiter, subject: str) -> None:
        await self.hold(limiter, subject, "a")
        decision = await self.hold(limiter, subject, "b")
        assert await limiter.amend(decision, "refused.not_found", refund=False)
        look = await limiter.peek(subject, [], leases=[self.lease()])
        assert look.leases[0].held == 1

    async def test_taking_a_held_lease_again_neither_loses_nor_prolongs_it(
        self, limiter: Limiter, clock: Clock, subject: str
    ) -> None:
        for holder in "ab":
            await self.hold(limiter, subject, holder)
        clock.now_us += 30 * US_PER_S
        again = await self.hold(limiter, subject, "a")
        assert (again.allowed, again.leases[0].held, again.leases[0].is_new) == (True, 2, False)
        clock.now_us += 30 * US_PER_S
        assert (await limiter.peek(subject, [], leases=[self.lease()])).leases[0].held == 0

    async def test_a_refused_repetition_does_not_end_the_lease(self, limiter: Limiter, subject: str) -> None:
        first = await self.hold(limiter, subject, "a")
        again = await self.hold(limiter, subject, "a")
        assert first.leases[0].is_new
        assert await limiter.amend(again, "refused.replayed", refund=True)
        assert (await limiter.peek(subject, [], leases=[self.lease()])).leases[0].held == 1
        assert await limiter.amend(first, "failed", refund=True)
        assert (await limiter.peek(subject, [], leases=[self.lease()])).leases[0].held == 0

    async def test_a_denial_by_a_limit_gives_no_lease(self, limiter: Limiter, subject: str) -> None:
        await limiter.take(subject, charges(SLOW, cost=2))
        assert not (await limiter.take(subject, charges(SLOW), leases=[self.lease("a")])).allowed
        assert (await limiter.peek(subject, [], leases=[self.lease()])).leases[0].held == 0

    async def test_a_denial_by_a_lease_charges_no_limit(self, limiter: Limiter, subject: str) -> None:
        for holder in "abcd":
            await limiter.take(subject, charges(API), leases=[self.lease(holder)])
        assert await remaining(limiter, subject, API) == 3


class Operators(Bench):
    """Overrides, blocks and resets."""

    ODD = Limit("api", 7, MINUTE_US, 8)

    @staticmethod
    def until(clock: Clock, us: int = HOUR_US) -> dict[str, Any]:
        return {"until_us": clock() + us, "reason": 'a reason: with {braces}, "rate": "9/s"', "by": "op"}

    async def test_an_override_applies_from_the_next_request_until_it_ends(
        self, limiter: Limiter, overrides: Overrides, clock: Clock, subject: str
    ) -> None:
        await limiter.take(subject, charges(API, cost=3))
        await overrides.set_limit(subject, self.ODD, **self.until(clock))
        state = (await limiter.peek(subject, charges(API))).limits[0]
        assert (state.remaining, state.burst, state.emission_us) == (5, 8, self.ODD.emission_us)
        assert state.rate == self.ODD.rate
        assert await admitted(limiter, subject, API, tries=9) == 5
        clock.now_us += HOUR_US - 1
        assert (await limiter.peek(subject, charges(API))).limits[0].burst == 8
        clock.now_us += 1
        assert (await limiter.peek(subject, charges(API))).limits[0].burst == 5

    async def test_the_end_of_an_override_keeps_the_used_units(
        self, limiter: Limiter, overrides: Overrides, clock: Clock, subject: str
    ) -> None:
        slow = Limit("api", 1, DAY_US, 5)
        await overrides.set_limit(subject, slow, **self.until(clock, 10 * US_PER_S))
        await limiter.take(subject, charges(API, cost=4))
        clock.now_us += 10 * US_PER_S
        assert await remaining(limiter, subject, API) == 1

    async def test_a_quota_override_applies_from_the_next_request(
        self, limiter: Limiter, overrides: Overrides, clock: Clock, subject: str
    ) -> None:
        quota = Quota("day", MINT, 1, "week")
        await overrides.set_quota(subject, replace(quota, amount=3), **self.until(clock))
        decisions = [await limiter.take(subject, [], metric=MINT, quotas=[quota]) for _ in range(4)]
        assert [decision.allowed for decision in decisions] == [True, True, True, False]
        assert decisions[0].quotas[0].amount == 3
        assert await overrides.lift(subject, "day")
        assert (await limiter.peek(subject, [], quotas=[quota])).quotas[0].amount == 1

    async def test_a_block_denies_everything_until_it_ends(
        self, limiter: Limiter, overrides: Overrides, counters: Counters, clock: Clock, subject: str
    ) -> None:
        await overrides.block(subject, **self.until(clock))
        denied = await limiter.take(subject, charges(API), metric=MINT)
        assert (denied.allowed, denied.retry_us, denied.limits[0].allowed) == (False, HOUR_US, True)
        assert denied.block is not None
        assert [state.name for state in denied.violated] == ["block"]
        assert (await counters.usage(subject, clock())).today[MINT].denied == {"block": 1}
        clock.now_us += HOUR_US - 1
        assert not (await limiter.take(subject, charges(API))).allowed
        clock.now_us += 1
        decision = await limiter.take(subject, charges(API))
        assert (decision.allowed, decision.block, decision.limits[0].remaining) == (True, None, 4)

    async def test_a_block_denies_even_with_only_shadow_limits(
        self, limiter: Limiter, overrides: Overrides, clock: Clock, subject: str
    ) -> None:
        await overrides.block(subject, **self.until(clock))
        assert not (await limiter.take(subject, charges(replace(API, shadow=True)))).allowed

    async def test_a_lifted_override_ends_at_once(
        self, limiter: Limiter, overrides: Overrides, clock: Clock, subject: str
    ) -> None:
        await overrides.block(subject, **self.until(clock))
        assert await overrides.lift(subject, "*")
        assert not await overrides.lift(subject, "*")
        assert (await limiter.take(subject, charges(API))).allowed

    async def test_overrides_are_listed_until_they_end(
        self, overrides: Overrides, limiter: Limiter, clock: Clock, subject: str
    ) -> None:
        set_here = [
            await overrides.block(subject, **self.until(clock, MINUTE_US)),
            await overrides.set_limit(subject, self.ODD, **self.until(clock)),
            await overrides.set_quota(subject, Quota("month", MINT, 77, "month"), **self.until(clock)),
        ]
        await overrides.reset(subject, [], [Quota("month", MINT, 5, "month")])
        assert await overrides.current(subject) == set_here
        clock.now_us += MINUTE_US
        assert await overrides.current(subject) == set_here[1:]

    async def test_the_key_outlives_its_longest_override(
        self, overrides: Overrides, execute: Execute, clock: Clock, subject: str
    ) -> None:
        await overrides.block(subject, **self.until(clock, HOUR_US))
        await overrides.set_limit(subject, self.ODD, **self.until(clock, MINUTE_US))
        assert HOUR_US // 1000 - 60_000 < int(await execute("PTTL", f"ov:1:{{{subject}}}")) <= HOUR_US // 1000 + 1

    async def test_a_reset_restores_units_and_keeps_the_counters(
        self, limiter: Limiter, overrides: Overrides, counters: Counters, clock: Clock, subject: str
    ) -> None:
        quotas = Quotas.KINDS
        for _ in range(3):
            await limiter.take(subject, charges(API), metric=MINT, quotas=quotas)
        used = await overrides.reset(subject, charges(API), quotas)
        assert used == {"api": 3} | {quota.id: 3 for quota in quotas}
        look = await limiter.peek(subject, charges(API), quotas=quotas)
        assert look.limits[0].remaining == 5
        assert [state.used for state in look.quotas] == [0] * 6
        assert (await counters.usage(subject, clock())).month[MINT].ok == 3

    async def test_after_each_reset_the_whole_amount_passes_again(
        self, limiter: Limiter, overrides: Overrides, subject: str
    ) -> None:
        async def fill() -> list[bool]:
            return [(await limiter.take(subject, [], metric=MINT, quotas=Quotas.KINDS)).allowed for _ in range(4)]

        for _ in range(3):
            assert await fill() == [True, True, True, False]
            await overrides.reset(subject, [], Quotas.KINDS)

    async def test_a_reset_of_a_quota_applies_only_to_its_own_period(
        self, limiter: Limiter, overrides: Overrides, clock: Clock, subject: str
    ) -> None:
        quota = Quota("berlin", MINT, 3, "day", "Europe/Berlin")
        for _ in range(3):
            first = await limiter.take(subject, [], metric=MINT, quotas=[quota])
        await overrides.reset(subject, [], [quota])
        clock.now_us = first.quotas[0].ends_us
        allowed = [(await limiter.take(subject, [], metric=MINT, quotas=[quota])).allowed for _ in range(4)]
        assert allowed == [True, True, True, False]

    async def test_a_reset_does_not_lift_overrides(
        self, limiter: Limiter, overrides: Overrides, clock: Clock, subject: str
    ) -> None:
        await overrides.set_limit(subject, self.ODD, **self.until(clock))
        await overrides.reset(subject, charges(API), [])
        assert (await limiter.peek(subject, charges(API))).limits[0].burst == 8


class Keys(Bench):
    """The keys in Redis and their lifetimes."""

    async def test_keys_contain_the_names_but_not_the_numbers_of_limits(
        self, limiter: Limiter, execute: Execute, subject: str
    ) -> None:
        await limiter.take(subject, charges(API, SLOW), metric=MINT, quotas=[Quota("week", MINT, 77, "week")])
        month = f"{datetime.now(UTC):%Y-%m}"
        tag = f"{{{subject}}}"
        names = {f"rl:1:{tag}", f"uc:1:{tag}:{month}", f"uc:1:{tag}:all", f"qt:1:{tag}"}
        assert {key.decode() for key in await snapshot(execute, subject)} == names
        assert {field.decode() for field in await execute("HKEYS", f"rl:1:{tag}")} == {"api", "slow"}

    async def test_limits_expire_only_when_they_are_full_again(
        self, limiter: Limiter, execute: Execute, subject: str
    ) -> None:
        key = f"rl:1:{{{subject}}}"
        await limiter.take(subject, charges(SLOW, cost=2))
        assert 19_000 < int(await execute("PTTL", key)) <= 20_001
        await limiter.take(subject, charges(API))  # full again earlier: must not shorten it
        assert 19_000 < int(await execute("PTTL", key)) <= 20_001

    async def test_monthly_counters_expire_and_total_counters_do_not(
        self, limiter: Limiter, execute: Execute, clock: Clock, subject: str
    ) -> None:
        await limiter.take(subject, charges(API), metric=MINT)
        month = f"{datetime.fromtimestamp(clock() / 1e6, UTC):%Y-%m}"
        kept_ms = int(await execute("PTTL", f"uc:1:{{{subject}}}:{month}"))
        assert 366 * 86_400_000 < kept_ms <= 400 * 86_400_000
        assert int(await execute("PTTL", f"uc:1:{{{subject}}}:all")) == -1

    async def test_theoretical_arrival_times_are_written_as_whole_microseconds(
        self, limiter: Limiter, execute: Execute, clock: Clock, subject: str
    ) -> None:
        clock.now_us = clock.now_us // 10 * 10 + 7
        odd = Limit("odd", 7, 3650 * DAY_US, 7)
        await limiter.take(subject, charges(API, odd))
        assert await execute("HGETALL", f"rl:1:{{{subject}}}") == {
            b"api": b"%d:%d" % (clock() + US_PER_S, US_PER_S),
            b"odd": b"%d:%d" % (clock() + odd.emission_us, odd.emission_us),
        }

    async def test_without_a_metric_nothing_is_counted(self, limiter: Limiter, execute: Execute, subject: str) -> None:
        await limiter.take(subject, charges(API, cost=5))
        await limiter.take(subject, charges(API))
        assert list(await snapshot(execute, subject)) == [f"rl:1:{{{subject}}}".encode()]


class Metered(Bench):
    """Quotas on a counter that something else writes: minutes, counted in seconds."""

    DAY = Quota("day", "minutes", 2, "day", unit=60, metered=True)
    MONTH = Quota("month", "minutes", 2, "month", unit=60, metered=True)
    WEEK = Quota("week", "minutes", 2, "week", unit=60, metered=True)
    TOKYO = Quota("tokyo", "owned", 2, "day", "Asia/Tokyo", unit=60, metered=True)

    @pytest.fixture(params=(DAY, MONTH, WEEK, TOKYO), ids=lambda meter: meter.id)
    def meter(self, request: pytest.FixtureRequest) -> Quota:
        return request.param  # type: ignore[no-any-return]

    @staticmethod
    async def spend(execute: Execute, clock: Clock, subject: str, quota: Quota, seconds: int) -> None:
        """Count seconds as a meter does, into the field that decides on a quota."""
        day = day_of(clock(), "UTC")
        if quota.is_counter("UTC"):
            field = f"{'*' if quota.period == 'month' else day.field}:{quota.counter}.ok"
            await execute("HINCRBY", f"uc:1:{{{subject}}}:{day.month}", field, seconds)
        else:
            period = span_of(quota.period, quota.zone, clock()).id
            field = f"{quota.counter}@{quota.period}@{quota.zone}:{period}"
            await execute("HINCRBY", f"qt:1:{{{subject}}}", field, seconds)

    async def test_a_request_passes_while_a_second_is_left(
        self, limiter: Limiter, execute: Execute, clock: Clock, subject: str, meter: Quota
    ) -> None:
        await self.spend(execute, clock, subject, meter, 119)
        state = (await limiter.take(subject, [], quotas=[meter])).quotas[0]
        assert (state.allowed, state.used, state.remaining, state.left, state.amount) == (True, 2, 0, 1, 2)
        await self.spend(execute, clock, subject, meter, 1)
        denied = await limiter.take(subject, [], quotas=[meter])
        assert not denied.allowed
        assert denied.retry_us == denied.quotas[0].ends_us - clock()
        clock.now_us += denied.retry_us
        assert (await limiter.take(subject, [], quotas=[meter])).quotas[0].left == 120

    async def test_neither_a_request_nor_its_amendment_changes_what_is_metered(
        self, limiter: Limiter, execute: Execute, clock: Clock, subject: str, meter: Quota
    ) -> None:
        await self.spend(execute, clock, subject, meter, 60)
        before = await snapshot(execute, subject)
        assert (await limiter.take(subject, [], quotas=[meter])).allowed
        assert await snapshot(execute, subject) == before
        decision = await limiter.take(subject, [], metric=MINT, quotas=[meter])
        assert await limiter.amend(decision, "failed", refund=True)
        assert (await limiter.peek(subject, [], quotas=[meter])).quotas[0].counted == 60

    async def test_a_denial_by_a_metered_quota_writes_nothing(
        self, limiter: Limiter, execute: Execute, clock: Clock, subject: str, meter: Quota
    ) -> None:
        await self.spend(execute, clock, subject, meter, 500)
        before = await snapshot(execute, subject)
        denied = await limiter.take(subject, charges(API), metric=MINT, quotas=[meter])
        assert (denied.allowed, denied.worst.name) == (False, meter.id)
        assert await snapshot(execute, subject, without="dn") == before

    async def test_a_limit_that_denies_a_request_says_what_is_left_all_the_same(
        self, limiter: Limiter, subject: str, meter: Quota
    ) -> None:
        await limiter.take(subject, charges(SLOW, cost=2))
        denied = await limiter.take(subject, charges(SLOW), quotas=[meter])
        assert (denied.allowed, denied.quotas[0].allowed, denied.quotas[0].left) == (False, True, 120)

    async def test_a_shadow_never_denies(
        self, limiter: Limiter, execute: Execute, clock: Clock, subject: str, meter: Quota
    ) -> None:
        await self.spend(execute, clock, subject, meter, 500)
        decision = await limiter.take(subject, [], quotas=[replace(meter, shadow=True)])
        assert (decision.allowed, decision.quotas[0].allowed) == (True, False)

    async def test_a_reset_forgives_what_was_metered_to_the_second(
        self, limiter: Limiter, overrides: Overrides, execute: Execute, clock: Clock, subject: str, meter: Quota
    ) -> None:
        await self.spend(execute, clock, subject, meter, 130)
        assert await overrides.reset(subject, [], [meter]) == {meter.id: 3}
        assert (await limiter.take(subject, [], quotas=[meter])).quotas[0].counted == 0
        await self.spend(execute, clock, subject, meter, 7)
        assert await overrides.reset(subject, [], [meter]) == {meter.id: 1}
        await self.spend(execute, clock, subject, meter, 119)
        assert (await limiter.take(subject, [], quotas=[meter])).quotas[0].left == 1

    async def test_a_request_amended_after_a_reset_takes_nothing_from_what_was_forgiven(
        self, limiter: Limiter, overrides: Overrides, execute: Execute, clock: Clock, subject: str, meter: Quota
    ) -> None:
        await self.spend(execute, clock, subject, meter, 60)
        decision = await limiter.take(subject, [], metric=MINT, quotas=[meter])
        await overrides.reset(subject, [], [meter])
        assert await limiter.amend(decision, "failed", refund=True)
        assert (await limiter.peek(subject, [], quotas=[meter])).quotas[0].counted == 0

    async def test_an_override_is_in_units_of_the_quota(
        self, limiter: Limiter, overrides: Overrides, execute: Execute, clock: Clock, subject: str, meter: Quota
    ) -> None:
        await self.spend(execute, clock, subject, meter, 130)
        words = {"until_us": clock() + HOUR_US, "reason": "exam", "by": "op"}
        set_here = await overrides.set_quota(subject, replace(meter, amount=3), **words)  # type: ignore[arg-type]
        assert (set_here.amount, await overrides.current(subject)) == (3, [set_here])
        state = (await limiter.take(subject, [], quotas=[meter])).quotas[0]
        assert (state.allowed, state.amount, state.left) == (True, 3, 50)


class LimiterContract(EdgeCases, Quotas, Zones, Metered, Leases, Operators, Keys):
    """The whole contract. A subclass has a fixture `execute`."""

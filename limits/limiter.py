"""The limiter: one atomic decision over limits, quotas and leases, which charges all or none and counts the usage."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

from msgspec import Struct, structs

from . import Execute
from .periods import US_PER_DAY, Zone, day_of, span_of, utc
from .policy import BlockState, Charge, Clock, Decision, Lease, LeaseState, LimitState, Quota, QuotaState

Guard = tuple[str, str, str]
"""(key, field, expected value) of a hash that must hold for anything to be charged."""

KEEP_COUNTERS_MS = 400 * 86_400_000  # a report reaches back 366 days; months are dropped whole
AMEND_WINDOW_US = 60 * 1_000_000  # the longest request takes 5 s; later amendments are mistakes
# The script gets two periods. Starting nearly half a day back, in steps, so that their arguments can be prepared, they
# contain any time that Redis may have near now.
_STEP_US = US_PER_DAY // 96
_BACK_US = US_PER_DAY // 2 - _STEP_US
MOST_LIMITS = 8  # per decision: its cost in Redis is measured up to here

_TAKE = files(__package__).joinpath("take.lua").read_text()
_AMEND = files(__package__).joinpath("amend.lua").read_text()


class Limiter:
    """Charges limits of a subject and counts what it did.

    `wall_clock` selects the periods whose keys are passed to the script; the script then picks one by the clock of
    Redis. So a worker whose clock is wrong by less than eleven hours (ten where a day has 22) still counts on the right
    day. `script_clock` replaces the clock of Redis in tests. `zone` is that of the days and months of usage counters.
    `on_decision` receives what each `take` decided.
    """

    def __init__(
        self,
        execute: Execute,
        *,
        zone: Zone = utc,
        wall_clock: Clock | None = None,
        script_clock: Clock | None = None,
        on_decision: Callable[[Decision], None] | None = None,
    ) -> None:
        self._execute = execute
        self._zone = zone
        self._on_decision = on_decision
        self._script_clock = script_clock
        self._wall_clock = wall_clock or script_clock or (lambda: time.time_ns() // 1000)
        self._ids = map(f"{secrets.token_hex(8)}{{:x}}".format, itertools.count())

    async def take(
        self,
        subject: str,
        charges: Sequence[Charge],
        *,
        metric: str = "",
        guards: Sequence[Guard] = (),
        quotas: Sequence[Quota] = (),
        leases: Sequence[Lease] = (),
    ) -> Decision:
        """Charge every limit, quota and lease, or none, and count the request under `metric` as ok or denied.

        Without a metric a request for metered quotas alone writes nothing, whatever the decision.

        All guards must be in the subject's cluster slot. If a guard does not hold, nothing is evaluated or written; see
        `Decision.failed_guard`. A charge of cost 0 only reads. Raises ValueError for more than eight limits and quotas.

        One round trip. What `execute` raises passes through and nothing is retried: without Redis, no decision.
        """
        near = self._about_us(), self._zone()
        demand = _demand(tuple(charges), tuple(quotas), metric, len(leases), len(guards), *near)
        decision = await self._decide(subject, demand, guards, leases)
        if self._on_decision is not None:
            self._on_decision(decision)
        return decision

    async def peek(
        self,
        subject: str,
        charges: Sequence[Charge],
        *,
        guards: Sequence[Guard] = (),
        quotas: Sequence[Quota] = (),
        leases: Sequence[Lease] = (),
    ) -> Decision:
        """Return the state of limits, quotas and leases; charge and count nothing."""
        looks = tuple(Charge(charge.limit, 0) for charge in charges)
        held = [Lease(lease.id, lease.most, lease.lasts_us) for lease in leases]
        near = self._about_us(), self._zone()
        demand = _demand(looks, tuple(quotas), "", len(leases), len(guards), *near, quota_cost=0)
        return structs.replace(await self._decide(subject, demand, guards, held), id="")

    async def amend(self, decision: Decision, outcome: str, *, refund: bool) -> bool:
        """Move an allowed decision's count from ok to `outcome` (`failed`, `refused.<code>`).

        Quota units and leases are always given back, the limits' units only if `refund`. Works at most once per
        decision, within a minute of it; returns whether it did. A limit whose numbers changed in between is refunded at
        the numbers it was charged under. Raises ValueError for a denial, which charged nothing.
        """
        if not decision.allowed:
            raise ValueError("a denied decision charged nothing that could be amended")
        if not decision.id:
            return False
        day = day_of(decision.now_us, decision.zone)
        subject = decision.subject
        keys = [f"rl:1:{{{subject}}}", f"uc:1:{{{subject}}}:{day.month}", f"uc:1:{{{subject}}}:all"]
        keys += [f"rf:1:{{{subject}}}", f"qt:1:{{{subject}}}", f"ov:1:{{{subject}}}"]
        charged = zip(decision.charges, decision.limits, strict=True)
        back: list[tuple[str | int, ...]] = [
            (state.name, charge.cost, decision.now_us + state.full_again_us, state.emission_us)
            for charge, state in charged
            if refund and charge.cost and state.allowed
        ]
        drawn: list[tuple[str | int, ...]] = [
            (state.name, _period_of(state.quota, decision.now_us), int(not state.quota.is_counter(decision.zone)))
            for state in decision.quotas
            if state.allowed and not state.quota.metered
        ]
        held = [state.lease for state in decision.leases if state.is_new]
        keys += [_lease_key(subject, lease) for lease in held]
        args: list[str | int] = [self._script_now(), decision.id, decision.now_us, AMEND_WINDOW_US]
        args += (day.field, decision.metric, outcome, len(back), len(drawn), len(held))
        for words in (*back, *drawn):
            args += words
        args += [lease.holder for lease in held]
        return bool(await self._execute("EVAL", _AMEND, len(keys), *keys, *args))

    async def release(self, subject: str, lease: Lease) -> None:
        """End a holder's lease early; it is no error if it has ended already."""
        await self._execute("ZREM", _lease_key(subject, lease), lease.holder)

    async def _decide(
        self, subject: str, demand: _Demand, guards: Sequence[Guard], leases: Sequence[Lease]
    ) -> Decision:
        tag = f"{{{subject}}}"
        keys = [f"rl:1:{tag}"]
        keys += [f"{kind}:{tag}:{period}" for kind, period in demand.counters]
        keys += (f"ov:1:{tag}", f"qt:1:{tag}")
        keys += [guard[0] for guard in guards]
        keys += [_lease_key(subject, lease) for lease in leases]
        args: list[str | int] = [self._script_now(), *demand.words]
        for lease in leases:
            args += (lease.id, lease.most, lease.holder, lease.lasts_us)
        for _, field, expected in guards:
            args += (field, expected)
        reply = await self._execute("EVAL", _TAKE, len(keys), *keys, *args)
        return self._decision(subject, demand, leases, reply)

    def _script_now(self) -> str | int:
        return self._script_clock() if self._script_clock else ""

    def _about_us(self) -> int:
        return (self._wall_clock() - _BACK_US) // _STEP_US * _STEP_US

    def _decision(self, subject: str, demand: _Demand, leases: Sequence[Lease], reply: list[int]) -> Decision:
        status = reply[0]
        if status < 0:
            return Decision("", subject, demand.metric, 0, False, charges=demand.charges, failed_guard=-status - 1)
        now_us, blocked_us = reply[1], reply[2]
        at = 3 + 2 * len(demand.charges)
        quota_states = []
        for quota in demand.quotas:
            allowed, counted, most, ends_us = reply[at : at + 4]
            amount = most // quota.unit
            window_s = span_of(quota.period, quota.zone, ends_us - 1).seconds
            retry_us = 0 if allowed else ends_us - now_us
            quota_states.append(QuotaState(quota, allowed == 1, counted, amount, ends_us, retry_us, window_s))
            at += 4
        lease_states = []
        for lease in leases:
            allowed, held, retry_us = reply[at : at + 3]
            is_new = status == 1 and allowed == 1 and lease.holder != ""
            lease_states.append(LeaseState(lease, allowed > 0, held, retry_us, is_new))
            at += 3
        overridden = {reply[i] - 1: tuple(reply[i + 1 : i + 4]) for i in range(at, len(reply), 4)}
        return Decision(
            next(self._ids),
            subject,
            demand.metric,
            now_us,
            status == 1,
            _limit_states(demand, reply, overridden),
            tuple(quota_states),
            tuple(lease_states),
            BlockState(blocked_us - now_us) if blocked_us else None,
            demand.charges,
            demand.zone,
        )


class _Demand(Struct, frozen=True):
    """What requests of one kind have in common for a while: the arguments of the script that do not name the subject.

    `counters` are the beginning and the end of the keys of usage; `numbers` are T and burst of each limit.
    """

    charges: tuple[Charge, ...]
    quotas: tuple[Quota, ...]
    metric: str
    zone: str
    counters: tuple[tuple[str, str], ...]
    words: tuple[str, ...]
    numbers: tuple[tuple[int, int], ...]


@lru_cache(maxsize=1024)  # with values as structs, a mint costs the gateway 0.90 of the CPU
def _demand(  # noqa: PLR0913  exactly what the arguments depend on
    charges: tuple[Charge, ...],
    quotas: tuple[Quota, ...],
    metric: str,
    leases: int,
    guards: int,
    about_us: int,
    zone: str,
    *,
    quota_cost: int = 1,
) -> _Demand:
    """Prepare the script's arguments for a set of charges and quotas. Raises: ValueError"""
    if len(charges) + len(quotas) > MOST_LIMITS:
        raise ValueError(f"one decision takes at most {MOST_LIMITS} limits and quotas")
    today = day_of(about_us, zone)
    tomorrow = day_of(today.end_us, zone)
    words: list[str | int] = [len(charges), len(quotas), leases, guards, metric]
    words += (today.field, today.end_us, tomorrow.field, KEEP_COUNTERS_MS)
    for charge in charges:
        limit = charge.limit
        words += (limit.id, limit.emission_us, limit.burst, charge.cost, int(limit.shadow))
    for quota in quotas:
        words += _quota_words(quota, quota_cost, about_us, zone)
    counters = tuple((kind, period) for kind in ("uc:1", "dn:1") for period in (today.month, tomorrow.month, "all"))
    numbers = tuple((charge.limit.emission_us, charge.limit.burst) for charge in charges)
    return _Demand(charges, quotas, metric, zone, counters, tuple(map(str, words)), numbers)


def _limit_states(demand: _Demand, reply: list[Any], overridden: dict[int, tuple[Any, ...]]) -> tuple[LimitState, ...]:
    """Read the states of limits; `overridden` has the interval, the burst and the rate of those with an override."""
    states = []
    for i, (charge, numbers) in enumerate(zip(demand.charges, demand.numbers, strict=True)):
        full_again_us, retry_us = reply[3 + 2 * i], reply[4 + 2 * i]
        emission_us, burst, rate = overridden.get(i, (*numbers, b""))
        remaining = max(0, burst - -(-full_again_us // emission_us))
        now = (remaining, retry_us, full_again_us, emission_us, burst, rate.decode())
        states.append(LimitState(charge.limit, retry_us == 0, *now))
    return tuple(states)


def _period_of(quota: Quota, now_us: int) -> str:
    return span_of(quota.period, quota.zone, now_us).id


def _lease_key(subject: str, lease: Lease) -> str:
    return f"ls:1:{{{subject}}}:{lease.id}"


def _quota_words(quota: Quota, cost: int, about_us: int, zone: str) -> tuple[str | int, ...]:
    now = span_of(quota.period, quota.zone, about_us)
    following = span_of(quota.period, quota.zone, now.end_us)
    counter = quota.counter
    kind: str = quota.period if quota.is_counter(zone) else "metered" if quota.metered else "own"
    if kind == "metered":
        counter = metered_field(quota.counter, quota.period, quota.zone)
    if quota.metered:
        cost = -cost
    periods = (now.id, now.end_us, following.id, following.end_us)
    return (quota.id, quota.amount * quota.unit, cost, int(quota.shadow), kind, counter, *periods)


def metered_field(counter: str, period: str, zone: str) -> str:
    """Return how the fields of a metered counter begin in `qt`, one per period of a calendar; `:` and its id follow."""
    return f"{counter}@{period}@{zone}"

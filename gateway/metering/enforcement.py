"""Watches budgets while people are in rooms."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from math import inf

from msgspec import Struct

from auth.names import UID
from gateway.policy.live import PolicyInForce
from gateway.policy.model import Policy
from gateway.redis.store import Clock
from limits import Execute

from .budgets import Budgets
from .consequences import PERCENTS, Consequences, Payer
from .keys import INSTALLATION, open_stays
from .stays import OpenStay, read_open

EVERY_S = 2.0
IDLE_S = 10.0  # without a budget in the policy
LONGEST_MS = 8_000  # between two looks at a budget, which may change by itself: an override, an event that came late
# Until when open stays are credited is of no use once it is so long ago: the process has only become the leader again.
MOST_LAG_MS = 30_000
_MOST_AT_ONCE = 100  # looks; one takes 40 us, in which no request is served


class _Watch(Struct):
    """When a payer's budgets were looked at, and what is left, in seconds, until the next percentage of one."""

    looked_ms: int
    left_s: float


class Enforcement:
    """Compares budgets with what has been used. `credited_ms` returns until when open stays have been credited."""

    def __init__(
        self,
        execute: Execute,
        budgets: Budgets,
        policy: PolicyInForce,
        consequences: Consequences,
        clock: Clock,
        credited_ms: Callable[[], int],
    ) -> None:
        self._execute = execute
        self._budgets = budgets
        self._policy = policy
        self._consequences = consequences
        self._clock = clock
        self._credited_ms = credited_ms
        self._watches: dict[Payer, _Watch] = {}
        self._last_ms = 0

    async def work(self) -> float:
        """Look once at the budgets that may have reached a percentage; return the seconds until the next time."""
        if not self._policy.now.metered:
            return IDLE_S
        found: dict[bytes, bytes] = await self._execute("HGETALL", open_stays(INSTALLATION))
        await self.enforce([read_open(value) for value in found.values()], await self._clock())
        return EVERY_S

    async def enforce(self, stays: Sequence[OpenStay], now_ms: int) -> None:
        """Look at the budgets of everyone who pays for these stays, and end what has to end."""
        payers = _payers(self._policy.now, stays)
        passed_s, self._last_ms = (now_ms - self._last_ms) / 1000, now_ms
        self._watches = {payer: watch for payer, watch in self._watches.items() if payer in payers}
        for payer, watch in self._watches.items():
            watch.left_s -= passed_s * len(payers[payer])
        due = [payer for payer in payers if self._is_due(payer, now_ms)]
        ends: list[tuple[Payer, str]] = []
        for at in range(0, len(due), _MOST_AT_ONCE):
            part = due[at : at + _MOST_AT_ONCE]
            spent = await asyncio.gather(*(self._look(payer, payers[payer], now_ms) for payer in part))
            ends += [(payer, budget) for payer, budget in zip(part, spent, strict=True) if budget]
        await self._consequences.end(ends, stays, now_ms)

    def _is_due(self, payer: Payer, now_ms: int) -> bool:
        watch = self._watches.get(payer)
        return watch is None or watch.left_s <= 0 or now_ms - watch.looked_ms >= LONGEST_MS

    async def _look(self, payer: Payer, stays: Sequence[OpenStay], now_ms: int) -> str:
        """Look at a payer's budgets; return the one that is spent and ends rooms, if any."""
        decision = await self._budgets.look(*payer)
        credited_ms = self._credited_ms()
        if now_ms - credited_ms > MOST_LAG_MS:
            credited_ms = now_ms
        # Rounded down, so that nothing ends before the counter says that the budget is spent.
        uncredited_s = sum(max(0, now_ms - max(credited_ms, stay.joined_ms)) // 1000 for stay in stays)
        ends, left_s = "", inf
        for state in decision.quotas:
            whole_s, used_s = state.amount * state.quota.unit, state.counted + uncredited_s
            reached = [percent for percent in PERCENTS if used_s * 100 >= whole_s * percent]
            for percent in reached:
                await self._consequences.notice(payer, state, percent, decision.now_us)
            if len(reached) < len(PERCENTS):
                left_s = min(left_s, whole_s * PERCENTS[len(reached)] / 100 - used_s)
            elif state.name in self._policy.now.ending:
                ends, left_s = state.name, 0.0
        self._watches[payer] = _Watch(now_ms, left_s)
        return ends


def _payers(policy: Policy, stays: Iterable[OpenStay]) -> dict[Payer, list[OpenStay]]:
    """Return who pays for which stays, as far as the policy has budgets for them."""
    payers: dict[Payer, list[OpenStay]] = {}
    scopes = [scope for scope in ("user", "owner", "all") if policy.has_budgets(scope)]
    for stay in stays:
        subjects = {"user": stay.user, "owner": stay.owner, "all": INSTALLATION}
        for scope in scopes:
            subject = subjects[scope]
            if scope == "all" or UID.fullmatch(subject):
                payers.setdefault((scope, subject), []).append(stay)
    return payers

"""The budgets of minutes that are nearest to their end, and where they will be when their periods end."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from gateway.metering.budgets import Budgets
from gateway.metering.keys import INSTALLATION
from gateway.policy.actions import SCOPES
from gateway.policy.live import PolicyInForce
from gateway.policy.model import Policy
from limits.derived import Derived
from limits.periods import day_of, span_of
from limits.policy import QuotaState

CANDIDATES = 200
"""How many subjects of each top list are looked at."""

_AT_ONCE = 50  # so that other requests are served in between


@dataclass(frozen=True, slots=True)
class Forecast:
    """A budget, whose it is, and what it will have used in the end if it goes on as since its period began, in seconds.

    `runs_out_us`: when it will be spent, None if that is not within its period.
    """

    scope: str
    subject: str
    state: QuotaState
    expected_s: int
    runs_out_us: int | None

    @property
    def share(self) -> float:
        """Return how much of it is used, from 0 to 1 and beyond."""
        return self.state.counted / (self.state.amount * self.state.quota.unit)


class Forecasts:
    """Finds budgets by the top lists of the days and months in which their periods lie."""

    def __init__(self, budgets: Budgets, derived: Derived, policy: PolicyInForce) -> None:
        self._budgets = budgets
        self._derived = derived
        self._policy = policy

    async def nearest(self, size: int, now_us: int) -> list[Forecast]:
        """Return the budgets of which the largest share is used, those of the installation first.

        Of users and owners, those with the most minutes are looked at; one with a very small budget may be missing.
        """
        policy = self._policy.now
        found = []
        for scope in ("all", "user", "owner"):
            if policy.has_budgets(scope):
                subjects = [INSTALLATION] if scope == "all" else await self._subjects(policy, scope, now_us)
                found += await self._look(scope, subjects)
        found.sort(key=lambda one: (one.scope != "all", -one.share, one.subject, one.state.name))
        return found[:size]

    async def _subjects(self, policy: Policy, scope: str, now_us: int) -> list[str]:
        """Return who has used the most in the periods that the budgets of a scope are in."""
        quotas = [quota for quota in policy.metered if policy.scope_of(quota) == scope]
        calendars = {(quota.period, quota.zone) for quota in quotas}
        lists = {name for period, zone in calendars for name in _lists((period, zone), policy.time_zone, now_us)}
        tops = await asyncio.gather(
            *(self._derived.top(name, f"{SCOPES[scope]}.ok", CANDIDATES) for name in sorted(lists))
        )
        return list(dict.fromkeys(subject for top in tops for subject, _ in top))

    async def _look(self, scope: str, subjects: Sequence[str]) -> list[Forecast]:
        found = []
        for at in range(0, len(subjects), _AT_ONCE):
            some = subjects[at : at + _AT_ONCE]
            looks = await asyncio.gather(*(self._budgets.look(scope, one) for one in some))
            for subject, decision in zip(some, looks, strict=True):
                found += [_forecast(scope, subject, state, decision.now_us) for state in decision.quotas]
        return found


def _lists(calendar: tuple[str, str], zone: str, now_us: int) -> Iterable[str]:
    """Return the top lists, of days or months of a zone, that a calendar's present period has touched so far."""
    begins_us = span_of(*calendar, now_us).start_us
    first, last = (date.fromisoformat(day_of(at_us, zone).name) for at_us in (begins_us, now_us))
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return {f"{day:%Y-%m-%d}" if calendar[0] == "day" else f"{day:%Y-%m}" for day in days}


def _forecast(scope: str, subject: str, state: QuotaState, now_us: int) -> Forecast:
    begin_us = span_of(state.quota.period, state.quota.zone, state.ends_us - 1).start_us
    passed_us = max(1, now_us - begin_us)
    expected_s = state.counted * (state.ends_us - begin_us) // passed_us
    whole_s = state.amount * state.quota.unit
    runs_out_us = None
    if state.counted >= whole_s:
        runs_out_us = now_us
    elif expected_s >= whole_s:
        runs_out_us = begin_us + passed_us * whole_s // state.counted
    return Forecast(scope, subject, state, expected_s, runs_out_us)

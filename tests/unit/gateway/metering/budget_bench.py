"""Shared parts of the tests of budgets: a policy that has one of each scope, and people with accounts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from gateway.metering.budgets import Budgets
from gateway.metering.events import Stay
from gateway.metering.stays import Stays
from gateway.policy.file import built_in_text, parse_policy
from gateway.policy.live import PolicyInForce
from limits.derived import Derived
from limits.limiter import Limiter
from limits.metered import ENDED, OPEN

Execute = Callable[..., Awaitable[Any]]

ANN, BEN, OWNER = "u" + "a" * 20, "u" + "b" * 20, "u" + "c" * 20
# Half past eleven of this day, so that no period ends meanwhile, and stays of some hours began on the same day.
NOW_MS = int(datetime.now(UTC).replace(hour=11, minute=30, second=0, microsecond=0).timestamp()) * 1000
BUDGETS = """
[quotas.mine]
counter = "minutes"
period = "day"
amount = 30
{more}
[quotas.rooms]
counter = "minutes"
scope = "owner"
period = "week"
amount = 100
{more}
[quotas.everybody]
counter = "minutes"
scope = "all"
period = "month"
amount = 500
{more}
"""


def policy_with(text: str) -> PolicyInForce:
    return PolicyInForce(parse_policy(built_in_text() + text, "test.toml"))


class BudgetBench:
    """Budgets of a policy by the clock of the test, and stays that are credited to them."""

    def __init__(self, execute: Execute, policy: PolicyInForce) -> None:
        self.execute = execute
        self.policy = policy
        self.now_ms = NOW_MS
        self.limiter = Limiter(execute, script_clock=lambda: self.now_ms * 1000)
        self.budgets = Budgets(execute, self.limiter, policy)
        derived = Derived(execute, lambda *_: None)
        self.stays = Stays(execute, derived, calendars=lambda: policy.now.metered_calendars)

    async def clock(self) -> int:
        return self.now_ms

    async def account(self, uid: str, *roles: str) -> None:
        await self.execute("HSET", f"u:1:{{{uid}}}", "roles", " ".join(roles))

    async def stay(self, user: str, room: str, minutes: float, *, goes_on: bool = False, peer: str = "") -> None:
        """Credit a stay of so many minutes, until now."""
        who = (room, f"session of {room}", peer or f"peer-of-{user}", user, "guest")
        joined_ms = self.now_ms - int(minutes * 60_000)
        await self.stays.credit([Stay(*who, joined_ms, self.now_ms, OPEN if goes_on else ENDED, self.now_ms)])

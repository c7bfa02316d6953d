"""Shared parts of the tests of what budgets do to rooms: rooms at a 100ms of the test, and looks at the budgets."""

from __future__ import annotations

from dataclasses import replace

from gateway.audit import Audit
from gateway.metering.accrual import Accrual
from gateway.metering.consequences import Consequences
from gateway.metering.enforcement import Enforcement
from gateway.rooms.registry import Rooms, upstream_name
from gateway.rooms.room import NewRoom, Room
from tests.fake_redis import fake_redis
from tests.unit.gateway.fake_100ms import TEMPLATE, Fake100ms, Ledger
from tests.unit.gateway.metering.budget_bench import BUDGETS, BudgetBench, policy_with

ENDS = BUDGETS.format(more='on_exhausted = "end"')


class EnforcementBench(BudgetBench):
    def __init__(self, text: str = ENDS) -> None:
        policy = policy_with(text)
        policy.now = replace(policy.now, template_ids={"default": TEMPLATE})
        self.ledger = Ledger(fake_redis().execute_command)
        super().__init__(self.ledger, policy)
        self.hms = Fake100ms(self.ledger)
        self.rooms = Rooms(self.ledger, self.hms, self.limiter, policy)  # type: ignore[arg-type]
        self.accrual = Accrual(self.ledger, self.stays, self.clock)
        self.audit = Audit(self.ledger)
        self.consequences = Consequences(self.ledger, self.rooms, self.hms, self.audit)  # type: ignore[arg-type]
        self.enforcement = Enforcement(
            self.ledger, self.budgets, policy, self.consequences, self.clock, lambda: self.accrual.credited_ms
        )

    async def room_of(self, uid: str) -> Room:
        await self.account(uid, "host")
        new = NewRoom("Tea", "", "open", "default")
        return (await self.rooms.create(uid, new, lease="lease", upstream=upstream_name("Tea")))[0]

    async def look(self, after_s: float = 0, *, accrue: bool = True) -> list[tuple[object, ...]]:
        """Let time pass, credit open stays, look at the budgets; return what 100ms was asked to do."""
        self.now_ms += int(after_s * 1000)
        if accrue:
            await self.accrual.work()
        before = len(self.ledger.lines)
        await self.enforcement.work()
        return [line[1:] for line in self.ledger.lines[before:] if line[0] == "100ms"]

    async def audited(self, action: str) -> list[dict[str, str | int]]:
        entries, _ = await self.audit.page()
        return [entry.details | {"about": entry.subject} for entry in reversed(entries) if entry.action == action]

"""Builds the leader: the chores that one process of all performs."""

from gateway.audit import Audit
from gateway.hms.client import HmsClient
from gateway.metering.accrual import Accrual
from gateway.metering.budgets import Budgets
from gateway.metering.consequences import Consequences
from gateway.metering.enforcement import Enforcement
from gateway.metering.leader import Chore, Leader
from gateway.metering.reconcile import Reconciliation
from gateway.metering.stays import Stays
from gateway.metering.sweep import Sweep
from gateway.metering.unlocking import Unlocking
from gateway.outgoing.messages import Announcer
from gateway.policy.live import PolicyInForce
from gateway.redis.topology import AnyStore
from gateway.rooms.registry import Rooms
from limits.limiter import Limiter


def leader_of(
    reports: AnyStore, stays: Stays, hms: HmsClient, policy: PolicyInForce, rooms: Rooms, *others: Chore
) -> Leader:
    """Return the leader with the chores that keep minutes exact and within their budgets, and others."""
    audit = Audit(reports.execute, reports.post, Announcer(policy))
    reconciliation = Reconciliation(reports.execute, stays, audit, reports.now_ms)
    accrual = Accrual(reports.execute, stays, reports.now_ms)
    sweep = Sweep(reports.execute, hms, reconciliation, reports.now_ms)
    budgets = Budgets(reports.execute, Limiter(reports.execute, zone=policy.zone), policy)
    consequences = Consequences(reports.execute, rooms, hms, audit)
    enforcement = Enforcement(
        reports.execute, budgets, policy, consequences, reports.now_ms, lambda: accrual.credited_ms
    )
    chores = (Chore("accrual", accrual.work), Chore("reconciliation", sweep.work), Chore("budgets", enforcement.work))
    unlocking = Unlocking(reports.execute, budgets, rooms, audit, reports.now_ms)
    return Leader(reports.execute, *chores, Chore("unlocking", unlocking.work), *others)

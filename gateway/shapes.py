"""How values look in JSON where more than one route shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from limits.policy import US_PER_S, Decision


def iso(epoch_s: float) -> str:
    """Return an instant as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def limit_states(decision: Decision) -> dict[str, Any]:
    """Return limits, quotas and leases as they stand, and when each is full again."""
    limits = [
        {
            "name": state.name,
            "rate": state.rate,
            "burst": state.burst,
            "remaining": state.remaining,
            "full_again_at": iso((decision.now_us + state.full_again_us) / US_PER_S),
            "full_again_in_s": round(state.full_again_us / US_PER_S, 3),
            "shadow": state.limit.shadow,
        }
        for state in decision.limits
    ]
    quotas = [
        {
            "name": state.name,
            "counter": state.quota.counter,
            "period": state.quota.period,
            "time_zone": state.quota.zone,
            "amount": state.amount,
            "used": state.used,
            "remaining": state.remaining,
            "full_again_at": iso(state.ends_us / US_PER_S),
            "full_again_in_s": round((state.ends_us - decision.now_us) / US_PER_S, 3),
            "shadow": state.quota.shadow,
        }
        for state in decision.quotas
    ]
    leases = [{"name": state.name, "most": state.lease.most, "held": state.held} for state in decision.leases]
    until = iso((decision.now_us + decision.block.retry_us) / US_PER_S) if decision.block else None
    return {"limits": limits, "quotas": quotas, "leases": leases, "blocked_until": until}

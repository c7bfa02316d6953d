"""GET /api/usage: the caller's own limits and counters. GET /api/admin/usage: everybody's, day by day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from auth.accounts import Accounts
from gateway.admission import Admitted
from gateway.cursors import Cursors
from gateway.policy import ACTIONS
from gateway.problems import invalid
from gateway.reports import MOST_DAYS, daily_usage
from limits.counters import Counters, Tallies, Usage
from limits.policy import US_PER_S, LimitState


@get("/api/usage", opt={"action": "usage.read", "fetch": "usage", "charge": False})
async def own_usage(request: Request[Any, Admitted, State]) -> dict[str, Any]:
    """Return the caller's limits as they stand and what he has used today, this month (UTC) and ever. Costs nothing."""
    admitted = request.auth
    usage = admitted.usage or Usage({}, {}, {})
    return {
        "user_id": request.user.uid,
        "limits": [_limit(state, admitted.decision.now_us) for state in admitted.decision.limits],
        "usage": {"today": _tallies(usage.today), "month": _tallies(usage.month), "total": _tallies(usage.total)},
    }


@get("/api/admin/usage", opt={"action": "usage.read-any"})
async def admin_usage(  # noqa: PLR0913  one argument per query parameter
    report_accounts: NamedDependency[Accounts],
    report_counters: NamedDependency[Counters],
    cursors: NamedDependency[Cursors],
    from_: Annotated[date | None, QueryParameter(name="from")] = None,
    to: Annotated[date | None, QueryParameter()] = None,
    user: Annotated[str | None, QueryParameter(max_length=256)] = None,
    action: Annotated[str | None, QueryParameter(max_length=64)] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=500)] = 100,
    cursor: Annotated[str | None, QueryParameter(max_length=256)] = None,
) -> dict[str, Any]:
    """Return what users used per UTC day and action, `limit` users a page; by default the 30 days up to today."""
    last = to or datetime.now(UTC).date()
    first = from_ or last - timedelta(days=29)
    if not timedelta(0) <= last - first < timedelta(days=MOST_DAYS):
        raise invalid("from", f"must not be after `to`, nor more than {MOST_DAYS} days before it")
    if action is not None and action not in ACTIONS and action not in ("login", "api"):
        raise invalid("action", "is not an action that is counted, e.g. tokens.mint, rooms.create, login, api")
    after = 0
    if cursor:
        try:
            after = int(cursors.open("admin-usage", cursor)[0])
        except ValueError as error:
            raise invalid("cursor", str(error)) from error
    page = await daily_usage(
        report_accounts, report_counters, first=first, last=last, user=user, action=action, after=after, size=limit
    )
    return {
        "from": first.isoformat(),
        "to": last.isoformat(),
        "items": [msgspec.to_builtins(row) for row in page.rows],
        "next_cursor": cursors.seal("admin-usage", page.following) if page.following is not None else None,
    }


def _tallies(tallies: Tallies) -> dict[str, Any]:
    return {action: msgspec.to_builtins(tally) for action, tally in sorted(tallies.items())}


def _limit(state: LimitState, now_us: int) -> dict[str, Any]:
    limit = state.limit
    full_at = datetime.fromtimestamp((now_us + state.full_again_us) / US_PER_S, UTC)
    return {
        "name": limit.id,
        "rate": limit.rate,
        "burst": limit.burst,
        "remaining": state.remaining,
        "full_again_at": full_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "full_again_in_s": round(state.full_again_us / US_PER_S, 3),
    }

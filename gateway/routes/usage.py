"""GET /api/usage: the caller's own limits and counters. GET /api/admin/usage: everybody's, day by day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from auth.accounts import Accounts
from gateway.admission import Admitted
from gateway.cursors import Cursors
from gateway.policy import ACTIONS
from gateway.problems import invalid
from gateway.reports import MOST_DAYS, daily_usage, top_users
from gateway.shapes import limit_states
from limits.counters import Counters, Tallies, Usage
from limits.derived import Derived

_METRIC = r"^[a-z][a-z._-]{0,40}\.(ok|failed|(denied|refused|would_deny)\.[a-z0-9_.-]{1,40})$"


@get("/api/usage", opt={"action": "usage.read", "fetch": "usage", "charge": False})
async def own_usage(request: Request[Any, Admitted, State]) -> dict[str, Any]:
    """Return the caller's limits as they stand and what he has used today, this month (UTC) and ever. Costs nothing."""
    admitted = request.auth
    usage = admitted.usage or Usage({}, {}, {})
    return {
        "user_id": request.user.uid,
        **limit_states(admitted.decision),
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
    first, last = _range(from_, to)
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


@get("/api/admin/usage/top", opt={"action": "usage.read-any"})
async def top_usage(
    report_accounts: NamedDependency[Accounts],
    derived: NamedDependency[Derived],
    counter: Annotated[str, QueryParameter(pattern=_METRIC)] = "tokens.mint.ok",
    period: Annotated[str | None, QueryParameter(pattern=r"^[0-9]{4}-[0-9]{2}(-[0-9]{2})?$")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=100)] = 10,
) -> dict[str, Any]:
    """Return who has most of any counter, e.g. `tokens.mint.ok` or `api.denied.api`, on a UTC day or in a month."""
    period = period or datetime.now(UTC).date().isoformat()
    rows = await top_users(report_accounts, derived, period, counter, limit)
    return {"period": period, "counter": counter, "items": [msgspec.to_builtins(row) for row in rows]}


@get("/api/admin/usage/rooms/{room_id:str}", opt={"action": "usage.read-any"})
async def room_usage(
    room_id: FromPath[str],
    report_counters: NamedDependency[Counters],
    from_: Annotated[date | None, QueryParameter(name="from")] = None,
    to: Annotated[date | None, QueryParameter()] = None,
) -> dict[str, Any]:
    """Return how often a room was joined and refused, per UTC day; by default the 30 days up to today."""
    first, last = _range(from_, to)
    days = await report_counters.room_days(room_id, first, last)
    items = [{"date": day.isoformat(), "usage": _tallies(tallies)} for day, tallies in days.items()]
    return {"room_id": room_id, "from": first.isoformat(), "to": last.isoformat(), "items": items}


def _range(from_: date | None, to: date | None) -> tuple[date, date]:
    last = to or datetime.now(UTC).date()
    first = from_ or last - timedelta(days=29)
    if not timedelta(0) <= last - first < timedelta(days=MOST_DAYS):
        raise invalid("from", f"must not be after `to`, nor more than {MOST_DAYS} days before it")
    return first, last


def _tallies(tallies: Tallies) -> dict[str, Any]:
    return {action: msgspec.to_builtins(tally) for action, tally in sorted(tallies.items())}

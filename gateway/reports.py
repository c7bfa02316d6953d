"""Who used what: the counters of users, joined with their names."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import date

from auth.accounts import Accounts, User
from auth.errors import UnknownUser
from limits.counters import Counters

MOST_DAYS = 366


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One user's requests of one action on one UTC day, by outcome."""

    date: str
    user_id: str
    username: str
    action: str
    ok: int
    denied: dict[str, int]
    refused: dict[str, int]
    failed: int
    would_deny: dict[str, int]


@dataclass(frozen=True, slots=True)
class UsagePage:
    """Rows of some users, by user and day; `following` is where the next users begin, None at the end."""

    rows: list[UsageRow]
    following: int | None


async def daily_usage(  # noqa: PLR0913  a report's own parameters
    accounts: Accounts,
    counters: Counters,
    *,
    first: date,
    last: date,
    user: str | None = None,
    action: str | None = None,
    after: int = 0,
    size: int = 100,
) -> UsagePage:
    """Return the usage of one user (by id or name) or of a page of users, oldest account first.

    Raises:
        UnknownUser: `user` is nobody.
    """
    following: int | None = None
    if user is not None:
        users = [await _by_id_or_name(accounts, user)]
    else:
        users, following = await accounts.page(after=after, size=size)
    found = await asyncio.gather(*(counters.days(one.id, first, last) for one in users))
    rows = [
        UsageRow(
            day.isoformat(),
            one.id,
            one.username,
            name,
            tally.ok,
            tally.denied,
            tally.refused,
            tally.failed,
            tally.would_deny,
        )
        for one, days in zip(users, found, strict=True)
        for day, tallies in days.items()
        for name, tally in sorted(tallies.items())
        if action in (None, name)
    ]
    return UsagePage(rows, following)


async def _by_id_or_name(accounts: Accounts, user: str) -> User:
    try:
        return await accounts.find(user)
    except UnknownUser:
        return await accounts.get(user)

"""Usage reports: the counters of users, joined with their names."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from msgspec import Meta

from auth.accounts import Accounts
from auth.users import User
from gateway.text import FieldError
from limits.counters import Counters, Denied, Done, Failed, Refused, Tallies, Tally, WouldDeny
from limits.derived import Derived

MOST_DAYS = 366
PERIOD = r"^[0-9]{4}-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?$"  # of a top list: a UTC day or month
# The name of a counter: an action and an outcome.
METRIC = r"^[a-z][a-z._-]{0,40}\.(ok|failed|(denied|refused|would_deny)\.[a-z0-9_.-]{1,40})$"
EARLIEST, LATEST = date(2000, 1, 1), date(2999, 12, 31)  # so that arithmetic on days cannot overflow
_MOST_SCANNED = 5_000  # users read for one page; a short page then says where the next begins


Days = tuple[date, date]
"""The first and the last UTC day of a report."""


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One user's requests of one action on one UTC day, by outcome."""

    date: Annotated[str, Meta(description="UTC day.")]
    user_id: Annotated[str, Meta(description="Id of the user.")]
    username: Annotated[str, Meta(description="Name of the user; empty if the account was deleted.")]
    action: Annotated[str, Meta(description="What was counted, e.g. `tokens.mint`.")]
    ok: Done
    denied: Denied
    refused: Refused
    failed: Failed
    would_deny: WouldDeny


@dataclass(frozen=True, slots=True)
class TopRow:
    """One user of a top list."""

    user_id: Annotated[str, Meta(description="Id of the user.")]
    username: Annotated[str, Meta(description="Name of the user; empty if the account was deleted.")]
    count: Annotated[int, Meta(description="Value of the counter.")]


def span_of_days(first: date | None, last: date | None) -> Days:
    """Return the UTC days of a report; by default thirty, up to `last` or today. Raises: FieldError"""
    last = last or datetime.now(UTC).date()
    for field, day in (("to", last), ("from", first or last)):
        if not EARLIEST <= day <= LATEST:
            raise FieldError(field, f"must lie between {EARLIEST} and {LATEST}")
    first = first or last - timedelta(days=29)
    if not timedelta(0) <= last - first < timedelta(days=MOST_DAYS):
        raise FieldError("from", f"must not be after `to`, nor more than {MOST_DAYS} days before it")
    return first, last


class Reports:
    """Reads the counters of users, joined with their names."""

    def __init__(self, accounts: Accounts, counters: Counters, derived: Derived) -> None:
        self._accounts = accounts
        self._counters = counters
        self._derived = derived

    async def daily(
        self, days: Days, *, user: str | None = None, action: str | None = None, after: int = 0, size: int = 100
    ) -> tuple[list[UsageRow], int | None]:
        """Return the usage of one user (by id or name), or of the next `size` users who used anything, oldest first.

        Also returns where the next users begin, None at the end. The users' own counters are read, not an index of
        active users, so that the report equals what was counted. Raises: UnknownUser
        """
        if user is not None:
            one = await self._accounts.lookup(user)
            return _rows(one, await self._counters.days(one.id, *days), action), None
        rows: list[UsageRow] = []
        shown = scanned = 0
        following: int | None = after
        while following is not None and shown < size and scanned < _MOST_SCANNED:
            users, following = await self._accounts.page(after=following, size=size - shown)
            scanned += size
            found = await asyncio.gather(*(self._counters.days(one.id, *days) for one in users))
            for one, tallies in zip(users, found, strict=True):
                new = _rows(one, tallies, action)
                shown += bool(new)
                rows += new
        return rows, following

    async def top(self, period: str, metric: str, size: int) -> list[TopRow]:
        """Return the users with the highest counts of a metric (`tokens.mint.ok`) on a UTC day or in a month."""
        top = await self._derived.top(period, metric, size)
        users = await self._accounts.several([uid for uid, _ in top])
        return [TopRow(uid, users[uid].username if uid in users else "", count) for uid, count in top]

    async def of_room(self, room_id: str, days: Days) -> dict[date, Tallies]:
        """Return the counters of a room, per UTC day."""
        return await self._counters.room_days(room_id, *days)


def _rows(user: User, days: Mapping[date, Tallies], action: str | None) -> list[UsageRow]:
    return [
        UsageRow(day.isoformat(), user.id, user.username, name, *_numbers(tally))
        for day, tallies in days.items()
        for name, tally in sorted(tallies.items())
        if action in (None, name)
    ]


def _numbers(tally: Tally) -> tuple[int, dict[str, int], dict[str, int], int, dict[str, int]]:
    return tally.ok, tally.denied, tally.refused, tally.failed, tally.would_deny

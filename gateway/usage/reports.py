"""Usage reports: the counters of users and rooms, joined with their names."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Iterable, Sequence

from auth import Execute
from gateway.policy.actions import MINUTES, OWNED
from gateway.policy.model import Prices
from gateway.rooms import keys
from gateway.rooms.listing import rooms_by_id, rooms_by_time
from gateway.rooms.room import Room
from gateway.text import FieldError
from gateway.usage.history import History
from gateway.usage.query import Days, Query, check_counter, days_of_period
from gateway.usage.rows import TopRow, UsageDay, UsageRow, Zones, day_of, minutes_of, money_of, rows_of
from gateway.usage.subjects import Subject, Subjects
from limits.counters import ALL, METERED, PEAK, Daily, tally
from limits.derived import DENIALS, Derived
from limits.periods import Zone, utc

PERIOD = r"^[0-9]{4}-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?$"  # of a top list: a day or month
# The name of a counter: an action and an outcome, or the short name of a list.
METRIC = (
    r"^(minutes|owned|denials|money|[a-z][a-z._-]{0,40}\.(ok|failed|(denied|refused|would_deny)\.[a-z0-9_.-]{1,40}))$"
)
SHORT = {"minutes": "minutes.ok", "owned": "owned.ok", "money": "owned.ok", "denials": DENIALS}
_MOST_SCANNED = 5_000  # users or rooms read for one page; a short page then says where the next begins
_ROOMS_AT_ONCE = 100  # of a report by template, so that other requests are served in between
_ROWS_AT_ONCE = 1_500  # about as many rows are built for a stream before other requests are served

Place = tuple[str | int, ...]
"""Where a page begins: a position among users, or (time in ms, id) of the room before."""


UsagePage = tuple[list[UsageRow], Place | None]
"""Rows of some users or rooms, and where the next page begins (None at the end)."""


class Reports:
    """Reads counters and joins them with names. Rows are made of the counters themselves, never of estimates."""

    def __init__(
        self, execute: Execute, subjects: Subjects, history: History, derived: Derived, *, zone: Zone = utc
    ) -> None:
        self._execute = execute
        self._subjects = subjects
        self._history = history
        self._derived = derived
        self._zone = zone
        self._turn = asyncio.Lock()

    async def page(self, query: Query, *, after: Place | None = None, size: int = 100) -> UsagePage:
        """Return the rows of the next `size` users and keys (oldest first) or rooms (newest first) with any use.

        Their own counters are read, not an index of active users, so that the report equals what was counted.
        A report by day or action reads the totals of the whole installation. Raises UnknownUser.
        One page is made at a time, because all other requests of the process wait while its rows are built.
        """
        async with self._turn:
            return await self._page(query, after, size)

    async def _page(self, query: Query, after: Place | None, size: int) -> UsagePage:
        if query.room is not None:
            return await self._of_one_room(query, query.room), None
        if query.user is not None:
            user = await self.find_user(query.user)
            return _rows(query, await self._history.daily(user.id, *query.days), _user_keys(user), OWNED), None
        if query.group_by == "template":
            return await self._by_template(query), None
        if query.pages_of == "nothing":
            return _rows(query, await self._history.daily(ALL, *query.days), {}, MINUTES), None
        rows: list[UsageRow] = []
        shown = scanned = 0
        while shown < size and scanned < _MOST_SCANNED:
            next_of = self._next_rooms if query.pages_of == "rooms" else self._next_users
            groups, after = await next_of(query, after, size - shown)
            scanned += size
            shown += sum(map(bool, groups))
            rows += [row for group in groups for row in group]
            if after is None:
                break
        return rows, after

    async def pages(self, query: Query) -> AsyncGenerator[UsagePage]:
        """Return all pages, in constant memory. Raises UnknownUser."""
        first, last = query.days
        size = max(5, _ROWS_AT_ONCE // ((last - first).days + 1)) if query.is_daily else 100
        rows, following = await self.page(query, size=size)
        yield rows, following
        while following is not None:
            rows, following = await self.page(query, after=following, size=size)
            yield rows, following

    async def zones_of(self, days: Days) -> Zones:
        """Return the time zones in which days were counted, as the totals say."""
        return Zones.of(await self._history.daily(ALL, *days), self._zone())

    async def find_user(self, user: str) -> Subject:
        """Find a user or a service key by id or name; deleted and revoked ones by id. Raises UnknownUser."""
        return await self._subjects.find(user)

    async def of_user(self, uid: str, days: Days) -> list[UsageDay]:
        """Return the days on which a user did anything, or anybody was in their rooms."""
        daily = await self._history.daily(uid, *days)
        return [day_of(day.isoformat(), counts) for day, counts in daily.items()]

    async def of_room(self, room_id: str, days: Days) -> list[UsageDay]:
        """Return the days on which a room was used."""
        daily = await self._history.room_daily(room_id, *days)
        return [day_of(day.isoformat(), counts) for day, counts in daily.items()]

    async def top(self, period: str, counter: str, size: int, prices: Prices | None = None) -> list[TopRow]:
        """Return the users with the highest counts on a day or in a month.

        `counter` is a metric (`tokens.mint.ok`) or minutes (in rooms), owned (minutes of all people in the user's
        rooms), money (the price of these) or denials (by any limit). Raises FieldError for money without prices and for
        an action that has no counters.
        """
        if counter == "money" and prices is None:
            raise FieldError("counter", "must not be money: the policy has no [prices]")
        check_counter(counter)
        metric = SHORT.get(counter, counter)
        top = await self._derived.top(period, metric, size)
        users = await self._subjects.several([uid for uid, _ in top])
        rows = []
        for uid, count in top:
            name = users[uid].username if uid in users else ""
            is_time = metric.removesuffix(".ok") in METERED
            numbers = (minutes_of(count), count, money_of(count, prices)) if is_time else (count,)
            rows.append(TopRow(uid, name, *numbers))
        return rows

    async def total(self, period: str, counter: str) -> int | None:
        """Return the count of everyone together, for which `top` has that of each; None for rooms of owners."""
        metric = SHORT.get(counter, counter)
        if metric == "owned.ok":
            return None
        daily = await self._history.daily(ALL, *days_of_period(period))
        counts = [(name, count) for day in daily.values() for name, count in day.items()]
        if metric == DENIALS:
            return sum(sum(one.denied.values()) for one in tally(counts).values())
        return sum(count for name, count in counts if name == metric)

    async def _next_users(
        self, query: Query, after: Place | None, size: int
    ) -> tuple[Sequence[list[UsageRow]], Place | None]:
        users, following = await self._subjects.page(after=int(after[0]) if after else 0, size=size)
        found = await asyncio.gather(*(self._history.daily(one.id, *query.days) for one in users))
        groups = []
        for one, daily in zip(users, found, strict=True):
            groups.append(_rows(query, daily, _user_keys(one), OWNED))
            await asyncio.sleep(0)  # a year of a user takes milliseconds
        return groups, (following,) if following is not None else None

    async def _next_rooms(
        self, query: Query, after: Place | None, size: int
    ) -> tuple[Sequence[list[UsageRow]], Place | None]:
        before = (int(after[0]), str(after[1])) if after else None
        rooms, following = await rooms_by_time(self._execute, keys.ALL_ROOMS, before=before, size=size)
        found = await asyncio.gather(*(self._history.room_daily(one.id, *query.days) for one in rooms))
        groups = []
        for one, daily in zip(rooms, found, strict=True):
            groups.append(_rows(query, daily, _room_keys(one.id, one), MINUTES))
            await asyncio.sleep(0)  # as above
        return groups, following

    async def _by_template(self, query: Query) -> list[UsageRow]:
        """Return the sums over all registered rooms of each template."""
        sums: dict[str, Counter[str]] = defaultdict(Counter)
        before, more = None, True
        while more:
            rooms, before = await rooms_by_time(self._execute, keys.ALL_ROOMS, before=before, size=_ROOMS_AT_ONCE)
            more = before is not None
            found = await asyncio.gather(*(self._history.room_daily(one.id, *query.days) for one in rooms))
            for room, daily in zip(rooms, found, strict=True):
                for counts in daily.values():
                    sums[room.template].update(counts)
        return [
            row
            for template, counts in sorted(sums.items())
            for row in rows_of(counts, action=query.action, prices=query.prices, keys={"template": template})
        ]

    async def _of_one_room(self, query: Query, room_id: str) -> list[UsageRow]:
        registered = await rooms_by_id(self._execute, [room_id])
        room = registered.get(room_id)
        keys = _room_keys(room_id, room) | {"template": room.template if room else ""}
        peak_of = "" if query.group_by == "template" else MINUTES  # with or without `room`
        return _rows(query, await self._history.room_daily(room_id, *query.days), keys, peak_of)


def _rows(query: Query, daily: Daily, keys: dict[str, str], peak_of: str) -> list[UsageRow]:
    """Return the rows of one user, one room or all, as the report is grouped.

    `peak_of` is the action whose rows show how many people were in rooms at once; of a user these are their own rooms.
    """
    keys = {name: text for name, text in keys.items() if name in query.keys}
    if query.is_daily:
        parts = [({"date": day.isoformat(), **keys}, counts) for day, counts in daily.items()]
    elif query.group_by == "month":
        months: dict[str, list[dict[str, int]]] = defaultdict(list)
        for day, counts in daily.items():
            months[f"{day:%Y-%m}"].append(counts)
        parts = [({"month": month, **keys}, _sum(days)) for month, days in months.items()]
    else:
        parts = [(keys, _sum(daily.values()))]
    rows = []
    for of, counts in parts:
        for row in rows_of(counts, action=query.action, prices=query.prices, keys=of):
            if row.action == peak_of and (peak := counts.get(PEAK, 0)):
                row.people_peak = peak
            rows.append(row)
    return rows


def _sum(days: Iterable[dict[str, int]]) -> dict[str, int]:
    """Return the counters of some days together; of the most people at once, the highest."""
    total: Counter[str] = Counter()
    peak = 0
    for counts in days:
        total.update(counts)
        peak = max(peak, counts.get(PEAK, 0))
    return {**total, PEAK: peak}


def _user_keys(user: Subject) -> dict[str, str]:
    return {"user_id": user.id, "username": user.username}


def _room_keys(room_id: str, room: Room | None) -> dict[str, str]:
    return {"room_id": room_id, "room_name": room.name if room else "", "owner_id": room.owner_id if room else ""}

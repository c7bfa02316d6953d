"""How `gateway usage` shows reports in a terminal: tables, and the course of days as small bars.

Everything is readable in 80 columns: columns without any number are left out, ids are never cut, titles never wrap.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

from msgspec import UNSET, UnsetType
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from gateway.cli.terminal import print_rows, table_of
from gateway.text import printable
from gateway.usage.query import Days, Query
from gateway.usage.rows import TopRow, UsageDay, UsageRow

_BARS = "▁▂▃▄▅▆▇█"
_MOST_BARS = 60
_MOST_CHARS = 22  # an id of a user has 21
_GROUPS = {"day": "day", "user": "user", "action": "", "room": "room", "template": "template"}
_SHOWN_AS = {"date": "Day", "username": "User", "room_name": "Room", "room_id": "Room id", "template": "Template"}


def title_of(query: Query, zone: str) -> str:
    """Return what a report is about."""
    by = _GROUPS[query.group_by] if query.group_by else "day" if query.user or query.room else "user, day"
    what = f"{by} and action" if by else "action"
    return f"Usage per {what}, {query.days[0]} to {query.days[1]} ({zone})"


def print_report(query: Query, rows: Sequence[UsageRow], zone: str, *, more: bool) -> None:
    """Print a report as a table; if each row is a day of the same thing, also the course of these days."""
    console = _console()
    console.print(Text(title_of(query, zone)), soft_wrap=True)
    if query.user or query.room:
        console.print(Text(_whose(rows[0])), soft_wrap=True)
    print_rows(_report_table(query, rows, cut=console.is_terminal), console)
    if more:
        console.print(f"Only the first {len(rows)} rows are shown. All of them: gateway usage export", soft_wrap=True)
    elif query.is_daily and query.pages_of == "nothing":
        for line in courses(query.days, rows):
            console.print(line, soft_wrap=True)


def print_peak(query: Query, days: Sequence[UsageDay]) -> None:
    """Print when most people were in rooms at the same time, if anybody was."""
    most = max(days, key=lambda day: day.people_peak, default=None)
    if most and most.people_peak:
        where = "the room" if query.room else "rooms of this user" if query.user else "all rooms"
        _console().print(f"Most people at the same time in {where}: {most.people_peak}, on {most.date}", soft_wrap=True)


def print_top(title: str, rows: Sequence[TopRow], currency: str) -> None:
    """Print a top list."""
    count = Column("Minutes" if rows and rows[0].seconds is not UNSET else "Count", justify="right")
    money = [Column(currency, justify="right")] if any(row.money is not UNSET for row in rows) else []
    table = table_of([Column("User", overflow="fold"), count, *money])
    for row in rows:
        cells = [_number(row.count, row.seconds), *([str(row.money)] if money else [])]
        table.add_row(printable(row.username) or row.user_id, *cells)
    console = _console()
    console.print(Text(title), soft_wrap=True)
    print_rows(table, console)


def top_table(rows: Sequence[TopRow], currency: str, **about: str) -> Table:
    """Return a top list with what it is about in every row, for a file."""
    columns = [*about, "user_id", "username", "count", "seconds", "money", "currency"]
    table = table_of(columns)
    for row in rows:
        seconds = "" if row.seconds is UNSET else str(row.seconds)
        money = ("", "") if row.money is UNSET else (str(row.money), currency)
        table.add_row(*about.values(), row.user_id, row.username, _number(row.count, row.seconds), seconds, *money)
    return table


def courses(days: Days, rows: Iterable[UsageRow]) -> list[str]:
    """Return a line per action: a bar for each day, or for each few days of a long report, and the largest number."""
    first, last = days
    length = (last - first).days + 1
    width = -(-length // _MOST_BARS)
    found: dict[str, list[float]] = defaultdict(lambda: [0.0] * -(-length // width))
    for row in rows:
        assert isinstance(row.date, str)  # noqa: S101  the rows of a daily report have one
        found[row.action][(date.fromisoformat(row.date) - first).days // width] += row.ok
    span = "a day" if width == 1 else f"in {width} days"
    return [
        f"{action:12} {bars(values)}  at most {max(values):.10g} {span}"
        for action, values in found.items()
        if length > 1 and any(values)
    ]


def bars(values: Sequence[float]) -> str:
    """Return a bar per value, in proportion to the largest; a space for nothing, at least the lowest bar otherwise."""
    largest = max(values)
    return "".join(_BARS[min(7, int(value / largest * 8))] if value else " " for value in values)


def _report_table(query: Query, rows: Sequence[UsageRow], *, cut: bool) -> Table:
    alone = query.user or query.room  # then the line above the table says it
    keys = [name for name in query.keys if name in ({"date"} if alone else _SHOWN_AS)]
    columns = [Column(_SHOWN_AS[name], **_STYLE.get(name, {"overflow": "fold"})) for name in keys]
    optional = ["Denied", "Refused", "Failed", "Peak", "Money"]
    if cut and query.group_by is None and not alone:
        optional.remove("Peak")  # day, user and action leave no room for it
    numbers = [(name, [_cell(row, name) for row in rows]) for name in optional]
    numbers = [(name, cells) for name, cells in numbers if any(cells)]
    titles = ["Done", *(query.prices.currency if name == "Money" and query.prices else name for name, _ in numbers)]
    counts = [Column(title, justify="right", no_wrap=True) for title in titles]
    table = table_of([*columns, Column("Action", no_wrap=True), *counts])
    for at, row in enumerate(rows):
        texts = [_key(row, name, cut=cut) for name in keys]
        table.add_row(*texts, row.action, _number(row.ok, row.seconds), *(cells[at] for _, cells in numbers))
    return table


_STYLE: dict[str, dict[str, Any]] = {"date": {"no_wrap": True}, "room_id": {"no_wrap": True}}


def _whose(row: UsageRow) -> str:
    """Return whom or which room a report of only one is about, as far as its rows say."""
    texts = (row.username, row.user_id, row.room_name, row.room_id)
    return "  ".join(printable(text) for text in texts if text)


def _key(row: UsageRow, name: str, *, cut: bool) -> str:
    text = getattr(row, name)
    if name == "username" and not text:  # of a deleted account
        text = row.user_id
    return shortened(text) if cut and name == "room_name" else printable(text)  # the room's id is beside it


def _cell(row: UsageRow, name: str) -> str:
    if name == "Money":
        return "" if row.money is UNSET else str(row.money)
    if name == "Peak":
        return "" if row.people_peak is UNSET else str(row.people_peak)
    count = {"Denied": sum(row.denied.values()), "Refused": sum(row.refused.values()), "Failed": row.failed}[name]
    return str(count) if count else ""


def _number(count: float, seconds: int | UnsetType) -> str:
    return str(count) if seconds is UNSET else f"{count:.2f}"


def shortened(text: str) -> str:
    """Return a text that leaves room for other columns."""
    text = printable(text)
    return text if len(text) <= _MOST_CHARS else f"{text[: _MOST_CHARS - 1]}…"


def _console() -> Console:
    """Markup is off: names of users may contain brackets."""
    return Console(markup=False, highlight=False)

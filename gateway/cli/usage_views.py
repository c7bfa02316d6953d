"""How `gateway usage` shows reports in a terminal: tables, and the course of days as small bars.

Everything is readable in 80 columns: columns without any number are left out, ids are never cut, titles never wrap. If
a terminal is too narrow, the reasons follow in a table of their own, and the most people at once is left out.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from msgspec import UNSET, UnsetType
from rich.cells import cell_len, set_cell_size
from rich.table import Column, Table
from rich.text import Text

from gateway.cli.layout import fits
from gateway.cli.terminal import console as _console
from gateway.cli.terminal import print_rows, table_of
from gateway.text import printable
from gateway.usage.query import Days, Query
from gateway.usage.rows import TopRow, UsageDay, UsageRow, minutes_of

_REASONS = {"denied": "denied", "refused": "refused", "would_deny": "would be denied"}
_BARS = "▁▂▃▄▅▆▇█"
_MOST_BARS = 60
_MOST_CELLS = 22  # an id of a user has 21
_OPTIONAL = ("Denied", "Refused", "Failed", "Peak", "Money")
_NEVER_WRAPPED = ("date", "month", "room_id")
_SHOWN_AS = {
    "date": "Day",
    "month": "Month",
    "username": "User",
    "room_name": "Room",
    "room_id": "Room id",
    "template": "Template",
}


def title_of(query: Query, zone: str) -> str:
    """Return what a report is about."""
    by = query.group_by or ("day" if query.user or query.room else "user, day")
    what = "action" if by == "action" else f"{by} and action"
    return f"Usage per {what}, {query.days[0]} to {query.days[1]} ({zone})"


def print_report(query: Query, rows: Sequence[UsageRow], zone: str, *, more: bool) -> None:
    """Print a report as a table with totals and with the reasons of what was denied or refused.

    If each row is a day of the same thing, also print the course of these days. The reasons follow in a second table if
    the terminal has no room for them in the first.
    """
    console = _console()
    console.print(Text(title_of(query, zone)), soft_wrap=True)
    if query.user or query.room:
        console.print(Text(_whose(query, rows[0])), soft_wrap=True)
    totals = [] if more else totals_of(query, rows)
    table, with_reasons = _report_table(query, rows, totals, console.width if console.is_terminal else None)
    print_rows(table, console)
    if not with_reasons:
        print_rows(_reasons_table(query, rows), console)
    if more:
        how = "All of them: gateway usage export; sums: --by action"
        console.print(f"Only the first {len(rows)} rows are shown, without totals. {how}", soft_wrap=True)
    elif query.is_daily and query.pages_of == "nothing":
        for line in courses(query.days, rows):
            console.print(line, soft_wrap=True)


def print_peak(query: Query, days: Sequence[UsageDay]) -> None:
    """Print when most people were in rooms at the same time, if anybody was."""
    most = max(days, key=lambda day: day.people_peak, default=None)
    if most and most.people_peak:
        where = "the room" if query.room else "rooms of this user" if query.user else "all rooms"
        _console().print(f"Most people at the same time in {where}: {most.people_peak}, on {most.date}", soft_wrap=True)


def print_top(title: str, rows: Sequence[TopRow], currency: str, *, total: int | None = None) -> None:
    """Print a top list; `total` is the count of everyone together."""
    count = Column("Minutes" if rows and rows[0].seconds is not UNSET else "Count", justify="right")
    money = [Column(currency, justify="right")] if any(row.money is not UNSET for row in rows) else []
    table = table_of([Column("User", overflow="fold"), count, *money])
    for row in rows:
        cells = [_number(row.count, row.seconds), *([str(row.money)] if money else [])]
        table.add_row(row.username or row.user_id, *cells, end_section=row is rows[-1])
    if total is not None:
        table.add_row("Everyone", str(total) if rows[0].seconds is UNSET else f"{minutes_of(total):.2f}", "")
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


def totals_of(query: Query, rows: Sequence[UsageRow]) -> list[UsageRow]:
    """Return the sum of the rows of each action; nothing if no action has several rows."""
    found: dict[str, list[UsageRow]] = defaultdict(list)
    for row in rows:
        found[row.action].append(row)
    if len(found) == len(rows):
        return []
    return [_sum(action, some, with_peak=query.pages_of == "nothing") for action, some in sorted(found.items())]


def _sum(action: str, rows: Sequence[UsageRow], *, with_peak: bool) -> UsageRow:
    """Return a row with the sums of others; of the most people at once in the same rooms, the highest."""
    seconds = [row.seconds for row in rows if row.seconds is not UNSET]
    money = [row.money for row in rows if row.money is not UNSET]
    peaks = [row.people_peak for row in rows if row.people_peak is not UNSET] if with_peak else []
    counts: dict[str, Any] = {kind: _added(getattr(row, kind) for row in rows) for kind in _REASONS}
    return UsageRow(
        action=action,
        ok=minutes_of(sum(seconds)) if seconds else sum(row.ok for row in rows),
        seconds=sum(seconds) if seconds else UNSET,
        failed=sum(row.failed for row in rows),
        money=sum(money, Decimal()) if money else UNSET,
        people_peak=max(peaks) if peaks else UNSET,
        **counts,
    )


def _added(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total = Counter[str]()
    for one in counts:
        total.update(one)
    return dict(total)


def _reasons_table(query: Query, rows: Sequence[UsageRow]) -> Table:
    """Return how many requests of each row a limit denied, and for which codes others were refused."""
    keys, counted = _key_columns(query), [Column("Reason", no_wrap=True), Column("Count", justify="right")]
    table = table_of([*keys.values(), Column("Action", no_wrap=True), *counted])
    for row in rows:
        for reason, count in _reasons(row):
            table.add_row(*(_key(row, name, cut=True) for name in keys), row.action, reason, str(count))
    return table


def _reasons(row: UsageRow) -> Iterator[tuple[str, int]]:
    for kind, said in _REASONS.items():
        for name, count in sorted(getattr(row, kind).items()):
            yield f"{said}: {name}", count


def _report_table(
    query: Query, rows: Sequence[UsageRow], totals: Sequence[UsageRow], width: int | None
) -> tuple[Table, bool]:
    """Return a report as a table, for a terminal of this width or another place; and whether it has all reasons."""
    reasons = any(any(_reasons(row)) for row in rows)
    if width is None:
        return _whole_table(query, rows, totals, [*_OPTIONAL, "Why"], cut=False), True
    for left_out in ((), ("Peak",), ("Why",), ("Peak", "Why")):
        wanted = [name for name in (*_OPTIONAL, "Why") if name not in left_out]
        table = _whole_table(query, rows, totals, wanted, cut=True)
        if fits(table, width):
            break
    return table, "Why" in wanted or not reasons


def _whole_table(
    query: Query, rows: Sequence[UsageRow], totals: Sequence[UsageRow], wanted: Sequence[str], *, cut: bool
) -> Table:
    """Return a report with those of the wanted columns that have any value."""
    keys, lines = _key_columns(query), [*rows, *totals]
    found = [(name, [_cell(row, name) for row in lines]) for name in wanted]
    found = [(name, cells) for name, cells in found if any(cells)]
    money = query.prices.currency if query.prices else "Money"
    columns = [Column("Done", justify="right", no_wrap=True)]
    for name, _ in found:
        title = money if name == "Money" else name
        columns.append(Column(title, justify="left" if name == "Why" else "right", no_wrap=True))
    table = table_of([*keys.values(), Column("Action", no_wrap=True), *columns])
    for at, row in enumerate(lines):
        texts = [_key(row, name, cut=cut) for name in keys] if at < len(rows) else ["Total", "", ""][: len(keys)]
        cells = [_number(row.ok, row.seconds), *(cells[at] for _, cells in found)]
        table.add_row(*texts, row.action, *cells, end_section=at == len(rows) - 1)
    return table


def _key_columns(query: Query) -> dict[str, Column]:
    """Return the columns that say what a row is about, by the names of its fields."""
    alone = query.user or query.room  # then the line above the table says it
    shown = ("date", "month") if alone else _SHOWN_AS
    return {name: Column(_SHOWN_AS[name], no_wrap=name in _NEVER_WRAPPED) for name in query.keys if name in shown}


def _whose(query: Query, row: UsageRow) -> str:
    """Return whom or which room a report of only one is about, as far as its rows say."""
    texts = (row.username, row.user_id, row.room_name, row.room_id)
    return "  ".join(printable(text) for text in texts if text) or query.user or query.room or ""


def _key(row: UsageRow, name: str, *, cut: bool) -> str:
    text = getattr(row, name)
    if name == "username" and not text:  # of a deleted account
        text = row.user_id
    return shortened(text) if cut and name == "room_name" else printable(text)  # the room's id is beside it


def _cell(row: UsageRow, name: str) -> str:
    if name == "Why":
        return "\n".join(f"{reason} {count}" for reason, count in _reasons(row))
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
    return text if cell_len(text) <= _MOST_CELLS else f"{set_cell_size(text, _MOST_CELLS - 1).rstrip()}…"

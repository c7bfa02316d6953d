"""What the commands share: options, and results as JSON, CSV, lines and tables."""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress, ProgressColumn
from rich.table import Column, Table

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
CSV = click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
_DURATION = re.compile(r"([1-9][0-9]{0,5})(s|min|h|d)")


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only in its stubs
    """Converts a text such as 90s, 30min, 2h or 7d to seconds."""

    name = "duration"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _DURATION.fullmatch(value)
        if match is None:
            self.fail("must look like 90s, 30min, 2h or 7d", param, ctx)
        return int(match[1]) * {"s": 1, "min": 60, "h": 3600, "d": 86_400}[match[2]]


DURATION = Duration()


def fields(record: object, *names: str) -> dict[str, Any]:
    """Return these fields of a record for JSON."""
    return {name: getattr(record, name) for name in names}


def print_json(value: object) -> None:
    """Print a value, which may consist of structs and dataclasses."""
    click.echo(json.dumps(msgspec.to_builtins(value), indent=2))


def print_result(value: object, text: str, *, as_json: bool) -> None:
    """Print a value as JSON, or its text."""
    if as_json:
        print_json(value)
    else:
        click.echo(text)


def print_list(values: Sequence[object], table: Table, *, none: str, as_json: bool, as_csv: bool = False) -> None:
    """Print a list as JSON, as CSV or its table; an empty one, except as CSV, as a sentence."""
    if as_csv:
        print_csv(table)
    elif values and not as_json:
        print_table(table)
    else:
        print_result(values, none, as_json=as_json)


def table_of(columns: Sequence[Column | str], rows: Iterable[Sequence[str]] = (), title: str | None = None) -> Table:
    """Return a table of these rows."""
    table = Table(*columns, title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for row in rows:
        table.add_row(*("\n".join(map(printable, cell.split("\n"))) for cell in row))
    return table


def print_table(table: Table, *notes: str) -> None:
    """Print a table and lines below it; where no terminal shows it, plain columns of whatever width they need.

    Markup is off: names of users may contain brackets.
    """
    console, title = Console(markup=False, highlight=False), str(table.title or "")
    table.title = None  # rich would wrap it at the width of the table
    if title:
        click.echo(title)
    print_rows(table, console)
    for note in notes:
        click.echo(note)


def print_rows(table: Table, console: Console) -> None:
    """Print a table as wide as a terminal is, and elsewhere as plain lines."""
    if console.is_terminal:
        console.print(table)
    else:
        click.echo("\n".join(plain_lines(table)))


def plain_lines(table: Table) -> list[str]:
    """Return a table as aligned columns, with a line for each row and nothing cut."""
    columns = [[_one_line(cell) for cell in (column.header, *column.cells)] for column in table.columns]
    for cells, column in zip(columns, table.columns, strict=True):
        width = max(map(cell_len, cells))
        for at, cell in enumerate(cells):
            blanks = " " * (width - cell_len(cell))
            cells[at] = blanks + cell if column.justify == "right" else cell + blanks
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def print_csv(table: Table) -> None:
    """Print a table as CSV (RFC 4180), with a header even if it has no rows."""
    from gateway.usage.tables import harmless  # only here: it imports all of the reports

    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(str(column.header).lower().replace(" ", "_") for column in table.columns)
    for row in zip(*(column.cells for column in table.columns), strict=True):
        writer.writerow(harmless(_one_line(cell)) for cell in row)
    click.echo(text.getvalue().encode(), nl=False)


def printable(text: str) -> str:
    """Return a text of users or of 100ms without what could change the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _one_line(cell: object) -> str:
    return ", ".join(printable(line) for line in str(cell).split("\n"))


def progress(*columns: ProgressColumn) -> Progress:
    """Return a display of progress on standard error, which shows nothing without a terminal."""
    console = Console(stderr=True)
    columns = columns or Progress.get_default_columns()
    return Progress(*columns, transient=True, console=console, disable=not console.is_terminal)

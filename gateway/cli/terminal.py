"""What the commands share: options, and results as JSON, lines and tables."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import Progress, ProgressColumn
from rich.table import Column, Table

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
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


def print_list(values: Sequence[object], table: Table, *, none: str, as_json: bool) -> None:
    """Print a list as JSON, or its table; an empty one as a sentence."""
    if values and not as_json:
        print_table(table)
    else:
        print_result(values, none, as_json=as_json)


def table_of(columns: Sequence[Column | str], rows: Iterable[Sequence[str]], title: str | None = None) -> Table:
    """Return a table of these rows."""
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    return table


def print_table(table: Table, *notes: str) -> None:
    """Print a table and lines below it. Markup is off: names of users may contain brackets."""
    for part in (table, *notes):
        Console(markup=False).print(part)


def progress(*columns: ProgressColumn) -> Progress:
    """Return a display of progress on standard error, which shows nothing where nobody watches."""
    console = Console(stderr=True)
    columns = columns or Progress.get_default_columns()
    return Progress(*columns, transient=True, console=console, disable=not console.is_terminal)

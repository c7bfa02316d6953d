"""What the commands share: options, and results as JSON, CSV, lines and tables.

Every text that a command prints passes `printable`: names, reasons and bodies are those of others, and must not control
the terminal. Where no terminal shows a table it has no frame, no colours and a line for each row. In a terminal ids
and times are never cut.
"""

import csv
import io
import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.progress import Progress, ProgressColumn
from rich.table import Table

from gateway.cli.layout import cell_text, fitted, lines_of, plain_lines
from gateway.cli.layout import table_of as table_of
from limits.periods import zone_of

F = TypeVar("F", bound=Callable[..., Any])

_DURATION = re.compile(r"([1-9][0-9]{0,5})(s|m|min|h|d)")  # no duration has months, so that m is clear
_LONGEST_S = 10_000 * 86_400  # longer than anything is kept
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMBER = re.compile(r"[+-][0-9]+(\.[0-9]+)?")  # begins like a formula, and is none


def _one_format(context: click.Context, option: click.Parameter, chosen: bool) -> bool:
    """Refuse --csv and --json together."""
    if chosen:
        first = context.meta.setdefault("gateway.format", option.opts[0])
        if first != option.opts[0]:
            raise click.UsageError("Give --csv or --json, not both.")
    return chosen


def format_option(name: str, help: str) -> Callable[[F], F]:
    """Return an option that chooses a format; a command prints one."""
    return click.option(f"--{name}", f"as_{name}", is_flag=True, callback=_one_format, help=help)


JSON = format_option("json", "Print JSON.")
CSV = format_option("csv", "Print CSV.")


def seconds_of(text: str) -> int | None:
    """Return a text such as 90s, 30min, 2h or 7d as seconds, None for any other text."""
    match = _DURATION.fullmatch(text)
    return int(match[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}[match[2]] if match else None


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only in its stubs
    """Converts a text such as 90s, 30min, 2h or 7d to seconds."""

    name = "duration"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        seconds = value if isinstance(value, int) else seconds_of(value)
        if seconds is None:
            self.fail("must look like 90s, 30min (or 30m), 2h or 7d; the units are s, min, h and d", param, ctx)
        return seconds


DURATION = Duration()


class Moment(click.ParamType):  # type: ignore[type-arg]
    """Converts a day, an instant in ISO 8601, or how long ago it was, to a date or a datetime."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        if isinstance(value, date):
            return value
        try:
            if (seconds := seconds_of(value)) is not None:
                return datetime.now(UTC) - timedelta(seconds=min(seconds, _LONGEST_S))
            moment = date.fromisoformat(value) if _DAY.fullmatch(value) else datetime.fromisoformat(value)
        except ValueError:
            self.fail("must look like 90s, 30min, 2h or 7d, or like 2026-11-22, 2026-11-22T14:30 or 2026-11-22T14:30Z")
        if not 2000 <= moment.year < 3000:  # so that arithmetic cannot overflow
            self.fail("must lie between 2000 and 2999")
        return moment


MOMENT = Moment()


class Day(click.ParamType):  # type: ignore[type-arg]
    """Converts a day such as 2026-11-22 to a date."""

    name = "day"

    def convert(self, value: str | date, param: click.Parameter | None, ctx: click.Context | None) -> date:
        if isinstance(value, date):
            return value
        try:
            return date.fromisoformat(value if _DAY.fullmatch(value) else "")
        except ValueError:
            self.fail(f"{value!r} is not a day that exists; a day is YYYY-MM-DD, e.g. 2026-11-22", param, ctx)


DAY = Day()


def ms_of(moment: date, zone: str, *, is_end: bool = False) -> int:
    """Return a moment in epoch ms. Without a zone of its own it is one of `zone`; a day is its first or last ms."""
    if not isinstance(moment, datetime):
        at = datetime.combine(moment + timedelta(days=1) if is_end else moment, time.min, zone_of(zone))
        return int(at.timestamp() * 1000) - is_end
    return int((moment if moment.tzinfo else moment.replace(tzinfo=zone_of(zone))).timestamp() * 1000)


def fields(record: object, *names: str) -> dict[str, Any]:
    """Return these fields of a record for JSON."""
    return {name: getattr(record, name) for name in names}


def say(text: str, *, err: bool = False) -> None:
    """Print lines of text, without what could control the terminal."""
    click.echo(lines_of(text), err=err)


def write(chunk: bytes) -> None:
    """Write lines of CSV or JSON; to a terminal without what could control it, elsewhere as they are."""
    if sys.stdout.isatty():
        chunk = lines_of(chunk.decode().replace("\r\n", "\n")).encode()
    sys.stdout.buffer.write(chunk)


def print_json(value: object) -> None:
    """Print a value, which may consist of structs and dataclasses."""
    click.echo(json.dumps(msgspec.to_builtins(value), indent=2))  # ASCII


def print_result(value: object, text: str, *, as_json: bool) -> None:
    """Print a value as JSON, or its text."""
    if as_json:
        print_json(value)
    else:
        say(text)


def print_list(
    values: object, table: Table, *notes: str, none: str = "", as_json: bool = False, as_csv: bool = False
) -> None:
    """Print values as JSON, or their table with lines below it, or as CSV; no rows, except as CSV, as a sentence."""
    if as_json:
        print_json(values)
    elif as_csv:
        print_csv(table)
    elif none and not table.row_count:
        say(none)
    else:
        print_table(table, *notes)


def print_table(table: Table, *notes: str) -> None:
    """Print a table and lines below it; where no terminal shows it, plain columns of whatever width they need."""
    title = str(table.title or "")
    table.title = None  # rich would wrap it at the width of the table
    if title:
        say(title)
    print_rows(table, console())
    for note in notes:
        say(note)


def console() -> Console:
    """Return a console for what is shown in a terminal. Markup is off: names of users may contain brackets."""
    return Console(markup=False, highlight=False)


def for_terminal(*, as_csv: bool) -> bool:
    """Tell whether a table is for a terminal, perhaps of 80 columns, and not for CSV, a file or another program."""
    return not as_csv and console().is_terminal


def print_rows(table: Table, console: Console) -> None:
    """Print a table as wide as a terminal is, and elsewhere as plain lines."""
    if console.is_terminal:
        console.print(fitted(table, console.width))
    else:
        click.echo("\n".join(plain_lines(table)))


def print_csv(table: Table) -> None:
    """Print a table as CSV (RFC 4180), with a header even if it has no rows."""
    from gateway.usage.tables import harmless  # only here: it imports all of the reports

    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(str(column.header).lower().replace(" ", "_") for column in table.columns)
    for row in zip(*(column.cells for column in table.columns), strict=True):
        cells = (cell_text(cell).strip() for cell in row)
        writer.writerow(cell if _NUMBER.fullmatch(cell) else harmless(cell) for cell in cells)
    click.echo(text.getvalue().encode(), nl=False)


def minute_of(epoch_ms: int, zone: str) -> str:
    """Return an instant to the minute, as ISO 8601 with the offset of a time zone."""
    return _iso(epoch_ms, zone, "minutes")


def instant_of(epoch_ms: int, zone: str) -> str:
    """Return an instant to the millisecond, as ISO 8601 with the offset of a time zone."""
    return _iso(epoch_ms, zone, "milliseconds")


def _iso(epoch_ms: int, zone: str, precision: str) -> str:
    at = datetime.fromtimestamp(epoch_ms / 1000, zone_of(zone))
    return at.isoformat(timespec=precision).replace("+00:00", "Z")


def progress(*columns: ProgressColumn) -> Progress:
    """Return a display of progress on standard error, which shows nothing without a terminal."""
    console = Console(stderr=True)
    columns = columns or Progress.get_default_columns()
    return Progress(*columns, transient=True, console=console, disable=not console.is_terminal)

"""Tables as text: printable, aligned, and as wide as a terminal. Prints nothing."""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.table import Column, Table
from rich.text import Text

from gateway.text import printable

_LONGEST_WORD = 48  # no id, time, or name of an action or a limit is longer; only longer words are broken
_LEFT_TO_RIGHT = "\u200e"  # shows nothing; what follows a name in Arabic or Hebrew would else be shown before it


class _Harmless(Table):
    """A table of texts by others."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*(lines_of(cell, guarded=True) if isinstance(cell, str) else cell for cell in cells), **options)


def table_of(columns: Sequence[Column | str], rows: Iterable[Sequence[str]] = (), title: str | None = None) -> Table:
    """Return a table of these rows. A cell may have several lines."""
    table = _Harmless(*columns, title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for row in rows:
        table.add_row(*row)
    return table


def fitted(table: Table, width: int) -> Table | Text:
    """Return a table in a terminal of this width: long texts fold between words, ids and times never.

    Where that is not enough, return the plain lines, which wrap between columns.
    """
    if not fits(table, width):
        return Text("\n".join(_aligned(table, _marked_line)), overflow="fold")
    least, widths = _floors(table), _widths(table)
    while _whole(widths) > width:
        widest = max((at for at, floor in enumerate(least) if widths[at] > floor), key=widths.__getitem__)
        widths[widest] -= 1
    for column, cells in zip(table.columns, widths, strict=True):
        column.width, column.overflow = cells, "fold"
    return table


def fits(table: Table, width: int) -> bool:
    """Tell whether a terminal of this width has room for a table without breaking a word."""
    return _whole(_floors(table)) <= width


def _whole(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * len(widths)  # of `table_of`: a blank at each edge, two between columns


def _widths(table: Table) -> list[int]:
    return [max(cell_len(line) for line in _cell_lines(column)) for column in table.columns]


def _floors(table: Table) -> list[int]:
    """Return the least width of each column: its longest line, or if it may wrap its longest word."""
    found = []
    for column, width in zip(table.columns, _widths(table), strict=True):
        words = " ".join(_cell_lines(column)).split(" ")
        found.append(width if column.no_wrap else min(_LONGEST_WORD, max(map(cell_len, words))))
    return found


def _cell_lines(column: Column) -> list[str]:
    return [line for cell in (column.header, *column.cells) for line in str(cell).split("\n")]


def plain_lines(table: Table) -> list[str]:
    """Return a table as aligned columns, with a line for each row and nothing cut."""
    return _aligned(table, cell_text)


def _aligned(table: Table, text_of: Callable[[object], str]) -> list[str]:
    columns = [[text_of(cell) for cell in (column.header, *column.cells)] for column in table.columns]
    for cells, column in zip(columns, table.columns, strict=True):
        width = max(map(cell_len, cells))
        for at, cell in enumerate(cells):
            blanks = " " * (width - cell_len(cell))
            cells[at] = blanks + cell if column.justify == "right" else cell + blanks
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def lines_of(text: str, *, guarded: bool = False) -> str:
    """Make each line printable; `guarded` lines end with a mark if what follows them could be shown before them."""
    lines = [printable(line) for line in text.split("\n")]
    if guarded and not text.isascii():
        lines = [f"{line}{_LEFT_TO_RIGHT}" if _turns(line) else line for line in lines]
    return "\n".join(lines)


def _turns(line: str) -> bool:
    return any(unicodedata.bidirectional(char) in ("R", "AL") for char in line)


def _marked_line(cell: object) -> str:
    return ", ".join(str(cell).split("\n"))  # of a `_Harmless` table, whose marks a terminal needs


def cell_text(cell: object) -> str:
    """Return a cell on one line."""
    return ", ".join(printable(line) for line in str(cell).replace(_LEFT_TO_RIGHT, "").split("\n"))

"""Tables as plain lines and as CSV."""

from __future__ import annotations

import pytest
from rich.table import Column

from gateway.cli.terminal import plain_lines, print_csv, print_list, print_table, table_of

LONG = "a" * 90


def test_without_a_terminal_columns_are_aligned_and_nothing_is_cut_or_framed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    columns = ("Name", Column("Count", justify="right"), "Id")
    print_table(table_of(columns, [("éa", "7", LONG), ("[red]x", "1234567", "b\nc")], LONG), "A note.")
    assert capsys.readouterr().out.splitlines() == [
        LONG,
        "Name      Count  Id",
        f"éa            7  {LONG}",
        "[red]x  1234567  b, c",
        "A note.",
    ]


def test_characters_of_two_columns_are_aligned_and_control_characters_replaced() -> None:
    assert plain_lines(table_of(("A", "B"), [("日", "x"), ("\x1b[2J", "y")])) == ["A     B", "日    x", "?[2J  y"]


def test_csv_has_a_header_and_no_formulas(capsys: pytest.CaptureFixture[str]) -> None:
    print_csv(table_of(("Full name", "Id"), [("=1+1", "a,b")]))
    print_list([], table_of(("Id",), []), none="Nobody.", as_json=False, as_csv=True)
    assert capsys.readouterr().out.splitlines() == ["full_name,id", '\'=1+1,"a,b"', "id"]

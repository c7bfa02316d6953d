"""Tables in terminals of several widths."""

from __future__ import annotations

import re
from io import StringIO
from ipaddress import IPv4Network

import pytest
from rich.console import Console
from rich.table import Column, Table

from auth.service_keys import ServiceKey
from auth.sessions import Session
from auth.users import User
from gateway.cli.keys import keys_table
from gateway.cli.layout import fits, table_of
from gateway.cli.terminal import print_rows
from gateway.cli.user_views import sessions_table, users_table

UID, ROOM, SESSION = "u" + "x" * 20, "64f0c0ffee64f0c0ffee64f0", "f3379c662d5cf4920790"
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
REASON = "this person has sent the same invitation to more than two hundred people within a single hour"
KEY = "k" + "y" * 20
AT_MS, AT = 1_795_995_024_647, "2026-11-30T00:30+01:00"


def shown(table: Table, width: int) -> list[str]:
    output = StringIO()
    print_rows(table, Console(file=output, width=width, force_terminal=True, color_system=None, markup=False))
    return output.getvalue().splitlines()


def tables() -> dict[str, Table]:
    user = User(UID, "ada.lovelace", "Ada", ("host", "operator"), "active", 1, AT_MS)
    session = Session(SESSION, AT_MS, AT_MS, AT_MS, "127.0.0.1", AGENT)
    scopes = frozenset({"act:user", "tokens:introspect", "usage:read-any"})
    key = ServiceKey(
        KEY, "billing", scopes, "active", AT_MS, UID, AT_MS, (IPv4Network("10.0.0.0/8"),), "", "", "", 0, AT_MS
    )
    return {
        "keys": keys_table([key], "UTC", stacked=True),
        "users": users_table([user], "Europe/Berlin"),
        "sessions": sessions_table([session], "Europe/Berlin", stacked=True),
        "rooms": table_of((Column("Room", no_wrap=True), "Why"), [(ROOM, REASON)]),
    }


@pytest.mark.parametrize("width", [25, 50, 80, 100, 140])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("users", [UID, "ada.lovelace", "operator", "active", AT]),
        ("sessions", [SESSION, "127.0.0.1", "AppleWebKit/537.36", AT]),
        ("rooms", [ROOM, *REASON.split()]),
        ("keys", [KEY, "billing", "tokens:introspect", "10.0.0.0/8", "2026-11-29T23:30Z"]),
    ],
)
def test_no_word_is_cut_or_broken_at_any_width(name: str, words: list[str], width: int) -> None:
    lines = shown(tables()[name], width)
    assert max(map(len, lines)) <= width
    assert set(words) <= set(re.split("[ ,]+", " ".join(lines))), lines


@pytest.mark.parametrize("name", ["users", "sessions", "rooms", "keys"])
def test_every_table_has_its_frame_in_80_columns(name: str) -> None:
    assert fits(tables()[name], 80)


def test_a_long_text_folds_between_words_so_that_a_table_keeps_its_frame() -> None:
    lines = shown(tables()["rooms"], 60)
    assert any(set(line.strip()) == {"─"} for line in lines)
    assert len([line for line in lines if len(line.split()) > 1]) == 4, "the head, and a text of three lines"


def test_a_terminal_without_room_for_whole_words_gets_plain_lines() -> None:
    table = table_of(("Id", "Name"), [(UID, "محمد"), ("\x1b[2J", "eve")])
    assert fits(table, 29)
    assert not fits(table, 28)
    # The mark after the name keeps a terminal from showing what follows before it.
    assert shown(table, 28) == [f"Id{' ' * 21}Name", f"{UID}  محمد\u200e", f"?[2J{' ' * 19}eve"]


def test_a_word_that_is_longer_than_any_id_folds_and_loses_nothing() -> None:
    body = "x" * 300
    lines = shown(table_of(("Id", "Body"), [(UID, body)]), 80)
    assert max(map(len, lines)) <= 80
    assert "".join(lines).count("x") == 300 + UID.count("x")

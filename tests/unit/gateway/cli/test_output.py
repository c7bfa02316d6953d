"""What every command prints: one format, in one line if it fails, and nothing that controls a terminal."""

from __future__ import annotations

import io
import json
import re
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner
from rich.console import Console

from gateway.audit import check_action
from gateway.cli import cli, main, terminal
from gateway.cli.failures import place_of
from gateway.cli.terminal import (
    CSV,
    DAY,
    DURATION,
    JSON,
    MOMENT,
    instant_of,
    minute_of,
    ms_of,
    print_list,
    print_table,
    say,
    table_of,
    write,
)
from gateway.text import FieldError
from tests.unit.gateway.cli.commands import commands

MODULES = Path(terminal.__file__).parent
# Clears the screen, sets the title, goes up, forges a line, reverses the text, and is half a character.
HOSTILE = "\x1b[2Jeva\x1b]0;root\x07\x1b[1A\r\n\u202eadmin\x9b\ud800"


def options_of(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


@click.command()
@CSV
@JSON
def sample(as_csv: bool, as_json: bool) -> None:
    table = table_of(("Name", "Why"), [(HOSTILE, "=1+1")], title=HOSTILE)
    print_list([HOSTILE], table, HOSTILE, as_json=as_json, as_csv=as_csv)
    say(HOSTILE, err=True)


@pytest.fixture
def in_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show tables as in a terminal of 80 columns."""
    shown = lambda: Console(markup=False, highlight=False, width=80, force_terminal=True, no_color=True)  # noqa: E731
    monkeypatch.setattr(terminal, "console", shown)


@pytest.mark.parametrize("arguments", [[], ["--csv"], ["--json"]])
def test_texts_of_others_cannot_control_a_terminal(arguments: list[str]) -> None:
    """CWE-150: escape sequences, also in the forms of eight bits, carriage returns, reversed text, lone surrogates."""
    done = CliRunner().invoke(sample, arguments)
    assert done.exit_code == 0, done.output
    assert not re.search("[^\x20-\x7e\r\n]", done.output)
    assert "eva" in done.output
    if "--json" in arguments:
        assert json.loads(done.stdout) == [HOSTILE]


@pytest.mark.usefixtures("in_terminal")
def test_texts_of_others_cannot_control_a_terminal_that_shows_tables() -> None:
    said = CliRunner().invoke(sample, color=True).output
    assert "eva" in said
    assert set(re.findall("\x1b[^A-Za-z]*[A-Za-z]?", said)) == {"\x1b[1m", "\x1b[0m"}, "more than bold headers"
    assert not re.search("[\x00-\x09\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202e]", said)


@pytest.mark.usefixtures("in_terminal")
def test_names_of_wide_and_of_right_to_left_characters_keep_columns_and_their_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(table_of(("Name", "Count"), [("田中", "1"), ("محمد", "23"), ("ada", "4")]))
    rows = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.rstrip()[-1:].isdigit()]
    # The mark after the second name keeps a terminal from showing the number to the left of it.
    assert rows == [" 田中  1", " محمد\u200e  23", " ada   4"]


def test_elsewhere_names_have_no_marks_and_spaces_of_any_width(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(table_of(("Name", "Count"), [("محمد", "23"), ("田\u3000中", "1"), ("می\u200cخواهم", "2")]))
    assert capsys.readouterr().out.splitlines()[1:] == ["محمد     23", "田\u3000中   1", "می\u200cخواهم  2"]


@pytest.mark.parametrize(("value", "color"), [("1", False), ("", None)])
def test_no_color_is_honoured(value: str, color: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """https://no-color.org: "when present and not an empty string (regardless of its value)"."""
    seen: list[bool | None] = []
    probe = click.Command("probe", callback=lambda: seen.append(click.get_current_context().color))
    monkeypatch.setitem(cli.commands, "probe", probe)
    monkeypatch.setattr(sys, "argv", ["gateway", "probe"])
    monkeypatch.setenv("NO_COLOR", value)
    with pytest.raises(SystemExit):
        main()
    assert seen == [color]


def test_only_one_module_prints() -> None:
    """So that nothing is printed that others have written as it is. Others print JSON and texts of their own."""
    printing = {
        path.stem for path in MODULES.glob("*.py") if re.search(r"click\.s?echo\(|sys\.stdout", path.read_text())
    }
    assert printing == {
        *("__init__", "terminal"),  # printable
        "audit",  # JSON, a line for each entry
        "usage",  # CSV and JSON, made page by page
        "explain",  # one coloured word
        *("doctor", "failures"),  # the same; the help
    }


def test_csv_and_json_exclude_each_other_in_every_command_that_has_both() -> None:
    both = [path for path, command in commands().items() if {"--csv", "--json"} <= options_of(command)]
    assert len(both) >= 15
    for path in both:
        needed = [parameter for parameter in commands()[path].params if parameter.required]
        words = [word for one in needed for word in ([one.opts[0], "2026-11-28"] if one.opts[0][0] == "-" else ["x"])]
        done = CliRunner().invoke(cli, [*path.split(), *words, "--csv", "--json"])
        assert (done.exit_code, "Give --csv or --json, not both." in done.output) == (2, True), (path, done.output)


def test_every_command_that_prints_a_table_as_csv_prints_json_too() -> None:
    assert [
        path for path, one in commands().items() if "--csv" in options_of(one) and "--json" not in options_of(one)
    ] == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:hidden@127.0.0.1:6379/0", "127.0.0.1:6379"),
        ("rediss://user:hid/den@[::1]:6379/1?password=hidden", "[::1]:6379"),
        ("redis+sentinel://u:hidden@a:1,b:2/main/0", "a:1,b:2"),
        ("redis+sentinel://a:1/main?sentinel_password=hid@den", ""),
        ("redis://u:hid?den@127.0.0.1:6379/0", ""),
        ("unix://u:hidden@/run/redis.sock", "/run/redis.sock"),
        ("", ""),
    ],
)
def test_messages_name_an_address_without_its_password(url: str, shown: str) -> None:
    assert place_of(url) == shown


@pytest.mark.parametrize(
    ("text", "zone", "is_end", "at"),
    [
        ("2026-11-22", "UTC", False, "2026-11-22T00:00:00Z"),
        ("2026-11-22", "Asia/Kolkata", False, "2026-11-21T18:30:00Z"),
        ("2026-11-22", "Europe/Berlin", True, "2026-11-22T22:59:59.999Z"),
        ("2026-11-22T14:30", "Europe/Berlin", True, "2026-11-22T13:30:00Z"),
        ("2026-11-22T14:30Z", "Europe/Berlin", False, "2026-11-22T14:30:00Z"),
        ("2026-11-22T14:30:01.5+05:30", "UTC", False, "2026-11-22T09:00:01.5Z"),
    ],
)
def test_a_moment_without_a_zone_is_one_of_the_policy(text: str, zone: str, is_end: bool, at: str) -> None:
    assert ms_of(MOMENT.convert(text, None, None), zone, is_end=is_end) == _ms(datetime.fromisoformat(at))


def test_times_have_the_offset_of_their_zone() -> None:
    at_ms = _ms(datetime(2026, 11, 22, 13, 30, 1, 500_000, UTC))
    assert minute_of(at_ms, "Europe/Berlin") == "2026-11-22T14:30+01:00"
    assert instant_of(at_ms, "Asia/Kolkata") == "2026-11-22T19:00:01.500+05:30"
    assert instant_of(at_ms, "UTC") == "2026-11-22T13:30:01.500Z"


def test_a_moment_may_be_given_by_how_long_ago_it_was() -> None:
    ago = _ms(datetime.now(UTC) - timedelta(hours=2))
    assert 0 <= ms_of(MOMENT.convert("2h", None, None), "Asia/Kolkata") - ago < 60_000
    assert MOMENT.convert(date(2026, 11, 22), None, None) == date(2026, 11, 22)


@pytest.mark.parametrize("text", ["2 hours", "2026-11", "2026-13-01", "2026-11-22T25:00", "yesterday", "0h", ""])
def test_what_is_no_moment_is_refused_with_examples(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"must look like 90s.* 2026-11-22T14:30Z"):
        MOMENT.convert(text, None, None)


def test_minutes_may_be_written_as_m_and_other_units_are_refused_with_those_that_there_are() -> None:
    assert [DURATION.convert(text, None, None) for text in ("5m", "5min", "90s", "2h", "7d")] == [
        300,
        300,
        90,
        7200,
        604_800,
    ]
    with pytest.raises(click.BadParameter, match="the units are s, min, h and d"):
        DURATION.convert("5mo", None, None)


@pytest.mark.parametrize("text", ["22.11.2026", "2026-02-30", "20261122", "yesterday", ""])
def test_what_is_no_day_is_refused_in_plain_words(text: str) -> None:
    assert DAY.convert("2026-11-22", None, None) == date(2026, 11, 22)
    with pytest.raises(click.BadParameter, match=r"is not a day that exists; a day is YYYY-MM-DD, e\.g\. 2026-11-22"):
        DAY.convert(text, None, None)


def test_a_mistyped_counter_or_audit_action_is_refused_with_similar_ones_and_where_all_are_listed() -> None:
    for counter, meant in (("minute", "minutes"), ("tokens.mint", "tokens.mint.ok"), ("foo", "")):
        done = CliRunner().invoke(cli, ["usage", "top", "--counter", counter])
        listed = "did you mean .*All are" if meant else "all are"
        assert re.search(f"there is no counter '{counter}'; {listed} listed in docs/usage.md", done.output), done.output
        assert meant in done.output
        assert "an action and an outcome, e.g. tokens.mint.ok" in done.output
    with pytest.raises(FieldError) as wrong:
        check_action("romo")
    assert (
        str(wrong.value) == "action: there is no action 'romo'; did you mean room? All are listed in docs/security.md"
    )


@pytest.mark.parametrize("text", ["0001-01-01", "9999-12-31", "1999-12-31T23:59Z"])
def test_a_moment_far_away_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="must lie between 2000 and 2999"):
        MOMENT.convert(text, None, None)


def test_the_longest_ago_is_before_everything_that_is_kept() -> None:
    assert MOMENT.convert("999999d", None, None) < datetime.now(UTC) - timedelta(days=400)


@pytest.mark.parametrize("shown", [True, False])
def test_files_are_written_as_they_are_and_to_a_terminal_without_what_controls_it(
    shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(output, "isatty", lambda: shown)
    write("a,\x9b2Jé\r\n".encode())
    assert output.buffer.getvalue().decode() == ("a,?2Jé\n" if shown else "a,\x9b2Jé\r\n")  # type: ignore[attr-defined]


def test_shell_completion_knows_the_commands() -> None:
    completion = BashComplete(cli, {}, "gateway", "_GATEWAY_COMPLETE")
    assert [one.value for one in completion.get_completions(["users"], "l")] == ["list", "logout"]


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)

"""The examples in the help of commands, what they do in a fresh folder, and the commands in the documentation."""

from __future__ import annotations

import os
import re
import secrets
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gateway.cli import cli
from gateway.cli.failures import foreseen
from tests.unit.gateway.cli.commands import commands

REPOSITORY = Path(__file__).parents[4]
PAGES = [
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *(REPOSITORY / "deploy").glob("**/*.md"),
]
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(
    r" *(?:\.venv/bin/|docker compose (?:exec|run)[^\n]* (?:gateway|setup) )?gateway ([a-z-][^\n]*)", re.DOTALL
)
_DAY = "2026-11-22"


COMMANDS = commands()
GROUPS = sorted({path.rpartition(" ")[0] for path in COMMANDS} - {""})


def parse(words: list[str]) -> None:
    """Let click parse the arguments of a command, without calling it. Raises: click.UsageError"""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        if found is None:
            raise click.UsageError(f"No such command {words[0]!r}.")
        command, words = found, words[1:]
    command.make_context("gateway", list(words))


@pytest.mark.parametrize("path", COMMANDS)
def test_the_help_of_every_command_ends_with_an_example_that_it_takes(path: str) -> None:
    command = COMMANDS[path]
    example = re.fullmatch("Example: gateway (.+)", str(command.epilog))
    assert example, "no example"
    assert f"{example[1]} ".startswith(f"{path} ")
    assert len(example[0]) <= 76, "it wraps in 80 columns, and cannot be copied"
    parse(shlex.split(example[1]))


@pytest.mark.parametrize("path", ["", *GROUPS])
def test_lists_of_commands_are_not_cut_in_80_columns(path: str) -> None:
    done = CliRunner().invoke(cli, [*path.split(), "--help"], terminal_width=78)  # of 80, click uses 78
    listed = done.output.partition("\nCommands:\n")[2]
    assert listed
    assert "..." not in listed


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to an empty folder, without any setting."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("HMS_", "GATEWAY_", "REDIS_")):
            monkeypatch.delenv(name)
    return tmp_path


@pytest.mark.parametrize("path", sorted(COMMANDS.keys() - {"demo", "emulator", "init", "serve"}))
def test_a_command_in_a_fresh_folder_says_what_to_do(path: str, fresh: Path) -> None:
    """Without any setting each fails foreseeably, with its example as arguments, or needs no setting."""
    words = shlex.split(str(COMMANDS[path].epilog))[2:]
    done = CliRunner().invoke(cli, words, input="fifteen characters\n")
    error = done.exception
    if isinstance(error, Exception):
        assert foreseen(error), error
    if "REDIS_URL is not set" in (said := str(error)):
        assert "`gateway demo` starts one" in said


DEMO = f"""
REDIS_URL=redis://:hidden-password@127.0.0.1:1/0
HMS_API_URL=http://127.0.0.1:1/v2
HMS_APP_ACCESS_KEY=key
HMS_APP_SECRET={secrets.token_urlsafe(48)}
HMS_TEMPLATE_ID=64f0c0ffee64f0c0ffee64f0
GATEWAY_SECRET={secrets.token_urlsafe(48)}
GATEWAY_ARCHIVE=sqlite:///usage.db
DEMO_REDIS_PASSWORD=hidden-password
"""


WITHOUT_REDIS = {"demo", "doctor", "emulator", "init", "policy check", "serve", "webhooks out test"}


@pytest.mark.parametrize("path", [one for one in COMMANDS if one not in WITHOUT_REDIS and "signing" not in one])
def test_every_command_says_that_the_demo_is_not_running(path: str, fresh: Path) -> None:
    (fresh / ".gateway").mkdir()
    (fresh / ".gateway" / "demo.env").write_text(DEMO)
    example = re.sub(r"\d{4}-\d\d-\d\d", f"{datetime.now(UTC):%Y-%m-%d}", str(COMMANDS[path].epilog))
    example = re.sub("ROOM(_ID)?", "64f0c0ffee64f0c0ffee64f0", example)
    answer = "y" if path in ("users delete", "keys revoke") else "fifteen characters"
    done = CliRunner().invoke(cli, shlex.split(example)[2:], input=f"{answer}\n")
    assert isinstance(done.exception, Exception), done.output
    said = foreseen(done.exception)
    assert f"the demo of {fresh / '.gateway'} is not running. Start it: `gateway demo` (or `make demo`)" in said
    assert "hidden-password" not in said


def shown(page: str) -> Iterator[str]:
    """Return the arguments of the commands in the code blocks and code spans of a page."""
    text = FENCE.sub("", page)
    lines = [
        *"\n".join(FENCE.findall(page)).split("\n"),
        *(line for line in text.split("\n") if line.startswith("    ")),
    ]
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    yield from (found[1] for one in [*lines, *spans] if (found := COMMAND.fullmatch(one)))


def words_of(text: str) -> list[list[str]]:
    """Return the arguments of a command as a page shows it; `show|reset` are two commands."""
    text = re.split(r" {3,}| +#|\s[|>&]|;|…| \\$", text)[0]
    first = re.search(r"\S+\|\S+", text)
    texts = [text.replace(first[0], word) for word in first[0].split("|")] if first else [text]
    return [[_DAY if word == "DAY" else word for word in shlex.split(one)] for one in texts]


def test_every_command_that_the_documentation_shows_exists_with_its_options() -> None:
    checked, wrong = 0, []
    for page in PAGES:
        for text in shown(page.read_text(encoding="utf-8")):
            for words in words_of(text):
                checked += 1
                try:
                    parse(words)
                except (click.MissingParameter, click.exceptions.NoArgsIsHelpError, click.exceptions.Exit):
                    pass  # the page names the command without its arguments, or asks for its help
                except click.UsageError as error:
                    wrong.append(f"{page.name}: gateway {text}: {error}")
    assert wrong == []
    assert checked > 80

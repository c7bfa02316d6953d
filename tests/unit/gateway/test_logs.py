"""Log lines: ASCII only, one line per record, whatever text is in them."""

from __future__ import annotations

import logging

import pytest

from gateway.logs import _Console, _Json

NASTY = "a\x1b[31mred\u202e\u00e9\U0001f600\r\n12:00:00 error   forged\x85\u2028\x7f\ud800"


def record(text: str, error: Exception | None = None, **fields: str) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord("gateway", logging.ERROR, __file__, 1, "%s", (text,), exc_info)
    made.fields = fields
    return made


def raised(text: str) -> Exception:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


@pytest.mark.parametrize("formatter", [_Json(), _Console()], ids=["json", "console"])
def test_a_line_holds_printable_ascii_only(formatter: logging.Formatter) -> None:
    line = formatter.format(record(NASTY, name=NASTY))
    assert line.isascii()
    assert line.isprintable()


@pytest.mark.parametrize("formatter", [_Json(), _Console()], ids=["json", "console"])
def test_a_traceback_holds_printable_ascii_only(formatter: logging.Formatter) -> None:
    for line in formatter.format(record("failed", raised(NASTY))).split("\n"):
        assert line.isascii()
        assert line.isprintable()


def test_the_text_of_an_exception_cannot_forge_a_console_line() -> None:
    first, *traceback = _Console().format(record("failed", raised(NASTY))).split("\n")
    assert first.endswith("error   failed")
    assert len(traceback) > 2
    assert all(line.startswith("    ") for line in traceback)


def test_escaped_characters_stay_readable() -> None:
    assert _Console().format(record("caf\u00e9 \x1b")).endswith(r"caf\xe9 \x1b")

"""What `gateway usage reconcile` shows, and which days it takes."""

from __future__ import annotations

import json
from datetime import date, timedelta

import click
import pytest

from gateway.cli.reconcile import _days, _print
from gateway.metering.reconcile import Finding

TODAY = date(2026, 11, 29)
DAYS = (date(2026, 11, 1), TODAY)
FOUND = [
    Finding("6" * 24, "7" * 24, "running", 300, 1, 64),
    Finding("6" * 24, "8" * 24, "ended", 1200, 1100, -193_000),
    Finding("6" * 24, "9" * 24, "ended", 3, 0, 0),
]


def test_the_table_has_the_corrected_sessions_largest_first_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    _print(FOUND, DAYS, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    rows = [line.split() for line in lines if line.startswith("6")]
    assert rows == [["6" * 24, "8" * 24, "1100/1200", "-3216.67"], ["6" * 24, "7" * 24, "1/300", "+1.07"]]
    assert lines[-1] == (
        "Compared 2026-11-01 to 2026-11-29: sessions 3 (1 running), stays 1503. "
        "Corrected: stays 1101, minutes -3215.60."
    )


def test_json_has_totals_and_every_corrected_session(capsys: pytest.CaptureFixture[str]) -> None:
    _print(FOUND, DAYS, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    changed = shown.pop("changed")
    assert shown == {"sessions": 3, "running": 1, "stays": 1503, "corrected": 1101, "seconds": -192_936}
    assert [one["session_id"] for one in changed] == ["8" * 24, "7" * 24]


def test_days_end_today_and_begin_at_most_35_days_ago() -> None:
    assert _days(TODAY - timedelta(days=35), None, TODAY) == (TODAY - timedelta(days=35), TODAY)
    assert _days(TODAY, TODAY + timedelta(days=3), TODAY) == (TODAY, TODAY)


@pytest.mark.parametrize(("first", "last"), [(-36, None), (1, None), (0, -1)])
def test_other_days_are_refused(first: int, last: int | None) -> None:
    with pytest.raises(click.BadParameter):
        _days(TODAY + timedelta(days=first), None if last is None else TODAY + timedelta(days=last), TODAY)

"""Reports in a terminal of 80 columns."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from rich.console import Console

from gateway.cli import usage_views
from gateway.cli.terminal import print_csv
from gateway.cli.usage_views import bars, courses, print_peak, print_report, top_table
from gateway.policy.model import Prices
from gateway.usage.query import GroupBy, Query
from gateway.usage.rows import TopRow, UsageDay, rows_of

DAYS = date(2026, 11, 1), date(2026, 11, 30)
UID, ROOM = "u" + "x" * 20, "64f0c0ffee64f0c0ffee64f0"
LONG = "a name of sixty-four characters, which is the most that we accept"
COUNTS = {"minutes.ok": 86_399, "tokens.mint.ok": 12_345, "tokens.mint.denied.api": 123, "tokens.mint.failed": 12}


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_views, "_console", lambda: Console(width=80, force_terminal=True, color_system=None))


@pytest.mark.parametrize("group_by", [None, "day", "user", "action", "room", "template"])
def test_tables_fit_into_80_columns_and_show_ids_whole(
    group_by: GroupBy | None, capsys: pytest.CaptureFixture[str]
) -> None:
    query = Query(DAYS, group_by, prices=Prices("EUR", Decimal(4)))
    keys = {"date": "2026-11-22", "user_id": UID, "username": "", "room_id": ROOM, "room_name": LONG}
    keys |= {"owner_id": UID, "template": "default"}
    rows = rows_of(COUNTS, action=None, prices=query.prices, keys={name: keys[name] for name in query.keys})
    rows[0].people_peak = 250
    print_report(query, rows, "Europe/Berlin", more=False)
    shown = lines(capsys)
    assert shown[0].endswith("2026-11-01 to 2026-11-30 (Europe/Berlin)"), "a title that wraps"
    assert max(map(len, shown)) <= 80
    text = "\n".join(shown)
    assert "1439.98" in text
    assert "EUR" in text
    assert "Refused" not in text, "a column of zeros"
    if "user_id" in query.keys:
        assert UID in text
    if "room_id" in query.keys:
        assert ROOM in text


def test_a_report_of_one_user_shows_the_course_of_days(capsys: pytest.CaptureFixture[str]) -> None:
    query = Query(DAYS, user=UID)
    keys = {"user_id": UID, "username": "hanna"}
    rows = [
        row
        for day, seconds in (("2026-11-01", 60), ("2026-11-30", 480))
        for row in rows_of({"minutes.ok": seconds}, action=None, prices=None, keys={"date": day, **keys})
    ]
    print_report(query, rows, "Europe/Berlin", more=False)
    shown = lines(capsys)
    assert shown[1] == f"hanna  {UID}"
    assert shown[-1] == f"minutes      ▂{' ' * 28}█  at most 8 a day"


@pytest.mark.parametrize(
    ("query", "where"),
    [
        (Query(DAYS, user=UID), "rooms of this user"),
        (Query(DAYS, room=ROOM), "the room"),
        (Query(DAYS, "day"), "all rooms"),
    ],
)
def test_the_day_with_most_people_at_the_same_time_is_shown(
    query: Query, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_peak(query, [UsageDay("2026-11-01", {}, 2), UsageDay("2026-11-02", {}, 7), UsageDay("2026-11-03", {}, 0)])
    assert lines(capsys) == [f"Most people at the same time in {where}: 7, on 2026-11-02"]
    print_peak(query, [UsageDay("2026-11-03", {}, 0)])
    assert not lines(capsys)


def test_days_of_a_long_report_share_bars() -> None:
    days = date(2026, 1, 1), date(2026, 12, 31)
    rows = rows_of({"api.ok": 5}, action=None, prices=None, keys={"date": "2026-12-31"})
    (line,) = courses(days, rows)
    assert line.endswith("█  at most 5 in 7 days")
    assert len(line) <= 100


def test_the_smallest_number_has_a_bar_and_nothing_has_none() -> None:
    assert bars([0, 1, 500, 1000]) == " ▁▅█"


def test_elsewhere_than_in_a_terminal_no_name_is_cut_and_no_column_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(usage_views, "_console", lambda: Console(width=80, force_terminal=False))
    keys = {"room_id": ROOM, "room_name": LONG, "owner_id": UID}
    (row,) = rows_of({"minutes.ok": 90}, action=None, prices=None, keys=keys)
    row.people_peak = 3
    print_report(Query(DAYS, "room"), [row], "UTC", more=False)
    assert lines(capsys)[1:] == [
        f"Room id                   Room{' ' * (len(LONG) - 4)}  Action   Done  Peak",
        f"{ROOM}  {LONG}  minutes  1.50     3",
    ]
    (row,) = rows_of({"owned.ok": 90}, action=None, prices=None, keys={"user_id": UID, "username": "hanna"})
    row.date, row.people_peak = "2026-11-22", 3
    print_report(Query(DAYS), [row], "UTC", more=False)
    assert lines(capsys)[-1].split() == ["2026-11-22", "hanna", "owned", "1.50", "3"]


def test_a_top_list_as_csv_says_what_it_is_about_in_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [TopRow(UID, "=hanna", 1.5, 90, Decimal("0.01")), TopRow(UID, "", 1, 60, Decimal("0.00"))]
    print_csv(top_table(rows, "EUR", counter="money", period="2026-11", time_zone="Asia/Kolkata"))
    assert lines(capsys) == [
        "counter,period,time_zone,user_id,username,count,seconds,money,currency",
        f"money,2026-11,Asia/Kolkata,{UID},'=hanna,1.50,90,0.01,EUR",
        f"money,2026-11,Asia/Kolkata,{UID},,1.00,60,0.00,EUR",
    ]
    print_csv(top_table([TopRow(UID, "hanna", 3)], "", counter="api.ok", period="2026-11", time_zone="UTC"))
    assert lines(capsys)[1] == f"api.ok,2026-11,UTC,{UID},hanna,3,,,"

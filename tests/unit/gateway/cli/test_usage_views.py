"""Reports in a terminal of 80 columns."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from rich.console import Console

from gateway.cli import usage_views
from gateway.cli.terminal import print_csv
from gateway.cli.usage_views import bars, courses, print_peak, print_report, print_top, top_table
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
    in_terminal(monkeypatch, 80)


def in_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(usage_views, "_console", lambda: Console(width=width, force_terminal=True, color_system=None))


@pytest.mark.parametrize("group_by", [None, "day", "month", "user", "action", "room", "template"])
def test_tables_fit_into_80_columns_and_show_ids_whole(
    group_by: GroupBy | None, capsys: pytest.CaptureFixture[str]
) -> None:
    query = Query(DAYS, group_by, prices=Prices("EUR", Decimal(4)))
    keys = {
        "date": "2026-11-22",
        "month": "2026-11",
        "user_id": UID,
        "username": "",
        "room_id": ROOM,
        "room_name": LONG,
    }
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


def test_totals_per_action_are_below_a_table_and_reasons_of_each_row_in_a_second_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_terminal(monkeypatch, 60)
    query, rows = Query(DAYS, "user", prices=Prices("EUR", Decimal(4))), []
    for name, seconds in (("hanna", 86_399), ("mark", 1)):
        counts = {"minutes.ok": seconds, "api.ok": 2, "api.denied.api": 3, "api.refused.not_found": 1}
        keys = {"user_id": UID, "username": name}
        rows += rows_of(counts, action=None, prices=query.prices, keys=keys)
        rows[-1].people_peak = 7
    rows += rows_of({"tokens.mint.ok": 5, "tokens.mint.would_deny.api": 9}, action=None, prices=None, keys=keys)
    print_report(query, rows, "UTC", more=False)
    shown = [line.split() for line in lines(capsys)]
    assert [line for line in shown if line[:1] == ["Total"]] == [
        ["Total", "api", "4", "6", "2"],
        ["Total", "minutes", "1440.00", "5.76"],  # of the seconds, and of the money that is shown; no sum of peaks
        ["Total", "tokens.mint", "5"],
    ]
    at = shown.index(["User", "Action", "Reason", "Count"])
    assert [line for line in shown[at + 2 :] if line] == [
        ["hanna", "api", "denied:", "api", "3"],
        ["hanna", "api", "refused:", "not_found", "1"],
        ["mark", "api", "denied:", "api", "3"],
        ["mark", "api", "refused:", "not_found", "1"],
        ["mark", "tokens.mint", "would", "be", "denied:", "api", "9"],
    ]
    print_report(query, rows[:2], "UTC", more=True)
    said = capsys.readouterr().out
    assert "Only the first 2 rows are shown, without totals." in said
    assert "Total" not in said


@pytest.mark.parametrize(
    ("group_by", "head", "key"),
    [
        (None, "Day User", "2026-11-22 hanna"),
        ("day", "Day", "2026-11-22"),
        ("month", "Month", "2026-11"),
        ("user", "User", "hanna"),
        ("action", "", ""),
        ("room", "Room id Room", f"{ROOM} Physics"),
    ],
)
def test_reasons_are_in_the_table_if_the_terminal_has_room_for_them_and_else_follow_with_the_keys_of_their_rows(
    group_by: GroupBy | None, head: str, key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    query = Query(DAYS, group_by)
    keys = {"date": "2026-11-22", "month": "2026-11", "user_id": UID, "username": "hanna", "room_id": ROOM}
    keys |= {"room_name": "Physics", "owner_id": UID}
    counts = {"tokens.mint.ok": 7, "tokens.mint.denied.tokens.mint": 31, "tokens.mint.refused.not_found": 2}
    rows = rows_of(counts, action=None, prices=None, keys={name: keys[name] for name in query.keys})
    in_terminal(monkeypatch, 120)
    print_report(query, rows, "UTC", more=False)
    one, two = [line.split() for line in lines(capsys) if "denied:" in line or "refused:" in line]
    assert one[-7:] == ["tokens.mint", "7", "31", "2", "denied:", "tokens.mint", "31"]
    assert two == ["refused:", "not_found", "2"]

    in_terminal(monkeypatch, 45)
    print_report(query, rows, "UTC", more=False)
    said = " ".join(" ".join(lines(capsys)).split())
    assert f"{head} Action Reason Count ".lstrip() in said
    assert (
        f" {key} tokens.mint denied: tokens.mint 31 {key} tokens.mint refused: not_found 2".replace("  ", " ") in said
    )


def test_elsewhere_each_row_has_its_reasons(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(usage_views, "_console", lambda: Console(width=80, force_terminal=False))
    counts = {"api.denied.api": 31, "api.refused.not_found": 2, "api.refused.forbidden": 1}
    rows = [
        row
        for month in ("2026-10", "2026-11")
        for row in rows_of(counts, action=None, prices=None, keys={"month": month})
    ]
    print_report(Query(DAYS, "month", user=UID), rows, "UTC", more=False)
    assert lines(capsys) == [
        "Usage per month and action, 2026-11-01 to 2026-11-30 (UTC)",
        UID,
        "Month    Action  Done  Denied  Refused  Why",
        "2026-10  api        0      31        3  denied: api 31, refused: forbidden 1, refused: not_found 2",
        "2026-11  api        0      31        3  denied: api 31, refused: forbidden 1, refused: not_found 2",
        "Total    api        0      62        6  denied: api 62, refused: forbidden 2, refused: not_found 4",
    ]


@pytest.mark.parametrize(("total", "last"), [(123, ["Everyone", "2.05"]), (None, ["hanna", "1.50"])])
def test_a_top_list_ends_with_the_count_of_everyone(
    total: int | None, last: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    print_top("minutes", [TopRow(UID, "hanna", 1.5, 90)], "", total=total)
    assert [line.split() for line in lines(capsys) if line.strip()][-1] == last


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

"""Who is in which room, in a terminal of 80 columns and elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from rich.console import Console

from gateway.cli.live import _print_plainly, live_view, people_table
from gateway.cli.terminal import print_csv
from gateway.usage.live import LivePerson, LiveRoom, Now

UID, ROOM = "u" + "x" * 20, "64f0c0ffee64f0c0ffee64f0"
LONG = "a name of sixty-four characters, which is the most that we accept"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_people_in_rooms_have_a_line_each_and_cannot_change_the_terminal() -> None:
    people = [
        LivePerson(UID, "", "host", "2026-11-22T09:47:00.000Z"),
        LivePerson("\x1b[31m" + "x" * 90, "", "guest", "2026-11-22T11:59:30.000Z"),
    ]
    room = LiveRoom(ROOM, LONG, UID, "hanna", people[0].since, people)
    console = Console(width=80, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(live_view(Now([room], 2, 3), NOON, 80))
    shown = capture.get()
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.startswith("3 people in 2 rooms at 2026-11-22T12:00:00Z")
    assert [line for line in shown.splitlines() if UID in line and "2 h 13 min" in line]
    assert [line for line in shown.splitlines() if ROOM in line and "0 min" in line]
    assert "Shown: 1 of them" in shown
    with console.capture() as capture:
        console.print(live_view(Now([], 0, 0), NOON, 80))
    assert capture.get().strip() == "No one is in a room at 2026-11-22T12:00:00Z"


def test_a_terminal_without_room_for_a_table_has_a_line_for_each_room_and_person() -> None:
    people = [LivePerson(UID, "", "participant", "2026-11-22T09:47:00.000Z")]
    now = Now([LiveRoom(ROOM, "Physics", UID, "hanna", people[0].since, people)], 1, 1)
    console = Console(width=50, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(live_view(now, NOON, 50))
    assert capture.get().splitlines() == [
        "1 person in 1 room at 2026-11-22T12:00:00Z",
        f"Physics  {ROOM}  of hanna",
        f"  {UID}  participant  2 h 13 min",
    ]


def test_elsewhere_each_person_has_a_row_and_nothing_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    people = [
        LivePerson(UID, "mira", "host", "2026-11-22T09:47:00.000Z"),
        LivePerson("", "", "guest", "2026-11-22T11:59:30.000Z"),
    ]
    now = Now([LiveRoom(ROOM, LONG, UID, "", people[0].since, people)], 2, 3)
    _print_plainly(now, NOON)
    title, _, *rows, note = capsys.readouterr().out.splitlines()
    assert title == "3 people in 2 rooms at 2026-11-22T12:00:00Z"
    assert [row.startswith(f"{ROOM}  {LONG}  {UID}") for row in rows] == [True, True]
    assert rows[0].endswith("mira  host   2026-11-22T09:47:00.000Z  2 h 13 min")
    assert note == "Shown: 1 of them, those with the most people."
    print_csv(people_table(now, NOON))
    assert capsys.readouterr().out.splitlines() == [
        "room_id,room,owner_id,owner,user_id,user,role,since,for",
        f'{ROOM},"{LONG}",{UID},,{UID},mira,host,2026-11-22T09:47:00.000Z,2 h 13 min',
        f'{ROOM},"{LONG}",{UID},,,,guest,2026-11-22T11:59:30.000Z,0 min',
    ]
    _print_plainly(Now([], 0, 0), NOON)
    assert capsys.readouterr().out == "No one is in a room at 2026-11-22T12:00:00Z\n"

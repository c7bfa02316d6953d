"""Reports of minutes and of people in rooms, as API and command line show them. No webhooks are involved."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest

from gateway.metering.events import Stay
from gateway.metering.stays import Stays
from gateway.redis.store import Store, connect
from limits.derived import Derived
from limits.metered import ENDED, OPEN
from tests.e2e.checks import assert_problem
from tests.servers import Installation

TODAY = datetime.now(UTC).date()  # these tests do not run over midnight, or they see two days


@pytest.fixture
def operator(installation: Installation) -> Iterator[httpx.Client]:
    with installation.client_of("otto") as client:
        yield client


@pytest.fixture
def mira(installation: Installation) -> Iterator[httpx.Client]:
    with installation.client_of("mira") as client:
        yield client


def uid_of(client: httpx.Client) -> str:
    return str(client.get("/api/auth/me").json()["user"]["id"])


def spend(installation: Installation, subject: str, seconds: int) -> None:
    with installation.valkey.client() as redis:
        for key, prefixes in ((f"{TODAY:%Y-%m}", (f"{TODAY:%d}:", "*:")), ("all", ("",))):
            for prefix in prefixes:
                redis.hset(f"uc:1:{{{subject}}}:{key}", f"{prefix}minutes.ok", seconds)


def test_minutes_are_the_same_for_their_user_an_operator_csv_and_the_command_line(
    installation: Installation, operator: httpx.Client, mira: httpx.Client
) -> None:
    uid = uid_of(mira)
    spend(installation, uid, 5432)
    shown = {"ok": 90.53, "seconds": 5432}

    def numbers(row: Any) -> dict[str, Any]:
        return {name: row[name] for name in shown}

    own = mira.get("/api/usage").json()["usage"]
    assert [numbers(own[period]["minutes"]) for period in ("today", "month", "total")] == [shown] * 3
    assert "seconds" not in own["total"].get("api", {})
    query = {"user": "mira", "action": "minutes"}
    (row,) = operator.get("/api/admin/usage", params=query).json()["items"]
    assert numbers(row) == shown
    assert "money" not in row, "the policy has no prices"
    text = operator.get("/api/admin/usage", params={**query, "format": "csv"}).text
    (cells,) = csv.DictReader(io.StringIO(text))
    assert (cells["username"], cells["ok"], cells["seconds"]) == ("mira", "90.53", "5432")
    done = installation.command("usage", "show", "--user", "mira", "--action", "minutes", "--format", "csv")
    assert done.stdout.splitlines() == text.splitlines()
    assert "90.53" in installation.command("usage", "show", "--user", "mira", "--action", "minutes").stdout
    detail = operator.get("/api/admin/usage/users/mira").json()
    assert detail["user_id"] == uid
    assert numbers(detail["items"][-1]["usage"]["minutes"]) == shown
    assert_problem(operator.get("/api/admin/usage/users/nobody"), 404, "not_found")
    assert_problem(operator.get("/api/admin/usage/top", params={"counter": "money"}), 400, "invalid_request")


def credit(installation: Installation, stay: Stay) -> None:
    async def work() -> None:
        store = Store(connect(installation.valkey.url), deadline_s=5)
        await Stays(store.execute, Derived(store.execute, store.post)).credit([stay])
        await store.execute("PING")  # everything posted before it has arrived
        await store.close()

    asyncio.run(work())


def test_people_in_rooms_are_shown_by_name_until_they_leave(
    installation: Installation, operator: httpx.Client, mira: httpx.Client
) -> None:
    with installation.client_of("hanna") as host:
        room = host.post("/api/rooms", json={"name": "Stand-up"}).json()["room"]

    def present() -> dict[str, Any]:
        live = operator.get("/api/admin/rooms/live").json()
        return next((one for one in live["rooms"] if one["room_id"] == room["id"]), {})

    now_ms = int(time.time() * 1000)
    stay = Stay(room["id"], "session", "peer", uid_of(mira), "guest", now_ms - 125_000, now_ms, OPEN, now_ms)
    assert not present()
    credit(installation, stay)
    shown = present()
    assert (shown["name"], shown["owner"], shown["owner_id"]) == ("Stand-up", "hanna", room["owner_id"])
    assert [(one["username"], one["role"]) for one in shown["people"]] == [("mira", "guest")]
    listed = json.loads(installation.command("usage", "live", "--json").stdout)
    assert shown in listed["rooms"]
    rows = csv.DictReader(io.StringIO(installation.command("usage", "live", "--csv").stdout))
    assert ("Stand-up", "hanna", "mira") in {(row["room"], row["owner"], row["user"]) for row in rows}
    table = installation.command("usage", "live").stdout
    assert all(text in table for text in ("Stand-up", room["id"], "mira", "2 min")), table
    credit(installation, msgspec.structs.replace(stay, rank=ENDED, left_ms=now_ms + 1000))
    assert not present()
    (day,) = operator.get(f"/api/admin/usage/rooms/{room['id']}").json()["items"]
    assert (day["usage"]["minutes"]["seconds"], day["people_peak"]) == (126, 1)
    shown = installation.command("usage", "show", "--room", room["id"]).stdout
    assert "Most people at the same time in the room: 1, on " in shown
    by_room = operator.get("/api/admin/usage", params={"group_by": "room", "action": "minutes"}).json()["items"]
    assert [(row["room_id"], row["ok"], row["people_peak"]) for row in by_room] == [(room["id"], 2.1, 1)]
    file = installation.command("usage", "show", "--group-by", "room", "--action", "minutes", "--format", "csv").stdout
    (cells,) = csv.DictReader(io.StringIO(file))
    assert (cells["room_id"], cells["people_peak"], cells["time_zone"]) == (room["id"], "1", "UTC")
    top = operator.get("/api/admin/usage/top", params={"counter": "owned"}).json()["items"]
    assert [(row["username"], row["seconds"]) for row in top] == [("hanna", 126)]
    (cells,) = csv.DictReader(io.StringIO(installation.command("usage", "top", "--counter", "owned", "--csv").stdout))
    assert (cells["username"], cells["count"], cells["seconds"], cells["period"]) == (
        "hanna",
        "2.10",
        "126",
        str(TODAY),
    )
    assert_problem(mira.get("/api/admin/rooms/live"), 403, "forbidden")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"format": "xml"}, "format"),
        ({"group_by": "week"}, "group_by"),
        ({"group_by": "room", "user": "mira"}, "group_by"),
        ({"room": "x"}, "room"),
        ({"action": "rooms.list"}, "action"),
    ],
    ids=str,
)
def test_a_report_that_does_not_exist_is_refused_by_field(
    operator: httpx.Client, query: dict[str, str], field: str
) -> None:
    assert_problem(operator.get("/api/admin/usage", params=query), 400, "invalid_request", field=field)


def test_a_cursor_of_users_is_none_of_rooms_and_none_of_a_file(operator: httpx.Client) -> None:
    cursor = operator.get("/api/admin/usage", params={"limit": 1}).json()["next_cursor"]
    assert cursor
    for other in ({"group_by": "room"}, {"group_by": "day"}, {"format": "csv"}):
        answer = operator.get("/api/admin/usage", params={"cursor": cursor, **other})
        assert_problem(answer, 400, "invalid_request", field="cursor")


def test_an_export_replaces_its_file_only_when_it_is_complete(installation: Installation) -> None:
    path = installation.folder / "report.json"
    path.write_text("old")
    failed = installation.command("usage", "export", "--out", "report.json", "--user", "nobody")
    assert (failed.returncode, path.read_text()) == (1, "old")
    done = installation.command("usage", "export", "--out", "report.json", "--format", "json", "--group-by", "user")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert {"user_id", "username", "action", "ok"} <= json.loads(path.read_text())[0].keys()
    failed = installation.command("usage", "export", "--out", "nosuch/report.csv")
    assert failed.stderr == "gateway: cannot write nosuch/report.csv: No such file or directory\n"

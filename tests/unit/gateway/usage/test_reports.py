"""Reports of users and rooms, grouped in every way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from msgspec import UNSET

from auth import Execute
from auth.accounts import Accounts
from auth.errors import UnknownUser
from auth.service_keys import NewKey, ServiceKeys
from gateway.policy.model import Prices
from gateway.text import FieldError
from gateway.usage.history import History
from gateway.usage.query import Query
from gateway.usage.reports import Reports
from gateway.usage.rows import UsageRow
from gateway.usage.subjects import Subjects
from limits.counters import Counters
from limits.derived import Derived
from tests.fake_redis import fake_redis

DAYS = date(2026, 10, 31), date(2026, 11, 22)
HANNA, MARK = "u" + "h" * 20, "u" + "m" * 20
STANDUP, LECTURE, OLDER = "a" * 24, "b" * 24, "c" * 24
PRICES = Prices("EUR", Decimal(4))
ZONE = "America/St_Johns"


@pytest.fixture
async def execute() -> AsyncIterator[Execute]:
    redis = fake_redis()
    yield redis.execute_command
    await redis.aclose()


@pytest.fixture
async def reports(execute: Execute) -> Reports:
    for number, (uid, name) in enumerate([(HANNA, "hanna"), (MARK, "mark")]):
        await write(execute, f"u:1:{{{uid}}}", username=name, roles="host", status="active", ver=1, created_ms=number)
        await execute("ZADD", "ui:1", number, uid)
        await execute("SET", f"un:1:{name}", uid)
    rooms = [(STANDUP, "default", 3), (LECTURE, "webinar", 3), (OLDER, "default", 1)]
    for room, template, at_ms in rooms:
        row = {"name": f"room {room[0]}", "description": "", "access": "open", "template": template, "owner": HANNA}
        await write(execute, f"rm:1:{{{room}}}", **row, enabled=1, created_ms=at_ms)
        await execute("ZADD", "ra:1", at_ms, room)
        await write(execute, f"rc:1:{{{room}}}:2026-11", **{"22:minutes.ok": 60, "22:tokens.mint.ok": at_ms})
    await write(
        execute, f"rc:1:{{{STANDUP}}}:2026-11", **{"21:minutes.ok": 30, "22:people.peak": 4, "*:minutes.ok": 90}
    )
    november = {"21:tokens.mint.ok": 1, "22:tokens.mint.ok": 4, "22:minutes.ok": 90, "*:tokens.mint.ok": 5}
    await write(execute, f"uc:1:{{{HANNA}}}:2026-11", **november, **{"22:owned.ok": 210, "22:people.peak": 4})
    await write(execute, f"dn:1:{{{HANNA}}}:2026-11", **{"22:tokens.mint.denied.api": 2})
    await write(execute, f"uc:1:{{{MARK}}}:2026-10", **{"31:tokens.mint.ok": 2, "31:minutes.ok": 120})
    total = {"21:tokens.mint.ok": 1, "22:tokens.mint.ok": 4, "22:minutes.ok": 90, "22:tokens.mint.denied.api": 2}
    await write(execute, "uc:1:{all}:2026-11", **total)
    await write(execute, "uc:1:{all}:2026-10", **{"31:tokens.mint.ok": 2, "31:minutes.ok": 120})
    subjects = Subjects(Accounts(execute), ServiceKeys(execute))
    return Reports(execute, subjects, History(Counters(execute)), Derived(execute, lambda *_: None), zone=lambda: ZONE)


async def write(execute: Execute, key: str, **fields: Any) -> None:
    await execute("HSET", key, *(word for item in fields.items() for word in item))


def facts(rows: list[UsageRow], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(getattr(row, name) for name in (*names, "action", "ok")) for row in rows]


async def test_by_default_a_row_is_a_users_day_and_action(reports: Reports) -> None:
    rows, _ = await reports.page(Query(DAYS))
    assert facts(rows, "date", "username") == [
        ("2026-11-21", "hanna", "tokens.mint", 1),
        ("2026-11-22", "hanna", "minutes", 1.5),
        ("2026-11-22", "hanna", "owned", 3.5),
        ("2026-11-22", "hanna", "tokens.mint", 4),
        ("2026-10-31", "mark", "minutes", 2),
        ("2026-10-31", "mark", "tokens.mint", 2),
    ]


async def test_users_are_summed_over_the_days(reports: Reports) -> None:
    rows, _ = await reports.page(Query(DAYS, "user"))
    assert facts(rows, "user_id") == [
        (HANNA, "minutes", 1.5),
        (HANNA, "owned", 3.5),
        (HANNA, "tokens.mint", 5),
        (MARK, "minutes", 2),
        (MARK, "tokens.mint", 2),
    ]
    assert rows[2].denied == {"api": 2}


async def test_days_and_actions_are_summed_over_all_users(reports: Reports) -> None:
    assert facts((await reports.page(Query(DAYS, "day")))[0], "date") == [
        ("2026-10-31", "minutes", 2),
        ("2026-10-31", "tokens.mint", 2),
        ("2026-11-21", "tokens.mint", 1),
        ("2026-11-22", "minutes", 1.5),
        ("2026-11-22", "tokens.mint", 4),
    ]
    rows, _ = await reports.page(Query(DAYS, "action"))
    assert facts(rows) == [("minutes", 3.5), ("tokens.mint", 7)]
    assert rows[1].denied == {"api": 2}


async def test_rooms_and_templates_are_summed_over_the_days(reports: Reports) -> None:
    rows, _ = await reports.page(Query(DAYS, "room", action="minutes"))
    assert facts(rows, "room_id", "room_name", "owner_id") == [
        (LECTURE, "room b", HANNA, "minutes", 1),
        (STANDUP, "room a", HANNA, "minutes", 1.5),
        (OLDER, "room c", HANNA, "minutes", 1),
    ]
    rows, _ = await reports.page(Query(DAYS, "template"))
    assert facts(rows, "template") == [
        ("default", "minutes", 2.5),
        ("default", "tokens.mint", 4),
        ("webinar", "minutes", 1),
        ("webinar", "tokens.mint", 3),
    ]


async def test_rows_of_time_have_the_most_people_at_once_which_is_no_sum(reports: Reports, execute: Execute) -> None:
    await write(execute, f"rc:1:{{{STANDUP}}}:2026-11", **{"21:people.peak": 3})
    await write(execute, f"uc:1:{{{HANNA}}}:2026-11", **{"21:people.peak": 5, "21:owned.ok": 60})
    await write(execute, "uc:1:{all}:2026-11", **{"22:people.peak": 6})

    async def peaks(query: Query, *names: str) -> list[tuple[Any, ...]]:
        rows, _ = await reports.page(query)
        return [(*fact[:-1], row.people_peak) for row, fact in zip(rows, facts(rows, *names), strict=True)]

    assert await peaks(Query(DAYS, "room", action="minutes"), "room_id") == [
        (LECTURE, "minutes", UNSET), (STANDUP, "minutes", 4), (OLDER, "minutes", UNSET),
    ]  # fmt: skip
    assert await peaks(Query(DAYS, "user")) == [
        ("minutes", UNSET), ("owned", 5), ("tokens.mint", UNSET), ("minutes", UNSET), ("tokens.mint", UNSET)
    ]  # fmt: skip
    assert ("2026-11-22", "owned", 4) in await peaks(Query(DAYS), "date")
    assert await peaks(Query(DAYS, "day", action="minutes"), "date") == [
        ("2026-10-31", "minutes", UNSET), ("2026-11-22", "minutes", 6)
    ]  # fmt: skip
    assert await peaks(Query(DAYS, room=STANDUP, action="minutes")) == [("minutes", 3), ("minutes", 4)]
    for of_templates in (Query(DAYS, "template"), Query(DAYS, "template", room=STANDUP)):
        assert {row.people_peak for row in (await reports.page(of_templates))[0]} == {UNSET}


async def test_days_say_in_which_zone_they_were_counted(reports: Reports, execute: Execute) -> None:
    assert (await reports.zones_of(DAYS)).text == "UTC", "they are of an older gateway"
    await write(execute, "uc:1:{all}:2026-11", **{f"22:zone.{ZONE}": 1, "22:zone.UTC": 1})
    zones = await reports.zones_of(DAYS)
    assert (zones.of_day("2026-11-21"), zones.of_day("2026-11-22")) == ("UTC", f"UTC, {ZONE}")
    assert (await reports.zones_of((date(2026, 11, 1), date(2026, 11, 2)))).text == ZONE


async def test_a_report_of_one_user_or_room_is_grouped_like_any_other(reports: Reports) -> None:
    one, _ = await reports.page(Query(DAYS, "action", user=HANNA))
    assert facts(one) == [("minutes", 1.5), ("owned", 3.5), ("tokens.mint", 5)]
    room, _ = await reports.page(Query(DAYS, room=STANDUP, action="minutes"))
    assert facts(room, "date", "room_name") == [
        ("2026-11-21", "room a", "minutes", 0.5),
        ("2026-11-22", "room a", "minutes", 1),
    ]
    assert facts((await reports.page(Query(DAYS, "template", room=LECTURE, action="minutes")))[0], "template") == [
        ("webinar", "minutes", 1)
    ]
    assert await reports.page(Query(DAYS, room="0" * 24)) == ([], None)


@pytest.mark.parametrize("group_by", [None, "user", "room"])
async def test_pages_of_any_size_hold_every_row_once(reports: Reports, group_by: Any) -> None:
    query = Query(DAYS, group_by)
    whole, end = await reports.page(query)
    assert end is None
    rows, after = await reports.page(query, size=1)
    while after is not None:
        assert len(rows) < len(whole)
        more, after = await reports.page(query, after=after, size=1)
        rows += more
    assert rows == whole


async def test_months_are_sums_of_days_with_the_most_people_of_one(reports: Reports) -> None:
    everyone, _ = await reports.page(Query(DAYS, "month"))
    assert facts(everyone, "month") == [
        ("2026-10", "minutes", 2),
        ("2026-10", "tokens.mint", 2),
        ("2026-11", "minutes", 1.5),
        ("2026-11", "tokens.mint", 5),
    ]
    assert {row.date for row in everyone} == {UNSET}
    assert everyone[-1].denied == {"api": 2}
    hanna, _ = await reports.page(Query(DAYS, "month", user=HANNA))
    assert facts(hanna, "month") == [
        ("2026-11", "minutes", 1.5),
        ("2026-11", "owned", 3.5),
        ("2026-11", "tokens.mint", 5),
    ]
    assert hanna[1].people_peak == 4
    room, _ = await reports.page(Query(DAYS, "month", room=STANDUP))
    assert facts(room, "month") == [("2026-11", "minutes", 1.5), ("2026-11", "tokens.mint", 3)]
    assert room[0].people_peak == 4


async def test_the_total_of_a_top_list_is_that_of_everyone(reports: Reports) -> None:
    counts = {name: await reports.total("2026-11", name) for name in ("minutes", "tokens.mint.ok", "denials", "owned")}
    assert counts == {"minutes": 90, "tokens.mint.ok": 5, "denials": 2, "owned": None}
    assert await reports.total("2026-11-21", "tokens.mint.ok") == 1
    assert await reports.total("2026-09", "tokens.mint.denied.api") == 0


async def test_the_top_of_minutes_money_and_denials(reports: Reports, execute: Execute) -> None:
    await execute("ZADD", "tp:1:2026-11:minutes.ok", 90, HANNA, 120, MARK)
    await execute("ZADD", "tp:1:2026-11:owned.ok", 60_000, HANNA)
    await execute("ZADD", "tp:1:2026-11:denials", 2, HANNA)
    minutes = await reports.top("2026-11", "minutes", 10)
    assert [(row.username, row.count, row.seconds) for row in minutes] == [("mark", 2, 120), ("hanna", 1.5, 90)]
    (money,) = await reports.top("2026-11", "money", 10, PRICES)
    assert (money.username, money.count, money.money) == ("hanna", 1000, Decimal("4.00"))
    assert [row.count for row in await reports.top("2026-11", "denials", 10)] == [2]
    with pytest.raises(FieldError, match="prices"):
        await reports.top("2026-11", "money", 10)
    with pytest.raises(FieldError, match=r"did you mean tokens\.mint"):
        await reports.top("2026-11", "token.mint.ok", 10)


async def test_details_have_a_series_of_days_with_the_peak_of_people(reports: Reports) -> None:
    room = await reports.of_room(STANDUP, DAYS)
    assert [(day.date, day.usage["minutes"].seconds, day.people_peak) for day in room] == [
        ("2026-11-21", 30, 0),
        ("2026-11-22", 60, 4),
    ]
    user = await reports.of_user(HANNA, DAYS)
    assert [(day.date, sorted(day.usage), day.people_peak) for day in user] == [
        ("2026-11-21", ["tokens.mint"], 0),
        ("2026-11-22", ["minutes", "owned", "tokens.mint"], 4),
    ]


async def test_a_deleted_user_is_found_by_id_and_keeps_their_usage(reports: Reports, execute: Execute) -> None:
    await execute("HDEL", f"u:1:{{{MARK}}}", "username")
    rows, _ = await reports.page(Query(DAYS, "action", user=MARK, action="minutes"))
    assert facts(rows) == [("minutes", 2)]
    assert (await reports.find_user(MARK)).username == ""
    for nobody in ("nobody", "u" + "n" * 20, "all", ""):
        with pytest.raises(UnknownUser):
            await reports.find_user(nobody)


async def test_service_keys_come_after_the_users_by_their_names(reports: Reports, execute: Execute) -> None:
    keys = ServiceKeys(execute)
    ids = [(await keys.add(NewKey(name, ["audit:read"]), by="cli"))[0].id for name in ("crm", "billing", "old")]
    for number, key_id in enumerate(ids):
        await execute("HSET", f"sk:1:{{{key_id}}}", "created_ms", number)
        await execute("ZADD", "ki:1", number, key_id)
        await write(execute, f"uc:1:{{{key_id}}}:2026-11", **{"22:act-as.ok": number + 1, "*:act-as.ok": number + 1})
    await keys.revoke(ids[2])
    whole, _ = await reports.page(Query(DAYS, "user", action="act-as"))
    assert facts(whole, "username") == [("crm", "act-as", 1), ("billing", "act-as", 2), ("old", "act-as", 3)]
    assert [row.user_id for row in whole] == ids
    rows: list[UsageRow] = []
    sizes = []
    async for page, _ in reports.pages(Query(DAYS)):
        rows += page
        sizes.append(len(page))
    assert [row.username for row in rows if row.action == "act-as"] == ["crm", "billing", "old"]
    paged, after = await reports.page(Query(DAYS, "user", action="act-as"), size=2)
    assert [row.username for row in paged] == ["crm", "billing"]
    paged, after = await reports.page(Query(DAYS, "user", action="act-as"), after=after, size=2)
    assert ([row.username for row in paged], after) == (["old"], None)
    one, _ = await reports.page(Query(DAYS, "user", user=ids[1]))
    assert facts(one, "username") == [("billing", "act-as", 2)]
    assert (await reports.find_user("billing")).id == ids[1]
    assert (await reports.find_user("hanna")).id == HANNA
    await execute("ZADD", "tp:1:2026-11:act-as.ok", 2, ids[1], 1, ids[0])
    assert [row.username for row in await reports.top("2026-11", "act-as.ok", 10)] == ["billing", "crm"]
    with pytest.raises(UnknownUser, match="no service key"):
        await reports.find_user("gwk_aaaaaaaaaaaa")

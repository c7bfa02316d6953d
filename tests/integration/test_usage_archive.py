"""The archive of usage, with the same claims for SQLite and for a real PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from auth.accounts import Accounts
from auth.service_keys import ServiceKeys
from gateway.redis.store import Store
from gateway.usage.archive import Archive, ArchiveError, Row
from gateway.usage.history import History
from gateway.usage.query import GroupBy, Query
from gateway.usage.reports import Reports
from gateway.usage.rollup import CHANGED, HOT_DAYS, RollUp
from gateway.usage.rows import UsageRow
from gateway.usage.subjects import Subjects
from limits.counters import Counters
from limits.derived import Derived
from limits.periods import months_between
from tests.postgres import Postgres, find

TODAY = date(2026, 11, 29)
YESTERDAY = TODAY - timedelta(days=1)
OLD = TODAY - timedelta(days=100)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    if find("pg_ctl") is None and "CI" not in os.environ:
        pytest.skip("PostgreSQL is not installed")
    with Postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
async def archive(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Archive]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/folder/usage.db"
    else:
        url = request.getfixturevalue("postgres").url
    archive = Archive(url)
    if request.param == "postgres":
        await archive._run(lambda cursor: cursor.execute("TRUNCATE usage_days, usage_state"))
    yield archive
    await archive.close()


async def add_user(store: Store, uid: str) -> None:
    await store.execute(
        "HSET",
        f"u:1:{{{uid}}}",
        "username",
        uid.lower(),
        "display_name",
        "",
        "roles",
        "member",
        "status",
        "active",
        "ver",
        1,
        "created_ms",
        1,
    )
    await store.execute("ZADD", "ui:1", 1, uid)


async def count(store: Store, subject: str, day: date, metric: str, value: int, *, kind: str = "uc") -> None:
    key = f"{kind}:1:{{{subject}}}:{day:%Y-%m}"
    await store.execute("HSET", key, f"{day:%d}:{metric}", value, f"*:{metric}", value)


def roll_up_of(store: Store, archive: Archive) -> RollUp:
    return RollUp(store.execute, subjects_of(store), archive)


def subjects_of(store: Store) -> Subjects:
    return Subjects(Accounts(store.execute), ServiceKeys(store.execute))


async def test_rows_of_the_same_day_subject_and_metric_are_replaced(archive: Archive) -> None:
    first, second = Row(YESTERDAY, "A", "tokens.mint.ok", 3), Row(YESTERDAY, "A", "tokens.mint.ok", 2)
    other = Row(YESTERDAY, "B", "minutes.ok", 2**40)
    await archive.write("user", [first, other])
    await archive.write("user", [second])
    assert await archive.read("user", ["A", "B", "C"], OLD, TODAY) == [second, other]
    assert await archive.read("room", ["A", "B"], OLD, TODAY) == []
    assert await archive.subjects("user", YESTERDAY, YESTERDAY) == ["A", "B"]


async def test_a_span_contains_its_first_and_last_day_and_no_other(archive: Archive) -> None:
    rows = [Row(OLD + timedelta(days=n), "A", "api.ok", n) for n in range(4)]
    await archive.write("user", rows)
    assert await archive.read("user", ["A"], OLD + timedelta(days=1), OLD + timedelta(days=2)) == rows[1:3]


async def test_more_subjects_than_one_query_takes_are_read(archive: Archive) -> None:
    rows = [Row(OLD, f"S{n:04}", "api.ok", n) for n in range(1234)]
    await archive.write("user", rows)
    assert await archive.read("user", [row.subject for row in rows], OLD, OLD) == rows


async def test_a_failed_write_leaves_nothing_behind(archive: Archive) -> None:
    with pytest.raises(ArchiveError):
        await archive.write("user", [Row(OLD, "A", "api.ok", 1), Row(OLD, "B", "api.ok", None)])  # type: ignore[arg-type]
    assert await archive.read("user", ["A", "B"], OLD, OLD) == []


async def test_a_day_that_a_new_zone_of_reports_has_begun_again_is_copied_again(store: Store, archive: Archive) -> None:
    """West of the old zone it is an earlier day, which has been copied as finished."""
    zone = ["Etc/GMT-12"]
    roll_up = RollUp(store.execute, subjects_of(store), archive, zone=lambda: zone[0])
    await roll_up.work()
    through = await roll_up.through()
    assert through
    zone[0] = "Etc/GMT+12"
    await roll_up.work()
    assert await roll_up.through() == through - timedelta(days=1), "24 hours apart"
    await count(store, "all", through, "minutes.ok", 5)
    await count(store, "all", through, "zone.Etc/GMT+12", 1)
    assert through in await roll_up.run(today=through + timedelta(days=1))
    rows = await archive.read("all", ["all"], through, through)
    assert [(row.metric, row.value) for row in rows] == [("minutes.ok", 5), ("zone.Etc/GMT+12", 1)]
    reports = Reports(
        store.execute, subjects_of(store), History(Counters(store.execute), archive), Derived(store.execute, store.post)
    )
    assert (await reports.zones_of((through, through))).text == "Etc/GMT+12"


async def test_a_roll_up_copies_finished_days_once_and_changed_days_again(store: Store, archive: Archive) -> None:
    await add_user(store, "USER")
    await store.execute("ZADD", "ra:1", 1, "a" * 24)
    for day, value in ((OLD, 5), (YESTERDAY, 7), (TODAY, 9)):
        await count(store, "USER", day, "tokens.mint.ok", value)
    await count(store, "USER", YESTERDAY, "tokens.mint.denied.api", 1, kind="dn")
    await count(store, "a" * 24, YESTERDAY, "minutes.ok", 61, kind="rc")
    await count(store, "all", YESTERDAY, "minutes.ok", 62)
    roll_up = roll_up_of(store, archive)
    assert YESTERDAY in await roll_up.run(today=TODAY)

    async def copied(kind: str, subject: str) -> list[tuple[date, str, int]]:
        rows = await archive.read(kind, [subject], OLD, TODAY)  # type: ignore[arg-type]
        return [(row.day, row.metric, row.value) for row in rows]

    assert await copied("user", "USER") == [
        (OLD, "tokens.mint.ok", 5), (YESTERDAY, "tokens.mint.denied.api", 1), (YESTERDAY, "tokens.mint.ok", 7),
    ]  # fmt: skip
    assert await copied("room", "a" * 24) == [(YESTERDAY, "minutes.ok", 61)]
    assert await copied("all", "all") == [(YESTERDAY, "minutes.ok", 62)]

    assert await roll_up.run(today=TODAY) == []
    tomorrow = TODAY + timedelta(days=1)
    assert await roll_up.run(today=tomorrow) == [TODAY - timedelta(days=HOT_DAYS), TODAY]
    await count(store, "USER", YESTERDAY, "tokens.mint.ok", 8)
    await store.execute("SADD", CHANGED, YESTERDAY.isoformat(), tomorrow.isoformat())
    assert await roll_up.run(today=tomorrow) == [YESTERDAY]
    assert (YESTERDAY, "tokens.mint.ok", 8) in await copied("user", "USER")
    assert await store.execute("SMEMBERS", CHANGED) == [tomorrow.isoformat().encode()], "it is not finished"


async def test_the_gateway_copies_what_is_due_and_reports_an_outage_once(
    store: Store, archive: Archive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    roll_up = roll_up_of(store, archive)
    with monkeypatch.context() as broken:

        async def fail(*_: object) -> None:
            raise ArchiveError("the disk is full")

        broken.setattr(archive, "write", fail)
        await count(store, "all", datetime.now(UTC).date() - timedelta(days=2), "api.ok", 1)
        for _ in range(2):
            assert await roll_up.work() > 0
    assert caplog.messages == ["the disk is full"]
    await roll_up.work()
    assert await roll_up.through() in {datetime.now(UTC).date() - timedelta(days=n) for n in (1, 2)}


async def test_a_roll_up_that_crashed_is_continued(
    store: Store, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_user(store, "USER")
    roll_up = roll_up_of(store, archive)
    await roll_up.run(today=TODAY)
    await count(store, "USER", OLD, "api.ok", 4)
    await store.execute("SADD", CHANGED, OLD.isoformat())
    with monkeypatch.context() as broken:

        async def fail(*_: object) -> None:
            raise ArchiveError("full")

        broken.setattr(archive, "write", fail)
        with pytest.raises(ArchiveError):
            await roll_up.run(today=TODAY)
    assert await roll_up.run(today=TODAY) == [OLD]
    assert await archive.read("user", ["USER"], OLD, OLD) == [Row(OLD, "USER", "api.ok", 4)]


async def test_redis_forgets_months_that_are_copied_and_too_old_to_change(store: Store, archive: Archive) -> None:
    await add_user(store, "USER")
    oldest_hot = TODAY - timedelta(days=HOT_DAYS)
    for day in (OLD, oldest_hot):
        await count(store, "USER", day, "api.ok", 1)
    await roll_up_of(store, archive).run(today=TODAY)
    assert 0 < await store.execute("TTL", f"uc:1:{{USER}}:{OLD:%Y-%m}") <= 86_400
    assert await store.execute("TTL", f"uc:1:{{USER}}:{oldest_hot:%Y-%m}") == -1


@pytest.mark.parametrize("group_by", [None, "day", "user", "action", "room", "template"])
async def test_reports_from_the_archive_equal_those_from_redis(
    store: Store, archive: Archive, group_by: GroupBy | None
) -> None:
    rooms = ["a" * 24, "b" * 24]
    for n, room in enumerate(rooms):
        await store.execute("HSET", f"rm:1:{{{room}}}", "name", f"Room {n}", "description", "", "access", "open",
                            "template", "default", "owner", "U", "enabled", 1, "created_ms", n + 1)  # fmt: skip
        await store.execute("ZADD", "ra:1", n + 1, room)
    for n, uid in enumerate(("U", "V")):
        await add_user(store, uid)
        for days in range(0, 90, 7):
            day = datetime.now(UTC).date() - timedelta(days=days)
            await count(store, uid, day, "tokens.mint.ok", days + n + 1)
            await count(store, uid, day, "minutes.ok", 61 * (days + 1))
            await count(store, "all", day, "minutes.ok", 122 * (days + 1))
            await count(store, rooms[n], day, "minutes.ok", 61 * (days + 1), kind="rc")
    today = datetime.now(UTC).date()
    query = Query((today - timedelta(days=89), today), group_by=group_by)

    async def report(used: Archive | None) -> list[UsageRow]:
        history = History(Counters(store.execute), used)
        reports = Reports(store.execute, subjects_of(store), history, Derived(store.execute, store.post))
        return [row async for rows, _ in reports.pages(query) for row in rows]

    expected = await report(None)
    await roll_up_of(store, archive).run()
    for kind, subjects in (("uc", ("U", "V", "all")), ("rc", rooms)):
        for subject in subjects:
            for month in months_between(today - timedelta(days=89), today - timedelta(days=HOT_DAYS)):
                if month < f"{today - timedelta(days=HOT_DAYS):%Y-%m}":
                    await store.execute("DEL", f"{kind}:1:{{{subject}}}:{month}")
    assert expected
    assert await report(archive) == expected
    assert await report(None) != expected, "Redis alone has forgotten old months"


async def test_an_archive_that_cannot_be_opened_is_named_without_its_password(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for url in ("postgresql://user:hunter2@127.0.0.1:1/db", f"sqlite:///{tmp_path}/file/usage.db"):
        with pytest.raises(ArchiveError) as refusal:
            await Archive(url).read("user", ["A"], OLD, OLD)
        assert "hunter2" not in str(refusal.value)
        assert str(refusal.value).startswith("the archive cannot be used: ")


async def test_the_archive_comes_back_after_the_database_was_restarted(postgres: Postgres) -> None:
    archive = Archive(postgres.url)
    await archive.write("user", [Row(OLD, "A", "api.ok", 1)])
    postgres.restart()
    with pytest.raises(ArchiveError):
        await archive.read("user", ["A"], OLD, OLD)
    assert await archive.read("user", ["A"], OLD, OLD) == [Row(OLD, "A", "api.ok", 1)]
    await archive.close()


async def test_the_commands_of_the_page_copy_an_archive_into_an_empty_database(
    postgres: Postgres, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    dump, restore = (re.search(rf"`({program} [^`]*)`", page) for program in ("pg_dump", "psql"))
    assert dump is not None
    assert restore is not None
    archive = Archive(postgres.url)
    await archive.write("user", [Row(OLD, "A", "api.ok", 1)])
    before = await archive.read("user", ["A"], OLD, TODAY)
    assert before
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE another")
    copy = Archive(postgres.url.replace("/postgres", "/another"))
    for command, url in ((dump[1], archive), (restore[1], copy)):
        env = {"PATH": f"{Path(find('pg_dump') or '').parent}:{os.environ['PATH']}", "GATEWAY_ARCHIVE": url._url}
        await asyncio.to_thread(subprocess.run, ["bash", "-ec", command], cwd=tmp_path, env=env, check=True, timeout=30)
    assert await copy.read("user", ["A"], OLD, TODAY) == before
    for one in (archive, copy):
        await one.close()

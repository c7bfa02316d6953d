"""Daily counters from two places read as one."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from gateway.usage.archive import Archive, Row
from gateway.usage.history import History
from gateway.usage.rollup import HOT_DAYS, THROUGH
from limits import Execute
from limits.counters import ALL, Counters
from tests.fake_redis import fake_redis

TODAY = datetime.now(UTC).date()
HOT = TODAY - timedelta(days=HOT_DAYS)  # the first day that is read from Redis
COLD = HOT - timedelta(days=1)


@pytest.fixture
def execute() -> Execute:
    return fake_redis().execute_command


@pytest.fixture
async def archive(tmp_path: object):  # type: ignore[no-untyped-def]
    archive = Archive(f"sqlite:///{tmp_path}/usage.db")
    yield archive
    await archive.close()


async def count(execute: Execute, key: str, day: date, value: int) -> None:
    await execute("HSET", f"{key}:{day:%Y-%m}", f"{day:%d}:api.ok", value)


async def test_recent_days_come_from_redis_and_older_ones_from_the_archive(execute: Execute, archive: Archive) -> None:
    for day in (COLD, HOT, TODAY):
        await count(execute, "uc:1:{U}", day, 1)
    await archive.write("user", [Row(day, "U", "api.ok", 2) for day in (COLD, HOT, TODAY)])
    await archive.set_state(THROUGH, (TODAY - timedelta(days=1)).isoformat())
    history = History(Counters(execute), archive)
    assert await history.daily("U", COLD, TODAY) == {COLD: {"api.ok": 2}, HOT: {"api.ok": 1}, TODAY: {"api.ok": 1}}
    assert await history.daily("U", COLD, COLD) == {COLD: {"api.ok": 2}}
    assert await history.daily("U", HOT, HOT) == {HOT: {"api.ok": 1}}


async def test_days_that_the_archive_does_not_have_yet_come_from_redis(execute: Execute, archive: Archive) -> None:
    await count(execute, "uc:1:{U}", COLD, 1)
    assert await History(Counters(execute), archive).daily("U", COLD, TODAY) == {COLD: {"api.ok": 1}}
    await archive.set_state(THROUGH, (COLD - timedelta(days=1)).isoformat())
    assert await History(Counters(execute), archive).daily("U", COLD, TODAY) == {COLD: {"api.ok": 1}}


async def test_users_rooms_and_totals_of_the_same_id_are_kept_apart(execute: Execute, archive: Archive) -> None:
    await archive.set_state(THROUGH, (TODAY - timedelta(days=1)).isoformat())
    for kind, value in (("user", 1), ("room", 2), ("all", 3)):
        await archive.write(kind, [Row(COLD, ALL, "api.ok", value), Row(COLD, "R", "api.ok", value)])  # type: ignore[arg-type]
    history = History(Counters(execute), archive)
    assert await history.daily("R", COLD, COLD) == {COLD: {"api.ok": 1}}
    assert await history.room_daily("R", COLD, COLD) == {COLD: {"api.ok": 2}}
    assert await history.daily(ALL, COLD, COLD) == {COLD: {"api.ok": 3}}


async def test_without_an_archive_every_day_comes_from_redis(execute: Execute) -> None:
    await count(execute, "rc:1:{R}", COLD, 1)
    assert await History(Counters(execute)).room_daily("R", COLD, TODAY) == {COLD: {"api.ok": 1}}

"""The contract of metering, for any Redis: what is credited, whatever the order and however often it is reported."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec import structs

from limits import Execute
from limits.metered import CONFIRMED, ENDED, MOST_MS, OPEN, Account, Interval, Metered

ACCOUNT = Account("sl:1:{ann}:2026-11", "op:1:{ann}", "uc:1:{ann}", "qt:1:{ann}", "minutes", counts_most=True)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def interval(name: str, start: int, left: int, rank: int = ENDED, stamp: int | None = None) -> Interval:
    stamp = left if stamp is None else stamp
    return Interval(name, f"open-{name}", start, left, rank, stamp, "note", "{}" if rank == OPEN else "")


async def counted(execute: Execute, key: str) -> dict[str, int]:
    return {name.decode(): int(value) for name, value in (await execute("HGETALL", key)).items()}


class MeteredContract:
    @pytest.fixture
    def metered(self, execute: Execute) -> Metered:
        return Metered(execute)

    async def test_seconds_are_those_between_floored_instants(self, metered: Metered, execute: Execute) -> None:
        start = ms("2026-11-22T10:00:00")
        done = await metered.credit(ACCOUNT, [interval("a", start + 999, start + 61_000)])
        assert done.each[0].change_s == 61
        assert await counted(execute, "uc:1:{ann}:2026-11") == {"22:minutes.ok": 61, "*:minutes.ok": 61}
        assert await counted(execute, "uc:1:{ann}:all") == {"minutes.ok": 61}

    async def test_an_interval_over_midnight_and_the_end_of_a_month_is_split(
        self, metered: Metered, execute: Execute
    ) -> None:
        start = ms("2026-11-30T23:59:00")
        done = await metered.credit(ACCOUNT, [interval("a", start, start + MOST_MS)])
        assert await counted(execute, "uc:1:{ann}:2026-11") == {"30:minutes.ok": 60, "*:minutes.ok": 60}
        december = {"01:minutes.ok": 86_400, "02:minutes.ok": 3540, "*:minutes.ok": 89_940}
        assert await counted(execute, "uc:1:{ann}:2026-12") == december
        assert done.periods == {
            "2026-11-30": 60, "2026-12-01": 86_400, "2026-12-02": 3540, "2026-11": 60, "2026-12": 89_940
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("zone", "start", "days", "months"),
        [
            # 90 minutes, of which the last half hour is in the next month.
            ("Asia/Kolkata", "2026-11-30T17:30:00", {"2026-11-30": 60, "2026-12-01": 30}, {"11": 60, "12": 30}),
            ("America/St_Johns", "2026-12-01T02:30:00", {"2026-11-30": 60, "2026-12-01": 30}, {"11": 60, "12": 30}),
            # On the days before and after it the zone has another offset.
            ("Europe/Berlin", "2026-10-24T21:00:00", {"2026-10-24": 60, "2026-10-25": 30}, {"10": 90}),
            ("Europe/Berlin", "2026-10-25T22:00:00", {"2026-10-25": 60, "2026-10-26": 30}, {"10": 90}),
            ("Europe/Berlin", "2027-03-31T21:00:00", {"2027-03-31": 60, "2027-04-01": 30}, {"03": 60, "04": 30}),
        ],
        ids=str,
    )
    async def test_an_interval_is_split_at_midnight_of_the_accounts_zone(
        self, metered: Metered, execute: Execute, zone: str, start: str, days: dict[str, int], months: dict[str, int]
    ) -> None:
        account = structs.replace(ACCOUNT, zone=zone)
        done = await metered.credit(account, [interval("a", ms(start), ms(start) + 90 * 60_000)])
        year = min(days)[:4]
        expected = {name: minutes * 60 for name, minutes in days.items()}
        assert done.periods == expected | {f"{year}-{month}": minutes * 60 for month, minutes in months.items()}
        stored = {}
        for month in months:
            counters = await counted(execute, f"uc:1:{{ann}}:{year}-{month}")
            stored |= {f"{year}-{month}-{name.partition(':')[0]}": count for name, count in counters.items()}
        assert stored == expected | {f"{year}-{month}-*": minutes * 60 for month, minutes in months.items()}
        corrected = interval("a", ms(start), ms(start) + 61 * 60_000, CONFIRMED)
        assert (await metered.credit(account, [corrected])).periods.pop(max(days)) == -29 * 60

    @pytest.mark.parametrize(
        ("start", "expected"),
        [("2026-10-24T22:00:00", [1, 25 * 3600 - 1]), ("2027-03-27T23:00:00", [1, 23 * 3600, 2 * 3600 - 1])],
    )
    async def test_a_day_on_which_the_clocks_change_has_23_or_25_hours(
        self, metered: Metered, start: str, expected: list[int]
    ) -> None:
        account = structs.replace(ACCOUNT, zone="Europe/Berlin")
        done = await metered.credit(account, [interval("a", ms(start) - 1000, ms(start) - 1000 + MOST_MS)])
        assert [count for name, count in sorted(done.periods.items()) if len(name) == 10] == expected

    async def test_a_repeated_report_changes_nothing(self, metered: Metered, execute: Execute) -> None:
        start = ms("2026-11-22T10:00:00")
        one = interval("a", start, start + 60_000)
        first = await metered.credit(ACCOUNT, [one, one])
        assert [(each.is_new, each.has_changed, each.change_s) for each in first.each] == [
            (True, True, 60),
            (False, False, 0),
        ]
        again = await metered.credit(ACCOUNT, [one])
        assert (again.each[0].has_changed, again.periods) == (False, {})
        assert (await counted(execute, "uc:1:{ann}:2026-11"))["*:minutes.ok"] == 60

    async def test_what_is_known_better_wins_in_any_order(self, metered: Metered, execute: Execute) -> None:
        start = ms("2026-11-22T10:00:00")
        reports = [
            interval("a", start, start + 50_000, CONFIRMED, stamp=start + 10**6),
            interval("a", start, start + 90_000, ENDED),
            interval("a", start, start + 120_000, OPEN),
        ]
        for order in (reports, reports[::-1]):
            await execute("FLUSHALL")
            for one in order:
                await metered.credit(ACCOUNT, [one])
            assert (await counted(execute, "uc:1:{ann}:2026-11"))["*:minutes.ok"] == 50
            assert await execute("HLEN", "op:1:{ann}") == 0

    async def test_an_open_interval_accrues_until_it_ends(self, metered: Metered, execute: Execute) -> None:
        start = ms("2026-11-22T10:00:00")
        await metered.credit(ACCOUNT, [interval("a", start, start, OPEN)])
        assert await execute("HGETALL", "op:1:{ann}") == {b"open-a": b"{}"}
        for left_s in (30, 20):  # the second report is late
            await metered.credit(ACCOUNT, [interval("a", start, start + left_s * 1000, OPEN)])
        assert (await counted(execute, "uc:1:{ann}:2026-11"))["*:minutes.ok"] == 30
        ended = await metered.credit(ACCOUNT, [interval("a", start, start + 25_000)])
        assert ended.each[0].change_s == -5
        assert await execute("EXISTS", "op:1:{ann}") == 0

    async def test_most_at_once_is_kept_for_day_and_month(self, metered: Metered, execute: Execute) -> None:
        start = ms("2026-11-22T10:00:00")
        await metered.credit(ACCOUNT, [interval(name, start, start, OPEN) for name in "abc"])
        await metered.credit(ACCOUNT, [interval(name, start, start + 5000) for name in "ab"])
        next_day = start + 86_400_000
        await metered.credit(ACCOUNT, [interval("d", next_day, next_day, OPEN)])
        peaks = {name: n for name, n in (await counted(execute, "uc:1:{ann}:2026-11")).items() if "people" in name}
        assert peaks == {"22:people.peak": 3, "23:people.peak": 2, "*:people.peak": 3}

    async def test_calendars_of_other_zones_have_counters_of_their_own(
        self, metered: Metered, execute: Execute
    ) -> None:
        start = ms("2026-11-22T22:59:30")  # half a minute before midnight in Berlin, of a Sunday
        zones = {("day", "Europe/Berlin"), ("week", "UTC"), ("week", "Europe/Berlin")}
        await metered.credit(ACCOUNT, [interval("a", start, start + 90_000)], zones)
        assert await counted(execute, "qt:1:{ann}") == {
            "minutes@day@Europe/Berlin:2026-11-22": 30,
            "minutes@day@Europe/Berlin:2026-11-23": 60,
            "minutes@week@UTC:2026-W47": 90,
            "minutes@week@Europe/Berlin:2026-W47": 30,
            "minutes@week@Europe/Berlin:2026-W48": 60,
        }

    async def test_periods_of_calendars_are_forgotten_when_they_ended_long_ago(
        self, metered: Metered, execute: Execute
    ) -> None:
        zones = {("day", "Europe/Berlin")}
        await execute("HSET", "qt:1:{ann}", "other", "2026-09-01:5")
        for text in ("2026-09-01T10:00:00", "2026-11-22T10:00:00"):
            await metered.credit(ACCOUNT, [interval(text, ms(text), ms(text) + 1000)], zones)
        fields = await execute("HKEYS", "qt:1:{ann}")
        assert sorted(fields) == [b"minutes@day@Europe/Berlin:2026-11-22", b"other"]

    async def test_everything_expires_but_the_counter_of_all_time(self, metered: Metered, execute: Execute) -> None:
        at = int(datetime.now(UTC).timestamp() * 1000)
        await metered.credit(ACCOUNT, [interval("a", at, at + 1000)], {("week", "UTC")})
        month = f"uc:1:{{ann}}:{datetime.now(UTC):%Y-%m}"
        day = 86_400_000
        lives = {key: await execute("PTTL", key) / day for key in (ACCOUNT.ledger, month, "qt:1:{ann}")}
        assert 40 < lives[ACCOUNT.ledger] <= 41
        assert 399 < lives[month] <= 400
        assert 61 < lives["qt:1:{ann}"] <= 62
        assert await execute("PTTL", "uc:1:{ann}:all") == -1
        earlier = at - 10 * day
        await metered.credit(ACCOUNT, [interval("b", earlier, earlier + 1000)])
        assert await execute("PTTL", ACCOUNT.ledger) / day > 40

    async def test_many_intervals_of_several_days_are_credited_to_their_days(
        self, metered: Metered, execute: Execute
    ) -> None:
        start = ms("2026-11-20T10:00:00")
        starts = [start + n % 3 * 86_400_000 for n in range(350)]
        many = [interval(f"i{n}", at, at + n * 1000) for n, at in enumerate(starts)]
        done = await metered.credit(ACCOUNT, many)
        assert [each.change_s for each in done.each] == list(range(350))
        assert (await counted(execute, "uc:1:{ann}:2026-11"))["*:minutes.ok"] == sum(range(350))

"""Calendar periods of named zones: each instant belongs to exactly one, even with daylight saving time."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limits.periods import PERIODS, US_PER_DAY, Span, day_of, day_span, months_between, span_of, zone_of

HOUR_S = 3600
ZONES = sorted(zone for zone in available_timezones() if zone not in ("localtime", "Factory"))


def us(zone: str, *when: int, fold: int = 0) -> int:
    return int(datetime(*when, tzinfo=ZoneInfo(zone), fold=fold).timestamp()) * 1_000_000  # type: ignore[misc,arg-type]


def day(zone: str, *when: int) -> Span:
    return span_of("day", zone, us(zone, *when, 12))


@pytest.mark.parametrize(
    ("zone", "when", "hours"),
    [
        ("Europe/Berlin", (2026, 3, 29), 23),
        ("Europe/Berlin", (2026, 10, 25), 25),
        ("America/New_York", (2026, 3, 8), 23),
        ("America/New_York", (2026, 11, 1), 25),
        ("Europe/Berlin", (2026, 11, 22), 24),
        ("Australia/Lord_Howe", (2026, 4, 5), 24.5),
        ("UTC", (2026, 3, 29), 24),
    ],
)
def test_daylight_saving_time_changes_the_length_of_a_day(zone: str, when: tuple[int, ...], hours: float) -> None:
    assert day(zone, *when).seconds == hours * HOUR_S


def test_a_day_begins_at_local_midnight_and_not_at_utc_midnight() -> None:
    berlin = day("Europe/Berlin", 2026, 7, 1)
    assert datetime.fromtimestamp(berlin.start_us / 1e6, UTC) == datetime(2026, 6, 30, 22, tzinfo=UTC)
    assert berlin.id == "2026-07-01"


@pytest.mark.parametrize(
    ("zone", "when"),
    [
        ("America/Sao_Paulo", (2018, 11, 4)),
        ("Africa/Cairo", (2026, 4, 24)),
        ("Asia/Beirut", (2026, 3, 29)),
        ("America/Havana", (2026, 3, 8)),
    ],
)
def test_if_midnight_does_not_exist_the_day_begins_at_the_jump(zone: str, when: tuple[int, ...]) -> None:
    span = day(zone, *when)
    assert span.seconds == 23 * HOUR_S
    first = datetime.fromtimestamp(span.start_us / 1e6, ZoneInfo(zone))
    assert (first.date(), first.hour) == (date(*when), 1)
    assert datetime.fromtimestamp(span.start_us / 1e6 - 1, ZoneInfo(zone)).date() == date(*when) - timedelta(days=1)


@pytest.mark.parametrize(
    ("zone", "when"),
    [("America/Havana", (2026, 11, 1)), ("Africa/Cairo", (2026, 10, 29)), ("Atlantic/Azores", (2026, 10, 25))],
)
def test_if_midnight_occurs_twice_the_day_has_25_hours(zone: str, when: tuple[int, ...]) -> None:
    span = day(zone, *when)
    assert span.seconds == 25 * HOUR_S
    for hour in range(25):
        assert span_of("day", zone, span.start_us + hour * HOUR_S * 1_000_000) == span


def test_a_day_that_a_country_skipped_contains_no_instant() -> None:
    before = day("Pacific/Apia", 2011, 12, 29)
    assert span_of("day", "Pacific/Apia", before.end_us).id == "2011-12-31"


@pytest.mark.parametrize(
    ("when", "name"),
    [
        ((2020, 12, 31), "2020-W53"),
        ((2021, 1, 3), "2020-W53"),
        ((2021, 1, 4), "2021-W01"),
        ((2026, 12, 28), "2026-W53"),
        ((2027, 1, 3), "2026-W53"),
        ((2024, 12, 30), "2025-W01"),
        ((2026, 1, 1), "2026-W01"),
    ],
)
def test_a_week_is_named_after_its_iso_year(when: tuple[int, ...], name: str) -> None:
    span = span_of("week", "UTC", us("UTC", *when, 12))
    assert span.id == name
    assert datetime.fromtimestamp(span.start_us / 1e6, UTC).weekday() == 0
    assert span.seconds == 7 * 24 * HOUR_S


def test_a_week_with_a_change_of_the_clocks_is_an_hour_longer_or_shorter() -> None:
    assert span_of("week", "Europe/Berlin", us("Europe/Berlin", 2026, 3, 25)).seconds == (7 * 24 - 1) * HOUR_S
    assert span_of("week", "Europe/Berlin", us("Europe/Berlin", 2026, 10, 21)).seconds == (7 * 24 + 1) * HOUR_S


def test_december_is_followed_by_january_of_the_next_year() -> None:
    december = span_of("month", "Europe/Berlin", us("Europe/Berlin", 2026, 12, 31, 23, 59, 59))
    january = span_of("month", "Europe/Berlin", december.end_us)
    assert (december.id, january.id) == ("2026-12", "2027-01")
    assert january.start_us == us("Europe/Berlin", 2027, 1, 1)


@pytest.mark.parametrize(("year", "days"), [(2026, 28), (2028, 29), (2100, 28)])
def test_february_has_the_right_number_of_days(year: int, days: int) -> None:
    assert span_of("month", "UTC", us("UTC", year, 2, 10)).seconds == days * 24 * HOUR_S


@given(
    st.sampled_from(PERIODS),
    st.sampled_from(ZONES),
    # Until 2011 some zones changed their clocks a minute after midnight; no zone is known to plan that again.
    st.integers(us("UTC", 2012, 1, 1) // 1_000_000, us("UTC", 2037, 12, 31) // 1_000_000),
)
def test_every_instant_is_in_its_period_and_the_next_begins_at_its_end(period: str, zone: str, at_s: int) -> None:
    at_us = at_s * 1_000_000
    span = span_of(period, zone, at_us)
    assert span.start_us <= at_us < span.end_us
    following = span_of(period, zone, span.end_us)
    assert following.start_us == span.end_us
    assert following.id > span.id
    assert span_of(period, zone, span.end_us - 1).id == span.id


@given(st.sampled_from(ZONES), st.integers(1_325_376_000, 2_145_916_800).map(lambda at_s: at_s * 1_000_000))
def test_the_day_of_the_counters_is_the_local_day(zone: str, at_us: int) -> None:
    found, local = day_of(at_us, zone), datetime.fromtimestamp(at_us // 1_000_000, zone_of(zone))
    assert (found.month, found.field, found.name) == (f"{local:%Y-%m}", f"{local:%d}", f"{local:%Y-%m-%d}")
    assert 0 < found.end_us - at_us <= US_PER_DAY + 3600 * 1_000_000
    assert day_span(local.date(), zone) == span_of("day", zone, at_us)


def test_months_between_include_both_ends() -> None:
    assert months_between(date(2026, 11, 30), date(2027, 2, 1)) == ["2026-11", "2026-12", "2027-01", "2027-02"]
    assert months_between(date(2026, 1, 31), date(2026, 1, 31)) == ["2026-01"]
    assert months_between(date(2026, 2, 1), date(2026, 1, 31)) == []


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "/etc/localtime", "../../etc/passwd", "Europe", "a\0b"])
def test_an_unknown_time_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="there is no time zone"):
        zone_of(name)

"""Timestamps in every documented form of 100ms, and values that are not timestamps."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.emulator.wire import timestamp
from gateway.hms.replies import epoch_ms, epoch_s

NS = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2022-02-10T11:44:18Z", 1644493458.0),
        ("2023-03-15T20:41:39.83Z", 1678912899.83),
        ("2021-10-26T10:31:54.082Z", 1635244314.082),
        ("2023-07-14T07:30:37.97291247Z", 1689319837.97291247),
        ("2023-07-14T07:30:37.939011796Z", 1689319837.939011796),
        ("1970-01-01T00:00:00Z", 0.0),
    ],
)
def test_documented_times_are_read(text: str, expected: float) -> None:
    assert epoch_s(text) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2022-02-10T11:44:18Z", 1644493458_000),
        ("2023-03-15T20:41:39.83Z", 1678912899_830),
        ("2023-03-15T20:41:39.0079999Z", 1678912899_007),
        ("0001-01-01T00:00:00Z", None),
    ],
)
def test_milliseconds_are_rounded_down(text: str, expected: int | None) -> None:
    assert epoch_ms(text) == expected


@pytest.mark.parametrize("value", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z", None, ""])
def test_unset_times_are_none(value: object) -> None:
    assert epoch_s(value) is None


@pytest.mark.parametrize(
    "value",
    [
        "2023-02-30T00:00:00Z",
        "2023-01-01T24:00:01Z",
        "0000-01-01T00:00:00Z",
        "2023-01-01T00:00:00",
        "2023-01-01T00:00:00.Z",
        "2023-01-01T00:00:00.1234567890Z",
        "2023-01-01 00:00:00Z",
        "2023-01-01T00:00:00Z\n",
        "٢٠٢٣-01-01T00:00:00Z",
        "2023-W01-1",
        1644493458,
        True,
        ["2022-02-10T11:44:18Z"],
        {},
    ],
)
def test_malformed_times_are_none_without_an_error(value: object) -> None:
    assert epoch_s(value) is None


@given(at_ns=st.integers(-30_000_000_000 * NS, 250_000_000_000 * NS), digits=st.integers(0, 9))
def test_times_that_the_emulator_writes_are_read_back(at_ns: int, digits: int) -> None:
    cut = 10 ** (9 - digits)
    read = epoch_s(timestamp(at_ns, digits))
    assert read is not None
    assert read == pytest.approx(at_ns // cut * cut / NS, abs=4e-5)  # the precision of a double at 2.5e11


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 31)), st.text("0123456789", min_size=0, max_size=9))  # noqa: DTZ001  strategies want naive bounds
def test_every_instant_with_every_fraction_is_read(moment: datetime, fraction: str) -> None:
    whole = moment.replace(microsecond=0, tzinfo=UTC)
    text = f"{whole:%m-%dT%H:%M:%S}"
    read = epoch_s(f"{whole.year:04d}-{text}{'.' if fraction else ''}{fraction}Z")
    assert read == pytest.approx(whole.timestamp() + float(f"0.{fraction}0"), abs=4e-5)


@given(
    st.text() | st.none() | st.integers() | st.floats() | st.lists(st.text()) | st.dictionaries(st.text(), st.text())
)
def test_no_value_raises(value: object) -> None:
    assert epoch_s(value) is None or isinstance(value, str)

"""Usage reports as files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal

import pytest
from msgspec import UNSET

from gateway.policy.model import Prices
from gateway.usage.query import Query
from gateway.usage.reports import UsagePage
from gateway.usage.rows import Zones, rows_of
from gateway.usage.tables import csv_of, json_of, name_of

DAYS = date(2026, 11, 1), date(2026, 11, 30)
PRICES = Prices("EUR", Decimal(4))
ZONES = Zones({"2026-11-21": ("UTC", "Europe/Berlin"), "2026-11-22": ("Europe/Berlin",)}, "Europe/Berlin")


async def pages(*names: str, prices: Prices | None = None) -> AsyncIterator[UsagePage]:
    """One page per user, each of whom minted, was denied and was in rooms."""
    for name in names:
        counts = {"tokens.mint.ok": 3, "tokens.mint.denied.api": 1, "tokens.mint.denied.mints": 2, "minutes.ok": 90}
        keys = {"date": "2026-11-22", "user_id": "u1", "username": name}
        rows = rows_of(counts, action=None, prices=prices, keys=keys)
        rows[0].people_peak = 7
        yield rows, (1,)
    yield [], None


async def text_of(query: Query, *names: str) -> str:
    return b"".join([chunk async for chunk in csv_of(query, pages(*names, prices=query.prices), ZONES)]).decode()


async def test_csv_has_one_header_and_a_line_for_each_row_as_in_rfc_4180() -> None:
    text = await text_of(Query(DAYS), "hanna", 'a "quoted", name')
    assert text.split("\r\n") == [
        "date,user_id,username,action,ok,seconds,denied,refused,failed,would_deny,details,people_peak,time_zone",
        "2026-11-22,u1,hanna,minutes,1.50,90,0,0,0,0,,7,Europe/Berlin",
        "2026-11-22,u1,hanna,tokens.mint,3,,3,0,0,0,denied.api=1 denied.mints=2,,Europe/Berlin",
        '2026-11-22,u1,"a ""quoted"", name",minutes,1.50,90,0,0,0,0,,7,Europe/Berlin',
        '2026-11-22,u1,"a ""quoted"", name",tokens.mint,3,,3,0,0,0,denied.api=1 denied.mints=2,,Europe/Berlin',
        "",
    ]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "  =1", "\uff1d1", "\r=1"], ids=ascii)
async def test_no_name_is_a_formula_in_a_spreadsheet(name: str) -> None:
    rows = list(csv.reader(io.StringIO(await text_of(Query(DAYS), name), newline="")))
    assert {row[2] for row in rows[1:]} == {f"'{name}"}


async def test_an_empty_report_has_a_header() -> None:
    assert (await text_of(Query(DAYS))).startswith("date,user_id")
    assert b"".join([chunk async for chunk in json_of(pages(), ZONES)]) == b"[]\n"


async def test_money_has_its_currency_beside_it() -> None:
    rows = list(csv.DictReader(io.StringIO(await text_of(Query(DAYS, prices=PRICES), "hanna"), newline="")))
    assert [(row["action"], row["money"], row["currency"]) for row in rows] == [
        ("minutes", "0.01", "EUR"),
        ("tokens.mint", "", ""),
    ]


async def test_each_page_leaves_before_the_next_is_read() -> None:
    read = []

    async def watched() -> AsyncIterator[UsagePage]:
        async for page in pages("a", "b", "c"):
            read.append(page)
            yield page

    chunks = csv_of(Query(DAYS), watched(), ZONES)
    assert b"date," in await anext(chunks)
    assert len(read) == 1


async def test_json_is_one_array_of_the_rows_of_the_api() -> None:
    text = b"".join([chunk async for chunk in json_of(pages("hanna", "mark"), ZONES)])
    rows = json.loads(text)
    assert [(row["username"], row["action"], row["ok"]) for row in rows] == [
        ("hanna", "minutes", 1.5),
        ("hanna", "tokens.mint", 3),
        ("mark", "minutes", 1.5),
        ("mark", "tokens.mint", 3),
    ]
    assert len(text.splitlines()) == len(rows) + 2
    assert {row["time_zone"] for row in rows} == {"Europe/Berlin"}


def test_the_zone_of_a_day_is_that_in_which_it_was_counted() -> None:
    assert [ZONES.of_day(f"2026-11-{day}") for day in (21, 22, 23)] == [
        "UTC, Europe/Berlin", "Europe/Berlin", "UTC, Europe/Berlin"
    ]  # fmt: skip
    assert ZONES.of_day(UNSET) == ZONES.text == "UTC, Europe/Berlin"
    assert Zones({}, "Asia/Kolkata").text == "Asia/Kolkata"


def test_a_file_is_named_after_what_it_holds() -> None:
    name = name_of(Query(DAYS, "room"), Zones({}, "UTC"), "csv")
    assert name == "usage-by-room-2026-11-01-to-2026-11-30-utc.csv"
    assert name_of(Query(DAYS), ZONES, "csv") == "usage-2026-11-01-to-2026-11-30-utc-europe-berlin.csv"

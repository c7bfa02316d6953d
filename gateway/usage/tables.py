"""Rows of a usage report as files: CSV (RFC 4180) and JSON, made page by page. Each row names the zone of its days."""

import asyncio
import csv
import io
import re
from collections.abc import AsyncGenerator, AsyncIterable, Iterable

import msgspec
from msgspec import UNSET

from gateway.usage.query import Query
from gateway.usage.reports import UsagePage
from gateway.usage.rows import UsageRow, Zones

MEDIA_TYPE = "text/csv; charset=utf-8; header=present"
# A spreadsheet takes a cell that begins like this as a formula (OWASP, "CSV Injection"), also in full-width characters.
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
_ROWS_AT_ONCE = 250  # 1 ms
_COUNTS = ("action", "ok", "seconds", "denied", "refused", "failed", "would_deny", "details", "people_peak")
_BY_KIND = ("denied", "refused", "would_deny")


def columns_of(query: Query) -> tuple[str, ...]:
    """Return the columns of a report."""
    return (*query.keys, *_COUNTS, *(("money", "currency") if query.prices else ()), "time_zone")


def name_of(query: Query, zones: Zones, suffix: str) -> str:
    """Return the name of a file with the report, which says what it holds."""
    first, last = query.days
    by = f"-by-{query.group_by}" if query.group_by else ""
    zone = re.sub(r"[^a-z0-9]+", "-", zones.text.lower())
    return f"usage{by}-{first}-to-{last}-{zone}.{suffix}"


async def csv_of(query: Query, pages: AsyncIterable[UsagePage], zones: Zones) -> AsyncGenerator[bytes]:
    """Return a report as CSV, with a header even if it has no rows.

    `denied`, `refused` and `would_deny` are sums; `details` has their parts, such as `denied.api=3`.
    """
    head = _encoded([columns_of(query)])
    async for rows, _ in pages:
        if head:
            yield head
        head = b""
        for at in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[at : at + _ROWS_AT_ONCE]
            yield _encoded([*_cells(query, row), zones.of_day(row.date)] for row in part)
            await asyncio.sleep(0)  # a stream that is read at once would not wait, and all other requests would


async def json_of(pages: AsyncIterable[UsagePage], zones: Zones) -> AsyncGenerator[bytes]:
    """Return a report as one JSON array with a line for each row, which is that of the API and has a `time_zone`."""
    before = b"[\n"
    async for rows, _ in pages:
        for row in rows:
            zone = msgspec.json.encode(zones.of_day(row.date))
            yield before + msgspec.json.encode(row).removesuffix(b"}") + b',"time_zone":' + zone + b"}"
            before = b",\n"
    yield b"[]\n" if before == b"[\n" else b"\n]\n"


def _encoded(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _cells(query: Query, row: UsageRow) -> list[str]:
    is_time = row.seconds is not UNSET
    by_kind = {kind: getattr(row, kind) for kind in _BY_KIND}
    details = (f"{kind}.{name}={count}" for kind, parts in by_kind.items() for name, count in sorted(parts.items()))
    cells = [harmless(getattr(row, name)) for name in query.keys]
    cells += [row.action, f"{row.ok:.2f}" if is_time else str(row.ok), str(row.seconds) if is_time else ""]
    cells += [str(sum(row.denied.values())), str(sum(row.refused.values())), str(row.failed)]
    cells += [str(sum(row.would_deny.values())), " ".join(details)]
    cells += ["" if row.people_peak is UNSET else str(row.people_peak)]
    if query.prices:
        cells += ["", ""] if row.money is UNSET else [str(row.money), query.prices.currency]
    return cells


def harmless(text: str) -> str:
    """Return a text that a spreadsheet shows and does not calculate."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text

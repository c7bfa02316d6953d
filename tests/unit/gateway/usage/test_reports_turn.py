"""Reports that are made at the same time: one page after the other, so that other requests are served in between."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Any

from gateway.usage.query import Query
from gateway.usage.reports import Reports

DAYS = (date(2026, 1, 1), date(2026, 12, 31))


class History:
    """Counts how many readers there are at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def daily(self, *_: Any) -> dict[date, dict[str, int]]:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.001)
        self.now -= 1
        return {DAYS[0]: {"api.ok": 1}}


async def test_one_page_is_made_at_a_time() -> None:
    history: Any = History()
    unused: Any = None
    reports = Reports(unused, unused, history, unused)
    found = await asyncio.gather(*(reports.page(Query(DAYS, group_by="day")) for _ in range(5)))
    assert history.most == 1
    assert [len(rows) for rows, _ in found] == [1] * 5

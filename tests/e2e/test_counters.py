"""The counters equal the responses, to the unit."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from gateway.usage.query import today_in
from tests.accounts import office
from tests.e2e.policies import roomy
from tests.e2e.volley import Answer, Line, open_lines
from tests.servers import Installation, wait_until

REQUESTS, USERS, AT_ONCE = 10_000, 50, 40

# A zone in which it is another day than in UTC.
ZONE = "Pacific/Kiritimati" if datetime.now(UTC).hour >= 10 else "Pacific/Pago_Pago"
# Small enough that random traffic reaches every limit.
POLICY = (
    roomy().replace('time_zone = "UTC"', f'time_zone = "{ZONE}"')
    + """
[roles.busy]
permissions = ["rooms:join", "rooms:create", "usage:read-own"]
limits.api = { rate = "600/min", burst = 150 }
limits."rooms.create" = { rate = "60/min", burst = 12 }
limits."tokens.mint" = { rate = "120/min", burst = 60 }
quotas.mints = 70
[quotas.mints]
counter = "tokens.mint"
period = "day"
"""
)


@pytest.fixture
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("busy"), workers=2, policy=POLICY) as running:
        yield running


def outcome(answer: Answer) -> str:
    if answer.status < 400:
        return "ok"
    if answer.status >= 500:
        return "failed"
    return "denied" if answer.status == 429 else f"refused.{answer.json()['code']}"


async def test_thousands_of_random_requests_are_counted_as_they_were_answered(busy: Installation) -> None:
    tokens = []
    async with office(busy.valkey.url, busy.env) as at:
        for number in range(USERS):
            tokens.append(await at.log_in(await at.accounts.add(f"user-{number}", None, roles=["busy"])))
        operator_token = await at.log_in(await at.accounts.add("otto", None, roles=["operator"]))
    seen: list[Counter[str]] = [Counter() for _ in tokens]
    chance = random.Random(20261122)
    async with open_lines(busy.port, AT_ONCE) as lines:
        room = (await lines[0].ask("POST", "/api/rooms", {}, token=tokens[0])).json()["room"]["id"]
        seen[0]["rooms.create.ok"] += 1
        requests = [
            ("tokens.mint", "POST", f"/api/rooms/{room}/token", {}),
            ("tokens.mint", "POST", f"/api/rooms/{room}/token", {"role": "nosuch"}),
            ("tokens.mint", "POST", f"/api/rooms/{'0' * 24}/token", {}),
            ("rooms.create", "POST", "/api/rooms", {"name": "x"}),
            ("rooms.create", "POST", "/api/rooms", {"webhook": 1}),
            ("api", "GET", "/api/rooms", None),
            ("api", "GET", f"/api/rooms/{'0' * 24}", None),
            ("api", "GET", "/api/admin/usage", None),
        ]
        weights = [8, 1, 1, 2, 1, 4, 1, 1]

        async def keep_asking(line: Line, left: list[None]) -> None:
            while left:  # shared, so that no line is idle for the seconds after which the server closes it
                left.pop()
                who = chance.randrange(USERS)
                counter, method, path, body = chance.choices(requests, weights)[0]
                answer = await line.ask(method, path, body, token=tokens[who])
                seen[who][f"{counter}.{outcome(answer)}"] += 1

        for part in range(10):
            if part % 3 == 1:
                busy.break_upstream("status=503")
            left = [None] * (REQUESTS // 10)
            await asyncio.gather(*(keep_asking(line, left) for line in lines))
            busy.mend_upstream()

        counted: list[Counter[str]] = []
        for token in tokens:
            answer = await lines[0].ask("GET", "/api/usage", token=token)
            counted.append(flatten(answer.json()["usage"]["total"]))
    wrong = [(counts - user, user - counts) for counts, user in zip(counted, seen, strict=True) if counts != user]
    assert not wrong, wrong
    assert sum(sum(user.values()) for user in seen) == REQUESTS + 1
    for needed in ("tokens.mint.ok", "tokens.mint.denied", "rooms.create.failed", "tokens.mint.refused.unknown_role"):
        assert any(user[needed] for user in seen), f"the traffic never caused {needed}"
    with busy.client(operator_token) as operator:
        check_reports(busy, operator, {f"user-{number}": counts for number, counts in enumerate(seen)})


def check_reports(busy: Installation, operator: httpx.Client, seen: dict[str, Counter[str]]) -> None:
    """Check that API, CSV and command line report what the responses said, by user and in all."""
    pages, cursor = [], None
    while True:
        more = {"cursor": cursor} if cursor else {}
        answer = operator.get("/api/admin/usage", params={"limit": 20, **more}).json()
        pages += answer["items"]
        assert answer["time_zone"] == ZONE
        cursor = answer["next_cursor"]
        if cursor is None:
            break
    assert by_user(pages) == seen
    assert {row["date"] for row in pages} == {today_in(ZONE).isoformat()} != {datetime.now(UTC).date().isoformat()}
    grouped = operator.get("/api/admin/usage", params={"group_by": "user", "limit": 500}).json()["items"]
    assert by_user(grouped) == seen

    file = operator.get("/api/admin/usage", params={"format": "csv"})
    assert file.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert file.headers["content-disposition"].startswith('attachment; filename="usage-2')
    done = busy.command("usage", "export", "--out", "usage.csv")
    assert done.returncode == 0, done.stderr
    shown = busy.command("usage", "show", "--json")
    for text in (file.text, (busy.folder / "usage.csv").read_text()):
        assert [row for row in csv_rows(text) if row["username"] in seen] == [
            in_csv(row) for row in pages if row["username"] in seen
        ]
    assert by_user(json.loads(shown.stdout)) == seen
    assert [row for row in json.loads(shown.stdout) if row["username"] in seen] == [
        {**row, "time_zone": ZONE} for row in pages if row["username"] in seen
    ]

    def totals() -> tuple[Counter[str], Counter[str]]:
        per_user = sum(map(flat, json.loads(busy.command("usage", "show", "--json").stdout)), Counter[str]())
        of_all = busy.command("usage", "show", "--group-by", "day", "--json")
        return per_user, sum(map(flat, json.loads(of_all.stdout)), Counter[str]())

    wait_until(lambda: len({*map(str, totals())}) == 1, "the derived totals equal the sums over all users", within_s=5)


def by_user(rows: list[dict[str, Any]]) -> dict[str, Counter[str]]:
    """Return what rows of a report say about the users of the test."""
    found: dict[str, Counter[str]] = {}
    for row in rows:
        if row["username"].startswith("user-"):
            found.setdefault(row["username"], Counter()).update(flat(row))
    return found


def flat(row: dict[str, Any]) -> Counter[str]:
    return flatten({row["action"]: row})


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def in_csv(row: dict[str, Any]) -> dict[str, str]:
    """Return a row of the JSON report as it stands in CSV."""
    by_kind = {kind: row[kind] for kind in ("denied", "refused", "would_deny")}
    details = [f"{kind}.{name}={count}" for kind, parts in by_kind.items() for name, count in sorted(parts.items())]
    sums = {kind: sum(parts.values()) for kind, parts in by_kind.items()}
    cells = {**row, **sums, "seconds": "", "details": " ".join(details), "people_peak": "", "time_zone": ZONE}
    return {name: str(value) for name, value in cells.items()}


def flatten(tallies: dict[str, dict[str, object]]) -> Counter[str]:
    """Return a user's counters in the form of the test: denials of an action are added up over its limits."""
    flat: Counter[str] = Counter()
    for action, tally in tallies.items():
        for name in ("ok", "failed"):
            flat[f"{action}.{name}"] += int(str(tally[name]))
        denied, refused = tally["denied"], tally["refused"]
        assert isinstance(denied, dict)
        assert isinstance(refused, dict)
        flat[f"{action}.denied"] += sum(denied.values())
        for code, count in refused.items():
            flat[f"{action}.refused.{code}"] += count
    return +flat

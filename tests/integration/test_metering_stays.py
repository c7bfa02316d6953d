"""The contract of stays on a real server, and random reports in random order against an oracle."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.metering.events import Stay, digest_of
from gateway.metering.stays import Stays
from gateway.redis.store import Store, connect
from gateway.rooms import keys as room_keys
from limits import Execute
from limits.derived import Derived
from limits.metered import CONFIRMED, ENDED, OPEN
from tests.unit.gateway.metering.stays_contract import ANN, BOB, StaysContract

CAT = "u" + "c" * 20
USERS = (ANN, BOB, CAT, "stranger")
OWNERS = {"6" * 24: ANN, "8" * 24: BOB, "9" * 24: ""}
SINCE = 1_795_910_400_000  # 2026-11-29T00:00:00Z: three days that contain the end of a month
DAY_MS = 86_400_000
OFFSETS_S = {"UTC": 0, "Asia/Kolkata": 19_800}


class TestStaysOnARealServer(StaysContract):
    @pytest.fixture
    def execute(self, store: Store) -> Execute:
        return store.execute


@st.composite
def reports(draw: st.DrawFn) -> tuple[list[Stay], list[list[Stay]]]:
    """Return what is true of some stays, and batches of reports about them: shuffled, repeated, some of them lost."""
    truth, told = [], []
    for n in range(draw(st.integers(1, 8))):
        room = draw(st.sampled_from(sorted(OWNERS)))
        who = (room, digest_of(room)[:8].replace("-", "x"), f"p{n % 3}", draw(st.sampled_from(USERS)), "guest")
        joined = SINCE + draw(st.integers(0, 2 * DAY_MS)) * 1 + n  # no two stays of a peer begin at once
        left = joined + draw(st.one_of(st.integers(0, 5000), st.integers(0, 25 * 3_600_000)))
        known = [Stay(*who, joined, joined, OPEN, joined)]
        for _ in range(draw(st.integers(0, 2))):
            until = joined + draw(st.integers(0, 25 * 3_600_000))
            known.append(Stay(*who, joined, until, OPEN, until))
        if draw(st.booleans()):
            known.append(Stay(*who, joined, left, ENDED, left))
        if draw(st.booleans()):
            confirmed = joined + draw(st.integers(0, 25 * 3_600_000))
            known.append(Stay(*who, joined, confirmed, CONFIRMED, left + 1))
        told += [one for one in known for _ in range(draw(st.integers(1, 2)))]
        truth.append(max(known, key=lambda one: (one.rank, one.stamp_ms, one.left_ms)))
    shuffled = draw(st.permutations(told))
    cuts = sorted({0, len(shuffled), *draw(st.lists(st.integers(0, len(shuffled)), max_size=4))})
    return truth, [list(shuffled[a:b]) for a, b in pairwise(cuts)]


def seconds_of(stay: Stay, zone: str) -> Counter[tuple[str, str]]:
    """Count a stay day by day: no arithmetic shared with the script but the flooring."""
    first, last = (at_ms // 1000 + OFFSETS_S[zone] for at_ms in (stay.joined_ms, stay.left_ms))
    counted: Counter[tuple[str, str]] = Counter()
    while first < last:
        end = min(last, first // 86_400 * 86_400 + 86_400)
        day = datetime.fromtimestamp(first, UTC)
        counted[f"{day:%Y-%m}", f"{day:%d}"] += end - first
        counted[f"{day:%Y-%m}", "*"] += end - first
        first = end
    return counted


def expected(truth: list[Stay], zones: dict[str, str]) -> dict[str, int]:
    """Return all counters; `zones` are those of the sessions."""
    sums: Counter[str] = Counter()
    for stay in truth:
        accounts = [f"rc:1:{{{stay.room}}}", "uc:1:{all}"] + (
            [f"uc:1:{{{stay.user}}}"] if stay.user in USERS[:3] else []
        )
        stems = [(account, "minutes") for account in accounts]
        if owner := OWNERS[stay.room]:
            stems.append((f"uc:1:{{{owner}}}", "owned"))
        for (month, field), count in seconds_of(stay, zones[stay.session]).items():
            for stem, metric in stems:
                sums[f"{stem}:{month} {field}:{metric}.ok"] += count
        for stem, metric in stems:
            sums[f"{stem}:all {metric}.ok"] += stay.seconds
    return {name: count for name, count in sums.items() if count}


async def stored(execute: Execute) -> dict[str, int]:
    found = {}
    for key in await execute("KEYS", "?c:1:*"):
        for field, value in (await execute("HGETALL", key)).items():
            if b"peak" not in field and b":zone." not in field and int(value):
                found[f"{key.decode()} {field.decode()}"] = int(value)
    return found


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=reports())
def test_any_order_of_reports_ends_in_the_truth_to_the_second(
    redis_url: str, case: tuple[list[Stay], list[list[Stay]]]
) -> None:
    truth, batches = case

    async def check() -> None:
        store = Store(connect(redis_url), deadline_s=5)
        await store.execute("FLUSHALL")
        for room, owner in OWNERS.items():
            if owner:
                await store.execute("HSET", room_keys.room(room), "owner", owner)
        # Two workers credit batches at the same time, and only one of them has the new policy already.
        workers = [Stays(store.execute, Derived(store.execute, store.post), zone=lambda of=of: of) for of in OFFSETS_S]
        for at in range(0, len(batches), 2):
            both = zip(workers, batches[at : at + 2], strict=False)
            await asyncio.gather(*(worker.credit(batch) for worker, batch in both))
        keys = [key.decode() for key in await store.execute("KEYS", "se:1:*")]
        zones = {key.rpartition(":")[2]: (await store.execute("HGET", key, "zone")).decode() for key in keys}
        assert await stored(store.execute) == expected(truth, zones)
        still_open = {stay.digest.encode() for stay in truth if stay.rank == OPEN}
        assert set(await store.execute("HKEYS", "op:1:{all}")) == still_open
        await store.close()

    asyncio.run(check())

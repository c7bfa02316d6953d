"""What a scrape asks a real Redis, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from auth.passwords import Passwords
from gateway.audit import Audit
from gateway.metering import keys
from gateway.metering.budgets import Budgets
from gateway.metering.webhooks import Webhooks
from gateway.metrics.monitor import Monitor, Workload
from gateway.metrics.readings import Reader
from gateway.metrics.slots import claim
from gateway.metrics.tally import BOUNDS_S, Tally
from gateway.outgoing.control import Outgoing
from gateway.outgoing.messages import DEAD, queue
from gateway.outgoing.outbox import Outbox
from gateway.outgoing.sender import Sender
from gateway.policy.live import PolicyInForce
from gateway.redis.store import Store, connect
from limits.limiter import Limiter
from tests.servers import Valkey
from tests.unit.gateway.metering.budget_bench import BUDGETS, policy_with

USERS = 10_000
ENDPOINT = '[webhooks.billing]\nurl = "https://billing.example/"\nevents = ["room.ended"]\n'


def reader_of(store: Store, policy: PolicyInForce) -> Reader:
    webhooks = Webhooks(store.execute, Audit(store.execute))
    outbox = Outbox(store.execute)
    outgoing = Outgoing(outbox, Sender({}), policy, Audit(store.execute))
    budgets = Budgets(store.execute, Limiter(store.execute), policy)
    return Reader(store.execute, store.each, webhooks, outgoing, budgets, policy)


@pytest.fixture
def policy() -> PolicyInForce:
    return policy_with(BUDGETS.format(more="") + ENDPOINT)


@pytest.fixture
def monitor(store: Store, policy: PolicyInForce, monkeypatch: pytest.MonkeyPatch) -> Iterator[Monitor]:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    workload = Workload((store,), hms=Idle(), passwords=Passwords())  # type: ignore[arg-type]
    monitor = Monitor("t", claim(workers=1), Tally(), reader_of(store, policy), workload)
    yield monitor
    monitor.close()


class Idle:
    """The client of 100ms, of which only the breaker matters here."""

    state = "closed"


async def test_readings_are_what_redis_holds(store: Store, policy: PolicyInForce) -> None:
    for words in (
        ("ZADD", "ui:1", 1, "a", 2, "b"),
        ("ZADD", "ra:1", 1, "r"),
        ("HSET", keys.open_stays("all"), "x", "{}"),
        ("HSET", "uc:1:{all}:all", "minutes.ok", 120),
        ("SET", keys.LEADER, "me"),
        ("ZADD", keys.SESSIONS_DUE, 1, "r|s", 4_000_000_000_000, "r|t"),
        ("HSET", keys.STATISTICS, "received", 9, "last_ms", 5, "corrected_s", -7),
        ("XADD", keys.EVENTS, f"{time.time_ns() // 1_000_000 - 60_000}-0", "body", "{}", "at", 1),
        ("XADD", DEAD, "*", "endpoint", "billing", "message", "{}", "why", "-", "at", 1),
        ("ZADD", queue("billing"), 1, "{}"),
        ("HSET", "os:1:{billing}", "delivered", 3, "failed", 2),
        ("XADD", keys.DEAD_LETTERS, "*", "body", "{}", "why", "-", "at", 1),
    ):
        await store.execute(*words)
    found = await reader_of(store, policy).read()
    assert found.up
    assert (found.users, found.rooms, found.people, found.participant_s) == (2, 1, 1, 120)
    assert (found.leads, found.sessions_overdue, found.waiting, found.dead_letters) == (True, 1, 1, 1)
    assert 60 <= found.oldest_s < 120
    assert found.events["received"] == 9
    assert set(found.events) == {"received", "applied", "unchanged", "ignored", "recorder", "dead", "corrected"}
    assert found.budgets == {"everybody": 0.0}, "quotas in UTC read the counter of their own period"
    assert [(one.name, one.waiting, one.delivered, one.failed) for one in found.outgoing] == [("billing", 1, 3, 2)]
    assert found.outgoing_dead == 1
    assert found.memory > 100_000
    assert found.is_persisted


async def test_an_empty_redis_has_nothing_and_is_up(store: Store, policy: PolicyInForce) -> None:
    found = await reader_of(store, policy).read()
    assert found.up
    assert (found.users, found.oldest_s, found.leads) == (0, 0.0, False)


async def test_a_silent_redis_is_reported_within_the_deadline(tmp_path: Path, policy: PolicyInForce) -> None:
    with Valkey(tmp_path) as own:
        store = Store(connect(own.url), deadline_s=5)
        await store.execute("PING")
        own.pause()
        begun = time.monotonic()
        found = await reader_of(store, policy).read()
        assert not found.up
        assert time.monotonic() - begun < 2
        own.resume()
        await store.close()


@pytest.mark.alone
async def test_a_scrape_with_10_000_users_and_every_route_takes_less_than_50_ms(
    store: Store, valkey: Valkey, monitor: Monitor
) -> None:
    valkey.load(("ZADD", "ui:1", number, f"u{number:020}") for number in range(USERS))
    valkey.load(("HSET", keys.open_stays("all"), f"{number:016}", "{}") for number in range(USERS))
    for route in range(60):
        scope = {"method": "GET", "path_template": f"/api/some/long/path/of/route/{route}"}
        for status in (200, 401, 429):
            monitor._tally.responded(scope, status, BOUNDS_S[route % len(BOUNDS_S)])
    times_s = []
    for _ in range(10):
        begun = time.perf_counter()
        text = await monitor.scrape()
        times_s.append(time.perf_counter() - begun)
    assert text.count(b"gateway_http_requests_total{") == 180
    # The best of ten: other work on the machine can only add to it.
    assert min(times_s) < 0.05, times_s

"""The plan and the simulation of benchmarks/scale.py, against what is known exactly, and its page."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from benchmarks import masters, scale
from benchmarks.footprint import Footprint
from benchmarks.masters import SLOTS, Service, Shared, Users
from benchmarks.scale import KINDS, Kind, Plan, plan, simulate
from gateway.metering import keys
from gateway.policy.actions import COUNTERS, OWNED

WEIGHS = Footprint(**{one.name: 100.0 for one in fields(Footprint)})
COSTS = [replace(kind, gateway_us=200, redis_us=50) for kind in KINDS]
OPTIONS = scale._parser().parse_args(["--sample", "20000", "--requests", "20000"])
BEGIN, END = "<!-- measured: written by `python -m benchmarks.scale --write` -->\n", "<!-- end -->"


def _plan(active: int, costs: list[Kind] = COSTS) -> Plan:
    return plan(10_000_000, active, costs, WEIGHS, 5.0)


def test_the_page_has_the_rows_that_the_tool_writes() -> None:
    page = scale.PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert _names(page) == _names(scale.tables(COSTS, WEIGHS, 5.0, OPTIONS))


def _names(tables: str) -> list[str]:
    return [line.split("|")[1].strip() for line in tables.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("busy", [0.3, 0.7])
def test_waits_are_those_of_a_queue_with_one_server(busy: float) -> None:
    used, waits = masters.queue(1, [Service(100.0, busy / 100e-6)], requests=200_000)
    assert used == pytest.approx(busy, rel=0.02)
    # M/D/1 (Pollaczek-Khinchine): the mean wait is the service time times busy / (2 (1 - busy)).
    assert sum(waits) / len(waits) == pytest.approx(100e-6 * busy / (2 * (1 - busy)), rel=0.05)


def test_no_request_waits_less_because_others_come() -> None:
    asked = [Service(50.0, 1000), Service(1500.0, 5)]
    used, alone = masters.queue(1, asked, requests=20_000)
    more, beside = masters.queue(1, asked, [Service(80.0, 333)], requests=20_000)
    assert all(one <= other for one, other in zip(alone, beside, strict=True))
    assert sum(beside) > sum(alone)
    assert more == pytest.approx(used + 80e-6 * 333, rel=0.05)


def test_a_master_that_is_gone_refuses_everybody_once_a_second_and_then_serves_them() -> None:
    found = masters.outage(1, [Service(1.0, 1000)], 3.0, requests=200_000)
    # Each comes again after 1.05 s on average, and then once more: the requests of 3 + 1.95 + 0.9 seconds.
    assert found.refused == pytest.approx(5_850, rel=0.01)
    # Four seconds' arrivals, without those whose last refusal was so late that they come after that second: 3 x 50.
    assert found.first_second == pytest.approx(3_850, rel=0.01)
    assert len(found.waits) >= 200_000


def test_twice_as_many_active_people_need_twice_as_much() -> None:
    half, all_ = _plan(5_000_000), _plan(10_000_000)
    assert all_.per_s == pytest.approx(2 * half.per_s)
    assert all_.gateway_cores == pytest.approx(2 * half.gateway_cores)
    assert all_.redis_cores == pytest.approx(all_.per_s * 50 / 1e6 / scale.UTILIZATION)
    assert all_.gb < all_.gb_without
    assert all_.gb_of_ledger == pytest.approx(2 * half.gb_of_ledger)


def test_shared_keys_have_the_names_that_the_gateway_gives_them() -> None:
    assert masters.slot_of(scale.LEDGER) == masters.slot_of(keys.ledger(keys.INSTALLATION, "2027-01-01"))
    assert {masters.slot_of(scale.LEDGER)} == {masters.slot_of(keys.open_stays(keys.INSTALLATION))}
    assert set(scale.RANKED) == COUNTERS | {OWNED, "login"}
    assert keys.EVENTS in {one.key for one in _plan(1_000_000).days[0]}


def test_a_shared_key_fills_and_occupies_the_master_of_its_slot() -> None:
    users = Users(1, 20_000)
    ledger = Shared(scale.LEDGER, 1000.0, Service(100.0, 5000))  # half a core
    placed = masters.place(4, users, 400.0, 0.4, [[ledger]])
    at = masters.slot_of(scale.LEDGER) * 4 // SLOTS
    assert placed.busiest == at
    assert placed.fullest == pytest.approx(1000 + 400 * users.placed(4)[at])
    assert placed.used == pytest.approx(0.5 + 0.4 * users.load(4)[at])
    assert placed.writes == (ledger.writes,)


def test_the_worst_of_some_days_counts() -> None:
    month, days = Shared("tp:1:2027-01:api.ok", 100.0), [f"tp:1:2027-01-{day:02}:api.ok" for day in range(1, 32)]

    def is_beside(key: str) -> bool:
        return masters.slot_of(key) // (SLOTS // 2) == masters.slot_of(month.key) // (SLOTS // 2)

    beside = [month, Shared(next(one for one in days if is_beside(one)), 100.0)]
    apart = [month, Shared(next(one for one in days if not is_beside(one)), 100.0)]
    users = Users(1, 20_000)
    fullest = [masters.place(2, users, 0.0, 0.0, some).fullest for some in ([beside], [apart], [apart, beside, apart])]
    assert fullest == [200.0, 100.0, 200.0]


def test_there_are_enough_masters_for_the_fullest() -> None:
    for active in (1_000_000, 10_000_000):
        assert simulate(_plan(active), COSTS, OPTIONS).fullest <= scale.FULL


def test_the_ledger_is_in_parts_exactly_if_no_master_has_room_for_it() -> None:
    most = int(_plan(1_000_000).most_stays / scale.STAYS_DAILY)
    assert not simulate(_plan(int(most * 0.9)), COSTS, OPTIONS).in_parts
    assert simulate(_plan(int(most * 1.01)), COSTS, OPTIONS).in_parts

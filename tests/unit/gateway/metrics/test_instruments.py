"""The text of a scrape: the sum of all processes, over restarts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.hms.errors import HmsError
from gateway.metrics.instruments import Instruments
from gateway.metrics.readings import Readings
from gateway.metrics.slots import Slot
from gateway.metrics.tally import BOUNDS_S, Tally
from gateway.outgoing.control import EndpointState
from tests.unit.gateway.metrics.test_tally import CALL, decision, limit_state

MINT = {"method": "POST", "path_template": "/api/rooms/{room_id}/token"}
LABELS = '{method="POST",route="/api/rooms/{room_id}/token"'
RESULTS = ("delivered", "failed", "dead")
DOWN = Readings(up=False)


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Process]]:
    """Processes of one folder; in a test they live one after the other."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    Process.folder = tmp_path
    yield Process
    Process.end()


class Process:
    folder: Path
    living: Process | None = None

    def __init__(self, slot: int) -> None:
        self.end()
        type(self).living = self
        self.tally = Tally()
        self.instruments = Instruments(Slot(self.folder, slot))

    @classmethod
    def end(cls) -> None:
        if cls.living is not None:
            cls.living.instruments.close()
            cls.living = None

    def mint(self, times: int) -> None:
        for _ in range(times):
            self.tally.responded(MINT, 200, 0.001)
            self.tally.decided(decision(limit_state(1)))
        self.instruments.flush(self.tally)

    def scrape(self, readings: Readings = DOWN) -> dict[str, float]:
        text = self.instruments.render(readings).decode()
        assert list(text_string_to_metric_families(text)), "Prometheus can read it"
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in lines}


def test_counters_are_the_sum_of_all_processes(process: type[Process]) -> None:
    process(0).mint(3)
    second = process(1)
    second.mint(4)
    found = second.scrape()
    assert found[f'gateway_http_requests_total{LABELS},status="200"}}'] == 7
    assert found[f"gateway_http_request_duration_seconds_count{LABELS}}}"] == 7
    assert found['gateway_limit_decisions_total{limit="api",outcome="checked"}'] == 7
    assert found['gateway_limit_decisions_total{limit="api",outcome="near_limit"}'] == 7
    assert found['gateway_limit_decisions_total{limit="api",outcome="denied"}'] == 0
    assert found["gateway_worker_starts_total"] == 2


def test_counters_go_on_after_a_restart_and_files_do_not_grow(process: type[Process]) -> None:
    for restart in range(4):
        again = process(0)
        again.mint(2)
        files = {path.name: path.stat().st_size for path in process.folder.glob("*.db")}
        assert again.scrape()[f'gateway_http_requests_total{LABELS},status="200"}}'] == 2 * (restart + 1)
        if restart == 0:
            first_files = files
    assert files == first_files
    assert {name.rpartition("_")[2] for name in files} == {"0.db"}, "named by the slot, not by the process"


def test_a_file_that_a_process_is_making_does_not_fail_the_scrape(process: type[Process]) -> None:
    only = process(0)
    only.mint(1)
    (process.folder / "gauge_livesum_1.db").touch()
    assert only.scrape()[f'gateway_http_requests_total{LABELS},status="200"}}'] == 1


def test_present_values_are_those_of_now(process: type[Process]) -> None:
    only = process(0)
    only.instruments.set(password_hashes_waiting=5, event_loop_lag_seconds=0.5)
    only.instruments.set(password_hashes_waiting=2, event_loop_lag_seconds=0.25)
    found = only.scrape()
    assert found["gateway_password_hashes_waiting"] == 2
    assert found["gateway_event_loop_lag_seconds"] == 0.25
    assert found["gateway_workers"] == 1


def test_failures_of_redis_are_counted_once(process: type[Process]) -> None:
    only = process(0)
    for failures in (2, 2, 5):
        only.instruments.redis_failed(failures)
    assert only.scrape()["gateway_redis_failures_total"] == 5


def test_histogram_has_the_buckets_of_the_tally(process: type[Process]) -> None:
    only = process(0)
    only.tally.called(CALL, "ok", 0.003)
    only.tally.called(CALL, "timeout", 5.5)
    only.instruments.flush(only.tally)
    found = only.scrape()
    ends = [found[f'gateway_hms_call_duration_seconds_bucket{{le="{bound}"}}'] for bound in (*BOUNDS_S, "+Inf")]
    assert ends == [0, 0, *[1] * (len(BOUNDS_S) - 2), 2]
    assert found["gateway_hms_call_duration_seconds_sum"] == pytest.approx(5.503)
    assert found['gateway_hms_calls_total{outcome="timeout"}'] == 1


def test_every_outcome_of_a_call_is_there_before_it_happens(process: type[Process]) -> None:
    found = process(0).scrape()
    outcomes = {"ok", "cancelled"} | {error.outcome for error in (HmsError, *all_below(HmsError))}
    assert {name for name in found if name.startswith("gateway_hms_calls_total{")} == {
        f'gateway_hms_calls_total{{outcome="{outcome}"}}' for outcome in outcomes
    }


def all_below(kind: type[HmsError]) -> list[type[HmsError]]:
    return [one for below in kind.__subclasses__() for one in (below, *all_below(below))]


def test_a_scrape_without_redis_says_so_and_has_no_stale_numbers(process: type[Process]) -> None:
    found = process(0).scrape(DOWN)
    assert found["gateway_redis_up"] == 0
    assert "gateway_users" not in found
    assert any(name.startswith("gateway_build_info{") for name in found)


def test_numbers_of_redis_are_written_in_base_units(process: type[Process]) -> None:
    billing = EndpointState("billing", "billing.example", [], 1, 2, 3, 4, None, None, "", None)
    readings = Readings(
        up=True, users=7, participant_s=90, is_persisted=False, budgets={"everybody": 0.5}, outgoing=[billing]
    )
    found = process(0).scrape(readings)
    assert found["gateway_redis_up"] == 1
    assert found["gateway_users"] == 7
    assert found["gateway_participant_minutes"] == 1.5
    assert found["gateway_redis_persistence_ok"] == 0
    assert found['gateway_budget_used_ratio{budget="everybody"}'] == 0.5
    assert found['gateway_outgoing_events_waiting{endpoint="billing"}'] == 1
    results = [found[f'gateway_outgoing_events_total{{endpoint="billing",result="{one}"}}'] for one in RESULTS]
    assert results == [2, 3, 4]

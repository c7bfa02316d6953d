"""The metrics by name, in prometheus-client. Imported only where metrics are on, and after a slot was claimed.

Every process writes its own into the files of its slot; a scrape adds the files of all slots together.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from gateway import __version__
from gateway.metrics.readings import Readings
from gateway.metrics.slots import Slot
from gateway.metrics.tally import BOUNDS_S, CALL_OUTCOMES, Outcomes, Tally, Times

_SUMS = {
    "workers": "Worker processes",
    "password_hashes_waiting": "Passwords that wait to be hashed",
    "redis_breaker_open": "Workers that ask Redis nothing, because it failed too often",
    "hms_breaker_open": "Workers that do not call 100ms, because it failed too often",
}


class Instruments:
    """The metrics of one process. Children are kept: looking one up by its labels costs microseconds."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        values.ValueClass = values.MultiProcessValue(lambda: slot.number)  # type: ignore[no-untyped-call]
        here = CollectorRegistry()  # never read: a scrape reads the files
        self._requests = Counter("gateway_http_requests", "Responses", ["method", "route", "status"], registry=here)
        self._request_s = Histogram(
            "gateway_http_request_duration_seconds",
            "From the head of a request to the end of its response",
            ["method", "route"],
            buckets=BOUNDS_S,
            registry=here,
        )
        self._decisions = Counter(
            "gateway_limit_decisions",
            "Requests checked against a limit, quota or lease, by what it said",
            ["limit", "outcome"],
            registry=here,
        )
        self._calls = Counter("gateway_hms_calls", "Calls to 100ms", ["outcome"], registry=here)
        self._call_s = Histogram(
            "gateway_hms_call_duration_seconds", "Calls to 100ms, with retries", buckets=BOUNDS_S, registry=here
        )
        self._failures = Counter("gateway_redis_failures", "Commands that Redis did not answer", registry=here)
        self._starts = Counter("gateway_worker_starts", "Worker processes that have started", registry=here)
        lag = "Longest delay of a timer in the last 15 s, of any worker"
        self._gauges = {
            "event_loop_lag_seconds": Gauge(
                "gateway_event_loop_lag_seconds", lag, registry=here, multiprocess_mode="livemax"
            )
        }
        for name, text in _SUMS.items():
            self._gauges[name] = Gauge(f"gateway_{name}", text, registry=here, multiprocess_mode="livesum")
        self._children: dict[tuple[object, ...], Any] = {}
        self._seen_failures = 0
        for outcome in CALL_OUTCOMES:
            self._child(self._calls, outcome)  # zero: Prometheus sees no increase from nothing to one
        self._starts.inc()
        self._gauges["workers"].set(1)

    def set(self, **numbers: float) -> None:
        """Set present values of this process by the names of their gauges."""
        for name, number in numbers.items():
            self._gauges[name].set(number)

    def redis_failed(self, failures: int) -> None:
        """Take over how many commands have failed since the process began."""
        self._failures.inc(failures - self._seen_failures)
        self._seen_failures = failures

    def flush(self, tally: Tally) -> None:
        """Write what has happened since the last flush."""
        responses, limits, calls = tally.empty()
        for (method, route, status), times in responses.items():
            self._child(self._requests, method, route, status).inc(times.count)
            _observe(self._child(self._request_s, method, route), times)
        for limit, outcomes in limits.items():
            for name, count in _named(outcomes):  # zeros too
                self._child(self._decisions, limit, name).inc(count)
        for outcome, times in calls.items():
            self._child(self._calls, outcome).inc(times.count)
            _observe(self._call_s, times)

    def render(self, readings: Readings) -> bytes:
        """Return the text of a scrape: of all processes, and what Redis said."""
        registry = CollectorRegistry()
        registry.register(_Processes(self._slot.folder))
        registry.register(_Shared(readings))
        return generate_latest(registry)

    def close(self) -> None:
        values.close_all_multiprocess_files()  # type: ignore[no-untyped-call]

    def _child(self, parent: Counter | Histogram, *labels: object) -> Any:
        key = (parent, *labels)
        if key not in self._children:
            self._children[key] = parent.labels(*labels)
        return self._children[key]


class _Processes(Collector):
    """What the processes have written into the files of their slots."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        yield from MultiProcessCollector.merge(list(self._written()))  # type: ignore[no-untyped-call]

    def _written(self) -> Iterator[str]:
        """Leave out files that a process is making just now, or was killed while it made: they have no length yet."""
        for path in self._folder.glob("*.db"):
            with suppress(FileNotFoundError):  # of a process that has ended
                if path.stat().st_size:
                    yield str(path)


class _Shared(Collector):
    """The metrics that no process owns."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        now = self._readings
        build = {"version": __version__, "python": platform.python_version()}
        yield InfoMetricFamily("gateway_build", "What runs", value=build)
        yield _gauge("redis_up", "Whether Redis answered this scrape", now.up)
        if not now.up:
            return
        yield _gauge("redis_roundtrip_seconds", "How long it took to answer the first question", now.seconds)
        yield _gauge("redis_memory_used_bytes", "Memory that Redis uses", now.memory)
        yield _gauge("redis_memory_max_bytes", "Its maxmemory; 0 without one", now.most_memory)
        if now.is_persisted is not None:
            yield _gauge("redis_persistence_ok", "Whether its append-only file could be written", now.is_persisted)
        yield _gauge("users", "Accounts", now.users)
        yield _gauge("rooms", "Registered rooms", now.rooms)
        yield _gauge("people_online", "Open stays in rooms", now.people)
        # Not a counter: a correction may lower it, which Prometheus would take for a restart.
        yield _gauge("participant_minutes", "Minutes of all stays so far", now.participant_s / 60)
        yield _gauge("chores_running", "Whether a process performs the chores of metering", now.leads)
        yield _gauge("sessions_overdue", "Sessions that should have been compared with 100ms", now.sessions_overdue)
        yield _gauge("webhook_events_waiting", "Events that wait to be processed", now.waiting)
        yield _gauge("webhook_oldest_seconds", "How long the oldest of them has waited", now.oldest_s)
        yield _gauge("webhook_dead_letters", "Events that could not be understood and are kept", now.dead_letters)
        events = CounterMetricFamily("gateway_webhook_events", "Events by what became of them", labels=["result"])
        for result, count in now.events.items():
            events.add_metric([result], count)
        yield events
        yield from _outgoing(now)
        used = GaugeMetricFamily("gateway_budget_used_ratio", "Used share of the installation's", labels=["budget"])
        for name, share in now.budgets.items():
            used.add_metric([name], share)
        yield used


def _outgoing(now: Readings) -> Iterator[Metric]:
    """Yield what became of the events for other systems."""
    yield _gauge("outgoing_dead_letters", "Events that no attempt could deliver and are kept", now.outgoing_dead)
    waiting = GaugeMetricFamily("gateway_outgoing_events_waiting", "Events to be delivered", labels=["endpoint"])
    results = CounterMetricFamily("gateway_outgoing_events", "Attempts to deliver", labels=["endpoint", "result"])
    for one in now.outgoing:
        waiting.add_metric([one.name], one.waiting)
        for result in ("delivered", "failed", "dead"):
            results.add_metric([one.name, result], getattr(one, result))
    yield waiting
    yield results


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"gateway_{name}", text, value=value)


def _named(outcomes: Outcomes) -> Iterable[tuple[str, int]]:
    """Return the numbers of a limit for Prometheus; `checked` is the sum of those that exclude each other."""
    checked = outcomes.allowed + outcomes.denied + outcomes.shadow_denied
    yield "checked", checked
    yield "allowed", outcomes.allowed
    yield "near_limit", outcomes.near_limit
    yield "denied", outcomes.denied
    yield "shadow_denied", outcomes.shadow_denied


def _observe(histogram: Histogram, times: Times) -> None:
    """Add many observations at once, which the library cannot (tests/unit/test_reliances)."""
    histogram._sum.inc(times.seconds)
    for bucket, count in zip(histogram._buckets, times.buckets, strict=True):
        if count:
            bucket.inc(count)

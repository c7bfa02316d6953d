"""Spans in OpenTelemetry's form: which are made, whose trace they continue, and what a stop waits for."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from gateway import __version__
from gateway.traces import export
from gateway.traces.export import Exporter, parent_finder
from gateway.traces.recorder import Parent, Step, Trace
from tests.collector import Collector, attributes_of

PROXY, STRANGER = "10.0.0.1", "203.0.113.9"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01".encode()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "hms-gateway")
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
        yield running
    for name in ("opentelemetry", OTLPSpanExporter.__module__, export._QUEUE):
        logging.getLogger(name).setLevel(logging.NOTSET)
        for seldom in [one for one in logging.getLogger(name).filters if isinstance(one, export._Seldom)]:
            logging.getLogger(name).removeFilter(seldom)


find = parent_finder(lambda peer: peer == PROXY)


def scope(*traceparents: bytes, peer: str | None = PROXY) -> dict[str, Any]:
    return {"client": (peer, 1) if peer else None, "headers": [(b"traceparent", one) for one in traceparents]}


def test_the_trace_of_a_trusted_proxy_is_continued() -> None:
    parent = find(scope(TRACEPARENT))
    assert parent is not None
    assert parent.trace_id == int(TRACE, 16)
    assert parent.context.span_id == int(SPAN, 16)


@pytest.mark.parametrize(
    "traceparents",
    [
        (),
        (b"",),
        (TRACEPARENT, TRACEPARENT),
        (b"ff" + TRACEPARENT[2:],),
        (TRACEPARENT.upper(),),
        (TRACEPARENT + b"-x",),
        (TRACEPARENT[:-1],),
        (f"00-{'0' * 32}-{SPAN}-01".encode(),),
        (f"00-{TRACE}-{'0' * 16}-01".encode(),),
        (b"\xff" * 55,),
    ],
)
def test_what_is_no_single_traceparent_begins_a_new_trace(traceparents: tuple[bytes, ...]) -> None:
    assert find(scope(*traceparents)) is None


@pytest.mark.parametrize("peer", [STRANGER, "", None])
def test_the_traceparent_of_a_stranger_is_ignored(peer: str | None) -> None:
    assert find(scope(TRACEPARENT, peer=peer)) is None


def parent(flags: str) -> Parent:
    found = find(scope(TRACEPARENT[:-2] + flags.encode()))
    assert found is not None
    return found


async def test_a_parent_decides_whether_its_trace_is_recorded(collector: Collector) -> None:
    exporter = Exporter()
    assert exporter.samples(1, parent("01"))
    assert not exporter.samples(1, parent("00"))
    assert not exporter.samples(1, None)
    await exporter.close()


def steps(failure: str = "") -> tuple[Trace, Step]:
    call = Step("POST /rooms", 1_000, 2_000, {"gateway.outcome": "ok"}, failure)
    return Trace(5, None, 0, 500, [call]), Step("POST /api/rooms", 500, 3_000, {}, failure)


async def test_spans_arrive_as_parent_and_child_of_one_trace(collector: Collector) -> None:
    exporter = Exporter()
    exporter.export(*steps())
    await exporter.close()
    root, call = collector.named("POST /api/rooms")[0], collector.named("POST /rooms")[0]
    assert (root.kind, call.kind) == (root.SPAN_KIND_SERVER, root.SPAN_KIND_CLIENT)
    assert root.trace_id == call.trace_id == (5).to_bytes(16)
    assert root.parent_span_id == b""
    assert call.parent_span_id == root.span_id
    assert (root.start_time_unix_nano, root.end_time_unix_nano) == (500, 3_000)
    assert root.status.code == Status.STATUS_CODE_UNSET
    [resource] = {tuple(sorted(one.items())) for one, _ in collector.received}
    assert {"service.name": "hms-gateway", "service.version": __version__}.items() <= dict(resource).items()


async def test_a_failure_is_the_status_of_its_span(collector: Collector) -> None:
    exporter = Exporter()
    exporter.export(*steps("timeout"))
    await exporter.close()
    for span in collector.spans:
        assert span.status.code == Status.STATUS_CODE_ERROR
        assert attributes_of(span)["error.type"] == "timeout"
    assert len(collector.spans) == 2


async def test_a_continued_trace_has_the_span_of_the_proxy_as_parent(collector: Collector) -> None:
    exporter = Exporter()
    trace, request = steps()
    trace.parent = parent("01")
    trace.trace_id = trace.parent.trace_id
    exporter.export(trace, request)
    await exporter.close()
    [root] = collector.named("POST /api/rooms")
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE, SPAN)


async def test_a_stop_waits_only_so_long_for_a_collector_that_is_silent(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "CLOSE_S", 0.2)
    collector.silent = True
    exporter = Exporter()
    exporter.export(*steps())
    begun = time.monotonic()
    await exporter.close()
    assert 0.2 <= time.monotonic() - begun < 5


async def test_a_collector_that_refuses_is_logged_once_a_minute(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 401
    for _ in range(3):
        exporter = Exporter()
        exporter.export(*steps())
        await exporter.close()
    assert collector.requests == 3
    assert [(one.levelname, "401" in one.getMessage()) for one in caplog.records] == [("ERROR", True)]


async def test_spans_that_a_full_queue_drops_are_logged_once_a_minute(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(export, "CLOSE_S", 0.01)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "512")
    collector.silent = True
    exporter = Exporter()
    for _ in range(1200):  # 512 of their 2400 spans are on their way, 512 wait
        exporter.export(*steps())
    assert [one.getMessage() for one in caplog.records] == ["Queue full, dropping Span."]
    await exporter.close()

"""What is noted of a request, and of which requests."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from gateway import logs, server
from gateway.hms.calls import Call
from gateway.redis.store import StoreError
from gateway.setting_values import SettingsError
from gateway.settings import Settings
from gateway.traces.recorder import CANCELLED, MOST_STEPS, Parent, Recorder, Step, Trace
from tests.unit.gateway.test_settings import GOOD

ROUTE = "/api/invites/{code}/accept"
SCOPE = {"method": "POST", "path": "/api/invites/secret/accept", "path_template": ROUTE, "headers": []}


class Sink:
    """Stands in for the exporter: keeps what it is given, and samples as it is told."""

    def __init__(self) -> None:
        self.samples_all = True
        self.asked: list[tuple[int, Parent | None]] = []
        self.taken: list[tuple[Trace, Step]] = []

    def samples(self, trace_id: int, parent: Parent | None) -> bool:
        self.asked.append((trace_id, parent))
        return self.samples_all

    def export(self, trace: Trace, request: Step) -> None:
        self.taken.append((trace, request))

    async def close(self) -> None: ...


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def recorder(sink: Sink) -> Iterator[Recorder]:
    token = logs.request_id.set("r1")
    recorder = Recorder(sink, None)  # type: ignore[arg-type]
    yield recorder
    recorder.responded(SCOPE, 0, 0)
    logs.request_id.reset(token)


def future(result: Any = None) -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


async def answered(*futures: asyncio.Future[Any]) -> None:
    for one in futures:
        one.set_result(None)
    await asyncio.sleep(0)


async def test_a_request_is_noted_by_its_route_and_never_by_its_path(recorder: Recorder, sink: Sink) -> None:
    recorder.begin(SCOPE)
    recorder.responded(SCOPE, 201, 0.5)
    [(trace, request)] = sink.taken
    assert request.name == f"POST {ROUTE}"
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": ROUTE,
        "http.response.status_code": 201,
        "gateway.request_id": "r1",
    }
    assert request.ended_ns - request.begun_ns == 500_000_000
    assert (request.failure, trace.steps, trace.parent) == ("", [], None)


@pytest.mark.parametrize(("status", "failure"), [(200, ""), (429, ""), (503, "503"), (0, CANCELLED)])
async def test_only_a_5xx_and_no_response_at_all_are_failures(
    recorder: Recorder, sink: Sink, status: int, failure: str
) -> None:
    recorder.begin(SCOPE)
    recorder.responded(SCOPE, status, 0.1)
    [(_, request)] = sink.taken
    assert request.failure == failure
    assert ("http.response.status_code" in request.attributes) is (status > 0)


@pytest.mark.parametrize(("method", "name"), [("GET", "GET"), ("PROPFIND<script>", "_OTHER")])
async def test_a_request_without_a_route_has_only_a_known_method(
    recorder: Recorder, sink: Sink, method: str, name: str
) -> None:
    scope = {"method": method, "path": "/x", "headers": []}
    recorder.begin(scope)
    recorder.responded(scope, 404, 0.1)
    [(_, request)] = sink.taken
    assert request.name == request.attributes["http.request.method"] == name
    assert "http.route" not in request.attributes


async def test_commands_sent_together_are_one_step_and_later_ones_another(recorder: Recorder, sink: Sink) -> None:
    recorder.begin(SCOPE)
    first, second, third = future(), future(), future()
    recorder.sent(first)
    recorder.sent(second)
    await answered(first, second)
    recorder.sent(third)
    await answered(third)
    recorder.responded(SCOPE, 200, 0.1)
    [(trace, request)] = sink.taken
    assert [step.name for step in trace.steps] == ["redis", "redis"]
    assert [step.attributes["db.operation.batch.size"] for step in trace.steps] == [2, 1]
    assert request.begun_ns <= trace.steps[0].begun_ns <= trace.steps[0].ended_ns <= trace.steps[1].begun_ns


async def test_a_durable_write_is_a_step_of_its_own(recorder: Recorder, sink: Sink) -> None:
    recorder.begin(SCOPE)
    write, command = future(), future()
    recorder.written(write)
    recorder.sent(command)
    await answered(command, write)
    recorder.responded(SCOPE, 200, 0.1)
    assert [step.name for step in sink.taken[0][0].steps] == ["redis", "redis durable"]


async def test_a_failed_command_names_the_kind_of_error_and_not_its_text(recorder: Recorder, sink: Sink) -> None:
    recorder.begin(SCOPE)
    failed, cancelled = future(), future()
    recorder.sent(failed)
    failed.set_exception(StoreError("with a secret"))
    await asyncio.sleep(0)
    recorder.sent(cancelled)
    cancelled.cancel()
    await asyncio.sleep(0)
    recorder.responded(SCOPE, 503, 0.1)
    assert [step.failure for step in sink.taken[0][0].steps] == ["StoreError", CANCELLED]


async def test_what_nobody_waits_for_any_more_ends_with_the_request(recorder: Recorder, sink: Sink) -> None:
    recorder.begin(SCOPE)
    late = future()
    recorder.sent(late)
    recorder.responded(SCOPE, 0, 0.1)
    await answered(late)
    [(trace, _)] = sink.taken
    assert [step.failure for step in trace.steps] == [CANCELLED]


async def test_a_call_to_100ms_is_noted_without_ids(recorder: Recorder, sink: Sink) -> None:
    recorder.begin(SCOPE)
    room = "6" * 24
    recorder.called(Call("POST", f"/active-rooms/{room}/end-room", {"reason": "x"}), "not_found", 0.25)
    recorder.called(Call("POST", "/rooms"), "timeout", 5.0)
    recorder.responded(SCOPE, 504, 0.1)
    ended, created = sink.taken[0][0].steps
    assert ended.name == "POST /active-rooms/{id}/end-room"
    assert ended.attributes == {
        "peer.service": "100ms",
        "http.request.method": "POST",
        "url.template": "/active-rooms/{id}/end-room",
        "gateway.outcome": "not_found",
    }
    assert ended.ended_ns - ended.begun_ns == 250_000_000
    assert (ended.failure, created.failure) == ("", "timeout")


async def test_a_long_stream_keeps_only_its_first_steps_and_counts_the_others(recorder: Recorder, sink: Sink) -> None:
    recorder.begin(SCOPE)
    for _ in range(MOST_STEPS + 7):
        one = future()
        recorder.sent(one)
        await answered(one)
    recorder.responded(SCOPE, 200, 3600)
    [(trace, request)] = sink.taken
    assert len(trace.steps) == MOST_STEPS
    assert request.attributes["gateway.skipped_steps"] == 7


async def test_what_a_task_does_after_the_request_is_not_noted(recorder: Recorder, sink: Sink) -> None:
    recorder.begin(SCOPE)
    go = asyncio.Event()

    async def later() -> None:
        await go.wait()
        recorder.sent(future())
        recorder.called(Call("GET", "/rooms"), "ok", 0.1)

    task = asyncio.create_task(later())
    recorder.responded(SCOPE, 200, 0.1)
    go.set()
    await task
    assert sink.taken[0][0].steps == []


async def test_a_request_that_is_not_sampled_leaves_nothing(recorder: Recorder, sink: Sink) -> None:
    sink.samples_all = False
    recorder.begin(SCOPE)
    assert logs.trace_id.get() == ""
    recorder.sent(future())
    recorder.called(Call("GET", "/rooms"), "ok", 0.1)
    recorder.responded(SCOPE, 200, 0.1)
    assert sink.taken == []
    [(trace_id, parent)] = sink.asked
    assert 0 < trace_id < 2**128
    assert parent is None


async def test_log_lines_have_the_trace_while_the_request_lasts(recorder: Recorder, sink: Sink) -> None:
    recorder.begin(SCOPE)
    assert logs.trace_id.get() == f"{sink.asked[0][0]:032x}"
    recorder.responded(SCOPE, 200, 0.1)
    assert logs.trace_id.get() == ""


@pytest.mark.parametrize("missing", ["opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"])
def test_without_the_extra_a_start_is_refused_with_the_remedy(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.from_env(GOOD | {"GATEWAY_TRACES": "on"})
    for name in [name for name in sys.modules if name == missing or name.startswith(f"{missing}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SettingsError, match=r"GATEWAY_TRACES .* pip install 'hms-gateway\[traces\]' "):
        server.run(settings)
    server.check_extra(replace(settings, traces="off"))

"""Notes in plain numbers what a request waits for. It knows no OpenTelemetry: `export` makes spans of the notes.

The hooks of the edge, the store and the client of 100ms call it. Only requests are traced, not the chores.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from gateway import logs
from gateway.hms.calls import Call
from gateway.redis import OPEN_TELEMETRY
from gateway.setting_values import SettingsError
from gateway.settings import Settings, share

if TYPE_CHECKING:
    from gateway.traces.export import Exporter

MOST_STEPS = 64  # of one trace: a stream asks Redis again and again, for hours
CANCELLED = "cancelled"
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_GOOD_OUTCOMES = {"ok", "not_found"}  # some things may be missing at 100ms

Attributes = dict[str, str | int]


class Parent(Struct, frozen=True):
    """The span of a proxy that a trace continues. `context` is OpenTelemetry's own form of it."""

    trace_id: int
    context: Any


class Step(Struct):
    """One part of a trace. `failure` is a short word for what went wrong, empty if nothing did."""

    name: str
    begun_ns: int
    ended_ns: int
    attributes: Attributes
    failure: str = ""


class Trace(Struct, eq=False):
    """One sampled request. `clock_ns` is added to the monotonic clock to get the time of day."""

    trace_id: int
    parent: Parent | None
    clock_ns: int
    begun_ns: int
    steps: list[Step]
    flush: Flush | None = None
    skipped: int = 0
    ended: bool = False

    def now_ns(self) -> int:
        return self.clock_ns + time.perf_counter_ns()

    def add(self, step: Step) -> None:
        """Note a step, or only that there was one."""
        if self.ended:
            return
        if len(self.steps) < MOST_STEPS:
            self.steps.append(step)
        else:
            self.skipped += 1


class Flush(Struct, eq=False):
    """Commands of one request that Redis has not all answered: those sent before the first answer came."""

    trace: Trace
    name: str
    begun_ns: int
    commands: int = 0
    waiting: int = 0
    failure: str = ""

    def follow(self, future: asyncio.Future[Any]) -> None:
        self.commands += 1
        self.waiting += 1
        future.add_done_callback(self._answered)

    def close(self, failure: str = "") -> None:
        """Make a step of it."""
        if self.trace.flush is self:
            self.trace.flush = None
        attributes: Attributes = {"db.system.name": "redis", "db.operation.batch.size": self.commands}
        self.trace.add(Step(self.name, self.begun_ns, self.trace.now_ns(), attributes, failure))

    def _answered(self, future: asyncio.Future[Any]) -> None:
        self.waiting -= 1
        if future.cancelled():
            self.failure = CANCELLED
        elif error := future.exception():
            self.failure = type(error).__name__
        if not self.waiting and not self.trace.ended:
            self.close(self.failure)


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


class Recorder:
    """Records sampled requests. Its methods are the hooks that the app hands out.

    `parent_of` finds the proxy's span that a request continues; None if every trace begins here.
    """

    def __init__(self, exporter: Exporter, parent_of: Callable[[Any], Parent | None] | None) -> None:
        self._samples = exporter.samples
        self._export = exporter.export
        self._parent_of = parent_of
        self.close = exporter.close

    def begin(self, scope: Any) -> None:
        """Begin a trace if this request is sampled. `scope` is as the server made it."""
        parent = self._parent_of(scope) if self._parent_of is not None else None
        trace_id = random.getrandbits(128) if parent is None else parent.trace_id
        if not self._samples(trace_id, parent):
            return
        clock_ns = time.time_ns() - time.perf_counter_ns()
        trace = Trace(trace_id, parent, clock_ns, time.time_ns(), [])
        _current.set(trace)
        logs.trace_id.set(f"{trace_id:032x}")

    def sent(self, future: asyncio.Future[Any]) -> None:
        """Follow a command that is sent with the next write; commands sent together are one step."""
        trace = _current.get()
        if trace is None or trace.ended:
            return
        if trace.flush is None:
            trace.flush = Flush(trace, "redis", trace.now_ns())
        trace.flush.follow(future)

    def written(self, future: asyncio.Future[Any]) -> None:
        """Follow a write that waits until it is on disk."""
        trace = _current.get()
        if trace is not None and not trace.ended:
            Flush(trace, "redis durable", trace.now_ns()).follow(future)

    def called(self, call: Call, outcome: str, seconds: float) -> None:
        """Note a call to 100ms, with its retries."""
        trace = _current.get()
        if trace is None:
            return
        attributes: Attributes = {
            "peer.service": "100ms",
            "http.request.method": call.method,
            "url.template": call.template,
            "gateway.outcome": outcome,
        }
        ended_ns = trace.now_ns()
        failure = "" if outcome in _GOOD_OUTCOMES else outcome
        trace.add(Step(f"{call.method} {call.template}", ended_ns - int(seconds * 1e9), ended_ns, attributes, failure))

    def responded(self, scope: Any, status: int, seconds: float) -> None:
        """End the request's trace and pass it on. `scope` has been routed, or not."""
        trace = _current.get()
        if trace is None:
            return
        _current.set(None)
        logs.trace_id.set("")
        if trace.flush is not None:
            trace.flush.close(CANCELLED)  # its answer is not awaited any more
        trace.ended = True
        self._export(trace, _request(trace, scope, status, seconds))


def start(settings: Settings, trusts: Callable[[str], bool]) -> Recorder | None:
    """Return the recorder of this process, None if traces are off. `trusts`: whether a peer is a trusted proxy."""
    if settings.traces == "off":
        return None
    check_extra(settings)
    share(settings.open_telemetry, "OTEL_")
    from gateway.traces.export import Exporter, parent_finder

    return Recorder(Exporter(), parent_finder(trusts) if settings.traces == "proxied" else None)


def check_extra(settings: Settings) -> None:
    """Check that what traces need is installed, if they are on. Raises: SettingsError"""
    if settings.traces == "off":
        return
    admit_sdk()
    try:
        is_there = find_spec("opentelemetry.sdk") and find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:
        is_there = None
    if is_there is None:
        raise SettingsError(
            "GATEWAY_TRACES needs OpenTelemetry: pip install 'hms-gateway[traces]' (with compose: docker compose build)"
        )


def admit_sdk() -> None:
    """Let OpenTelemetry's SDK be imported, which needs what redis-py was to do without."""
    for name in OPEN_TELEMETRY:
        if name in sys.modules and sys.modules[name] is None:
            del sys.modules[name]


def _request(trace: Trace, scope: Any, status: int, seconds: float) -> Step:
    """Return the step of the request itself: its route and not its path, which can hold the code of an invite."""
    method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
    attributes: Attributes = {"http.request.method": method, "gateway.request_id": logs.request_id.get()}
    route = scope.get("path_template")
    if route is not None:
        attributes["http.route"] = route
    if status:
        attributes["http.response.status_code"] = status
    if trace.skipped:
        attributes["gateway.skipped_steps"] = trace.skipped
    failure = str(status) if status >= 500 else "" if status else CANCELLED
    name = method if route is None else f"{method} {route}"
    return Step(name, trace.begun_ns, trace.begun_ns + int(seconds * 1e9), attributes, failure)

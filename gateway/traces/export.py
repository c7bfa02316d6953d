"""Spans in the form of OpenTelemetry, sent to a collector as OTLP over HTTP. Imported only where traces are on.

The SDK reads its own variables (OTEL_*). Spans are made when a request has ended and only if it was sampled, with the
SDK's `ReadableSpan`: its tracer would cost 26 us per mint instead of 2.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from random import getrandbits
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway import __version__
from gateway.threads import in_daemon_thread
from gateway.traces.recorder import Parent, Step, Trace

CLOSE_S = 2.0  # what a stop waits for the last spans; the gateway has at most 15 s for the whole of it
_COMPLAIN_S = 60.0
_QUEUE = "opentelemetry.sdk._shared_internal"  # the logger that says that spans are dropped
_NO_CONTEXT = Context()
_SCOPE = InstrumentationScope("gateway", __version__)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NO_STATUS = Status()
_PROPAGATOR = TraceContextTextMapPropagator()


class Exporter:
    """Samples traces, and sends the spans of those that are recorded in a thread. What a full queue drops is lost."""

    def __init__(self) -> None:
        resource = Resource.create({"service.version": __version__, "process.pid": os.getpid()})
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._sampler, self._resource = provider.sampler, provider.resource
        self._sender = OTLPSpanExporter()
        self._processor = BatchSpanProcessor(self._sender)
        _quiet()

    def samples(self, trace_id: int, parent: Parent | None) -> bool:
        """Tell what the sampler decides."""
        context = _NO_CONTEXT if parent is None else _context_of(parent)
        decision = self._sampler.should_sample(context, trace_id, "").decision
        return decision is Decision.RECORD_AND_SAMPLE

    def export(self, trace: Trace, request: Step) -> None:
        """Queue the spans of a trace; never waits."""
        parent = None if trace.parent is None else trace.parent.context
        root = self._queue(request, trace.trace_id, parent, SpanKind.SERVER)
        for step in trace.steps:
            self._queue(step, trace.trace_id, root, SpanKind.CLIENT)

    def _queue(self, step: Step, trace_id: int, parent: SpanContext | None, kind: SpanKind) -> SpanContext:
        context = SpanContext(trace_id, getrandbits(64) or 1, is_remote=False, trace_flags=_SAMPLED)
        status = _NO_STATUS
        if step.failure:
            step.attributes["error.type"] = step.failure
            status = Status(StatusCode.ERROR)
        self._processor.on_end(
            ReadableSpan(
                step.name,
                context=context,
                parent=parent,
                resource=self._resource,
                attributes=step.attributes,
                kind=kind,
                status=status,
                start_time=step.begun_ns,
                end_time=step.ended_ns,
                instrumentation_scope=_SCOPE,
            )
        )
        return context

    async def close(self) -> None:
        """Send what is queued, for at most two seconds."""
        done = in_daemon_thread(self._processor.shutdown, "traces-close")
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await asyncio.wrap_future(done)
                return
        self._sender.shutdown()  # type: ignore[no-untyped-call]  # ends the wait between two attempts


def parent_finder(trusts: Callable[[str], bool]) -> Callable[[Any], Parent | None]:
    """Return a function that reads the `traceparent` of requests which come from a trusted peer.

    A stranger's would join their request to any trace they like, and decide that it is recorded. `tracestate` is left
    out: nothing here has a use for it, and nothing after the gateway learns of the trace.
    """

    def find(scope: Any) -> Parent | None:
        values = [value for name, value in scope["headers"] if name == b"traceparent"]
        if len(values) != 1 or not trusts((scope.get("client") or ("",))[0]):
            return None
        context = _PROPAGATOR.extract({"traceparent": values[0].decode("latin-1")}, _NO_CONTEXT)
        span = get_current_span(context).get_span_context()
        return Parent(span.trace_id, span) if span.is_valid else None

    return find


def _context_of(parent: Parent) -> Context:
    return set_span_in_context(NonRecordingSpan(parent.context), _NO_CONTEXT)


def _quiet() -> None:
    """Let the SDK log once a minute that it cannot send or that spans are lost, instead of several times a second."""
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    logging.getLogger(_QUEUE).setLevel(logging.WARNING)
    for name in (OTLPSpanExporter.__module__, _QUEUE):
        logging.getLogger(name).addFilter(_Seldom())


class _Seldom(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._again_at = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._again_at:
            return False
        self._again_at = now + _COMPLAIN_S
        return True

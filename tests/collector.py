"""A collector of OpenTelemetry on this machine: it decodes the spans that are sent to it."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.servers import HOST


class Collector:
    """Keeps the spans that it is sent, and the resource of each. With `status` it answers something else than 200.

    While `silent` is set it takes requests and answers none.
    """

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, Any], Span]] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.requests = 0
        self.silent = False
        self._spoken = threading.Event()
        self._server = ThreadingHTTPServer((HOST, 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._server.server_address[1]}"

    @property
    def spans(self) -> list[Span]:
        return [span for _, span in self.received]

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def children_of(self, span: Span) -> list[Span]:
        return [one for one in self.spans if one.parent_span_id == span.span_id and one.trace_id == span.trace_id]

    def _take(self, body: bytes) -> None:
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = {one.key: value_of(one.value) for one in group.resource.attributes}
            for scope in group.scope_spans:
                self.received += [(resource, span) for span in scope.spans]

    def _handler(collector) -> type[BaseHTTPRequestHandler]:  # noqa: N805  the handler has a self of its own
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.requests += 1
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if collector.silent:
                    collector._spoken.wait(60)
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                assert self.headers["Content-Type"] == "application/x-protobuf"
                collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                if collector.status == 200:
                    collector._take(body)
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        return Handler

    def __enter__(self) -> Collector:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spoken.set()
        self._server.shutdown()
        self._server.server_close()


def value_of(value: Any) -> Any:
    """Return a value of an attribute."""
    return getattr(value, value.WhichOneof("value"))


def attributes_of(span: Span) -> dict[str, Any]:
    return {one.key: value_of(one.value) for one in span.attributes}

"""Checks for `gateway doctor` whether a collector takes traces."""

import asyncio
import logging

from gateway.cli.checks import Finding
from gateway.setting_values import SettingsError
from gateway.settings import Settings, share
from gateway.threads import in_daemon_thread
from gateway.traces.recorder import check_extra

PATIENCE_S = 3.0
_NAME = "traces"


async def check_traces(settings: Settings) -> list[Finding]:
    """Send the collector no spans, as the gateway would send some; nothing is found where traces are off."""
    if settings.traces == "off":
        return []
    try:
        check_extra(settings)
    except SettingsError as error:
        return [Finding(_NAME, "FAIL", str(error))]
    share(settings.open_telemetry, "OTEL_")
    if await asyncio.wrap_future(in_daemon_thread(_is_taken, _NAME)):
        return [Finding(_NAME, "ok", f"the collector takes them; GATEWAY_TRACES={settings.traces}")]
    text = "the collector does not take them, so they are lost: look at OTEL_EXPORTER_OTLP_ENDPOINT and _HEADERS"
    return [Finding(_NAME, "WARN", text)]


def _is_taken() -> bool:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SpanExportResult

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # its lines would stand between ours
    return OTLPSpanExporter(timeout=PATIENCE_S).export(()) is SpanExportResult.SUCCESS

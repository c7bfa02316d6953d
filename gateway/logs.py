"""Log lines: one JSON object each, or text for a console. Times are UTC; lines carry the request's id."""

import asyncio
import contextlib
import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TextIO

import msgspec

request_id: ContextVar[str] = ContextVar("request_id", default="")
service_key: ContextVar[str] = ContextVar("service_key", default="")
"""The id of the service key that a request came with."""
trace_id: ContextVar[str] = ContextVar("trace_id", default="")  # only of requests that are traced

BATCH_S = 0.05  # a killed process loses this much of its events
MOST_LINES = 1000  # that wait
ATOMIC_BYTES = 4096  # PIPE_BUF of Linux
_ENCODER = msgspec.json.Encoder(enc_hook=str)

# Codes of invites and links, login tokens, refresh tokens and service keys, any of which its reader could use.
_SECRET = re.compile(
    r"(?<![a-z2-7])[a-z2-7]{26}(?![a-z2-7])|eyJ[\w-]+\.[\w-]+\.[\w-]*|v1\.u[a-z2-7]{20}\.\w+\.\w+\.\w+"
    r"|gwk_[a-z2-7]{12}_[0-9A-Za-z]{38}"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def path_to_log(path: str) -> str:
    """Return a path without secrets: an invite's code is part of its path, other secrets can be there by mistake."""
    return _SECRET.sub("(secret)", path)


def to_json(value: dict[str, Any]) -> str:
    """Return JSON in printable ASCII; a value without a JSON type becomes text."""
    try:
        encoded = _ENCODER.encode(value)
    except UnicodeEncodeError:  # a lone surrogate
        encoded = b"\x7f"
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded.decode()
    return json.dumps(value, ensure_ascii=True, default=str, separators=(",", ":"))


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        if record.exc_info:
            fields = fields | {"traceback": self.formatException(record.exc_info)}
        return self.line(record.created, record.levelname, record.name, record.getMessage(), fields)

    def line(self, at: float, level: str, logger: str, message: str, fields: dict[str, Any]) -> str:
        line = {"time": _time(int(at * 1000)), "level": level.lower(), "logger": logger, "message": message}
        if rid := request_id.get():
            line["request_id"] = rid
            if trace := trace_id.get():
                line["trace_id"] = trace
        return to_json(line | fields)


@lru_cache(maxsize=8)  # lines come in bursts, a request writes two
def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _ascii(text: str) -> str:
    """Escape everything but printable ASCII: a user's text must not forge a line or control the terminal."""
    escaped = text.encode("ascii", "backslashreplace").decode()
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", escaped)


class _Console(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        lines = [self.line(record.created, record.levelname, record.name, record.getMessage(), fields)]
        if record.exc_info:
            # Indented: a line break in an exception's text must not begin what looks like a log line.
            lines += (_ascii(f"    {line}") for line in self.formatException(record.exc_info).split("\n"))
        return "\n".join(lines)

    def line(self, at: float, level: str, logger: str, message: str, fields: dict[str, Any]) -> str:
        extra = "".join(f" {name}={value!s}" for name, value in fields.items())
        return _ascii(f"{datetime.fromtimestamp(at, UTC):%H:%M:%S} {level.lower():7} {message}{extra}")


class _Lines(logging.StreamHandler[TextIO]):
    """Writes log records at once, and events within `BATCH_S`, in the order in which they were logged."""

    def __init__(self, stream: TextIO, formatter: _Json | _Console) -> None:
        super().__init__(stream)
        self.setFormatter(formatter)
        self._line = formatter.line
        self._lines: list[str] = []
        self._planned: asyncio.AbstractEventLoop | None = None  # the loop that will write the lines

    def event(self, logger: str, message: str, fields: dict[str, Any]) -> None:
        line = self._line(time.time(), "info", logger, message, fields)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        with self.lock:  # type: ignore[union-attr]  # only a handler that is being made has none
            self._lines.append(line + self.terminator)
            if loop is None or len(self._lines) >= MOST_LINES:
                self.flush()
            elif self._planned is not loop:
                self._planned = loop
                loop.call_later(BATCH_S, self.flush)

    def emit(self, record: logging.LogRecord) -> None:
        self._write()
        super().emit(record)

    def flush(self) -> None:
        """Write all events; called by a timer, and by `logging` when the process ends."""
        with self.lock:  # type: ignore[union-attr]  # see `event`
            self._planned = None
            self._write()
            super().flush()

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        with contextlib.suppress(OSError, ValueError):  # standard error is closed: nowhere to report it
            for part in _parts(lines):
                self.stream.write(part)
                super().flush()


def _parts(lines: list[str]) -> Iterator[str]:
    """Join lines to writes of at most `ATOMIC_BYTES`: workers share a pipe, which could mix lines of longer ones."""
    size, first = 0, 0
    for at, line in enumerate(lines):
        size += len(line)
        if size > ATOMIC_BYTES and at > first:
            yield "".join(lines[first:at])
            size, first = len(line), at
    if lines:
        yield "".join(lines[first:])


_handler: _Lines | None = None


def event(logger: logging.Logger, message: str, fields: dict[str, Any]) -> None:
    """Log an event of every request at level INFO; written within `BATCH_S`, before any later record.

    Makes no LogRecord and joins many lines to one write: 0.73 of the CPU per mint, which logs two.
    """
    if _handler is None:
        logger.info(message, extra={"fields": fields})
    elif logger.isEnabledFor(logging.INFO):
        _handler.event(logger.name, message, fields)


def configure(log_format: str) -> None:
    """Send all log lines to standard error in one format; silence libraries that log URLs or headers."""
    global _handler
    _handler = _Lines(sys.stderr, _Json() if log_format == "json" else _Console())
    root = logging.getLogger()
    root.handlers[:] = [_handler]
    root.setLevel(logging.INFO)
    for name in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers[:] = []
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.error").filters[:] = [_is_no_cancellation]


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """Leave out the traceback of each request that a stop gives up; uvicorn says in one line how many these are."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))

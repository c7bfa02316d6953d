"""Log lines: one JSON object each, or text for a console. Times are UTC; lines carry the request's id."""

from __future__ import annotations

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

request_id: ContextVar[str] = ContextVar("request_id", default="")

# Codes of invites and links, login tokens, refresh tokens: whoever reads one can use it.
_SECRET = re.compile(
    r"(?<![a-z2-7])[a-z2-7]{26}(?![a-z2-7])|eyJ[\w-]+\.[\w-]+\.[\w-]*|v1\.u[a-z2-7]{20}\.\w+\.\w+\.\w+"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def path_to_log(path: str) -> str:
    """Return a path without secrets: an invite's code is part of its path, other secrets get there by mistake."""
    return _SECRET.sub("(secret)", path)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if rid := request_id.get():
            line["request_id"] = rid
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


def _ascii(text: str) -> str:
    """Escape everything but printable ASCII: a user's text must not forge a line or control the terminal."""
    escaped = text.encode("ascii", "backslashreplace").decode()
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", escaped)


class _Console(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        extra = "".join(f" {name}={value!s}" for name, value in getattr(record, "fields", {}).items())
        lines = [f"{at} {record.levelname.lower():7} {record.getMessage()}{extra}"]
        if record.exc_info:
            # Indented: a line break in an exception's text must not begin what looks like a log line.
            lines += ("    " + line for line in self.formatException(record.exc_info).split("\n"))
        return "\n".join(_ascii(line) for line in lines)


def configure(log_format: str) -> None:
    """Send all log lines to standard error in one format; silence libraries that log URLs or headers."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Console())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers[:] = []
        logging.getLogger(name).propagate = True

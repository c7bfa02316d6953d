"""Faults on demand, by request header or by rule, and their effects on a request.

Syntax: `delay=30;status=503`. The parts are joined by `;`: `status=N` (400 to 599), `delay=S` (seconds, at most 60),
`reset` (closes the connection without an answer) and `garbage` (a body that is not JSON).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from itertools import chain, repeat

import msgspec
from litestar.types import Receive, Send

from gateway.emulator.errors import envelope

_DELAY_MOST_S = 60.0
_GARBAGE = b'{"id": \x00 this is not JSON'


@dataclass(frozen=True, slots=True)
class Fault:
    """The faults of one request, in this order: delay, reset, false answer."""

    delay_s: float = 0.0
    reset: bool = False
    status: int | None = None
    garbage: bool = False

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read a fault from the text of a header. Raises ValueError, which names the unknown or wrong part."""
        delay_s, status, flags = 0.0, None, set()
        for part in (part.strip() for part in text.split(";")):
            key, _, value = part.partition("=")
            if part in ("reset", "garbage"):
                flags.add(part)
            elif key == "delay":
                delay_s = _delay_s(value)
            elif key == "status":
                status = _status(value)
            else:
                raise ValueError(f"unknown fault {part!r}")
        return cls(delay_s, "reset" in flags, status, "garbage" in flags)

    async def strike(self, receive: Receive, send: Send) -> bool:
        """Apply the fault to a request whose body has been read. Return whether it has been answered."""
        if self.delay_s:
            # A client that disconnects ends the wait but not the request: a slow server too completes the work of
            # such clients, and a client that retries must handle that.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(_disconnected(receive), self.delay_s)
        if self.reset:
            await _abort(receive, send)
        elif self.garbage:
            await respond(send, self.status or 200, _GARBAGE)
        elif self.status:
            await respond(send, self.status, _false_error(self.status))
        return self.reset or self.garbage or self.status is not None


class FaultRules:
    """Faults by path, for clients whose headers a test cannot set."""

    def __init__(self) -> None:
        self._rules: list[tuple[str, Iterator[Fault]]] = []

    def add(self, match: str, fault: Fault, times: int | None) -> None:
        """Apply a fault to the next `times` requests at or below a path, or to all of them."""
        self._rules.append((match.rstrip("/"), repeat(fault) if times is None else repeat(fault, times)))

    def clear(self) -> None:
        """Remove all rules."""
        self._rules.clear()

    def take(self, path: str) -> Fault | None:
        """Return the fault of the oldest matching rule that is not used up, and count its use."""
        matching = (faults for match, faults in self._rules if path == match or path.startswith(f"{match}/"))
        return next(chain.from_iterable(matching), None)


async def respond(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    """Answer without the framework."""
    length = str(len(body)).encode()
    fields = [(b"content-type", b"application/json"), (b"content-length", length), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _delay_s(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"delay must be a number of seconds, not {value!r}")
    return min(seconds, _DELAY_MOST_S)


def _status(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) == 3 and 400 <= int(value) <= 599):
        raise ValueError(f"status must be 400 to 599, not {value!r}")
    return int(value)


def _false_error(status: int) -> bytes:
    try:
        message = HTTPStatus(status).phrase
    except ValueError:
        message = "Emulated error"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        # 100ms documents the wait of a 429 only in the text (api-reference/analytics/list-webhook-events).
        message = "Too many requests, retry after 45 seconds"
    return msgspec.json.encode(envelope(status, message, ("emulated fault",)))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _abort(receive: Receive, send: Send) -> None:
    # ASGI cannot express this: raising gives a 500, starting an answer gives half of one. The `send` of uvicorn is a
    # method of the object that owns the socket. Without a socket (in-process clients) only raising remains.
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise ConnectionResetError("emulated fault: reset")
    transport.abort()
    await _disconnected(receive)

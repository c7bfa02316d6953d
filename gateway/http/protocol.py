"""uvicorn's HTTP protocol, with bounds on what is read before the app sees a request, and on what waits.

httptools buffers a line until it ends, and uvicorn bounds neither its size nor its time: one client could fill the
memory or occupy every socket (slowloris). uvicorn also bounds neither the number of pipelined requests nor the time an
answer may stay unread. h11, used where httptools is missing, bounds the size of a head itself.
"""

import asyncio
import fcntl
import re
import socket
import struct
import sys
import termios
from functools import lru_cache
from typing import Any, NoReturn
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.http.connections import places_of
from gateway.http.cycle import OneWriteCycle
from gateway.http.dispatch import STOPS
from gateway.http.edge import REFUSED
from gateway.http.problems import Problem
from gateway.http.request_input import ARRIVED

MOST_HEAD_BYTES = 32 * 1024
MOST_FIELDS = 100
HEAD_TIMEOUT_S = 10.0
MOST_WAITING = 16  # pipelined requests behind the current one; modern clients send none
MOST_PIECES = 2048  # in which a body arrives: chunks of one byte would cost a hundred times as much as others
UNREAD_TIMEOUT_S = 30.0
DRAIN_S = 1.0  # of a stop, in which a connection without a request may send one more
_LEAST_READ_BYTES = 16 * 1024  # of an answer in that time: 0.5 KiB a second
_RESET = struct.pack("ii", 1, 0)  # struct linger: for no time
_FIELD_EXTRA = 4  # colon, space, CR, LF
# RFC 3986 section 3.2.2; the port must be one, or code that builds the URL later fails on it.
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(?::([0-9]{0,5}))?")
_MOST_PORT = 65_535
_MOST_URL_BYTES = 1024  # of a refused URL, in the answer and in the log
_BROKEN_BODY = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\ncache-control: no-store\r\n"
    b"x-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
)


class BoundedProtocol(HttpToolsProtocol):
    """Refuses a head that is too large (431), malformed or without exactly one Host (400). Closes the connection if a
    head does not end in time, too many requests wait, or answers are not read.

    A refusal goes through the app, with its problem in the scope: it is counted, logged and answered like any other.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._problem: Problem | None = None  # why reading from this connection has stopped
        self._complete = True  # whether the head of the latest request is
        self._whole = True  # whether its body has arrived, too
        self._pieces = 0  # of its body
        self._parsed = 0  # bytes of its head and trailers
        self._collecting = 0  # bytes since the parser last made progress: what it may be holding
        self._timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._draining = False  # whether the server stops
        self._stops: list[asyncio.Future[None]] = []  # of answers without an end
        self._running: Any = None  # the cycle that is being answered; uvicorn keeps only the latest
        self._places = places_of(self.server_state)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._places.enter(self)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._places.leave(self)
        self._unwatch()
        self._forget_unread()
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def data_received(self, data: bytes) -> None:
        if self._problem:
            return
        self._collecting += len(data)
        super().data_received(data)
        if self._collecting > MOST_HEAD_BYTES and not self._problem:
            self._problem = _too_large()
            self.send_400_response("")
        # Also when the answer is complete and the client keeps sending a body that is not read.
        if not self._complete or self.cycle is None or self.cycle.response_complete:
            self._watch()

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MOST_WAITING:
            self._stop(Problem(400, "invalid_request", "Too many requests wait on this connection."))
        if not self.transport.get_write_buffer_size():
            self._forget_unread()  # the client has read all answers
        if self.cycle is None or self.cycle.response_complete:
            self._places.wait(self)  # from now on
        super().on_message_begin()
        self._complete = self._whole = False
        self._parsed = self._collecting = self._pieces = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + _FIELD_EXTRA)
        if self._complete:
            return  # a trailer: as a header field it would bypass the checks of a proxy (RFC 9110 section 6.5.1)
        super().on_header(name, value)
        if len(self.headers) > MOST_FIELDS:
            self._stop(_too_large())

    def on_headers_complete(self) -> None:
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and self.parser.get_http_version() == "1.1"):  # RFC 9112 section 3.2
            self._stop(Problem(400, "invalid_request", "A request must have exactly one Host header."))
        if hosts and not _is_host(hosts[0].strip(b" \t")):  # the parser keeps blanks after a value
            self._stop(Problem(400, "invalid_request", "The Host header is malformed."))
        self._begin()
        self._complete, self._collecting = True, 0
        self._unwatch()
        if self._draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._collecting = 0
        self._pieces += 1
        if self._pieces > MOST_PIECES:
            self._stop(Problem(400, "invalid_request", "The body arrives in too many pieces."))

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if not self.cycle.response_complete:
            self._places.leave(self)
        self._whole, self._collecting = True, 0
        self.scope[ARRIVED] = True  # type: ignore[literal-required]  # as above

    def send_400_response(self, msg: str) -> None:
        """Answer a request that cannot be parsed, and close. uvicorn calls this when the parser fails."""
        self._problem = self._problem or Problem(400, "invalid_request", "The request is not valid HTTP.")
        cycle = self.cycle
        if self._complete and not self._whole and cycle.response_complete:
            self.transport.close()  # the error is in the body of a request that has its answer
            return
        if cycle is None or cycle.response_complete:
            self._refuse()
            return
        if len(self.pipeline) >= MOST_WAITING:
            cycle.keep_alive = False  # answer what has been read; read no further
            return
        # An earlier request still waits for its answer, and must not get this refusal for it; unless the error is in
        # that request's own body.
        if self._complete and cycle.more_body and not cycle.response_started and not self.pipeline:
            self.transport.write(_BROKEN_BODY)
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_unread()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._watch_unread()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete or self._running.more_body:
            self._places.wait(self)
        self._watch_unread()
        if self._draining and not self.transport.is_closing():
            self._close_when_idle()

    def give_up(self) -> None:
        """Close at once.

        Where the client has not read all answers, with a reset: after a close alone the kernel would keep them for
        minutes, and offer them again and again.
        """
        if self._unread():
            link = self.transport.get_extra_info("socket")
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def shutdown(self) -> None:
        """Answer what the client has sent or still sends, then close.

        uvicorn closes an idle connection at once, and so resets a request that lies unread, or is on its way. Here the
        next answer says `Connection: close`; a connection without a request is closed after a while.
        """
        self._draining = True
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._close_when_idle()
        elif not cycle.response_started:
            cycle.keep_alive = False
        for stop in self._stops:
            if not stop.done():
                stop.set_result(None)

    def _close_when_idle(self) -> None:
        self.loop.call_later(DRAIN_S, self._close_idle)

    def _close_idle(self) -> None:
        is_idle = self._complete and (self.cycle is None or self.cycle.response_complete)
        if is_idle and not self.transport.is_closing():
            self.transport.close()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _watch_unread(self) -> None:
        """Close the connection if answers stay unread; a closing connection, too, ends only when they are read.

        Each answer restarts the time, because the buffer no longer shows what was read of earlier ones. A client that
        reads nothing is stopped by the buffer's high-water mark: above it no answer is written.
        """
        self._forget_unread()
        if unread := self._unread():
            self._unread_timer = self.loop.call_later(UNREAD_TIMEOUT_S, self._check_unread, unread)

    def _forget_unread(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _check_unread(self, before: int) -> None:
        self._unread_timer = None
        unread = self._unread()
        if unread > max(0, before - _LEAST_READ_BYTES):
            self.give_up()
        elif unread:
            self._watch_unread()

    def _unread(self) -> int:
        """Return how many bytes of answers the client has not acknowledged, or 0 if the kernel holds all of them.

        The kernel buffers up to 4 MB, and takes more only when a third of that has been read: by what waits here alone,
        a client on a slow line would seem to read nothing for longer than the timeout.
        """
        waiting = self.transport.get_write_buffer_size()
        if not waiting:
            return 0
        try:
            held = fcntl.ioctl(self.transport.get_extra_info("socket"), termios.TIOCOUTQ, bytes(4))
        except OSError:  # the socket is closed, or the system cannot tell
            return waiting
        return waiting + int.from_bytes(held, sys.byteorder)

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: uvicorn logs two lines of advice for developers for each request that offers an upgrade."""

    def _refuse(self) -> None:
        """Build a request from what has arrived, for the app to refuse."""
        if self._complete:
            self.on_message_begin()  # not even a request line was parsed
        method_known = bool(self.url)
        self.url = self.url[:_MOST_URL_BYTES]
        try:
            if not httptools.parse_url(self.url).path:
                self.url = b"/"
        except httptools.HttpParserInvalidURLError:
            self.url = b"/"
        self.scope[REFUSED] = self._problem  # type: ignore[literal-required]  # a scope may carry more keys
        self._begin()
        self._complete = True
        self.cycle.keep_alive = self.cycle.more_body = False
        if not method_known:
            self.scope["method"] = "-"

    def _begin(self) -> None:
        """Begin to serve a request, or queue it behind others; as uvicorn does, with a cycle of our own."""
        version = self.parser.get_http_version()
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope = self.scope
        scope["http_version"], scope["method"] = version, self.parser.get_method().decode("ascii")
        scope["path"] = self.root_path + (unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + url.path
        scope["query_string"] = url.query or b""
        scope[STOPS] = self._stops  # type: ignore[literal-required]  # as above
        before = self.cycle
        self.cycle = OneWriteCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _count(self, size: int) -> None:
        self._parsed += size
        if self._parsed > MOST_HEAD_BYTES:
            self._stop(_too_large())

    def _stop(self, problem: Problem) -> NoReturn:
        self._problem = problem
        raise httptools.HttpParserError("refused")

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self.timeout_keep_alive_handler)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@lru_cache(maxsize=64)  # clients ask for few
def _is_host(value: bytes) -> bool:
    match = _HOST.fullmatch(value)
    return match is not None and int(match[2] or 0) <= _MOST_PORT


def _too_large() -> Problem:
    detail = f"A request line and its header fields have at most {MOST_HEAD_BYTES} bytes, in {MOST_FIELDS} fields."
    return Problem(431, "headers_too_large", detail)

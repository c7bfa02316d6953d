"""HTTP/2 through the Caddy of deploy/: what is malformed must not become another request of HTTP/1.1 at the gateway.

RFC 9113 sections 8.1.1, 8.2 and 8.3, and "HTTP/2: The Sequel is Always Worse" (Kettle, 2021). A proxy that writes such
a field, path or length into HTTP/1.1 lets its sender begin a request there. Each shape is followed by a request on the
same connection, and by another client's on the connections that Caddy keeps. Frames are written by hand, since a
library for HTTP/2 would refuse most of them.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.test_smuggling import IDLE_S, Way
from tests.e2e.test_proxies import caddy, of_compose
from tests.servers import HOST, Installation

Fields = list[tuple[bytes, bytes]]
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS, ACK = 1, 4, 1
_MARK = re.compile(r"/api/(first|smuggled|second|victim)/([0-9]+)(?![0-9])")
_SMUGGLED = b"GET /api/smuggled/NUMBER HTTP/1.1\r\nHost: localhost\r\n\r\n"
_CHUNKED = b"0\r\n\r\n" + _SMUGGLED


def request(*fields: tuple[bytes, bytes], **pseudo: bytes | None) -> Fields:
    """Return the fields of a request; a pseudo-header that is None is left out."""
    usual: dict[str, bytes | None] = {"method": b"POST", "scheme": b"https", "authority": b"localhost"}
    named = usual | {"path": b"/api/first/NUMBER"} | pseudo
    return [(b":" + name.encode(), value) for name, value in named.items() if value is not None] + [*fields]


@dataclass(frozen=True, slots=True)
class Shape:
    """A request with the mark NUMBER. One that is `refused` must not reach the gateway."""

    fields: Fields
    body: bytes | None = None
    trailers: Fields = field(default_factory=list)
    refused: bool = True


def bodies() -> Iterator[Shape]:
    """Yield lengths that contradict the DATA frames, and codings, which HTTP/2 does not have (section 8.2.2)."""
    size = b"%d" % len(_SMUGGLED)
    # The head may have been passed on before the body turns out to be too short or too long.
    for length in (b"0", b"4", b"9999"):
        yield Shape(request((b"content-length", length)), _SMUGGLED, refused=False)
    yield Shape(request((b"content-length", b"44")), None, refused=False)
    for length in (b"+4", b"0x4", b"4, 4", b"-1", b"18446744073709551616", b"4\r\ntransfer-encoding: chunked"):
        yield Shape(request((b"content-length", length)), _SMUGGLED, refused=False)
    yield Shape(request((b"content-length", b"0"), (b"content-length", size)), _SMUGGLED, refused=False)
    yield Shape(request((b"content-length", size), (b"content-length", b"0")), _SMUGGLED, refused=False)
    for name, value in (
        (b"transfer-encoding", b"chunked"),
        (b"transfer-encoding", b"identity"),
        (b"connection", b"transfer-encoding"),
        (b"connection", b"content-length"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-connection", b"keep-alive"),
        (b"upgrade", b"h2c"),
        (b"te", b"chunked"),
    ):
        yield Shape(request((name, value)), _CHUNKED)
        yield Shape(request((name, value), (b"content-length", b"%d" % (len(_CHUNKED) - 1))), _CHUNKED)
    for trailer in ((b"content-length", b"0"), (b"transfer-encoding", b"chunked"), (b":path", b"/api/smuggled/NUMBER")):
        yield Shape(request(), _CHUNKED, trailers=[trailer], refused=False)


def names_and_values() -> Iterator[Shape]:
    """Yield fields that would become other fields, or another request, as lines of HTTP/1.1 (section 8.2.1)."""
    for value in (b"y\r\nTransfer-Encoding: chunked", b"y\r\n\r\n" + _SMUGGLED, b"y\nTransfer-Encoding: chunked"):
        yield Shape(request((b"x", value)), _CHUNKED)
    yield Shape(request((b"x", b"y\rTransfer-Encoding: chunked")), _CHUNKED)
    yield Shape(request((b"x", b"y\x00")), _CHUNKED)
    for name in (
        b"Transfer-Encoding",
        b"X",
        b"x: y\r\ntransfer-encoding",
        b"transfer-encoding:",
        b"transfer-encoding ",
    ):
        yield Shape(request((name, b"chunked")), _CHUNKED)
    for name in (b"x y", b"x:", b"", b"\x00x", b"x\r\n\r\n" + _SMUGGLED):
        yield Shape(request((name, b"y")), _CHUNKED)
    yield Shape(request((b"transfer_encoding", b"chunked")), _CHUNKED, refused=False)  # a name like any other


def request_lines() -> Iterator[Shape]:
    """Yield pseudo-headers that would not stay within a request line, are repeated or missing (section 8.3)."""
    inner = b" HTTP/1.1\r\nHost: localhost\r\n\r\nGET /api/smuggled/NUMBER"
    first = b"/api/first/NUMBER"
    for path in (first + inner, first + b"\r\nx: y", first + b"\n", first + b"\t", first + b"\x00", first[1:], b""):
        yield Shape(request(path=path))
    # Of these Caddy makes one request for the path, in the spelling of HTTP/1.1.
    for path in (first + b" HTTP/1.1", first + b"#x", b"http://evil.example" + first, b"//evil" + first):
        yield Shape(request(path=path), refused=False)
    for method in (b"GET /api/smuggled/NUMBER" + inner, b"GET ", b"GET /", b"GET\r\n", b""):
        yield Shape(request(method=method))
    yield Shape(request(method=b"CONNECT"))
    for scheme in (b"https://localhost/api/smuggled/NUMBER?", b"https\r\nx: y", b""):
        yield Shape(request(scheme=scheme))
    for other in (b"\r\nTransfer-Encoding: chunked", b"\r\n\r\n" + _SMUGGLED, b"/api/smuggled/NUMBER?", b" evil"):
        yield Shape(request(authority=b"localhost" + other), _CHUNKED)
    for authority in (b"evil@localhost", b"evil.example", b""):
        yield Shape(request(authority=authority), refused=False)
    yield Shape(request((b"host", b"localhost"), authority=None), refused=False)
    yield Shape(request(authority=None), refused=False)
    for second in (b"localhost", b"evil.example"):
        yield Shape(request((b"host", second)), refused=False)
        yield Shape(request((b"host", b"localhost"), (b"host", second), authority=None), refused=False)
        yield Shape([(b":authority", second), *request()])
    for again in (
        (b":path", b"/api/smuggled/NUMBER"),
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":unknown", b"x"),
    ):
        yield Shape([again, *request()])
        yield Shape(request((b"x", b"y"), again))
    for missing in ("method", "path", "scheme"):
        yield Shape(request(**{missing: None}))


WELL_FORMED = Shape(request((b"content-length", b"%d" % len(_SMUGGLED))), _SMUGGLED, refused=False)
SHAPES = [WELL_FORMED, *bodies(), *names_and_values(), *request_lines()]


def encoded(fields: Fields) -> bytes:
    """Encode fields as literals without indexing and without Huffman codes (RFC 7541 sections 5.1 and 6.2.2)."""

    def text(one: bytes) -> bytes:
        rest = len(one) - 127
        if rest < 0:
            return bytes([len(one)]) + one
        assert rest < 128 * 128
        return (bytes([127, rest]) if rest < 128 else bytes([127, rest % 128 | 128, rest // 128])) + one

    return b"".join(b"\0" + text(name) + text(value) for name, value in fields)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def frames(shape: Shape, number: int) -> bytes:
    """Return the preface, the marked shape on stream 1 and a well-formed request on stream 3."""

    def head(stream: int, fields: Fields, *, last: bool) -> bytes:
        mark = b"%06d" % number
        marked = [(name.replace(b"NUMBER", mark), value.replace(b"NUMBER", mark)) for name, value in fields]
        return frame(HEADERS, END_HEADERS | (END_STREAM if last else 0), stream, encoded(marked))

    sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0) + head(1, shape.fields, last=shape.body is None)
    if shape.body is not None:
        # Six digits, so that lengths stay what they are.
        body = shape.body.replace(b"NUMBER", b"%06d" % number)
        sent += frame(DATA, 0 if shape.trailers else END_STREAM, 1, body)
        sent += head(1, shape.trailers, last=True) if shape.trailers else b""
    return sent + head(3, request(method=b"GET", path=b"/api/second/NUMBER"), last=True)


@dataclass(slots=True)
class Reply:
    """What came back. `bodies` are those of whole answers, by stream."""

    bodies: dict[int, bytes] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def marks(self, stream: int) -> list[str]:
        """Return which marked request the gateway's answer on this stream is about."""
        found = re.search(rb'"instance": ?"([^"]*)"', self.bodies.get(stream, b""))
        return [match[1] for match in _MARK.finditer(found[1].decode())] if found else []


def send(port: int, content: bytes) -> Reply:
    """Send all at once, and read until both streams have ended, the connection ends, or nothing comes any more."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    reply, parts, ended = Reply(), Counter[int](), set[int]()
    data: dict[int, bytes] = {1: b"", 3: b""}
    with (
        socket.create_connection((HOST, port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as link,
    ):
        assert link.selected_alpn_protocol() == "h2"
        link.settimeout(2 * IDLE_S)
        raw = b""
        try:
            link.sendall(content)
            while ended < {1, 3}:
                part = link.recv(65536)
                if not part:
                    reply.errors.append("closed")
                    break
                raw += part
                while len(raw) >= 9 and len(raw) >= 9 + (size := int.from_bytes(raw[:3])):
                    kind, flags, stream, payload = raw[3], raw[4], int.from_bytes(raw[5:9]), raw[9 : 9 + size]
                    raw = raw[9 + size :]
                    if kind == SETTINGS and not flags & ACK:
                        link.sendall(frame(SETTINGS, ACK, 0))
                    elif kind == RST_STREAM:
                        reply.errors.append(f"stream {stream}: {int.from_bytes(payload)}")
                        ended.add(stream)
                    elif kind == GOAWAY:
                        reply.errors.append(f"connection: {int.from_bytes(payload[4:8])}")
                    elif kind in (DATA, HEADERS):
                        data[stream] += payload if kind == DATA else b""
                        parts[stream] += 1
                        if flags & END_STREAM:
                            ended.add(stream)
                            reply.bodies[stream] = data[stream]
        except (TimeoutError, ConnectionError, ssl.SSLError) as error:
            reply.errors.append(type(error).__name__)
    return reply


@pytest.mark.parametrize("proxy", [caddy, of_compose])
def test_no_shape_of_http_2_becomes_a_second_request(
    proxy: Callable[[Path, Installation], Any], proxied: Installation, tmp_path: Path
) -> None:
    begun = len(proxied.gateway.output())
    with proxy(tmp_path, proxied) as client:
        port = client.base_url.port

        def attempt(number: int) -> tuple[Reply, bytes]:
            reply = send(port, frames(SHAPES[number], number))
            victim = f"GET /api/victim/{number} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
            return reply, Way(port, tls=True).send(victim, silent_s=10)

        with ThreadPoolExecutor(12) as pool:
            answers = [*pool.map(attempt, range(len(SHAPES)))]
        time.sleep(0.3)  # log lines are written within 50 ms
        proxied.log(client.get("/health/nowhere"))
    lines = [json.loads(line) for line in proxied.gateway.output()[begun:].splitlines()]
    paths = [str(line["path"]) for line in lines if line["message"] == "request"]
    executed = Counter((match[1], int(match[2])) for path in paths for match in _MARK.finditer(path))
    wrong = []
    for number, (shape, (reply, victim)) in enumerate(zip(SHAPES, answers, strict=True)):
        ran = {mark: executed[mark, number] for mark in ("first", "smuggled", "second", "victim")}
        got = {"first": reply.marks(1), "second": reply.marks(3)}
        as_sent = ran["smuggled"] == 0 and ran["second"] == len(got["second"]) and ran["victim"] == 1
        # A stream that ends at what is wrong with its body may end without the answer to its request.
        as_sent = as_sent and len(got["first"]) <= ran["first"] <= (0 if shape.refused else 1)
        if not as_sent or b'"/api/victim/%d"' % number not in victim:
            wrong.append((number, shape, ran, got, reply))
    assert not wrong, "\n".join(map(str, wrong))
    assert executed["first", 0] == executed["second", 0] == 1
    assert answers[0][0].errors == []
    assert len(paths) == sum(executed.values()) + paths.count("/health/nowhere") + paths.count("/health/ready")

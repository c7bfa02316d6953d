"""Where a request ends: a gateway, and the proxies of deploy/ with it, must not see a request that its sender did not.

Each shape is followed by a marked request on the same connection, and by another client's request on the connections
that the proxy keeps. The gateway must have executed as many requests as its sender got answers from it, in their order,
and every other client gets the answer to their own request. RFC 9112 sections 2.2, 3.2, 5, 6, 7.1, 9.3 and 11.2.
What the gateway refuses, and how, is in tests/attack/test_headers.
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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.test_proxies import caddy, nginx
from tests.servers import HOST, Installation

Shape = tuple[str, bytes]
IDLE_S = 0.6
_INSTANCE = re.compile(rb'"instance": ?"(/api/[a-z]+/[0-9]+)')

# CVE-2019-18277 (HAProxy: a vertical tab), CVE-2020-11724 (OpenResty), CVE-2021-22959 (Node.js: a space before the
# colon), CVE-2022-32215 (Node.js: several lines), CVE-2023-25690 (httpd), "HTTP Desync Attacks" (Kettle, 2019).
CODINGS = [
    "Transfer-Encoding: chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding:\x0bchunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    'Transfer-Encoding: "chunked"',
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: chunked\x00",
    "Transfer-Encoding:\r\n chunked",
    "X: y\nTransfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    " Transfer-Encoding: chunked",
    "\x00Transfer-Encoding: chunked",
    "Transfer_Encoding: chunked",
    "TRANSFER-ENCODING: CHUNKED",
    # RFC 9110 section 7.6.1: a proxy removes what Connection names.
    "Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding",
    "Transfer-Encoding: chunked\r\nConnection: Content-Length",
]
# In place of "LENGTH": how long the body is.
LENGTHS = [
    *("+LENGTH", "-LENGTH", "0xLENGTH", "LENGTH, LENGTH", "0, LENGTH", "LENGTH, 0", "LENGTH 0", "00LENGTH", "LENGTH.0"),
    *("1e1", "18446744073709551616", "4294967296", "LENGTH\r\nContent-Length: 0", "0\r\nContent-Length: LENGTH", ""),
    *("\r\n LENGTH", "LENGTH\x00", "LENGTH\r\nConnection: Content-Length", "0\r\nExpect: 100-continue"),
]
# CVE-2013-2028 (nginx: sizes that overflow), CVE-2023-44487's sibling CVE-2024-22019, CVE-2025-22871 (Go: a bare LF in
# the line of a chunk), "Funky chunks" (2025: line ends in extensions). SMUGGLED is a whole request.
CHUNKS = [
    b"0x0\r\n\r\nSMUGGLED",
    b"-0\r\n\r\nSMUGGLED",
    b" 0\r\n\r\nSMUGGLED",
    b"0 \r\n\r\nSMUGGLED",
    b"0_0\r\n\r\nSMUGGLED",
    b"\r\n0\r\n\r\nSMUGGLED",
    b"0\n\nSMUGGLED",
    b"0\r\r\nSMUGGLED",
    b"0\r\n\nSMUGGLED",
    b"10000000000000000\r\n\r\n0\r\n\r\nSMUGGLED",
    b"ffffffffffffffff\r\n0\r\n\r\nSMUGGLED",
    b"100000000\r\n0\r\n\r\nSMUGGLED",
    b"1;\nx\r\n0\r\n\r\nSMUGGLED",
    b"1;x\nyy\r\n0\r\n\r\nSMUGGLED",
    b'1;x="\r\nx\r\n0\r\n\r\nSMUGGLED',
    b"1\r\nx0\r\n\r\nSMUGGLED",
    b"1\r\nxx\r\n0\r\n\r\nSMUGGLED",
    b"1\r\nx\n0\r\n\r\nSMUGGLED",
    b"0\r\nContent-Length: 3\r\n\r\nSMUGGLED",
    b"0\r\nX: y\r\n\nSMUGGLED",
    b"g\r\n\r\n0\r\n\r\nSMUGGLED",
    b"\r\n\r\nSMUGGLED",
]
# Whole heads; in place of PATH the marked one.
HEADS = [
    b"GET PATH HTTP/1.1\nHost: localhost\n\n",
    b"GET PATH HTTP/1.1\r\nHost: localhost\r\n\n",
    b"GET PATH HTTP/1.1\r\nHost: localhost\r\nX: y\r\n folded\r\n\r\n",
    b"GET PATH HTTP/1.1\r\nHost : localhost\r\n\r\n",
    b"GET PATH HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    b"GET PATH HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    b"GET PATH HTTP/1.1\r\n\r\n",
    b"GET http://evil.examplePATH HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://localhostPATH HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET PATH\r\n",
    b"GET PATH HTTP/0.9\r\n\r\n",
    b"GET PATH HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n",
    b"GET PATH HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n",
    b"GET PATH HTTP/2.0\r\nHost: localhost\r\n\r\n",
    b"GET PATH HTTP/1.1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET PATH\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET\tPATH\tHTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"GET PATH HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
    b"GET PATH HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 777\r\n\r\n",
    b"GET PATH HTTP/1.1\r\nHost: localhost\r\nX\x00: y\r\n\r\n",
    b"GET PATH HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
    b"GET PATH HTTP/1.1\r\nHost: localhost\r\n: no name\r\n\r\n",
    b"\r\n\r\nGET PATH HTTP/1.1\r\nHost: localhost\r\n\r\n",
]


def shapes() -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each shape. By one reading its body ends before SMUGGLED, by another behind it."""
    post, get = (method + b" PATH HTTP/1.1\r\nHost: localhost\r\n" for method in (b"POST", b"GET"))
    yield "well-formed", post + b"Content-Length: LENGTH\r\n\r\nSMUGGLED"
    for coding in CODINGS:
        coded = coding.encode("latin-1")
        empty = coded + b"\r\nContent-Length: LENGTH\r\n\r\n0\r\n\r\nSMUGGLED"
        yield f"all by length, nothing by {coding}", post + empty
        yield f"4 by length, all by {coding}", post + b"Content-Length: 4\r\n" + coded + b"\r\n\r\nCHUNKED"
    for length in LENGTHS:
        field = f"Content-Length: {length}\r\n\r\nSMUGGLED".encode("latin-1")
        yield f"length {length}", post + field
        yield f"GET, length {length}", get + field
    for chunks in CHUNKS:
        yield f"chunks {chunks!r}", post + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
    for one in HEADS:
        yield repr(one), one


SHAPES = [*shapes()]


def filled(shape: bytes, number: int) -> bytes:
    """Return a shape with its marks, followed by the marked request."""
    inner = f"GET /api/smuggled/{number} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    second = f"GET /api/second/{number} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    head, separator, body = shape.partition(b"\r\n\r\n")
    body = body.replace(b"CHUNKED", b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner)).replace(b"SMUGGLED", inner)
    head = head.replace(b"LENGTH", b"%d" % len(body))
    return (head + separator + body).replace(b"PATH", b"/api/first/%d" % number) + second


class Way:
    """A way to the gateway: directly, or through a proxy."""

    def __init__(self, port: int, *, tls: bool) -> None:
        self._port = port
        self._tls = ssl.create_default_context() if tls else None
        if self._tls is not None:
            self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE

    def send(self, content: bytes, *, silent_s: float = IDLE_S) -> bytes:
        """Return everything that is answered until the connection ends or is silent for so long."""
        raw = b""
        with self._connected() as link:
            link.settimeout(silent_s)
            try:
                link.sendall(content)
                while part := link.recv(65536):
                    raw += part
            except (TimeoutError, ConnectionError, ssl.SSLError):
                pass
        return raw

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with socket.create_connection((HOST, self._port), timeout=10) as plain:
            if self._tls is None:
                yield plain
                return
            with self._tls.wrap_socket(plain, server_hostname="localhost") as link:
                yield link


@contextmanager
def directly(_: Path, proxied: Installation) -> Iterator[httpx.Client]:
    with proxied.client() as client:
        yield client


@pytest.mark.parametrize("proxy", [directly, nginx, caddy])
def test_as_many_requests_are_executed_as_their_sender_got_answers(
    proxy: Callable[[Path, Installation], Any], proxied: Installation, tmp_path: Path
) -> None:
    begun = len(proxied.gateway.output())
    with proxy(tmp_path, proxied) as client:
        way = Way(client.base_url.port, tls=client.base_url.scheme == "https")

        def attempt(number: int) -> tuple[bytes, bytes]:
            raw = way.send(filled(SHAPES[number][1], number))
            victim = f"GET /api/victim/{number} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
            return raw, way.send(victim, silent_s=10)

        with ThreadPoolExecutor(12) as pool:
            answers = [*pool.map(attempt, range(len(SHAPES)))]
        time.sleep(0.3)  # log lines are written within 50 ms
        proxied.log(client.get("/health/nowhere"))
    lines = [json.loads(line) for line in proxied.gateway.output()[begun:].splitlines()]
    executed = Counter(str(line["path"]) for line in lines if line["message"] == "request")
    wrong = []
    for number, (raw, victims) in enumerate(answers):
        name, got = SHAPES[number][0], [found.decode() for found in _INSTANCE.findall(raw)]
        ran = Counter({path: count for path, count in executed.items() if path.endswith(f"/{number}")})
        if ran.pop(f"/api/victim/{number}", 0) != 1 or _INSTANCE.findall(victims) != [b"/api/victim/%d" % number]:
            wrong.append((name, "another client's answer", victims[:300]))
        # A connection that ends at what is wrong with a body may end without the answer to its request.
        unanswered = {*(ran - Counter(got))} - {f"/api/first/{number}"}
        if unanswered or Counter(got) - ran or got != sorted(got, key=_place):
            wrong.append((name, f"executed {dict(ran)}", f"answered {got}", raw[:120]))
    assert not wrong, "\n".join(map(str, wrong))
    assert executed["/api/second/0"] == 1
    assert executed["/api/smuggled/0"] == 0


def _place(path: str) -> int:
    return ["first", "smuggled", "second"].index(path.split("/")[2])

"""Heads that are too large, too slow, or mean one thing to a proxy and another to the gateway; endless bodies."""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.http.protocol import HEAD_TIMEOUT_S, MOST_FIELDS, MOST_HEAD_BYTES, MOST_PIECES
from tests.attack.wire import Answer, exchange, head, receive, send_until_refused
from tests.e2e.checks import check_document
from tests.servers import HOST, Installation

LIVE = "GET /health/live HTTP/1.1"
LOGIN = "POST /api/auth/login HTTP/1.1"
JSON = "Content-Type: application/json"
SECOND = head(LIVE)


def assert_refused(answer: Answer, status: int, code: str) -> None:
    assert answer.closed
    assert answer.count == 1, answer.raw
    assert answer.headers["connection"] == "close"
    check_document(status, answer.headers, answer.body, code)


# --- ambiguity --------------------------------------------------------------------------------------------------------
# RFC 9112 sections 2.2, 3.2, 5.1, 5.2, 6.1, 6.3 and 11.2. CVE-2019-18277 (HAProxy), CVE-2020-11724 (OpenResty),
# CVE-2023-25690 (httpd) and similar ones are consequences of a second interpretation elsewhere.


@pytest.mark.parametrize(
    "request_head",
    [
        head(LOGIN, JSON, "Content-Length: 2", "Content-Length: 2"),
        head(LOGIN, JSON, "Content-Length: 2", "Content-Length: 70"),
        head(LOGIN, JSON, "Content-Length: 2, 70"),
        head(LOGIN, JSON, "Content-Length: +2"),
        head(LOGIN, JSON, "Content-Length: -1"),
        head(LOGIN, JSON, "Content-Length: 0x2"),
        head(LOGIN, JSON, "Content-Length: 1_0"),
        head(LOGIN, JSON, "Content-Length: 99999999999999999999999"),
        head(LOGIN, JSON, "Content-Length: 2", "Transfer-Encoding: chunked"),
        head(LOGIN, JSON, "Transfer-Encoding: chunked", "Content-Length: 2"),
        head(LOGIN, JSON, "Transfer-Encoding: chunked, identity"),
        head(LOGIN, JSON, "Transfer-Encoding : chunked"),
        head(LOGIN, JSON, "Transfer-Encoding:\x0bchunked"),
        head(LIVE, "X: folded", " Transfer-Encoding: chunked"),
        head(LIVE, " X: leading space"),
        head(LIVE, "X : space"),
        head(LIVE, "X: nul\x00"),
        head(LIVE, "X: bare\rreturn"),
        head(LIVE, "X\x00: y"),
        head(LIVE, ": no name"),
        head(LIVE, "no colon"),
        head(LIVE).replace(b"\r\n", b"\n"),
        head("GET /health/live HTTP/3.1"),
        head("GET /health live HTTP/1.1"),
        head("GET /health/live\x00 HTTP/1.1"),
        head("get /health/live HTTP/1.1"),
        head(LIVE, "Host: gateway", "Host: gateway"),
        head(LIVE, "Host: gateway", "Host: evil.example"),
        f"{LIVE}\r\n\r\n".encode(),
        head(LIVE, "Host: evil.example/../gateway"),
        head(LIVE, "Host: user@gateway<script>"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=lambda request_head: repr(request_head[:90]),
)
def test_ambiguous_request_is_refused_and_the_rest_is_never_read(target: Installation, request_head: bytes) -> None:
    assert_refused(exchange(target, request_head + b"{}" + SECOND), 400, "invalid_request")


@pytest.mark.parametrize(
    "body", [b"zz\r\n", b"-1\r\n{}\r\n", b"2 \r\n{}\r\n0\r\n\r\n", b"2\n{}\n0\n\n", b"2\r\n{}xx0\r\n\r\n"]
)
def test_malformed_chunks_are_refused_and_the_rest_is_never_read(target: Installation, body: bytes) -> None:
    answer = exchange(target, head(LOGIN, JSON, "Transfer-Encoding: chunked"), body + SECOND)
    assert answer.closed
    assert answer.count == 1
    assert answer.status == 400
    assert "server" not in answer.headers


@pytest.mark.parametrize("broken", [b"\x00\r\n\r\n", head(LIVE, "X : y"), head(LIVE, "X: " + "x" * 40_000)])
def test_malformed_request_is_never_answered_instead_of_an_earlier_one(target: Installation, broken: bytes) -> None:
    """Response queue poisoning: on a proxy's connection one caller would get another caller's answer."""
    first = head(LIVE).replace(b"Connection: close\r\n", b"")
    for answer in (exchange(target, first + broken), exchange(target, first, broken)):
        assert answer.closed
        assert answer.raw == b"" or answer.status == 200


@pytest.mark.parametrize("rest", [b"zz\r\n", b"1\r\nx\r\n" * (MOST_PIECES + 1)])
def test_request_that_has_its_answer_gets_no_second_one_for_its_body(target: Installation, rest: bytes) -> None:
    """On a proxy's connection the next caller would get it (response queue poisoning)."""
    with socket.create_connection((HOST, target.port), timeout=5) as connection:
        start = head("POST /api/nowhere HTTP/1.1", "Transfer-Encoding: chunked").replace(b"Connection: close\r\n", b"")
        connection.sendall(start + b"1\r\nx\r\n")
        first = connection.recv(65536)
        connection.sendall(rest)
        answer = receive(connection)
    assert first.startswith(b"HTTP/1.1 404 ")
    assert answer == Answer(b"", closed=True)


def test_body_in_very_many_pieces_is_refused(target: Installation) -> None:
    """The parser takes a microsecond for a piece, however small."""
    chunked = head(LOGIN, JSON, "Transfer-Encoding: chunked")
    piece, end = b"1\r\n \r\n", b"2\r\n{}\r\n0\r\n\r\n"
    assert b"username" in exchange(target, chunked, piece * (MOST_PIECES - 2) + end).body, "it is read: a field lacks"
    answer = exchange(target, chunked, piece * MOST_PIECES + end + SECOND)
    assert (answer.status, answer.count, answer.closed) == (400, 1, True)
    assert b"username" not in answer.raw


def test_upgrade_request_is_ignored(target: Installation) -> None:
    """h2c smuggling: a proxy that sees a 101 forwards the rest unread. RFC 9110 section 7.8."""
    for upgrade in ("h2c", "websocket", "TLS/1.0"):
        answer = exchange(target, head(LIVE, f"Upgrade: {upgrade}").replace(b"close", b"close, Upgrade"))
        assert answer.status == 200
        assert "upgrade" not in answer.headers


def test_trailer_does_not_become_a_header_field(target: Installation) -> None:
    """RFC 9110 section 6.5.1: otherwise it would be a header field that no proxy has checked."""
    token = target.token_of("mira")
    chunked = head("GET /api/auth/me HTTP/1.1", "Transfer-Encoding: chunked")
    answer = exchange(target, chunked + f"0\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    check_document(401, answer.headers, answer.body, "invalid_token")


# --- injection --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/api/%0d%0aSet-Cookie:%20a=b",
        "/api/usage?from=%0d%0aSet-Cookie:%20a=b",
        "/api/rooms/%0d%0a%0d%0a%3Cscript%3E",
        "/api/%E5%98%8D%E5%98%8ASet-Cookie:a=b",
    ],
)
def test_path_and_query_cannot_inject_a_header(target: Installation, path: str) -> None:
    """CWE-113; the last case has encoded line breaks, as in CVE-2019-9740."""
    answer = exchange(target, head(f"GET {path} HTTP/1.1"))
    assert "set-cookie" not in answer.headers
    assert answer.headers["content-type"] == "application/problem+json"
    assert b"<script>" not in answer.body or answer.headers["x-content-type-options"] == "nosniff"
    json.loads(answer.body)


@pytest.mark.parametrize(
    "request_head",
    [
        head("GET /api/usage HTTP/1.1", "Host: evil.example"),
        head("GET http://evil.example/api/usage HTTP/1.1"),
        head("GET /api/usage HTTP/1.1", "X-Forwarded-Host: evil.example", "X-Forwarded-Proto: evil.example"),
        head("GET /api/usage HTTP/1.1", "Forwarded: host=evil.example", "X-Forwarded-For: evil.example"),
        head("GET /api/usage HTTP/1.1", "Origin: https://evil.example", "Referer: https://evil.example/"),
        head("GET /openapi.json HTTP/1.1", "Host: evil.example"),
    ],
)
def test_answer_never_contains_the_name_of_another_host(target: Installation, request_head: bytes) -> None:
    """CWE-644: links and redirects made from the Host field let attackers poison caches and password mails."""
    answer = exchange(target, request_head)
    assert answer.status in (200, 401)
    assert b"evil.example" not in answer.raw


# --- size -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_head",
    [
        head(LIVE, "X: " + "x" * MOST_HEAD_BYTES),
        head(LIVE, "X" * MOST_HEAD_BYTES + ": x"),
        head(LIVE, *[f"X-{n}: {'x' * 400}" for n in range(MOST_FIELDS - 10)]),
        head(LIVE, *[f"X-{n}: x" for n in range(MOST_FIELDS)]),
        head(f"GET /{'x' * MOST_HEAD_BYTES} HTTP/1.1"),
        head(f"GET /health/live?{'x' * MOST_HEAD_BYTES} HTTP/1.1"),
        head(LIVE, "Authorization: Bearer " + "x" * MOST_HEAD_BYTES),
        head(LIVE, "Cookie: " + "x" * 150_000),
    ],
    ids=lambda request_head: repr(request_head[:40]),
)
@pytest.mark.parametrize("pieces", [1, 7])
def test_oversized_head_is_refused(target: Installation, request_head: bytes, pieces: int) -> None:
    """RFC 6585 section 5."""
    size = len(request_head) // pieces + 1
    parts = [request_head[at : at + size] for at in range(0, len(request_head), size)]
    answer = exchange(target, *parts)
    assert_refused(answer, 431, "headers_too_large")


@pytest.mark.parametrize(
    "request_head",
    [head(LIVE, "X: " + "x" * (MOST_HEAD_BYTES - 200)), head(LIVE, *[f"X-{n}: x" for n in range(MOST_FIELDS - 2)])],
    ids=["bytes", "fields"],
)
def test_head_within_the_bounds_is_served(target: Installation, request_head: bytes) -> None:
    assert exchange(target, request_head).status == 200
    assert exchange(target, request_head[:9000], request_head[9000:]).status == 200


def test_bounds_apply_to_each_request_of_a_connection(target: Installation) -> None:
    request = head(LIVE, "X: " + "x" * 9000)
    several = request.replace(b"Connection: close\r\n", b"") * 6
    for size in (len(several), 5000):
        parts = [several[at : at + size] for at in range(0, len(several), size)]
        assert exchange(target, *parts, request).raw.count(b"HTTP/1.1 200") == 7


def memory_kib(target: Installation) -> int:
    """Return the resident memory of the gateway and its workers."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,rss="], capture_output=True, text=True, check=True)
    rows = [[int(part) for part in line.split()] for line in listed.stdout.splitlines()]
    assert target.gateway.process is not None
    ours = {target.gateway.process.pid}
    for _ in range(2):
        ours |= {pid for pid, parent, _ in rows if parent in ours}
    return sum(rss for pid, _, rss in rows if pid in ours)


@pytest.mark.parametrize(
    ("start", "filling"),
    [
        (f"{LIVE}\r\nHost: gateway\r\nX: ".encode(), b"x" * 65536),
        (b"GET /", b"x" * 65536),
        (f"{LIVE}\r\nHost: gateway\r\n".encode(), b"X: y\r\n" * 10_000),
        (head(LOGIN, JSON, "Transfer-Encoding: chunked") + b"0\r\nX: ", b"x" * 65536),
        (head(LOGIN, JSON, "Transfer-Encoding: chunked") + b"0\r\n", b"X: y\r\n" * 10_000),
        (head(LOGIN, JSON, "Transfer-Encoding: chunked") + b"1;", b"x" * 65536),
        (head("GET /api/auth/me HTTP/1.1", "Transfer-Encoding: chunked") + b"0\r\nX: ", b"x" * 65536),
    ],
    ids=["field", "target", "fields", "trailer", "trailers", "chunk extension", "trailer of a body that is not read"],
)
def test_endless_head_does_not_fill_memory(target: Installation, start: bytes, filling: bytes) -> None:
    """CVE-2024-22019 (Node.js, chunk extensions), CVE-2011-3192's kin. 8 connections at once, up to 16 MiB each."""
    before = memory_kib(target)
    most = 16 * 1024 * 1024
    with ThreadPoolExecutor(8) as pool:
        parts = most // len(filling)
        jobs = [pool.submit(send_until_refused, target, start, itertools.repeat(filling, parts)) for _ in range(8)]
        sent = [job.result() for job in jobs]
    assert max(sent) < most  # the buffers of the sockets count as sent
    assert memory_kib(target) - before < 24 * 1024, sent


# --- time -------------------------------------------------------------------------------------------------------------


def test_head_that_never_ends_is_abandoned(target: Installation) -> None:
    """Slowloris (CVE-2007-6750): a silent, slow or idle connection is closed after 10 s."""

    def drip(piece: bytes, start: bytes = b"") -> tuple[float, bytes]:
        begun = time.monotonic()
        raw = b""
        with socket.create_connection((HOST, target.port), timeout=1) as connection:
            connection.sendall(start)
            while time.monotonic() - begun < HEAD_TIMEOUT_S + 8:
                try:
                    connection.sendall(piece)
                    if not (received := connection.recv(65536)):
                        break
                    raw += received
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
        return time.monotonic() - begun, raw

    served = head(LIVE).replace(b"Connection: close\r\n", b"")
    cases = {
        "silent": (b"", b""),
        "line": (b"x", b"GET /"),
        "field": (b"x", f"{LIVE}\r\nHost: gateway\r\nX: ".encode()),
        "fields": (b"X: y\r\n", f"{LIVE}\r\nHost: gateway\r\n".encode()),
        "empty lines": (b"\r\n", b""),
        "second": (b"x", served + b"GET /"),
        "empty lines after one": (b"\r\n", served),
        "body of an answered request": (b"x", head("POST /api/nowhere HTTP/1.1", "Content-Length: 9999")),
    }
    with ThreadPoolExecutor(len(cases)) as pool:
        jobs = {name: pool.submit(drip, *case) for name, case in cases.items()}
        took = {name: job.result() for name, job in jobs.items()}
    for name, (seconds, raw) in took.items():
        assert seconds < HEAD_TIMEOUT_S + 4, (name, seconds)
        assert raw.count(b"HTTP/1.1 ") == (1 if served in cases[name][1] or "answered" in name else 0), (name, raw)
    assert min(took[name][0] for name in ("silent", "line", "field", "fields", "second")) > HEAD_TIMEOUT_S - 2


def test_slow_body_is_abandoned(target: Installation) -> None:
    """With a Content-Length as well as chunked."""

    def dawdle(*fields: str) -> Answer:
        body = b"1\r\n{\r\n" if "Transfer-Encoding: chunked" in fields else b"{"
        return exchange(target, head(LOGIN, JSON, *fields), body, within_s=15)

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(dawdle, field) for field in ("Transfer-Encoding: chunked", "Content-Length: 2")]
        for job in jobs:
            answer = job.result()
            check_document(400, answer.headers, answer.body, "invalid_request")
            assert b"10 s" in answer.body

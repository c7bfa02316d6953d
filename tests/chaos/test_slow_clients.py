"""Clients that are slow or hold connections, against two workers: bounded, and others are served as before.

CWE-400, CWE-770; CVE-2007-6750 (slowloris), CVE-2009-1385's kin "sockstress" (answers that no one reads). What one such
connection meets is in tests/attack/test_headers and tests/integration/test_protocol.
"""

from __future__ import annotations

import http.client
import itertools
import os
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.http.connections import OTHER_FILES
from gateway.http.protocol import HEAD_TIMEOUT_S
from tests.chaos.attackers import Attack, Kind, attack
from tests.chaos.processes import vitals_of, workers_of
from tests.e2e.people import newcomers
from tests.e2e.policies import roomy
from tests.servers import HOST, Installation, wait_until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]

BLOCKS, REQUESTS = 5, 200
MOST_RATIO = 1.5
UNREAD_S = 6.0  # instead of 30
SETTLE_S = 1.0  # in which what attackers ask for at first is answered
STOP_S = 10.0
MOST_CPUS = 1.2  # of two workers, with the mints of others
MOST_GROWTH_KIB = 160 * 1024  # of both workers: answers for a thousand connections


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The gateway that is attacked."""
    with _gateway(tmp_path_factory.mktemp("slow")) as running:
        yield running


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A gateway beside it that is not."""
    with _gateway(tmp_path_factory.mktemp("calm")) as running:
        yield running


@contextmanager
def _gateway(folder: Path) -> Iterator[Installation]:
    installation = Installation(folder, workers=2, policy=roomy())
    installation.set_constant("gateway.http.protocol.UNREAD_TIMEOUT_S", UNREAD_S)
    with installation as running:
        running.add_users(otto="operator")
        yield running


class Mints:
    """Mints of another user of a gateway, on connections that reach both workers."""

    def __init__(self, own: Installation) -> None:
        token = newcomers(own, "host")[0].token
        with own.client(token) as client:
            path = f"/api/rooms/{client.post('/api/rooms', json={}).json()['room']['id']}/token"
        self._port = own.port
        self._request = ("POST", path, b"{}", {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})

    def connect(self) -> list[http.client.HTTPConnection]:
        links = [http.client.HTTPConnection(HOST, self._port, timeout=15) for _ in range(8)]
        for link in links:
            self.mint(link)
        return links

    def mint(self, link: http.client.HTTPConnection) -> float:
        """Return how many ms a mint took."""
        begun = time.perf_counter()
        link.request(*self._request)
        answer = link.getresponse()
        answer.read()
        assert answer.status == 200
        return (time.perf_counter() - begun) * 1000


def p99s_ms(*mints: Mints) -> list[float]:
    """Return the p99 of a block of mints at each gateway, by turns, so that other load affects all of them equally."""
    links = [one.connect() for one in mints]
    took_ms: list[list[float]] = [[] for _ in mints]
    for number in range(REQUESTS):
        for one, its, times in zip(mints, links, took_ms, strict=True):
            times.append(one.mint(its[number % len(its)]))
    for link in itertools.chain(*links):
        link.close()
    return [statistics.quantiles(times, n=100)[98] for times in took_ms]


def cpu_s(own: Installation) -> float:
    """Return the CPU time of both workers."""
    ticks = 0
    for pid in workers_of(own):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def many_rows(own: Installation, users: int = 40) -> str:
    """Count a year of many users; return the address of a report of a megabyte and more."""
    today = datetime.now(UTC).date()
    people = newcomers(own, *["member"] * users)

    def commands() -> Iterator[tuple[str | int, ...]]:
        for person in people:
            for ago in range(365):
                day = today - timedelta(days=ago)
                yield "HSET", f"uc:1:{{{person.id}}}:{day:%Y-%m}", f"{day:%d}:api.ok", 1

    own.valkey.load(commands())
    return f"/api/admin/usage?format=csv&from={today - timedelta(days=364)}&to={today}"


def get(path: str, token: str = "", *fields: str) -> str:
    fields = (f"GET {path} HTTP/1.1", "Host: gateway", *fields)
    return "\r\n".join([*fields, f"Authorization: Bearer {token}", "", ""] if token else [*fields, "", ""])


def post(path: str, *fields: str) -> str:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: gateway", "Content-Type: application/json", *fields, "", ""])


def slow(own: Installation, count: int) -> dict[str, Kind]:
    """Return so many connections that are slow with their heads, their bodies, and with reading."""
    length = post("/api/auth/login", "Content-Length: 9000")
    chunked = post("/api/auth/login", "Transfer-Encoding: chunked")
    chief = own.token_of("otto")
    return {
        "heads": Kind(count, ["GET /health/live HTTP/1.1\r\nHost: gateway\r\nX: ", "GET /"], drip="x"),
        "bodies": Kind(count // 2, [length], drip=" "),
        "chunks": Kind(count // 2, [chunked], drip="1\r\n \r\n"),
        # They come again when they would with the timeout of production.
        "reading": Kind(count, [get("/openapi.json") * 17], reads=False, again_s=30 - UNREAD_S),
        "reports": Kind(4, [get(many_rows(own), chief)], reads=False, again_s=30 - UNREAD_S),
        "consoles": Kind(10, [get("/api/admin/live", chief)], reads=False),
    }


def compare(
    own: Installation, calm: Installation, kinds: dict[str, Kind], *, hold_s: float = 0
) -> tuple[float, Attack]:
    """Attack twice; return the p99 of mints meanwhile, over that at the gateway beside, and the second attack.

    It is the median of blocks, as in tests/e2e/test_hanging_upstream. The second attack begins when the connections of
    the first are closed, and is held for `hold_s` more. What the attack costs in CPU time slows down both gateways, and
    is bounded by itself.
    """
    mints = Mints(own), Mints(calm)
    p99s_ms(*mints)  # warm
    before = vitals_of(own)
    blocks, busy, grown = [], [], []
    for more_s in (0, hold_s):
        with attack(own.port, **kinds) as running:
            time.sleep(SETTLE_S)
            running.most_files = vitals_of(own).files
            cpu, begun = cpu_s(own), time.monotonic()
            blocks += [p99s_ms(*mints) for _ in range(BLOCKS)]
            time.sleep(more_s)
            busy.append((cpu_s(own) - cpu) / (time.monotonic() - begun))
        wait_until(lambda: vitals_of(own).files <= before.files + 4, "connections are closed", within_s=UNREAD_S + 4)
        grown.append(vitals_of(own).memory_kib - before.memory_kib)
    ratio = statistics.median(attacked / other for attacked, other in blocks)
    both = " ".join(f"{attacked:.1f}/{other:.1f}" for attacked, other in blocks)
    print(
        f"p99 {ratio:.2f} of calm: {both} ms; {running.most_files} files; {grown} KiB more; "
        f"{max(busy):.2f} CPUs; {shown(running)}"
    )
    assert max(busy) < MOST_CPUS
    assert grown[0] <= MOST_GROWTH_KIB
    assert grown[1] - grown[0] <= 32 * 1024, "the second attack finds the memory of the first"
    return ratio, running


def shown(running: Attack) -> dict[str, object]:
    return {
        name: (one.opened, one.ended, max(one.lasted_s, default=0), one.answers)
        for name, one in running.reports.items()
    }


def test_slow_heads_bodies_and_readers_delay_nobody_and_end_in_time(own: Installation, calm: Installation) -> None:
    kinds = slow(own, 500)
    ratio, running = compare(own, calm, kinds, hold_s=HEAD_TIMEOUT_S)
    reports = running.reports
    for name, most_s in (("heads", HEAD_TIMEOUT_S), ("reading", UNREAD_S)):
        assert reports[name].ended >= kinds[name].count, f"{name}: each is closed, and comes again"
        assert max(reports[name].lasted_s) < most_s + 2, name
    for name in ("bodies", "chunks"):
        assert reports[name].answers["400"] >= kinds[name].count, f"{name}: each is refused in time"
    assert reports["heads"].answers == {}
    assert {*reports["bodies"].answers} == {*reports["chunks"].answers} == {"400"}
    assert ratio <= MOST_RATIO


def test_ten_thousand_idle_connections_delay_nobody(own: Installation, calm: Installation) -> None:
    ratio, running = compare(own, calm, {"idle": Kind(10_000, [""], again_s=60)})
    assert running.most_files > 9_500
    assert ratio <= MOST_RATIO


def test_costly_requests_delay_nobody_and_fill_no_memory(own: Installation, calm: Installation) -> None:
    """Twenty-four clients, each of which comes again a fifth of a second after its connection was closed."""
    live, small = get("/health/live"), "".join(f"1;{'e' * 60}\r\nx\r\n" for _ in range(1500))
    end = get("/health/live", "", "Connection: close")
    starts = [
        get("/health/live", "", *(f"X-{number}: x" for number in range(5000))),
        get("/health/live", "", f"X: {'x' * 200_000}"),
        get(f"/{'x' * 200_000}"),
        get("/health/live", "", f"Cookie: {'a=b; ' * 40_000}"),
        post("/api/auth/login", "Transfer-Encoding: chunked") + small + "0\r\n\r\n" + end,
        post("/api/auth/login", "Transfer-Encoding: chunked") + "1\r\nx\r\n" * 30_000,
        post("/api/auth/login", "Transfer-Encoding: chunked") + f"1;{'e' * 200_000}\r\nx\r\n",
        post("/api/auth/login", "Transfer-Encoding: chunked") + "0\r\n" + "X: y\r\n" * 20_000,
        post("/api/auth/login", "Content-Length: 9999999999") + "x" * 200_000,
        post("/api/auth/login", "Content-Encoding: gzip", "Content-Length: 3", "Connection: close") + "abc",
        live * 1000,
        live * 5 + live[:30],
    ]
    kinds = {"costly": Kind(24, starts, again_s=0.2)}
    ratio, running = compare(own, calm, kinds, hold_s=1)
    answers = running.reports["costly"].answers
    assert {"413", "431"} <= {*answers} <= {"200", "400", "413", "415", "431"}
    assert ratio <= MOST_RATIO


def test_a_gateway_that_may_open_few_files_serves_others_and_recovers(tmp_path: Path) -> None:
    """4,000 connections, 1,024 files: without a bound of its own `accept` would fail (EMFILE) for everybody."""
    own = Installation(tmp_path, workers=2, real=True, policy=roomy())
    own.gateway.starter = ["prlimit", "--nofile=1024:1024"]
    with own:
        token = newcomers(own, "host")[0].token
        files = vitals_of(own).files
        kinds = {"idle": Kind(3000, [""]), "heads": Kind(1000, ["GET /"], drip="x")}
        with attack(own.port, **kinds) as running:
            begun, cpu = time.monotonic(), cpu_s(own)
            for _ in range(20):
                with own.client(token) as client:
                    assert client.post("/api/rooms", json={}).status_code == 201, "a connection to 100ms is opened"
                time.sleep(0.05)
            busy = (cpu_s(own) - cpu) / (time.monotonic() - begun)
            held = vitals_of(own).files
        print(f"{held} files, {busy:.2f} CPUs; {shown(running)}")
        assert held - files <= 2 * (1024 - OTHER_FILES) + 10, "a few are about to be closed"
        wait_until(lambda: vitals_of(own).files <= files + 4, "connections are closed", within_s=3)
        log = own.gateway.output()
        assert 1 <= log.count("this process has 784 connections") <= 2
        assert '"level":"error"' not in log
        assert busy < 1.5


def test_a_stop_takes_less_than_ten_seconds_with_all_of_these_connected(own: Installation) -> None:
    kinds = slow(own, 200) | {"idle": Kind(3000, [""])}
    process = own.gateway.process
    assert process is not None
    with attack(own.port, **kinds):
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = process.wait(15)
        took_s = time.monotonic() - begun
    print(f"stopped in {took_s:.1f} s")
    assert took_s < STOP_S
    assert code in (0, -signal.SIGTERM)
    lines = [line for line in own.gateway.output().splitlines() if "Traceback" in line]
    assert not lines, lines[0][-1500:]

"""A 100ms that hangs: mints are unaffected, creates time out, nothing accumulates, and after its recovery requests are
served within a second.

The test machine is shared and noisy. Two gateways mint by turns, one request each, while creates hang at one of them,
then at the other; the test compares the p99s of each block and takes the median. A single block varies by half: a mint
takes a millisecond.
"""

from __future__ import annotations

import http.client
import os
import socket
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import ClassVar, NamedTuple

import pytest

from tests.e2e.checks import assert_problem, check_document
from tests.e2e.people import newcomers
from tests.e2e.policies import roomy
from tests.e2e.volley import Answer, post
from tests.servers import HOST, Installation, wait_until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(300)]

IN_FLIGHT = 50  # a worker's bound
BLOCKS, MINTS = 6, 500
LONG_S = 60  # a time limit of creates that all blocks fit into
MOST_RATIO = 1.2
GIVEN_UP_S = 5.5
SHORT_S = 1.5  # a time limit of creates for tests that wait for it several times


def gateway(folder: Path, *, limit_s: float = 0) -> Installation:
    """Return a gateway with one worker, and with another time limit of its calls to 100ms if one is given."""
    own = Installation(folder, policy=roomy())
    if limit_s:
        for module in ("calls", "client"):
            own.set_constant(f"gateway.hms.{module}.TOTAL_TIMEOUT_S", limit_s)
    return own


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Installation]:
    with gateway(tmp_path) as running:
        yield running


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Installation]:
    """A gateway that gives creates up sooner."""
    with gateway(tmp_path, limit_s=SHORT_S) as running:
        yield running


@pytest.fixture(autouse=True)
def _disconnected() -> Iterator[None]:
    yield
    Creates.leave_all()


def host(own: Installation) -> str:
    """Return the access token of a new host."""
    return newcomers(own, "host")[0].token


class Creates:
    """Creates that are sent now and read later, each on its own connection; no thread waits for them."""

    _every: ClassVar[list[socket.socket]] = []

    def __init__(self, own: Installation, token: str, number: int) -> None:
        self.begun = time.monotonic()
        self._links = [socket.create_connection((HOST, own.port), timeout=15) for _ in range(number)]
        self._every.extend(self._links)
        for link in self._links:
            link.sendall(post("/api/rooms", token=token))

    def answers(self) -> list[Answer]:
        """Wait for all answers."""
        return [_read(link) for link in self._links]

    def leave(self) -> None:
        """Disconnect without an answer."""
        for link in self._links:
            link.close()

    @classmethod
    def leave_all(cls) -> None:
        """Disconnect wherever a test that failed did not."""
        while cls._every:
            cls._every.pop().close()


def _read(link: socket.socket) -> Answer:
    with link:
        answer = http.client.HTTPResponse(link)
        answer.begin()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def statuses(answers: list[Answer]) -> Counter[int]:
    return Counter(answer.status for answer in answers)


class Block(NamedTuple):
    p50_ms: float
    p99_ms: float


class Mints:
    """Sequential mints over one connection."""

    def __init__(self, own: Installation, token: str) -> None:
        with own.client(token) as client:
            self._path = f"/api/rooms/{client.post('/api/rooms', json={}).json()['room']['id']}/token"
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._link = http.client.HTTPConnection(HOST, own.port, timeout=15)
        self._took_ms: list[float] = []

    def mint(self) -> None:
        begun = time.perf_counter()
        self._link.request("POST", self._path, b"{}", self._headers)
        answer = self._link.getresponse()
        answer.read()
        self._took_ms.append((time.perf_counter() - begun) * 1000)
        assert answer.status == 200

    def block(self) -> Block:
        """Return the percentiles of the mints since the last block."""
        took_ms, self._took_ms = self._took_ms, []
        cuts = statistics.quantiles(took_ms, n=100)
        return Block(cuts[49], cuts[98])

    def close(self) -> None:
        self._link.close()


def block_of(one: Mints, other: Mints) -> tuple[Block, Block]:
    """Mint by turns for one block, so that other load on the machine affects both equally."""
    for _ in range(MINTS):
        one.mint()
        other.mint()
    return one.block(), other.block()


def recover(own: Installation, token: str, *, within_s: float) -> None:
    with own.client(token) as client:
        wait_until(
            lambda: client.post("/api/rooms", json={}).status_code == 201, "a create succeeds again", within_s=within_s
        )


def test_mints_are_unaffected_while_100ms_hangs(tmp_path_factory: pytest.TempPathFactory) -> None:
    measured: list[tuple[Block, Block]] = []
    with ExitStack() as stack:
        pair = [stack.enter_context(gateway(tmp_path_factory.mktemp("of-two"), limit_s=LONG_S)) for _ in range(2)]
        tokens = {own: host(own) for own in pair}
        mints = {own: stack.enter_context(closing(Mints(own, tokens[own]))) for own in pair}
        block_of(*mints.values())  # warm
        for hanging, healthy in (pair, reversed(pair)):
            assert statuses(Creates(healthy, tokens[healthy], IN_FLIGHT).answers()) == {201: IN_FLIGHT}
            hanging.break_upstream(f"delay={LONG_S}")
            creates = Creates(hanging, tokens[hanging], IN_FLIGHT)
            time.sleep(0.5)  # admitting them is done
            for _ in range(BLOCKS):
                measured.append(block_of(mints[hanging], mints[healthy]))
            hanging.emulator.kill()
            assert statuses(creates.answers()) == {502: IN_FLIGHT}, "all of them hung until the connections were lost"
            hanging.start_emulator()
            recover(hanging, tokens[hanging], within_s=10)
    p50 = statistics.median(hanging.p50_ms / healthy.p50_ms for hanging, healthy in measured)
    p99 = statistics.median(hanging.p99_ms / healthy.p99_ms for hanging, healthy in measured)
    print(f"mints while creates hang, over those beside: p50 {p50:.2f}, p99 {p99:.2f}; {measured}")
    assert max(p50, p99) <= MOST_RATIO, measured


def test_creates_beyond_the_bound_are_refused_at_once_and_the_others_in_time(own: Installation) -> None:
    token = host(own)
    own.break_upstream("delay=30")
    creates = Creates(own, token, IN_FLIGHT)
    time.sleep(0.5)
    begun = time.monotonic()
    for answer in Creates(own, token, 10).answers():
        assert answer.status == 503
        document = check_document(503, answer.headers, answer.body, "upstream_busy", path="/api/rooms")
        assert "too many calls" in document["detail"].lower()
        assert answer.headers["retry-after"] == "1"
    assert time.monotonic() - begun < 1
    for answer in creates.answers():
        check_document(504, answer.headers, answer.body, "upstream_timeout", path="/api/rooms")
    assert 4.9 < time.monotonic() - creates.begun < GIVEN_UP_S


def test_nothing_accumulates_while_100ms_hangs_and_recovery_takes_less_than_a_second(hasty: Installation) -> None:
    """67 creates a second, whose callers wait, for twice the time limit of a create."""
    token = host(hasty)
    before_fds, before_kib = fds(hasty), memory_kib(hasty)
    hasty.break_upstream("delay=30")
    sent: list[Creates] = []
    most_fds = 0
    begun = time.monotonic()
    while time.monotonic() - begun < 2 * SHORT_S:
        sent.append(Creates(hasty, token, 1))
        time.sleep(0.015)
        most_fds = max(most_fds, fds(hasty))
    hasty.mend_upstream()
    repaired = time.monotonic()
    recover(hasty, token, within_s=1)
    back_s = time.monotonic() - repaired
    answers = [answer for creates in sent for answer in creates.answers()]
    wait_until(lambda: fds(hasty) <= before_fds + 5, "connections are closed", within_s=10)
    grown_kib = memory_kib(hasty) - before_kib
    print(f"{statuses(answers)}; most fds {most_fds} from {before_fds}; {grown_kib} KiB more; back in {back_s:.2f} s")
    assert set(statuses(answers)) == {503, 504}
    assert statuses(answers)[503] > statuses(answers)[504]  # the breaker: most are refused without waiting
    # Every hanging create has two: its caller's and the one to 100ms.
    assert most_fds - before_fds <= 2 * IN_FLIGHT + 10
    assert back_s < 1
    assert grown_kib < 16 * 1024


def test_callers_who_disconnect_free_their_places(hasty: Installation) -> None:
    token = host(hasty)
    hasty.break_upstream("delay=30")
    creates = Creates(hasty, token, IN_FLIGHT)
    time.sleep(0.5)
    creates.leave()
    hasty.mend_upstream()
    with hasty.client(token) as client:
        assert_problem(client.post("/api/rooms", json={}), 503, "upstream_busy")
    # A create whose caller has disconnected continues until its call ends, because the room may be in progress.
    recover(hasty, token, within_s=SHORT_S + 1)


def _process(own: Installation) -> Path:
    assert own.gateway.process is not None
    return Path(f"/proc/{own.gateway.process.pid}")


def fds(own: Installation) -> int:
    return len(os.listdir(_process(own) / "fd"))


def memory_kib(own: Installation) -> int:
    for line in (_process(own) / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")

"""A 100ms that hangs: mints are unaffected, creates time out, nothing accumulates, and after its recovery requests are
served within a second.

The test machine is shared and noisy. Periods of mints with and without hanging creates alternate; the test compares
the medians of the p99s of their blocks. A single block varies by half: a mint takes a millisecond.
"""

from __future__ import annotations

import http.client
import os
import socket
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tests.e2e.checks import assert_problem, check_document
from tests.e2e.policies import roomy
from tests.e2e.volley import Answer, post
from tests.servers import HOST, Installation, wait_until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(300)]

IN_FLIGHT = 50  # a worker's bound
SPELLS, BLOCKS, BLOCK_S = 3, 4, 0.9  # the blocks of a spell fit into the five seconds that a create may take
MOST_RATIO = 1.2
GIVEN_UP_S = 5.5


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    policy = roomy()
    with Installation(tmp_path_factory.mktemp("hanging"), policy=policy) as running:
        running.add_users(hanna="host")
        yield running


@pytest.fixture(scope="module")
def token(own: Installation) -> str:
    return str(own.log_in("hanna")["access_token"])


@pytest.fixture(scope="module")
def room_id(own: Installation, token: str) -> str:
    with own.client(token) as client:
        return str(client.post("/api/rooms", json={}).json()["room"]["id"])


@pytest.fixture(autouse=True)
def _healthy(own: Installation, token: str) -> Iterator[None]:
    yield
    Creates.leave_all()
    own.mend_upstream()
    with own.client(token) as client:
        wait_until(lambda: client.post("/api/rooms", json={}).status_code == 201, "rooms are created again")


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


def mint_p99_ms(own: Installation, token: str, room_id: str) -> float:
    """Mint sequentially for one block over one connection; return the 99th percentile."""
    link = http.client.HTTPConnection(HOST, own.port, timeout=15)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    took_ms: list[float] = []
    until = time.perf_counter() + BLOCK_S
    while time.perf_counter() < until:
        begun = time.perf_counter()
        link.request("POST", f"/api/rooms/{room_id}/token", b"{}", headers)
        answer = link.getresponse()
        answer.read()
        took_ms.append((time.perf_counter() - begun) * 1000)
        assert answer.status == 200
    link.close()
    assert len(took_ms) >= 100
    return statistics.quantiles(took_ms, n=100)[98]


def spell(own: Installation, token: str, room_id: str, *, hanging: bool) -> list[float]:
    """Measure mints while as many creates hang as a worker makes at once, or after as many that did not hang."""
    if hanging:
        own.break_upstream("delay=30")
    creates = Creates(own, token, IN_FLIGHT)
    answers = [] if hanging else creates.answers()
    time.sleep(0.5)  # admitting them is done, whether they hang or not
    p99s_ms = [mint_p99_ms(own, token, room_id) for _ in range(BLOCKS)]
    if hanging:
        assert time.monotonic() - creates.begun < 5, "the blocks outlasted the creates"
        answers = creates.answers()
        own.mend_upstream()
        assert statuses(answers) == {504: IN_FLIGHT}
        assert time.monotonic() - creates.begun < GIVEN_UP_S
        _recover(own, token)
    else:
        assert statuses(answers) == {201: IN_FLIGHT}
    return p99s_ms


def _recover(own: Installation, token: str) -> None:
    with own.client(token) as client:
        wait_until(
            lambda: client.post("/api/rooms", json={}).status_code == 201, "a create succeeds again", within_s=1.0
        )


def test_mints_are_unaffected_while_100ms_hangs(own: Installation, token: str, room_id: str) -> None:
    mint_p99_ms(own, token, room_id)  # warm
    measured: dict[bool, list[float]] = {False: [], True: []}
    for number in range(SPELLS):
        for hanging in (False, True) if number % 2 else (True, False):
            measured[hanging] += spell(own, token, room_id, hanging=hanging)
    healthy_ms, hanging_ms = statistics.median(measured[False]), statistics.median(measured[True])
    print(f"p99 of mints: healthy {healthy_ms:.2f} ms, hanging {hanging_ms:.2f} ms; {measured}")
    assert hanging_ms <= MOST_RATIO * healthy_ms, measured


def test_creates_beyond_the_bound_are_refused_at_once_and_the_others_in_time(own: Installation, token: str) -> None:
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


def test_nothing_accumulates_while_100ms_hangs_and_recovery_takes_less_than_a_second(
    own: Installation, token: str
) -> None:
    """20 creates a second, whose callers wait, for twice the time limit of a create."""
    _recover(own, token)
    before_fds, before_kib = fds(own), memory_kib(own)
    own.break_upstream("delay=30")
    sent: list[Creates] = []
    most_fds = 0
    begun = time.monotonic()
    while time.monotonic() - begun < 10:
        sent.append(Creates(own, token, 1))
        time.sleep(0.05)
        most_fds = max(most_fds, fds(own))
    own.mend_upstream()
    repaired = time.monotonic()
    _recover(own, token)
    back_s = time.monotonic() - repaired
    answers = [answer for creates in sent for answer in creates.answers()]
    wait_until(lambda: fds(own) <= before_fds + 5, "connections are closed", within_s=10)
    grown_kib = memory_kib(own) - before_kib
    print(f"{statuses(answers)}; most fds {most_fds} from {before_fds}; {grown_kib} KiB more; back in {back_s:.2f} s")
    assert set(statuses(answers)) == {503, 504}
    assert statuses(answers)[503] > statuses(answers)[504]  # the breaker: most are refused without waiting
    # Every hanging create has two: its caller's and the one to 100ms.
    assert most_fds - before_fds <= 2 * IN_FLIGHT + 10
    assert back_s < 1
    assert grown_kib < 16 * 1024


def test_callers_who_disconnect_free_their_places(own: Installation, token: str) -> None:
    own.break_upstream("delay=30")
    creates = Creates(own, token, IN_FLIGHT)
    time.sleep(0.5)
    creates.leave()
    own.mend_upstream()
    with own.client(token) as client:
        assert_problem(client.post("/api/rooms", json={}), 503, "upstream_busy")
        # A create whose caller has disconnected continues until its call ends, because the room may be in progress.
        wait_until(lambda: client.post("/api/rooms", json={}).status_code == 201, "places are free again", within_s=6.5)


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

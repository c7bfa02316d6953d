"""Redis or 100ms is unreachable, slow or faulty: the gateway reports it at once and recovers by itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.checks import assert_problem
from tests.servers import Installation, wait_until

SOON_S = 1.0


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    running = Installation(tmp_path_factory.mktemp("outages"), workers=2)
    running.env["GATEWAY_REDIS_TIMEOUT_MS"] = "100"
    with running:
        running.add_users(hanna="host", otto="operator")
        yield running


@pytest.fixture(scope="module")
def token(own: Installation) -> str:
    return own.token_of("hanna")


@pytest.fixture(scope="module")
def room_id(own: Installation, token: str) -> str:
    with own.client(token) as client:
        return str(client.post("/api/rooms", json={}).json()["room"]["id"])


@pytest.fixture(autouse=True)
def _fresh_limits(own: Installation) -> None:
    """Reset the charges of earlier tests: the built-in policy lets a host create five rooms at once."""
    with own.valkey.client() as client:
        for key in client.scan_iter("rl:1:*"):
            client.delete(key)


def timed(ask: Callable[[], httpx.Response]) -> tuple[httpx.Response, float]:
    begun = time.monotonic()
    answer = ask()
    return answer, time.monotonic() - begun


def assert_works(own: Installation, token: str, room_id: str) -> None:
    def minted() -> bool:
        with own.client(token) as client:
            return client.post(f"/api/rooms/{room_id}/token", json={}).status_code == 200

    wait_until(own.has_store, "every worker has reconnected to Redis", within_s=5)
    for _ in range(8):
        assert minted()
    with own.client(token) as client:
        assert client.get("/health/ready").status_code == 200
        assert client.get("/api/usage").status_code == 200


def log_since(own: Installation, position: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in own.gateway.output()[position:].splitlines()]


@pytest.mark.alone
def test_gateway_recovers_from_a_redis_killed_repeatedly_under_load(
    own: Installation, token: str, room_id: str
) -> None:
    for _ in range(3):
        own.valkey.kill()
        with own.client(token) as client:
            assert_problem(client.get("/api/auth/me"), 503, "unavailable")
        own.valkey.start()
        assert_works(own, token, room_id)


def test_unreachable_100ms_stops_only_creates(own: Installation, token: str, room_id: str) -> None:
    own.emulator.kill()
    try:
        with own.client(token) as client:
            answer, took_s = timed(lambda: client.post("/api/rooms", json={}))
            assert_problem(answer, 502, "upstream_error")
            assert took_s < SOON_S
        assert_works(own, token, room_id)
    finally:
        own.start_emulator()
    with own.client(token) as client:
        assert client.post("/api/rooms", json={}).status_code == 201


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("garbage", 502, "upstream_error"),
        ("reset", 502, "upstream_error"),
        ("status=500", 502, "upstream_error"),
        ("status=503", 502, "upstream_error"),
        ("status=404", 502, "upstream_error"),
        ("status=400", 502, "upstream_error"),
        ("status=401", 502, "upstream_error"),
        ("status=403", 502, "upstream_error"),
    ],
)
def test_answers_of_100ms_are_never_passed_through(
    own: Installation, token: str, fault: str, status: int, code: str
) -> None:
    position = len(own.gateway.output())
    own.break_upstream(fault)
    try:
        with own.client(token) as client:
            document = assert_problem(client.post("/api/rooms", json={}), status, code)
            listed = len(client.get("/api/rooms").json()["rooms"])
    finally:
        own.mend_upstream()
    assert "emulated" not in json.dumps(document)
    lines = log_since(own, position)
    assert not [line for line in lines if "traceback" in line]
    critical = [line["message"] for line in lines if line["level"] == "critical"]
    if fault in ("status=401", "status=403"):
        assert len(critical) == 1
        assert "HMS_APP_SECRET" in critical[0]
    else:
        assert critical == []
    with own.client(token) as client:
        # So many failures within ten seconds may have opened the breaker.
        wait_until(lambda: client.post("/api/rooms", json={}).status_code == 201, "100ms is called again", within_s=2)
        assert len(client.get("/api/rooms").json()["rooms"]) == min(listed + 1, 20)


def test_429_of_100ms_becomes_a_503_with_the_same_wait(own: Installation, token: str) -> None:
    """100ms states the wait only in the text; the gateway honours it without calling 100ms again."""

    def last_name() -> str:
        return str([call for call in own.upstream_calls() if call["method"] == "POST"][-1]["body"]["name"])

    own.break_upstream("status=429")
    try:
        with own.client(token) as client:  # one connection, so one worker
            assert_problem(client.post("/api/rooms", json={}), 503, "upstream_busy")
            asked = last_name()
            for _ in range(3):
                answer = client.post("/api/rooms", json={})
                assert_problem(answer, 503, "upstream_busy")
                assert answer.headers["retry-after"] in ("45", "44")  # rounded up, minus the elapsed time
            assert last_name() == asked
    finally:
        own.mend_upstream()
        own.gateway.stop()  # sooner than after 45 s
        own.start_gateway()


def test_failed_create_is_refunded(own: Installation, token: str) -> None:
    """The last test: so many failures could open the breaker for others."""
    own.break_upstream("status=500")
    try:
        with own.client(token) as client:
            for _ in range(12):  # more than the burst of five
                assert_problem(client.post("/api/rooms", json={}), 502, "upstream_error")
            usage = client.get("/api/usage").json()
    finally:
        own.mend_upstream()
    assert next(limit["remaining"] for limit in usage["limits"] if limit["name"] == "rooms.create") == 5
    assert usage["usage"]["today"]["rooms.create"]["failed"] >= 12

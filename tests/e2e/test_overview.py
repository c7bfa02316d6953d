"""What operators look at, on real processes: totals of real requests, and streams of what changes."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.checks import assert_problem
from tests.e2e.people import newcomers
from tests.e2e.policies import roomy
from tests.servers import HOST, Installation, free_port, wait_until

BUDGET = """
[quotas.everybody]
counter = "minutes"
scope = "all"
period = "month"
amount = 500
on_exhausted = "end"
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    own = Installation(tmp_path_factory.mktemp("watched"), workers=2, policy=roomy() + BUDGET)
    own.set_constant("gateway.overview.live.EVERY_S", 0.2)
    own.set_constant("gateway.overview.heartbeat.EVERY_S", 0.5)
    with own:
        yield own


def events(answer: httpx.Response) -> Iterator[tuple[str, Any]]:
    """Read the events of a stream until it ends."""
    name = ""
    for line in answer.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def test_totals_show_what_was_requested_by_outcome(watched: Installation) -> None:
    operator, host, hundred = newcomers(watched, "operator", "host", "hundred")
    with watched.client(host.token) as client:
        for _ in range(3):
            assert client.get("/api/rooms").status_code == 200
        assert client.get("/api/rooms/" + "0" * 24).status_code == 404
        room = client.post("/api/rooms", json={"access": "open"}).json()["room"]["id"]
    with watched.client(hundred.token) as client:
        statuses = [client.post(f"/api/rooms/{room}/token", json={}).status_code for _ in range(101)]
    assert statuses.count(429) == 1
    with watched.client(operator.token) as client:

        def totals(range_: str) -> dict[str, Any]:
            return dict(client.get("/api/admin/overview", params={"range": range_}).json()["totals"])

        wait_until(lambda: totals("1h")["denied"] == 1, "the denial is counted")
        for range_, size in (("1h", 60), ("24h", 288), ("30d", 30), ("12mo", 12)):
            found = client.get("/api/admin/overview", params={"range": range_}).json()
            assert len(found["points"]) == size
            assert (found["totals"]["refused"], found["totals"]["failed"]) == (1, 0)
            assert found["totals"]["ok"] >= 104
            assert (found["people_now"], found["rooms_now"], found["time_zone"]) == (0, 0, "UTC")
        denied = client.get("/api/admin/denials").json()
        assert denied["total"] == 1
        assert denied["limits"] == [{"limit": "tokens.mint", "count": 1}]
        assert denied["actions"] == [{"action": "tokens.mint", "count": 1}]
        assert_problem(client.get("/api/admin/overview", params={"range": "1d"}), 400, "invalid_request")
    with watched.client(host.token) as client:
        for name in ("overview", "denials", "live", "status", "budgets"):
            assert_problem(client.get(f"/api/admin/{name}"), 403, "forbidden")


def test_status_shows_every_worker_and_when_100ms_last_answered(watched: Installation) -> None:
    operator, host = newcomers(watched, "operator", "host")
    with watched.client(host.token) as client:
        assert client.post("/api/rooms", json={}).status_code == 201
    with watched.client(operator.token) as client:

        def status() -> dict[str, Any]:
            return dict(client.get("/api/admin/status").json())

        wait_until(lambda: status()["upstream"]["last_answer_at"] is not None, "a worker tells that 100ms answered")
        found = status()
    assert len({worker["pid"] for worker in found["workers"]}) == 2
    assert [worker["leads"] for worker in found["workers"]].count(True) == 1
    assert {worker["version"] for worker in found["workers"]} == {found["version"]}
    assert (found["redis"]["server"], found["redis"]["aof"], found["redis"]["aof_ok"]) == ("Valkey", True, True)
    assert found["redis"]["memory_bytes"] > 0
    assert (found["upstream"]["state"], found["webhooks"]["enabled"]) == ("closed", False)


def test_budgets_are_shown_with_what_is_used_of_them(watched: Installation) -> None:
    (operator,) = newcomers(watched, "operator")
    with watched.valkey.client() as redis:
        redis.hset(f"uc:1:{{all}}:{datetime.now(UTC):%Y-%m}", "*:minutes.ok", 100 * 60 + 15)
    with watched.client(operator.token) as client:
        (item,) = client.get("/api/admin/budgets").json()["items"]
    assert (item["scope"], item["user_id"], item["name"], item["unit"]) == ("all", "", "everybody", "minutes")
    assert (item["amount"], item["used"], item["used_percent"], item["on_exhausted"]) == (500, 100.25, 20.1, "end")
    assert item["forecast"] >= item["used"]
    assert datetime.fromisoformat(item["ends_at"]) > datetime.now(UTC)


def test_a_stream_tells_what_changes_and_ends_with_its_session(watched: Installation) -> None:
    operator, host = newcomers(watched, "operator", "host")
    with watched.client(operator.token) as client, client.stream("GET", "/api/admin/live") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store"
        stream = events(answer)
        name, first = next(stream)
        assert name == "overview"
        with watched.client(host.token) as other:
            for _ in range(5):
                assert other.get("/api/rooms").status_code == 200
        before = sum(point["ok"] for point in first["points"])
        while sum(point["ok"] for point in first["points"]) < before + 5:
            _, first = next(stream)
        with watched.client(operator.token) as other:
            body = {"scope": "current"}
            assert other.post("/api/auth/logout", json=body).status_code == 204
        assert [data for name, data in stream if name == "end"] == [{"reason": "session_ended"}]


def test_head_of_a_stream_has_an_end(watched: Installation) -> None:
    (operator,) = newcomers(watched, "operator")
    with watched.client(operator.token) as client:
        for _ in range(2):  # on one connection
            answer = client.head("/api/admin/live")
            assert (answer.status_code, answer.content) == (200, b"")
            assert answer.headers["content-type"] == "text/event-stream"


def test_operators_have_a_listener_of_their_own_on_every_worker(tmp_path: Path) -> None:
    own = Installation(tmp_path, workers=2, policy=roomy(), real=True)
    private = free_port()
    own.env["GATEWAY_OPERATOR_BIND"] = f"{HOST}:{private}"
    with own:
        (operator,) = newcomers(own, "operator")
        for _ in range(6):  # each on a connection of its own
            with own.client(operator.token) as public:
                unknown = public.get("/api/nowhere").json()
                for path in ("/operator", "/operator/main.js", "/api/admin/overview", "/api/admin/nowhere"):
                    for method in ("GET", "POST", "OPTIONS"):
                        answer = public.request(method, path)
                        assert_problem(answer, 404, "not_found")
                        assert answer.json()["detail"] == unknown["detail"]
                assert public.get("/api/auth/me").status_code == 200
                public.base_url = httpx.URL(f"http://{HOST}:{private}")
                for path in ("/operator", "/operator/main.js", "/api/admin/overview", "/api/auth/me"):
                    assert public.get(path).status_code == 200
        busy = own.command("serve", "--port", str(free_port()))
        assert (busy.returncode, "GATEWAY_OPERATOR_BIND" in busy.stderr) == (1, True)


def test_open_streams_do_not_delay_a_stop(tmp_path: Path) -> None:
    """A single worker, whose streams are on the operators' listener."""
    own = Installation(tmp_path)
    private = free_port()
    own.env["GATEWAY_OPERATOR_BIND"] = f"{HOST}:{private}"
    with own:
        process = own.gateway.process
        assert process is not None
        (operator,) = newcomers(own, "operator")
        address = f"http://{HOST}:{private}/api/admin/live"
        with own.client(operator.token) as client, client.stream("GET", address) as answer:
            stream = events(answer)
            next(stream)
            process.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            assert {name for name, _ in stream} <= {
                "overview"
            }  # it is complete: without its last chunk, httpx would raise
            process.wait(10)
        assert time.monotonic() - begun < 5
        assert "Cancel" not in own.gateway.output()

"""GET /metrics of real processes: who may read it, and what it adds up over workers that die."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.checks import assert_problem
from tests.e2e.policies import BUILT_IN
from tests.e2e.workers import TELLS_WORKERS_APART, on_every_worker, workers_of
from tests.servers import Installation, wait_until

MINTS = 'gateway_http_requests_total{method="POST",route="/api/rooms/{room_id}/token",status="200"}'


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    policy, changed = re.subn(r"(?m)^flood = [^#]*", 'flood = { rate = "1/s", burst = 500 } ', BUILT_IN.read_text())
    assert changed == 1
    running = Installation(tmp_path_factory.mktemp("watched"), workers=2, policy=policy, real=True)
    running.env["GATEWAY_METRICS_TOKEN"] = secrets.token_urlsafe(48)
    running.env["TMPDIR"] = str(running.folder)
    with running:
        running.add_users(hanna="host", ada="admin")
        yield running


def scrape(installation: Installation) -> dict[str, float]:
    with installation.client(installation.env["GATEWAY_METRICS_TOKEN"]) as client:
        answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = [line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_only_the_token_of_metrics_admits(watched: Installation) -> None:
    token = watched.env["GATEWAY_METRICS_TOKEN"]
    wrong: list[list[tuple[str, str]]] = [
        [],
        [("Authorization", "")],
        [("Authorization", f"Bearer {token[:-1]}")],
        [("Authorization", f"Bearer {token}x")],
        [("Authorization", f"Basic {token}")],
        [("Authorization", token)],
        [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")],
        [("Authorization", f"Bearer {watched.env['GATEWAY_SECRET']}")],
        [("Authorization", f"Bearer {watched.token_of('ada')}")],
    ]
    with watched.client() as client:
        for headers in wrong:
            assert_problem(client.get("/metrics", headers=headers), 401, "invalid_token")
        assert_problem(client.get("/metrics", params={"token": token}), 400, "invalid_request")
        assert client.head("/metrics", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert token not in watched.gateway.output()


@TELLS_WORKERS_APART
def test_counters_survive_a_killed_worker_and_files_do_not_become_more(watched: Installation) -> None:
    token = watched.token_of("hanna")
    with watched.client(token) as client:
        room = client.post("/api/rooms", json={}).json()["room"]["id"]
    with on_every_worker(watched, token) as clients:
        for client in clients[:5]:
            assert client.post(f"/api/rooms/{room}/token", json={}).status_code == 200
        victim = next(iter(workers_of(watched).values()))
        wait_until(lambda: scrape(watched).get(MINTS) == 5, "both workers have counted")
        before = scrape(watched)
        [folder] = watched.folder.glob("gateway-metrics-*")
        files = {path.name: path.stat().st_size for path in folder.iterdir()}
        os.kill(victim, signal.SIGKILL)
    wait_until(lambda: scrape(watched).get("gateway_worker_starts_total") == 3, "another worker has started")
    after = scrape(watched)
    assert after["gateway_workers"] == before["gateway_workers"] == 2
    assert after[MINTS] == before[MINTS]
    asked = 'gateway_limit_decisions_total{limit="tokens.mint",outcome="checked"}'
    assert after[asked] == before[asked] == 5
    for name, value in before.items():
        if re.search(r"_(total|count|bucket)\b", name):
            assert after[name] >= value, name
    with watched.client(token) as client:
        assert client.post(f"/api/rooms/{room}/token", json={}).status_code == 200
    wait_until(lambda: scrape(watched)[MINTS] == 6, "the count goes on")
    assert {path.name: path.stat().st_size for path in folder.iterdir()} == files


def test_a_flood_from_its_address_does_not_stop_prometheus(watched: Installation) -> None:
    wrong = {"Authorization": "Bearer " + "x" * 40}
    with watched.client() as client:  # one connection, so one worker
        for _ in range(600):
            if client.get("/metrics", headers=wrong).status_code == 429:
                break
        assert client.get("/health/none").status_code == 429
        token = {"Authorization": f"Bearer {watched.env['GATEWAY_METRICS_TOKEN']}"}
        assert client.get("/metrics", headers=token).status_code == 200


def test_without_their_settings_nothing_of_metrics_and_traces_is_imported(tmp_path: Path) -> None:
    text = "import sys, gateway.server, gateway.app; gateway.app.from_env()\n"
    text += "sys.exit(', '.join(sorted({'prometheus_client', 'opentelemetry', 'requests'} & sys.modules.keys())) or 0)"
    env = Installation(tmp_path).env | {"GATEWAY_DATA": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

"""A real Prometheus with our configuration scrapes a real gateway: every panel of the dashboard has data."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.policies import roomy
from tests.programs import require
from tests.servers import HOST, NO_TLS, REPOSITORY, Installation, free_port, wait_until

DEPLOY = REPOSITORY / "deploy"
BUDGET = '\n[quotas.everybody]\ncounter = "minutes"\nscope = "all"\nperiod = "month"\namount = 500\n'
ENDPOINT = '\n[webhooks.billing]\nurl = "https://billing.invalid/"\nevents = ["room.ended"]\n'
EMPTY = {"max(gateway_redis_memory_max_bytes > 0)"}  # this Redis has no maxmemory


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    running = Installation(tmp_path_factory.mktemp("scraped"), workers=2, policy=roomy() + BUDGET + ENDPOINT)
    running.env["GATEWAY_METRICS_TOKEN"] = secrets.token_urlsafe(48)
    running.env["GATEWAY_WEBHOOK_SECRETS"] = f"billing=whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    running.env["HMS_WEBHOOK_SECRET"] = secrets.token_urlsafe(48)
    with running:
        running.add_users(hanna="host")
        yield running


@pytest.fixture(scope="module")
def prometheus(gateway: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The HTTP API of a Prometheus that scrapes twice a second. It has begun before anything has happened."""
    program = require("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    token = folder / "metrics_token"
    token.write_text(gateway.env["GATEWAY_METRICS_TOKEN"])
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    for ours, here in (
        ("/tmp/metrics_token", str(token)),  # noqa: S108  in the container
        ("dns_sd_configs:", "static_configs:"),
        ("names: [gateway], type: A, port: 8000, refresh_interval: 15s", f'targets: ["{HOST}:{gateway.port}"]'),
        ("alerts.yml", str(DEPLOY / "prometheus" / "alerts.yml")),
        ("15s", "500ms"),
    ):
        assert ours in text
        text = text.replace(ours, here)
    (folder / "prometheus.yml").write_text(text)
    port = free_port()
    command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address={HOST}:{port}", "--log.level=error"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    try:
        with httpx.Client(base_url=f"http://{HOST}:{port}/api/v1", verify=NO_TLS, trust_env=False) as client:
            wait_until(lambda: _asks(client, 'up{job="gateway"} == 1') != [], "Prometheus has scraped the gateway")
            yield client
    finally:
        process.terminate()
        process.wait(10)


def _asks(client: httpx.Client, query: str) -> list[Any]:
    try:
        answer = client.get("/query", params={"query": query})
    except httpx.TransportError:
        return []  # it has not started yet
    if answer.status_code == 503:
        return []
    assert answer.status_code == 200, (query, answer.text)
    return list(answer.json()["data"]["result"])


def test_every_panel_has_data_and_no_alert_fires(gateway: Installation, prometheus: httpx.Client) -> None:
    with gateway.client_of("hanna") as client:
        room = client.post("/api/rooms", json={}).json()["room"]["id"]
        for _ in range(3):
            assert client.post(f"/api/rooms/{room}/token", json={}).status_code == 200
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "gateway.json").read_text())
    queries = {target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())}
    assert queries >= EMPTY
    mints = 'gateway_http_requests_total{route="/api/rooms/{room_id}/token",status="200"} == 3'
    wait_until(lambda: len(_asks(prometheus, mints)) == 1, "the mints have been scraped")
    for query in sorted(queries - EMPTY):
        asked = query.replace("$__rate_interval", "1m")
        wait_until(lambda: _asks(prometheus, asked) != [], f"there is data for {asked}")  # noqa: B023
    rules = prometheus.get("/rules").json()["data"]["groups"][0]["rules"]
    assert len(rules) > 20
    assert {rule["name"]: rule["lastError"] for rule in rules if rule.get("lastError")} == {}
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []

"""100ms's official Node SDK works unchanged against the emulator."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.node import require_node, run_node
from tests.servers import HOST, NO_TLS, REPOSITORY, Service, free_port

KEY, SECRET, TEMPLATE = secrets.token_hex(12), secrets.token_urlsafe(48), secrets.token_hex(12)


@pytest.fixture
def emulator_url(tmp_path: Path) -> Iterator[str]:
    """A separate, empty `gateway emulator`."""
    require_node(packages=True)
    url = f"http://{HOST}:{(port := free_port())}"
    env = {"PYTHONPATH": str(REPOSITORY), "HMS_APP_ACCESS_KEY": KEY, "HMS_APP_SECRET": SECRET}
    arguments = ["emulator", "--port", str(port), "--state", "emulator.json"]
    env["HMS_TEMPLATE_ID"] = TEMPLATE
    service = Service(arguments, folder=tmp_path, env=env, log=tmp_path / "emulator.log", real=True)
    service.start()
    try:
        service.wait_until(lambda: "Uvicorn running" in service.output(), "the emulator runs")
        yield url
    finally:
        service.stop()


@pytest.mark.parametrize("way", ["https_proxy", "defaults.baseURL"])
def test_sdk_works_against_the_emulator(emulator_url: str, way: str) -> None:
    """Rooms, room codes, active rooms and sessions; redirected by the environment and by one line of code."""
    arguments = ["sdk.cjs", KEY, SECRET, TEMPLATE, emulator_url]
    if way == "https_proxy":
        done = run_node(*arguments, packages=True, https_proxy=emulator_url)
    else:
        done = run_node(*arguments, f"{emulator_url}/v2", packages=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "every call did what its documentation says"
    calls = httpx.get(f"{emulator_url}/emulator/calls", timeout=5, verify=NO_TLS, trust_env=False).json()["calls"]
    asked = {call["path"].split("/")[2] for call in calls}
    assert asked == {"rooms", "room-codes", "active-rooms", "sessions"}


def test_sdk_reports_a_fault(emulator_url: str) -> None:
    body = {"match": "/v2/rooms", "fault": "status=503"}
    httpx.post(f"{emulator_url}/emulator/faults", json=body, timeout=5, verify=NO_TLS, trust_env=False)
    done = run_node("sdk.cjs", KEY, SECRET, TEMPLATE, emulator_url, packages=True, https_proxy=emulator_url)
    assert done.returncode == 1
    assert '"code":503' in done.stderr
    assert '"message":"Service Unavailable"' in done.stderr

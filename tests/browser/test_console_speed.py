"""How soon the console's page appears, how much of it is sent, and what open consoles cost."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import Tab
from tests.servers import Installation, wait_until

LOADS = 5
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]"
LOADED = "performance.getEntriesByType('navigation').concat(performance.getEntriesByType('resource'))"


@pytest.fixture(scope="module")
def gateway(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("speed"), workers=1) as running:
        yield running


@pytest.mark.alone
def test_page_is_painted_within_300_ms_from_less_than_120_kb(gateway: Installation, browser: Browser) -> None:
    painted_ms, sent = [], []
    for _ in range(LOADS):
        tab = Tab.of(browser)  # with an empty cache
        tab.open(f"{gateway.url}/operator")
        tab.wait_for(f"{PAINTED} && document.activeElement?.id === 'door-name'")
        painted_ms.append(tab.ask(f"{PAINTED}.startTime"))
        sent.append(tab.ask(f"{LOADED}.reduce((sum, {{ transferSize }}) => sum + transferSize, 0)"))
        assert len(tab.requested) > 20, "the screens are loaded too"
        tab.context.close()
    print(f"painted after {median(painted_ms):.0f} ms, {max(sent):,} bytes sent")
    assert median(painted_ms) < 300, painted_ms
    assert 20_000 < max(sent) < 120_000, sent


def cpu_s(pid: int) -> float:
    """Return how much CPU a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.alone
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells the CPU of a process this way")
def test_20_open_consoles_at_rest_cost_a_worker_less_than_2_percent_of_its_cpu(gateway: Installation) -> None:
    process = gateway.gateway.process
    assert process is not None
    gateway.add_users(otto="operator", olga="operator")
    with ExitStack() as open_until_the_end, gateway.valkey.client() as redis:
        for operator in ("otto", "olga"):
            client = open_until_the_end.enter_context(gateway.client_of(operator))
            for _ in range(10):
                answer = open_until_the_end.enter_context(client.stream("GET", "/api/admin/live"))
                assert answer.status_code == 200
                assert "event: overview" in answer.iter_lines()

        def heartbeat() -> None:
            before = redis.hgetall("wk:1")
            wait_until(lambda: redis.hgetall("wk:1") != before, "the worker says that it is alive")

        heartbeat()  # what opening them cost is over
        begun, used_s = time.monotonic(), cpu_s(process.pid)
        heartbeat()
        part = (cpu_s(process.pid) - used_s) / (time.monotonic() - begun)
    print(f"20 consoles: {part:.2%} of a CPU")
    assert part < 0.02

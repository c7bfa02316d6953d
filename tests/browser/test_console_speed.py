"""How soon the console's page appears, and how much of it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import Tab
from tests.servers import Installation

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

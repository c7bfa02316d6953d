"""/docs in a browser that can reach only the gateway."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser

from gateway.apidoc.openapi import describe
from gateway.routes.table import ROUTES
from tests.browser.chromium import Tab, require_chromium
from tests.servers import Installation

OPERATIONS = {one["operationId"] for item in describe(ROUTES)["paths"].values() for one in item.values()}
SHOWN = "document.querySelectorAll('main section > details[id]:not([hidden])')"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    require_chromium()
    with Installation(tmp_path_factory.mktemp("docs"), workers=1) as running:
        yield running


@pytest.fixture
def tab(gateway: Installation, browser: Browser) -> Iterator[Tab]:
    tab = Tab.of(browser)
    yield tab
    tab.context.close()


def test_page_shows_every_route_and_loads_only_from_the_gateway(gateway: Installation, tab: Tab) -> None:
    tab.open(f"{gateway.url}/docs")
    tab.wait_for("document.getElementById('create_room')")
    assert set(tab.ask(f"[...{SHOWN}].map((one) => one.id).filter((id) => !id.startsWith('schema-'))")) == OPERATIONS
    own = {f"{gateway.url}{path}" for path in ("/docs", "/docs/docs.css", "/docs/docs.js", "/openapi.json")}
    assert {url for url in tab.requested if not url.startswith("data:")} == own
    assert tab.complaints == [], "there must be no error and no violation of the page's policy"
    text = tab.ask("document.getElementById('create_room').textContent")
    for part in ("rooms:create", "Idempotency-Key", "idempotency_mismatch", f"curl -X POST '{gateway.url}/api/rooms'"):
        assert part in text


def test_search_and_links_work_from_the_keyboard(gateway: Installation, tab: Tab) -> None:
    tab.open(f"{gateway.url}/docs#mint_token")
    tab.wait_for("document.getElementById('mint_token')?.open")
    tab.page.keyboard.press("/")
    assert tab.ask("document.activeElement.id") == "search"
    assert tab.ask("document.getElementById('search').value") == ""
    tab.page.keyboard.insert_text("idempotency_mismatch")
    assert tab.ask(f"[...{SHOWN}].map((one) => one.id)") == ["create_room", "schema-Problem"]
    assert tab.ask("document.getElementById('status').textContent") == "2 found"
    tab.ask("location.hash = 'make_invite'")
    tab.wait_for("document.getElementById('make_invite').open")
    assert tab.ask("document.getElementById('search').value") == "", "a link must show what the search has hidden"
    assert tab.ask("document.activeElement.closest('details')?.id") == "make_invite"


@pytest.mark.parametrize("width", [360, 1280])
def test_page_fits_its_window(gateway: Installation, tab: Tab, width: int) -> None:
    tab.resize(width, 800)
    tab.open(f"{gateway.url}/docs")
    tab.wait_for("document.getElementById('create_room')")
    tab.ask("document.getElementById('all').click()")
    assert tab.ask("document.querySelectorAll('details:not([open])').length") == 0
    assert tab.ask("document.documentElement.scrollWidth") <= width


def test_page_forbids_inline_scripts_and_other_hosts(gateway: Installation) -> None:
    page = httpx.get(f"{gateway.url}/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(rule.strip().split(" ", 1) for rule in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "http" not in page.text, "the page must name no other host"
    for asset, kind in (("docs.css", "text/css"), ("docs.js", "text/javascript")):
        answer = httpx.get(f"{gateway.url}/docs/{asset}")
        assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "http" not in answer.text
        assert "innerHTML" not in answer.text


def test_the_page_at_the_root_leads_to_the_api_and_the_console(gateway: Installation, tab: Tab) -> None:
    tab.open(gateway.url)
    assert tab.ask("[...document.links].map((one) => one.pathname)") == ["/docs", "/operator", "/health/ready"]
    assert tab.ask("getComputedStyle(document.body).maxWidth") == "512px", "the page's style is applied"
    tab.page.click("text=The API")
    tab.wait_for("document.getElementById('create_room')")
    assert tab.complaints == []

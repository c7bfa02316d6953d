"""Sessions that the browser keeps in a cookie: in the operators' console, over reloads and in several tabs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Route

from gateway.http.cookies import NAME
from tests.browser.chromium import Tab, require_chromium
from tests.browser.console import Console
from tests.e2e.policies import roomy
from tests.servers import Installation, wait_until

REFRESH = "/api/auth/refresh"
INSIDE, OUTSIDE = "!document.body.classList.contains('outside')", "document.body.classList.contains('outside')"
AT_THE_DOOR = "document.activeElement?.id === 'door-name' || document.activeElement?.id === 'door-password'"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    require_chromium()
    own = Installation(tmp_path_factory.mktemp("cookies"), workers=1, policy=roomy())
    own.env["GATEWAY_COOKIES"] = "on"
    with own as running:
        running.add_users(ada="admin", otto="operator", olga="operator")
        yield running


@pytest.fixture
def console(browser: Browser, gateway: Installation) -> Iterator[Console]:
    console = Console(Tab.of(browser), gateway)
    console.open()
    yield console
    assert console.ask("violations") == []
    console.tab.context.close()


def cookie(context: BrowserContext) -> dict[str, Any] | None:
    """Return what the browser keeps of the session."""
    cookies = context.cookies()
    assert {one["name"] for one in cookies} <= {NAME}
    return dict(cookies[0]) if cookies else None


def refreshes(*tabs: Console) -> int:
    return sum(url.endswith(REFRESH) for one in tabs for url in one.tab.requested)


def beside(console: Console, gateway: Installation) -> Console:
    """Open another tab with the console; it takes up the session."""
    other = Console(console.tab.beside(), gateway)
    other.tab.open(f"{gateway.url}/operator")
    other.wait_for(INSIDE)
    other.settle()
    return other


def reload(console: Console, until: str) -> None:
    console.tab.page.reload()
    console.wait_for(until)


def test_login_outlives_a_reload_in_a_cookie_that_no_script_reads(gateway: Installation, console: Console) -> None:
    console.log_in("ada")
    kept = cookie(console.tab.context)
    assert kept is not None
    assert (kept["httpOnly"], kept["secure"], kept["sameSite"], kept["path"]) == (True, True, "Lax", "/")
    console.go("users/otto")
    before = refreshes(console)
    reload(console, INSIDE)
    console.settle()
    assert console.text("h1") == "otto"
    assert console.text("#who") == "ada (admin)"
    assert refreshes(console) == before + 1
    renewed = cookie(console.tab.context)
    assert renewed is not None
    assert renewed["value"] != kept["value"]
    assert console.ask("localStorage.length + sessionStorage.length + document.cookie.length") == 0


def test_form_appears_only_without_a_session(console: Console) -> None:
    form = "document.getElementById('door-enter').checkVisibility()"
    assert console.ask(form)
    console.tab.page.route(f"**{REFRESH}", lambda route: None)  # never answered
    console.tab.page.reload()
    console.wait_for("performance.getEntriesByType('resource').length && document.readyState === 'complete'")
    assert not console.ask(form)
    console.tab.page.unroute(f"**{REFRESH}")
    reload(console, AT_THE_DOOR)
    assert console.ask(form)


def test_signing_out_ends_every_tab_and_the_cookie(gateway: Installation, console: Console) -> None:
    console.log_in("otto")
    console.go("usage")  # asks for nothing by itself
    other = beside(console, gateway)
    asked = len(console.tab.requested)
    other.press("Sign out")
    for tab in (console, other):
        tab.wait_for(OUTSIDE)
    assert len(console.tab.requested) == asked, "the tab learnt it from the other one"
    wait_until(lambda: cookie(console.tab.context) is None, "the cookie is removed")
    for tab in (console, other):
        reload(tab, AT_THE_DOOR)
    with gateway.client_of("otto") as client:
        assert len(client.get("/api/auth/sessions").json()["sessions"]) == 1, "only that of this request"


def test_tabs_share_one_refresh(gateway: Installation, console: Console) -> None:
    console.log_in("olga")
    other = beside(console, gateway)
    before = refreshes(console, other)
    held: list[Route] = []
    # Every access token of the account is void from now on.
    assert gateway.command("users", "roles", "olga", "operator", "member").returncode == 0
    for tab in (console, other):
        tab.tab.page.route(f"**{REFRESH}", lambda route: held.append(route))
        tab.tab.complaints.clear()
        tab.ask("location.hash = '#/usage'")
    wait_until(lambda: all(tab.ask("true") and tab.tab.complaints for tab in (console, other)), "both are refused")
    wait_until(lambda: console.ask("true") and len(held) > 0, "one of them refreshes")
    held[0].continue_()
    for tab in (console, other):
        tab.wait_for("document.querySelector('h1')?.textContent === 'Usage'")
        tab.settle()
        assert tab.ask(INSIDE)
    assert refreshes(console, other) == before + 1


def test_another_login_in_a_tab_ends_the_others(gateway: Installation, console: Console) -> None:
    """A tab must never go on as another user than the one whose name it shows."""
    console.log_in("ada")
    other = Console(console.tab.beside(), gateway)
    other.tab.page.route(f"**{REFRESH}", lambda route: route.abort())
    other.tab.open(f"{gateway.url}/operator")
    other.wait_for(AT_THE_DOOR)
    other.tab.page.unroute(f"**{REFRESH}")
    other.log_in("otto")
    console.wait_for(OUTSIDE)
    reload(console, INSIDE)
    assert console.text("#who") == "otto (operator)"


def test_session_that_has_ended_elsewhere_removes_the_cookie(gateway: Installation, console: Console) -> None:
    console.log_in("otto")
    assert gateway.command("users", "logout", "otto").returncode == 0
    reload(console, AT_THE_DOOR)
    assert cookie(console.tab.context) is None
    assert console.text("#door-wrong") == ""


def test_sign_out_that_does_not_arrive_says_so(console: Console) -> None:
    console.log_in("otto")
    console.tab.page.route("**/api/auth/logout", lambda route: route.abort())
    console.press("Sign out")
    console.wait_for("document.getElementById('door-says').textContent.includes('you are still signed in')")
    console.tab.page.unroute("**/api/auth/logout")
    reload(console, INSIDE)
    console.press("Sign out")
    console.wait_for(OUTSIDE)
    wait_until(lambda: cookie(console.tab.context) is None, "the cookie is removed")


def test_cookie_of_a_refresh_is_kept_although_its_tab_is_closed(gateway: Installation, console: Console) -> None:
    """Otherwise the next visit would send a used token, which ends the session as stolen (RFC 9700 section 4.14.2)."""
    console.log_in("ada")
    other = beside(console, gateway)
    kept, before = cookie(console.tab.context), refreshes(other)
    gateway.valkey.pause()
    try:
        other.tab.page.reload(wait_until="commit")
        wait_until(lambda: other.ask("true") and refreshes(other) > before, "the refresh is sent")
        other.tab.page.close()
    finally:
        gateway.valkey.resume()
    wait_until(lambda: cookie(console.tab.context) != kept, "the next cookie is kept")

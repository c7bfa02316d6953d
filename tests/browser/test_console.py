"""The operators' console on a running installation with real traffic, in a browser that reaches only this machine."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import Tab, require_chromium
from tests.browser.console import Console, Theme, require_axe
from tests.browser.console_history import BERLIN, write_history
from tests.e2e.checks import assert_problem
from tests.e2e.people import join, peers
from tests.e2e.policies import BUILT_IN
from tests.servers import HOST, NO_TLS, Installation, free_port, wait_until

# The pictures of docs/console.md, and where to keep them.
KEPT = {"overview-light", "usage-light", "overview-phone", "user-dark", "webhooks-dark", "room-phone"}
PICTURES = os.environ.get("PICTURES")
POLICY = BUILT_IN.read_text().replace('[reports]\ntime_zone = "UTC"', f'[reports]\ntime_zone = "{BERLIN}"')
# A browser without a window looks at more screens in a second than a person could.
POLICY = POLICY.replace('{ rate = "600/min", burst = 120 }', '{ rate = "6000/min", burst = 1200 }')
# So generous that nothing is refused.
BUDGETS = """
[quotas.everybody]
counter = "minutes"
scope = "all"
period = "month"
amount = 20_000
on_exhausted = "end"
[quotas.own-minutes]
counter = "minutes"
scope = "user"
period = "month"
amount = 8_000
[prices]
currency = "EUR"
per_1000_minutes = 4.0
[webhooks.billing]
url = "https://localhost/"
events = ["user.blocked"]
"""
REFUSED = re.compile(r"^Failed to load resource: .* status of [45]\d\d ")


class Site:
    """An installation in use: three rooms, people in one of them, denials, an override, a dead letter, a past month."""

    def __init__(self, installation: Installation) -> None:
        self.gateway = installation
        installation.add_users(
            ada="admin", opal="operator", olga="operator", hanna="host", noor="host", mira="member", tilda="member"
        )
        self.token = {name: installation.token_of(name) for name in ("ada", "hanna", "noor", "mira")}
        self.ids = {one["username"]: one["id"] for one in self.ask("ada", "GET", "/admin/users").json()["users"]}
        self.rooms = [
            self.ask(owner, "POST", "/rooms", {"name": name, "description": says}).json()["room"]["id"]
            for owner, name, says in (
                ("noor", "Office hours", ""),
                ("hanna", "Design review", "Drafts of the week"),
                ("hanna", "Standup", "Every morning"),
            )
        ]
        self.standup = self.rooms[-1]
        self.asked: Counter[int] = Counter()
        write_history(installation, [self.ids[name] for name in ("hanna", "noor", "mira", "tilda")], self.standup)
        for who, relation in (("mira", "cohost"), ("tilda", "banned")):
            self.ask("hanna", "PUT", f"/rooms/{self.standup}/members/{who}", {"relation": relation})
        self.mint_often("mira", 33)
        override = {"name": "rooms.create", "rate": "60/h", "burst": 20, "lasts_s": 7200, "reason": "conference"}
        self.ask("ada", "PUT", "/admin/limits/hanna/override", override)
        self.event(b'{"type": "peer.join.success", "data": {"room_id": 5}}')

    def ask(self, who: str, method: str, path: str, body: Any = None, **query: Any) -> httpx.Response:
        with self.gateway.client(self.token[who]) as client:
            client.base_url = httpx.URL(self.gateway.operators_url)
            return client.request(method, f"/api{path}", json=body, params=query)

    def mint_often(self, who: str, times: int) -> None:
        """Ask for so many join tokens that a limit denies some; `asked` has how many answers of each status came."""
        with self.gateway.client(self.token[who]) as client:
            path = f"/api/rooms/{self.rooms[0]}/token"
            self.asked.update(client.post(path).status_code for _ in range(times))

    def join(self, who: str, room: str) -> None:
        answer = self.ask(who, "POST", f"/rooms/{room}/token")
        if answer.status_code == 429:  # they have used up their limit, which is one of the things to be seen
            time.sleep(float(answer.headers["Retry-After"]))
            answer = self.ask(who, "POST", f"/rooms/{room}/token")
        token = answer.json()["token"]
        assert join(self.gateway, token, f"{who} in {room}").status_code == 200

    def event(self, body: bytes) -> None:
        headers = {"X-Gateway-Webhook-Secret": self.gateway.env["HMS_WEBHOOK_SECRET"]}
        answer = httpx.post(f"{self.gateway.url}/hooks/100ms", content=body, headers=headers, verify=NO_TLS)
        assert answer.status_code == 200


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    require_chromium()
    own = Installation(tmp_path_factory.mktemp("console"), workers=1, policy=POLICY + BUDGETS, fsync="always")
    own.env["GATEWAY_OPERATOR_BIND"] = f"{HOST}:{free_port()}"
    own.set_constant("gateway.outgoing.outbox.BACKOFF_S", ())  # an event that fails once is a dead letter
    own.env["HMS_WEBHOOK_SECRET"] = secrets.token_urlsafe(32)
    own.env["GATEWAY_WEBHOOK_SECRETS"] = f"billing=whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    own.env["EMULATOR_WEBHOOK_URL"] = f"{own.url}/hooks/100ms"
    own.env["EMULATOR_WEBHOOK_HEADER"] = f"X-Gateway-Webhook-Secret={own.env['HMS_WEBHOOK_SECRET']}"
    with own as running:
        yield Site(running)


@pytest.fixture
def console(browser: Browser, site: Site) -> Iterator[Console]:
    console = Console(Tab.of(browser), site.gateway)
    console.open()
    yield console
    assert_clean(console)
    console.tab.context.close()


@pytest.fixture(scope="module")
def desk(browser: Browser, site: Site) -> Console:
    """A tab in which ada stays logged in."""
    console = Console(Tab.of(browser), site.gateway)
    console.open()
    console.log_in("ada")
    return console


@pytest.fixture
def as_ada(desk: Console) -> Iterator[Console]:
    desk.show()
    yield desk
    assert_clean(desk)


def assert_clean(console: Console) -> None:
    """Check that there was no error and no violation of the page's policy."""
    assert console.ask("violations") == []
    assert [line for line in console.tab.complaints if not REFUSED.match(line)] == []


def screens(site: Site) -> list[str]:
    return [
        "overview?range=30d",
        "rooms",
        f"rooms/{site.standup}",
        "users",
        "users/hanna",
        "usage",
        "denials",
        "budgets",
        "webhooks",
        "health",
        "audit",
    ]


# --- the login ---


def test_wrong_password_is_refused_where_it_was_entered(console: Console) -> None:
    console.fill("#door-name", "ada")
    console.enter("not the password at all")
    console.wait_for("document.getElementById('door-wrong').textContent")
    assert console.text("#door-wrong") == "The user name or the password is wrong."
    assert console.ask("document.activeElement.id") == "door-password"


def test_tokens_stay_in_memory_and_end_with_sign_out(site: Site, console: Console) -> None:
    console.log_in("ada")
    before = len(site.ask("ada", "GET", "/auth/sessions").json()["sessions"])
    assert console.ask("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    console.press("Sign out")
    console.wait_for("document.body.classList.contains('outside')")
    wait_until(
        lambda: len(site.ask("ada", "GET", "/auth/sessions").json()["sessions"]) == before - 1, "the session ends"
    )
    assert console.ask("document.activeElement.id") == "door-password"


def test_changed_account_makes_one_refresh_for_all_calls_of_a_screen(site: Site, console: Console) -> None:
    console.log_in("opal")
    site.ask("ada", "PATCH", "/admin/users/opal", {"roles": ["operator", "member"]})
    before = len(console.tab.requested)
    console.go("users/mira")
    assert console.text("h1") == "mira"
    asked = [url for url in console.tab.requested[before:] if "/api/" in url]
    assert sum(url.endswith("/api/auth/refresh") for url in asked) == 1
    assert len(asked) > 4


def test_ended_session_returns_to_the_same_screen_after_the_next_login(site: Site, console: Console) -> None:
    console.log_in("olga")
    console.go("denials")
    assert site.ask("ada", "DELETE", "/admin/users/olga/sessions").status_code == 200
    console.ask("location.hash = '#/webhooks'")
    console.wait_for("document.body.classList.contains('outside')")
    assert "session has ended" in console.text("#door-says")
    console.enter(site.gateway.passwords["olga"])
    console.wait_for("document.querySelector('h1').textContent === 'Webhooks'")
    console.settle()


def test_screens_and_buttons_are_those_that_the_permissions_allow(site: Site, console: Console) -> None:
    console.log_in("olga")
    console.go("users/mira")
    assert "Block" in console.text()
    for forbidden in ("Edit", "Delete", "Password link", "End all", "Disable"):
        assert forbidden not in console.text(), forbidden
    console.go("users")
    assert console.ask("document.querySelectorAll('#main table').length") == 0
    console.go("audit")
    assert {row["By"] for row in console.table("Entries")} <= {*site.ids, "command line", "–"}, "names, not ids"
    console.go("rooms")
    assert [row["Owner"] for row in console.table("All rooms")] == ["hanna", "hanna", "noor"]
    console.press("Sign out")
    console.wait_for("document.body.classList.contains('outside')")
    console.ask("document.getElementById('door-name').value = ''")
    console.log_in("mira")
    assert console.ask("document.getElementById('nav').children.length") == 0
    assert "none of an operator's permissions" in console.text()


# --- the files ---


def test_page_forbids_inline_scripts_and_other_hosts_and_is_loaded_once(site: Site) -> None:
    with site.gateway.client() as client:
        for path in ("/operator", "/api/admin/overview"):
            assert_problem(client.get(path), 404, "not_found")  # they are on the operators' listener
        client.base_url = httpx.URL(site.gateway.operators_url)
        page = client.get("/operator")
        policy = dict(rule.strip().split(" ", 1) for rule in page.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["form-action"] == policy["trusted-types"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["vary"] == "Accept-Encoding"
        for accepted, encoding in (("br, gzip", "gzip"), ("gzip;q=0.5", "gzip"), ("gzip;q=0", None), ("", None)):
            file = client.get("/operator/main.js", headers={"Accept-Encoding": accepted})
            assert (file.headers.get("content-encoding"), "overview" in file.text) == (encoding, True), accepted
        again = client.get("/operator/main.js", headers={"If-None-Match": page.headers["etag"]})
        assert (again.status_code, again.content, again.headers["cache-control"]) == (304, b"", "no-cache")
        for name in ("operator.html", "nothing.js", "..%2f__init__.py", "%2e%2e/__init__.py"):
            assert_problem(client.get(f"/operator/{name}"), 404, "not_found")


# --- the levers ---


def number(console: Console, name: str) -> int:
    """Return the number of a tile."""
    names = "[...document.querySelectorAll('.tiles dt')]"
    found = console.ask(f"{names}.find((one) => one.textContent === '{name}').nextSibling.firstChild.textContent")
    return int(found.replace(",", ""))


def test_overview_changes_with_every_request_while_it_is_open(site: Site, as_ada: Console) -> None:
    as_ada.go("overview?range=1h")
    as_ada.wait_for("document.querySelector('.head .mark').textContent === 'live'")

    def denied() -> int:
        shown = as_ada.ask("document.querySelectorAll('.chart .legend b')[1].textContent")
        return int(shown.split()[0])

    wait_until(lambda: denied() == site.asked[429], "what was denied before is shown")
    requests = number(as_ada, "Requests")
    site.mint_often("mira", 40)
    wait_until(lambda: denied() == site.asked[429], "what was denied now is shown")
    wait_until(lambda: number(as_ada, "Requests") >= requests + 40, "what was admitted is shown")


def test_health_shows_the_worker_redis_and_100ms(as_ada: Console) -> None:
    as_ada.go("health")
    as_ada.wait_for("document.querySelectorAll('tbody tr').length")
    [worker] = as_ada.table("Workers")
    assert (worker["Redis"], worker["100ms"], worker["Chores"]) == ("works", "works", "performs them")
    assert "Append-only file\non" in as_ada.text()


def test_health_says_what_a_lost_master_of_redis_has(site: Site, as_ada: Console) -> None:
    known = site.ask("ada", "GET", "/admin/status").json()
    lost = known | {"upstream": None, "webhooks": None, "redis": known["redis"] | {"silent": ["10.0.0.1:6379"]}}
    for workers, shown in (
        (None, "A master of Redis does not answer, and it has the list."),
        ([one | {"leads": None} for one in known["workers"]], known["workers"][0]["host"]),
    ):
        as_ada.tab.page.route(
            "**/api/admin/status", lambda way, _, to=lost | {"workers": workers}: way.fulfill(json=to)
        )
        as_ada.go("health")
        as_ada.wait_for(f"document.body.innerText.includes({json.dumps(shown)})")
        text = as_ada.text()
        assert "Do not answer\n10.0.0.1:6379" in text
        assert text.count("State\nnot known") == 2
        assert "Dead letters\nnot known" in text
        as_ada.tab.page.unroute("**/api/admin/status")
        as_ada.go("budgets")


def test_budgets_are_shown_with_their_forecast(site: Site, as_ada: Console) -> None:
    as_ada.go("budgets")
    first, second = as_ada.table("Nearest to their end")[:2]
    items = site.ask("ada", "GET", "/admin/budgets").json()["items"]
    assert items[0]["time_zone"] == str(BERLIN)
    assert (first["Budget"], first["Whose"], first["When spent"]) == ("everybody", "whole installation", "rooms end")
    assert first["Used (min)"] == f"{items[0]['used']:,.2f} of 20,000"
    assert (second["Budget"], second["Whose"], second["When spent"]) == ("own-minutes", "hanna", "no tokens")
    assert second["Used (%)"] == f"{items[1]['used_percent']:.1f}"


def test_numbers_of_live_rooms_change_while_people_join_and_leave(site: Site, as_ada: Console) -> None:
    as_ada.go("rooms")
    assert as_ada.table("Live now") == []
    site.join("hanna", site.rooms[1])
    site.join("mira", site.rooms[1])
    as_ada.wait_for("document.querySelector('dd').textContent.startsWith('2 ')")
    [row] = as_ada.table("Live now")
    assert (row["Room"], row["Owner"], row["People"]) == ("Design review", "hanna", "2")
    as_ada.go(f"rooms/{site.rooms[1]}")
    assert {row["Person"] for row in as_ada.table("In the room now: 2 people")} == {"hanna", "mira"}
    as_ada.press("Remove mira")
    as_ada.fill("dialog [name=reason]", "a test")
    as_ada.press("Remove", "dialog")
    as_ada.said("They are being removed.")
    assert peers(site.gateway, site.rooms[1]) == {f"hanna in {site.rooms[1]}"}
    as_ada.press("End room")
    as_ada.fill("dialog [name=reason]", "the building closes")
    as_ada.tab.page.check("dialog [name=lock]")
    as_ada.press("End room", "dialog")
    as_ada.said("All people are being removed; the room is locked.")
    wait_until(lambda: peers(site.gateway, site.rooms[1]) == set(), "all are removed")
    assert "locked" in as_ada.text("#main dl")
    assert_problem(site.ask("mira", "POST", f"/rooms/{site.rooms[1]}/token"), 409, "room_disabled")
    as_ada.press("Unlock")
    as_ada.press("Unlock", "dialog")
    as_ada.said("unlocked")
    assert site.ask("hanna", "GET", f"/rooms/{site.rooms[1]}").json()["room"]["enabled"] is True


def test_limit_is_reset_and_overridden(site: Site, as_ada: Console) -> None:
    site.mint_often("mira", 20)
    as_ada.go("users/mira")

    def limit() -> dict[str, str]:
        return next(row for row in as_ada.table("Limits") if row["Limit"] == "tokens.mint")

    assert int(limit()["Used"].split()[0]) > 10
    as_ada.press("Reset tokens.mint")
    as_ada.press("Reset", "dialog")
    as_ada.said("Used before: tokens.mint ")
    as_ada.settle()
    assert (limit()["Used"], limit()["Left"]) == ("0 of 30 requests", "30 requests")
    as_ada.press("Override tokens.mint")
    as_ada.fill("dialog [name=burst]", "5")
    as_ada.press("Override", "dialog")  # without a reason the browser does not send the form
    assert as_ada.ask("document.querySelector('dialog [name=reason]').validity.valueMissing") is True
    as_ada.fill("dialog [name=rate]", "many")
    as_ada.fill("dialog [name=reason]", "a test")
    as_ada.press("Override", "dialog")
    as_ada.wait_for("document.querySelector('dialog .wrong').textContent.includes('rate')")
    as_ada.fill("dialog [name=rate]", "5/h")
    as_ada.press("Override", "dialog")
    as_ada.said("tokens.mint is overridden")
    as_ada.settle()
    assert limit()["Left"] == "5 requests"
    before = site.asked[200]
    site.mint_often("mira", 7)
    assert site.asked[200] == before + 5
    as_ada.press("Remove the override of tokens.mint")
    as_ada.press("Remove", "dialog")
    as_ada.said("The override is removed.")
    assert site.ask("ada", "GET", "/admin/limits/mira").json()["overrides"] == []


def test_user_is_blocked_and_unblocked(site: Site, as_ada: Console) -> None:
    as_ada.go("users/noor")
    as_ada.press("Block")
    as_ada.fill("dialog [name=reason]", "a test")
    as_ada.press("Block", "dialog")
    as_ada.said("noor is blocked.")
    assert_problem(site.ask("noor", "GET", "/rooms"), 429, "rate_limited")
    as_ada.settle()
    assert "blocked until" in as_ada.text(".facts")
    as_ada.press("Unblock")
    as_ada.press("Unblock", "dialog")
    as_ada.said("no longer blocked")
    assert site.ask("noor", "GET", "/rooms").status_code == 200


def test_one_session_of_a_user_is_ended(site: Site, as_ada: Console) -> None:
    kept, ended = (site.gateway.log_in("tilda") for _ in range(2))
    as_ada.go("users/tilda")
    assert len(as_ada.table("Sessions")) == 2
    as_ada.press(f"End session {ended['session_id']}")
    as_ada.press("End session", "dialog")
    as_ada.said("The session has ended.")
    assert len(as_ada.table("Sessions")) == 1
    for login, status in ((kept, 200), (ended, 401)):
        with site.gateway.client(login["access_token"]) as client:
            assert client.get("/api/auth/me").status_code == status
    as_ada.press("End all")
    as_ada.press("End all", "dialog")
    as_ada.said("1 session ended.")
    assert "They are not logged in anywhere." in as_ada.text()


def test_rooms_of_an_owner_are_on_their_screen_and_found_by_their_name(site: Site, as_ada: Console) -> None:
    as_ada.go("users/hanna")
    assert [row["Room"] for row in as_ada.table("Rooms they own")] == ["Standup", "Design review"]
    as_ada.go("rooms")
    as_ada.fill("[name=owner]", "noor")
    as_ada.press("Search")
    as_ada.settle()
    assert [row["Room"] for row in as_ada.table("Rooms of noor")] == ["Office hours"]
    as_ada.go("rooms?owner=nobody-at-all")
    assert "no such user" in as_ada.text("[role=alert]")


def test_operator_revokes_an_invite_of_a_room_of_another_user(site: Site, as_ada: Console) -> None:
    made = site.ask("hanna", "POST", f"/rooms/{site.standup}/invites", {"max_uses": 3}).json()["invite"]
    as_ada.go(f"rooms/{site.standup}")
    [invite] = as_ada.table("Invites")
    assert (invite["Invite"], invite["Uses left"], invite["Made by"]) == (made["id"], "3", "hanna")
    as_ada.press(f"Revoke {made['id']}")
    as_ada.press("Revoke", "dialog")
    as_ada.said("The invite is revoked.")
    assert site.ask("hanna", "GET", f"/rooms/{site.standup}/invites").json()["invites"] == []


def test_account_is_added_given_a_password_link_disabled_and_deleted(site: Site, as_ada: Console) -> None:
    as_ada.go("users")
    as_ada.press("Add user")
    as_ada.fill("dialog [name=username]", "petra.s")
    as_ada.fill("dialog [name=roles]", "member, host")
    as_ada.press("Add", "dialog")
    as_ada.wait_for("document.querySelector('h1')?.textContent === 'petra.s'")
    as_ada.settle()
    as_ada.press("Password link")
    as_ada.press("Create", "dialog")
    as_ada.wait_for("document.querySelector('dialog [name=code]')")
    code = {"token": as_ada.ask("document.querySelector('dialog [name=code]').value")}
    with site.gateway.client() as client:
        answer = client.post("/api/auth/password/setup", json=code | {"new_password": secrets.token_hex(16)})
    assert answer.status_code == 204
    as_ada.press("Close", "dialog")
    as_ada.press("Disable")
    as_ada.press("Disable", "dialog")
    as_ada.said("Saved.")
    account = site.ask("ada", "GET", "/admin/users/petra.s").json()["user"]
    assert (account["status"], account["roles"]) == ("disabled", ["member", "host"])
    as_ada.press("Delete")
    as_ada.fill("dialog [name=name]", "petra")
    as_ada.press("Delete", "dialog")
    as_ada.wait_for("document.querySelector('dialog .wrong').textContent === 'That is another name.'")
    as_ada.fill("dialog [name=name]", "petra.s")
    as_ada.press("Delete", "dialog")
    as_ada.said("The account is deleted.")
    assert_problem(site.ask("ada", "GET", "/admin/users/petra.s"), 404, "not_found")


def test_dead_letter_is_replayed(site: Site, as_ada: Console) -> None:
    as_ada.go("webhooks")
    [letter] = as_ada.table("Dead letters")
    as_ada.press(f"Replay {letter['Id']}")
    as_ada.press("Replay", "dialog")
    as_ada.said("The event is processed again.")
    # It cannot be understood this time either.
    wait_until(lambda: [one["Id"] for one in as_ada.table("Dead letters")] not in ([letter["Id"]], []), "a new letter")
    replayed = site.ask("ada", "GET", "/admin/audit", action="webhooks.replayed").json()["items"]
    assert [one["details"]["letter"] for one in replayed] == [letter["Id"]]


def test_endpoint_is_sent_a_test(as_ada: Console) -> None:
    as_ada.go("webhooks")
    [endpoint] = as_ada.table("To your own systems")
    assert endpoint["Endpoint"] == "billing localhost"
    as_ada.press("Send a test to billing")
    as_ada.said("billing: not delivered, ")


def test_event_that_could_not_be_delivered_is_sent_again(site: Site, as_ada: Console) -> None:
    block = {"block": True, "lasts_s": 60, "reason": "a test"}
    assert site.ask("ada", "PUT", "/admin/limits/tilda/override", block).status_code == 200
    dead = "/admin/webhooks/out/dead"
    wait_until(lambda: bool(site.ask("ada", "GET", dead).json()["items"]), "the event is given up")
    letter = site.ask("ada", "GET", dead).json()["items"][-1]
    as_ada.go("webhooks")
    row = as_ada.table("Not delivered")[-1]
    assert (row["Endpoint"], row["Event"]) == ("billing", "user.blocked")
    as_ada.press(f"Send again {letter['id']}")
    as_ada.press("Send again", "dialog")
    as_ada.said("The event is sent again.")

    def ids() -> list[str]:
        return [one["id"] for one in site.ask("ada", "GET", dead).json()["items"]]

    wait_until(lambda: letter["id"] not in ids(), "it has left the list")


# --- what is shown ---


def test_csv_is_what_the_table_the_api_and_the_command_line_say(site: Site, as_ada: Console) -> None:
    to = datetime.now(BERLIN).date().isoformat()
    first = f"{to[:7]}-01"
    as_ada.go(f"usage?from={first}&to={to}&group_by=user")
    name, text = saved(as_ada, "CSV of Usage by user")
    assert re.fullmatch(r"usage-by-user-[0-9T-]+Z\.csv", name)
    shown = list(csv.DictReader(io.StringIO(text)))
    report = site.ask("ada", "GET", "/admin/usage", group_by="user", to=to, **{"from": first}).json()["items"]
    assert len(report) > 12
    counted = [row for row in report if row["action"] != "api" or row["username"] != "ada"]  # ada's own calls go on
    assert [row for row in shown if row["Action"] != "api" or row["User"] != "ada"] == [
        {
            "User": row["username"],
            "Action": row["action"],
            "Ok": f"{row['ok']:.12g}",
            "Unit": "minutes" if row["action"] in ("minutes", "owned") else "requests",
            "Denied (requests)": str(sum(row["denied"].values())),
            "Refused (requests)": str(sum(row["refused"].values())),
            "Failed (requests)": str(row["failed"]),
            "Price (EUR)": row.get("money", ""),
        }
        for row in counted
    ]
    assert as_ada.table("Usage by user") == [grouped(row) for row in shown]
    name, whole = saved(as_ada, "CSV of all pages of the report")
    assert name == f"usage-by-user-{first}-to-{to}-europe-berlin.csv"
    printed = site.gateway.command("usage", "export", "--group-by", "user", "--from", first, "--to", to)
    assert not_of_ada(whole) == not_of_ada(printed.stdout)


def grouped(row: dict[str, str]) -> dict[str, str]:
    """Return a row of the CSV as the table shows it: thousands are separated, minutes have two decimals."""
    shown = dict(row)
    for name in ("Ok", "Denied (requests)", "Refused (requests)", "Failed (requests)"):
        number = float(row[name])
        shown[name] = f"{number:,.2f}" if name == "Ok" and row["Unit"] == "minutes" else f"{number:,.0f}"
    return shown


def not_of_ada(table: str) -> list[str]:
    return [line for line in table.splitlines() if ",ada,api," not in line]


def saved(console: Console, label: str) -> tuple[str, str]:
    """Press a button; return the name and the text of the file that the browser saves."""
    with console.tab.page.expect_download() as download:
        console.press(label)
    return download.value.suggested_filename, download.value.path().read_bytes().decode()


def test_files_hold_no_formulas_and_lengths_have_two_units(as_ada: Console) -> None:
    module = "import('/operator/format.js')"
    cells = json.dumps([["=1+1", " +2", "a,b", 'say "x"', 0.5, None]])
    assert as_ada.ask(f"{module}.then(({{ csv }}) => csv({cells}))") == '\'=1+1,\' +2,"a,b","say ""x""",0.5,\r\n'
    spans = "[0, 0.004, 59, 3600, 7500, 90061].map(span)"
    assert as_ada.ask(f"{module}.then(({{ span }}) => {spans})") == [
        "0 s",
        "4 ms",
        "59 s",
        "1 h",
        "2 h 5 min",
        "1 d 1 h",
    ]


def test_chart_is_read_with_the_keyboard_and_has_its_table(site: Site, as_ada: Console) -> None:
    as_ada.go("usage")
    plot = "document.querySelector('.plot')"
    as_ada.ask(f"{plot}.focus()")
    as_ada.tab.page.keyboard.press("End")
    as_ada.tab.page.keyboard.press("ArrowLeft")
    read = as_ada.ask(f"{plot}.getAttribute('aria-valuetext')")
    as_ada.tab.page.locator(".chart summary").first.click()
    as_ada.wait_for("document.querySelector('.chart table')")
    row = as_ada.table("Requests by outcome")[-2]
    assert read == (
        f"{row['Time (Europe/Berlin)']} Europe/Berlin: Ok {row['Ok (requests)']}, Denied {row['Denied (requests)']}, "
        f"Refused {row['Refused (requests)']}, Failed {row['Failed (requests)']} requests"
    )


def test_moving_sets_the_title_and_the_focus(site: Site, as_ada: Console) -> None:
    as_ada.go("users/hanna")
    assert as_ada.ask("document.title") == "hanna · Users · 100ms gateway"
    assert as_ada.ask("document.activeElement.textContent") == "hanna"
    as_ada.press("Audit", "#nav")
    as_ada.wait_for("document.activeElement.tagName === 'H1' && document.activeElement.textContent === 'Audit trail'")
    as_ada.settle()
    assert as_ada.ask("document.title") == "Audit · 100ms gateway"
    assert as_ada.ask("document.querySelector('#nav [aria-current]').textContent") == "Audit"
    as_ada.go("audit?action=limits&user=hanna&from=2026-01-01T00%3A00")
    assert {row["Action"] for row in as_ada.table("Entries")} == {"limits.override"}
    assert {(row["By"], row["About"]) for row in as_ada.table("Entries")} == {("ada", "hanna")}
    as_ada.go("users?name=zz")
    assert "No user's name begins with “zz”." in as_ada.text()
    as_ada.go("users/nobody-of-this-name")
    assert "Not found" in as_ada.text("[role=alert]")
    as_ada.go("nowhere")
    assert "There is no such screen" in as_ada.text("[role=alert]")


def test_lost_connection_is_said_and_the_screen_returns(site: Site, as_ada: Console) -> None:
    as_ada.go("users")
    as_ada.tab.context.set_offline(True)
    as_ada.wait_for("document.getElementById('banner').textContent.includes('cannot be reached')")
    as_ada.ask("location.hash = '#/audit'")
    as_ada.wait_for("document.querySelector('#main [role=alert]')?.textContent.includes('No connection')")
    as_ada.tab.context.set_offline(False)
    as_ada.wait_for("document.querySelector('#main tbody tr')")
    assert as_ada.ask("document.getElementById('banner').textContent") == ""
    as_ada.tab.complaints[:] = [line for line in as_ada.tab.complaints if "ERR_INTERNET_DISCONNECTED" not in line]


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 360)])
def test_every_screen_is_accessible_and_fits(site: Site, as_ada: Console, theme: Theme, width: int) -> None:
    require_axe()
    as_ada.show(theme, width)
    if not peers(site.gateway, site.standup):
        site.join("hanna", site.standup)
        site.join("mira", site.standup)
        wait_until(lambda: site.ask("ada", "GET", "/admin/rooms/live").json()["all_people"] == 2, "both are seen")
    for path in screens(site):
        as_ada.go(path)
        assert as_ada.findings() == [], path
        for wide in (width, width if width < 600 else 1120):  # where the widest tables are still tables
            as_ada.show(theme, wide)
            assert as_ada.ask("document.documentElement.scrollWidth") <= wide, path
        as_ada.show(theme, width)
        keep_picture(as_ada.tab, path, theme if width > 600 else "phone")
    as_ada.go("users/hanna")
    as_ada.press("Block")
    assert as_ada.findings() == [], "the dialog"
    as_ada.press("Cancel")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_login_is_accessible(console: Console, theme: Theme) -> None:
    require_axe()
    console.show(theme, 360)
    assert console.findings() == []
    assert console.ask("document.documentElement.scrollWidth") <= 360


def keep_picture(tab: Tab, path: str, kind: str) -> None:
    name, _, one = path.partition("?")[0].partition("/")
    name = f"{name.removesuffix('s') if one else name}-{kind}"
    if PICTURES and name in KEPT:
        tab.ask("document.getElementById('said').replaceChildren()")
        tab.page.mouse.move(0, 0)
        tab.page.screenshot(path=Path(PICTURES, f"{name}.webp"), quality=70)

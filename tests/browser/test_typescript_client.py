"""clients/typescript in a browser, in pages of listed and unlisted origins."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from playwright.sync_api import Browser

from auth.keys import KeyRing
from gateway.http.cookies import NAME as COOKIE
from gateway.http.cors import EXPOSED_HEADERS
from tests.browser.chromium import require_chromium
from tests.browser.pages import Page, Pages, Site
from tests.e2e.checks import assert_problem
from tests.e2e.node import DIST, build_client
from tests.e2e.policies import roomy
from tests.e2e.test_typescript_client import ME, REFRESH, Log
from tests.servers import HOST, Installation, free_port

LOGIN, ROOMS = "/api/auth/login", "/api/rooms"


@pytest.fixture(scope="module")
def listed() -> Iterator[Site]:
    require_chromium()
    build_client()
    with Site(DIST) as site:
        yield site


@pytest.fixture(scope="module")
def unlisted(listed: Site) -> Iterator[Site]:
    with Site(listed.built) as site:
        assert site.origin != listed.origin
        yield site


@pytest.fixture(scope="module")
def gateway(listed: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    installation = Installation(tmp_path_factory.mktemp("pages"), workers=1, policy=roomy())
    installation.env |= {"GATEWAY_CORS_ORIGINS": listed.origin, "GATEWAY_COOKIES": "on"}
    with installation as running:
        running.add_users(tilda="host", mira="member", ada="admin")
        yield running


@pytest.fixture
def pages(browser: Browser, gateway: Installation, listed: Site) -> Iterator[Pages]:
    yield Pages(browser, gateway, listed)
    for context in browser.contexts:
        context.close()


def expired(gateway: Installation, token: str) -> str:
    """Return an access token as if it were an hour old: with the gateway's signature and other times."""
    key = KeyRing([gateway.env["GATEWAY_SECRET"]], "login-token").signing
    claims = jwt.decode(token, options={"verify_signature": False})
    claims |= {name: claims[name] - 3600 for name in ("iat", "nbf", "exp") if name in claims}
    return jwt.encode(claims, key.secret, "HS256", headers={"kid": key.kid, "typ": "at+jwt"})


@contextmanager
def limited(gateway: Installation, name: str, rate: str) -> Iterator[None]:
    """Give tilda a limit of one call at a time."""
    override = {"name": name, "rate": rate, "burst": 1, "lasts_s": 60, "reason": "a test of pages"}
    with gateway.client_of("ada") as admin:
        assert admin.put("/api/admin/limits/tilda/override", json=override).status_code == 200
        try:
            yield
        finally:
            assert admin.delete("/api/admin/limits/tilda/override", params={"name": name}).status_code == 204


def minted(page: Page) -> int:
    """Return how many join tokens the user got today."""
    today = page.call("usage")["usage"]["today"]
    return int(today["tokens.mint"]["ok"]) if "tokens.mint" in today else 0


def test_page_of_a_listed_origin_logs_in_creates_a_room_and_joins_it(gateway: Installation, pages: Pages) -> None:
    page = pages.open()
    user = page.log_in(gateway)
    created = page.call("createRoom")
    assert (created["success"], created["room"]["name"]) == (True, "Untitled room")
    assert created["room"]["owner_id"] == user["id"]
    minted_before = minted(page)
    token = page.call("getAuthToken", created["room"]["id"], "host")
    # As 100ms's web SDK reads it: see tests/node/decode.cjs.
    claims = page.ask(f"JSON.parse(atob({json.dumps(token)}.split('.')[1]))")
    assert (claims["room_id"], claims["user_id"], claims["role"]) == (created["room"]["id"], user["id"], "host")
    assert minted(page) == minted_before + 1
    standing = page.ask("client.rateLimits")
    assert {limit["policy"] for limit in standing} >= {"api", "tokens.mint"}
    assert all(0 < limit["remaining"] <= limit["quota"] for limit in standing)
    assert page.ask("limits.at(-1)") == standing
    page.assert_no_other_refusal()
    # Last, because it is not the gateway's address: 100ms admits this page with the token.
    init = json.dumps(f"{gateway.emulator_url}/init?peer_id=p")
    joined = f"fetch({init}, {{ headers: {{ Authorization: 'Bearer ' + {json.dumps(token)} }} }})"
    assert page.ask(f"{joined}.then((answer) => answer.status)") == 200


def test_page_reads_every_exposed_header_field(gateway: Installation, pages: Pages) -> None:
    page = pages.open()
    page.log_in(gateway)
    with limited(gateway, "tokens.mint", "1/h"):
        room = page.call("createRoom", {"idempotencyKey": "seen-twice"})["room"]
        page.call("mintToken", room["id"])
        fields = page.ask(
            f"""(async () => {{
            const {{ accessToken }} = await storage.get();
            const headers = {{ Authorization: `Bearer ${{accessToken}}`, "Content-Type": "application/json" }};
            const post = (path, more) => fetch(api + path, {{ method: "POST", headers: {{ ...headers, ...more }} }});
            const answers = [
              await post("/rooms", {{ "Idempotency-Key": "seen-twice" }}),
              await post("/rooms/{room["id"]}/token"),
              await post("/rooms", {{ Authorization: "Bearer x" }}),
            ];
            return answers.map((answer) => [answer.status, [...answer.headers.keys()]]);
        }})()"""
        )
    assert [status for status, _ in fields] == [201, 429, 401]
    # Fields that a page may read in any answer (Fetch standard, CORS-safelisted response-header name).
    safe = {"cache-control", "content-language", "content-length", "content-type", "expires", "last-modified", "pragma"}
    assert {name for _, names in fields for name in names} - safe == {name.lower() for name in EXPOSED_HEADERS}
    page.assert_no_other_refusal(429, 401)


def test_parallel_calls_with_an_expired_token_make_one_refresh(gateway: Installation, pages: Pages) -> None:
    page, log = pages.open(), Log(gateway)
    page.log_in(gateway)
    before = page.kept()
    spent = expired(gateway, before["accessToken"])
    with gateway.client(spent) as client:
        assert_problem(client.get(ME), 401, "token_expired")
    page.keep(before | {"accessToken": spent})
    answers = page.ask("parallel(20, 'me')")
    assert [answer["value"]["user"]["username"] for answer in answers] == ["tilda"] * 20
    requests = log.wait_for(ME, 200, 20)
    assert {key: count for key, count in requests.items() if key[0] == REFRESH and key[1] != 204} == {(REFRESH, 200): 1}
    assert requests[ME, 401] == 1 + 20
    after = page.kept()
    assert after["sessionId"] == before["sessionId"]
    assert after["refreshToken"] != before["refreshToken"]
    page.assert_no_other_refusal(*[401] * 20)


def test_denied_call_waits_and_succeeds(gateway: Installation, pages: Pages) -> None:
    page = pages.open()
    page.log_in(gateway)
    with limited(gateway, "api", "20/min"):
        log = Log(gateway)
        begun = time.monotonic()
        page.call("me")
        page.call("me")
        assert 2 < time.monotonic() - begun < 15
        requests = log.wait_for(ME, 200, 2)
        assert (requests[ME, 200], requests[ME, 429]) == (2, 1)
        denied = page.ask("outcome(make({ retry: false }).me())")["error"]
    assert (denied["kind"], denied["status"], denied["code"]) == ("GatewayProblem", 429, "rate_limited")
    assert (1 <= denied["retryAfterS"] <= 3, denied["violatedPolicies"]) == (True, ["api"])
    assert [(limit["policy"], limit["remaining"]) for limit in denied["rateLimits"]] == [("api", 0)]
    page.assert_no_other_refusal(429, 429)


def test_login_outlives_a_reload_and_ends_with_the_logout(gateway: Installation, pages: Pages) -> None:
    page, log = pages.open(), Log(gateway)
    user = page.log_in(gateway)
    session = page.kept()
    page.ask("window.client = null")
    page.tab.page.reload()
    page.wait_for("window.client")
    assert page.call("currentUser") == user
    assert page.call("me")["user"] == user
    assert log.wait_for(ME, 200, 1)[LOGIN, 200] == 1
    page.call("logout")
    with gateway.client(session["accessToken"]) as stolen:
        assert_problem(stolen.get(ME), 401, "invalid_token")
    assert page.ask("localStorage.length") == 0
    assert page.refused("me")["code"] == "no_session"
    assert page.ask("lost") == []
    page.assert_no_other_refusal()


def test_page_receives_the_reasons_of_refusals(gateway: Installation, pages: Pages) -> None:
    page = pages.open()
    wrong = page.refused("login", "mira", "not the password at all")
    assert (wrong["kind"], wrong["status"], wrong["code"]) == ("GatewayProblem", 401, "invalid_credentials")
    assert wrong["message"] == wrong["detail"]
    assert len(wrong["requestId"]) == 24
    page.log_in(gateway, "mira")
    created = page.call("createRoom", {"name": "not hers to make"})
    assert (created["success"], created["problem"]["code"]) == (False, "forbidden")
    assert created["problem"]["missingPermission"] == "rooms:create"
    assert page.refused("getRoom", "0" * 24)["code"] == "not_found"
    with gateway.client_of("mira") as elsewhere:
        assert elsewhere.post("/api/auth/logout", json={"scope": "others"}).status_code == 204
    codes = {answer["error"]["code"] for answer in page.ask("parallel(5, 'me')")}
    assert "invalid_grant" in codes
    assert codes <= {"invalid_grant", "no_session"}, "a call that returns later finds no login"
    assert page.ask("lost") == ["invalid_grant"]
    assert page.call("currentUser") is None
    page.assert_no_other_refusal(401, 403, 404, *[401] * 5, 400)


def test_tabs_that_refresh_at_the_same_time_stay_logged_in(gateway: Installation, pages: Pages) -> None:
    page = pages.open()
    page.log_in(gateway)
    other = pages.open(beside=page)
    before = page.kept()
    page.keep(before | {"renewAtMs": 0, "expiresAtMs": 0})
    log = Log(gateway)
    tabs = (page, other)
    for tab in tabs:
        tab.ask("hold('requests')")
        tab.ask("void (window.pending = parallel(5, 'me'))")
    for tab in tabs:
        tab.wait_for("window.held")
    for tab in tabs:
        tab.ask("release()")
    for tab in tabs:
        assert [answer["value"]["user"]["username"] for answer in tab.ask("pending")] == ["tilda"] * 5
        assert tab.ask("held") == 1
    assert log.wait_for(REFRESH, 200, 2)[REFRESH, 400] == 0
    for tab in tabs:
        tab.call("refresh")
        assert tab.call("me")["user"]["username"] == "tilda"
        assert tab.ask("lost") == []
        assert tab.kept()["sessionId"] == before["sessionId"]
    page.call("logout")
    assert other.refused("me")["code"] == "no_session"
    for tab in tabs:
        tab.assert_no_other_refusal()


@pytest.mark.parametrize("next_user", [None, "mira"])
def test_refresh_overtaken_by_another_tabs_logout_does_not_restore_the_login(
    gateway: Installation, pages: Pages, next_user: str | None
) -> None:
    page = pages.open()
    page.log_in(gateway)
    other = pages.open(beside=page)
    other.ask("hold('answers')")
    other.ask("void (window.pending = call('refresh'))")
    other.wait_for("window.held")
    page.call("logout")
    user = page.log_in(gateway, next_user) if next_user else None
    other.ask("release()")
    assert other.ask("pending")["error"]["code"] == "no_session"
    for tab in (page, other):
        assert tab.call("currentUser") == user
        assert tab.ask("lost") == []
        tab.assert_no_other_refusal()
    if user:
        assert other.call("me")["user"] == user


def test_page_of_another_origin_gets_nothing(gateway: Installation, pages: Pages, unlisted: Site) -> None:
    page, log = pages.open(), Log(gateway)
    page.log_in(gateway)
    stolen = page.kept()
    evil = pages.open(unlisted)
    login = evil.refused("login", "tilda", gateway.passwords["tilda"])
    assert login == {
        "name": "GatewayUnreachable",
        "kind": "GatewayUnreachable",
        "timedOut": False,
        "message": "POST /auth/login: the gateway cannot be reached",
    }
    assert evil.call("currentUser") is None
    evil.keep(stolen)
    created = evil.call("createRoom")
    assert (created["success"], created["error"]) == (False, "POST /rooms: the gateway cannot be reached")
    assert "problem" not in created
    assert evil.refused("me")["kind"] == "GatewayUnreachable"
    assert evil.call("currentUser")["username"] == "tilda", "a network failure must keep the login"
    # Requests without a preflight are answered, but the browser withholds the answer, even an opaque one (CORP).
    for mode in ("cors", "no-cors"):
        got = evil.ask(f"fetch(api + '/auth/me', {{ mode: '{mode}' }}).then((answer) => answer.type, String)")
        assert got == "TypeError: Failed to fetch"
    requests = log.wait_for(ME, 401, 2)
    theirs = {(LOGIN, 204): 1, (ROOMS, 204): 1, (ME, 204): 1, (ME, 401): 2}
    assert requests - Counter({(LOGIN, 204): 1, (LOGIN, 200): 1}) == theirs, "no password and no token left that page"
    blocked = [line for line in evil.tab.complaints if not line.startswith("Failed to load resource: net::ERR_")]
    assert len(blocked) == 4
    assert all(f"from origin '{unlisted.origin}' has been blocked by CORS policy" in line for line in blocked)
    evil.assert_only_the_gateway_was_asked()


# --- cookie mode: the pages and the gateway have one host, and so are one site ---


def cookies_of(page: Page) -> list[str]:
    return [str(one["name"]) for one in page.tab.context.cookies()]


def test_login_in_a_cookie_outlives_a_reload_and_is_shared_by_tabs(gateway: Installation, pages: Pages) -> None:
    page, log = pages.open(cookies=True), Log(gateway)
    assert page.call("currentUser") is None
    user = page.log_in(gateway)
    page.tab.page.reload()
    page.wait_for("window.client")
    assert page.call("currentUser") == user
    assert page.ask("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    other = pages.open(beside=page, cookies=True)
    assert other.call("me")["user"] == user
    assert cookies_of(page) == [COOKIE]
    requests = log.wait_for(ME, 200, 1)
    assert (requests[REFRESH, 400], requests[REFRESH, 200]) == (1, 2), "one before the login, one for each later start"
    other.call("logout")
    assert cookies_of(page) == []
    page.wait_for("client.currentUser().then((user) => (window.gone = user === null)) && window.gone")
    page.assert_no_other_refusal(400)
    other.assert_no_other_refusal()


def test_tabs_in_cookie_mode_share_one_refresh(gateway: Installation, pages: Pages) -> None:
    first, log = pages.open(cookies=True), Log(gateway)
    first.log_in(gateway, "mira")
    tabs = [first, *(pages.open(beside=first, cookies=True) for _ in range(2))]
    for tab in tabs:
        tab.call("me")
    before = log.wait_for(ME, 200, 3)[REFRESH, 200]
    assert gateway.command("users", "roles", "mira", "member", "host").returncode == 0  # voids the access tokens
    for tab in tabs:
        tab.ask("void (window.pending = parallel(5, 'me'))")
    for tab in tabs:
        assert [answer["value"]["user"]["username"] for answer in tab.ask("pending")] == ["mira"] * 5
    assert log.wait_for(ME, 200, 3 + 15)[REFRESH, 200] == before + 1


def test_page_of_another_origin_cannot_use_the_cookie(gateway: Installation, pages: Pages, unlisted: Site) -> None:
    """The browser would send the cookie along, since it is the same site. It asks first, and may not."""
    page = pages.open(cookies=True)
    page.log_in(gateway)
    kept = page.tab.context.cookies()
    evil, log = pages.open(unlisted, beside=page, cookies=True), Log(gateway)
    for method, *arguments in (["currentUser"], ["login", "mira", gateway.passwords["mira"]], ["logout"]):
        assert evil.refused(method, *arguments)["kind"] == "GatewayUnreachable"
    form = "fetch(api + '/auth/refresh', { method: 'POST', credentials: 'include', mode: 'no-cors' })"
    assert evil.ask(f"{form}.then((answer) => answer.type, String)") == "TypeError: Failed to fetch"
    requests = log.wait_for(REFRESH, 400, 1)
    assert not {(REFRESH, 200), (LOGIN, 200)} & requests.keys()
    assert page.tab.context.cookies() == kept
    page.call("refresh")


def test_page_of_another_site_is_told_that_it_has_no_cookie(gateway: Installation, pages: Pages) -> None:
    """Its origin is listed, but for a browser localhost and 127.0.0.1 are two sites."""
    page = pages.open(cookies=True, host="localhost")
    refused = page.refused("login", "tilda", gateway.passwords["tilda"])
    assert (refused["kind"], refused["code"]) == ("GatewayProblem", "origin_refused")
    assert "another site" in refused["detail"]
    assert cookies_of(page) == []


def test_gateway_that_does_not_answer_is_unreachable(pages: Pages) -> None:
    page = pages.open()
    closed = page.ask(f"outcome(make({{ baseUrl: 'http://{HOST}:{free_port()}/api' }}).login('tilda', 'x'))")["error"]
    assert (closed["kind"], closed["timedOut"]) == ("GatewayUnreachable", False)
    with ThreadingHTTPServer((HOST, 0), BaseHTTPRequestHandler) as silent:  # listens, but never accepts
        address = f"http://{HOST}:{silent.server_port}/api"
        late = page.ask(f"outcome(make({{ baseUrl: '{address}', timeoutMs: 200 }}).login('tilda', 'x'))")["error"]
    assert (late["kind"], late["timedOut"]) == ("GatewayUnreachable", True)
    assert late["message"] == "POST /auth/login: no answer within 200 ms"
    assert page.tab.complaints == ["Failed to load resource: net::ERR_CONNECTION_REFUSED"]

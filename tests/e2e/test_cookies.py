"""Cookie mode from login to logout. What it refuses is in tests/attack/test_cookies.py."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.cookies import SimpleCookie

import httpx

from tests.e2e.checks import assert_problem
from tests.e2e.people import PROVIDER
from tests.servers import Installation

NAME = "__Host-gateway-refresh"


class Page:
    """A page of the gateway's own origin, in a browser that holds its cookie."""

    def __init__(self, installation: Installation) -> None:
        self.installation, self.cookie, self.max_age = installation, "", -1

    def post(self, path: str, body: dict[str, object] | None = None, *, token: str | None = None) -> httpx.Response:
        headers = {"X-Gateway-Session": "cookie", "Origin": self.installation.url, "Sec-Fetch-Site": "same-origin"}
        if self.cookie:
            headers["Cookie"] = f"{NAME}={self.cookie}"
        with self.installation.client(token) as client:
            answer = client.post(f"/api{path}", json=body or {}, headers=headers)
        if given := answer.headers.get("set-cookie"):
            morsel = SimpleCookie(given)[NAME]
            self.cookie, self.max_age = morsel.value, int(morsel["max-age"])
        assert "refresh_token" not in answer.text.replace("refresh_token: ", "")
        return answer

    def log_in(self, name: str) -> str:
        answer = self.post("/auth/login", {"username": name, "password": self.installation.passwords[name]})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])


def status_of(installation: Installation, token: str) -> int:
    with installation.client(token) as client:
        return client.get("/api/auth/me").status_code


def test_session_lives_from_login_to_logout_in_the_cookie(installation: Installation) -> None:
    page = Page(installation)
    first = page.log_in("mira")
    assert page.max_age == 14 * 86_400
    for _ in range(3):  # a reload of the page: its script has no token
        before = page.cookie
        renewed = page.post("/auth/refresh").json()
        assert page.cookie != before
        assert status_of(installation, renewed["access_token"]) == 200
    assert page.post("/auth/logout", {"scope": "others"}).status_code == 204
    assert (page.cookie != "", status_of(installation, first)) == (True, 200)
    assert page.post("/auth/logout").status_code == 204
    assert (page.cookie, page.max_age, status_of(installation, first)) == ("", 0, 401)
    assert page.post("/auth/logout").status_code == 204, "logging out twice is no error"
    assert_problem(page.post("/auth/refresh"), 400, "invalid_grant")


def test_logout_without_the_cookie_takes_the_access_token(installation: Installation) -> None:
    """A user may have removed the cookies while the page is open."""
    page = Page(installation)
    token = page.log_in("mira")
    page.cookie = ""
    assert_problem(page.post("/auth/logout", {"scope": "others"}), 401, "invalid_token")
    assert page.post("/auth/logout", token=token).status_code == 204
    assert (page.max_age, status_of(installation, token)) == (0, 401)


def test_tabs_that_refresh_at_the_same_time_get_the_same_cookie(installation: Installation) -> None:
    page = Page(installation)
    page.log_in("mira")
    tabs = [Page(installation) for _ in range(12)]
    for tab in tabs:
        tab.cookie = page.cookie
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda tab: tab.post("/auth/refresh"), tabs))
    assert Counter(answer.status_code for answer in answers) == {200: 12}
    assert len({tab.cookie for tab in tabs}) == 1
    assert tabs[0].cookie != page.cookie


def test_change_of_the_account_removes_the_cookie_with_the_next_refresh(installation: Installation) -> None:
    installation.add_users(cora="host")
    page = Page(installation)
    token = page.log_in("cora")
    assert installation.command("users", "roles", "cora", "member").returncode == 0
    assert page.post("/auth/refresh").json()["user"]["roles"] == ["member"]
    assert installation.command("users", "disable", "cora").returncode == 0
    assert status_of(installation, token) == 401
    assert_problem(page.post("/auth/refresh"), 400, "invalid_grant")
    assert (page.cookie, page.max_age) == ("", 0)


def test_token_of_an_identity_provider_opens_a_session_in_the_cookie(installation: Installation) -> None:
    page = Page(installation)
    answer = page.post("/auth/exchange", {"token": PROVIDER.token(sub=f"auth0|{secrets.token_hex(8)}")})
    assert answer.status_code == 200, answer.text
    before = page.cookie
    assert page.post("/auth/refresh").json()["user"] == answer.json()["user"]
    kept = page.cookie
    assert kept != before
    assert_problem(page.post("/auth/exchange", {"token": PROVIDER.token(aud="another-app")}), 400, "invalid_grant")
    assert page.cookie == kept, "a refused token ends no session"


def test_guest_gets_a_cookie_that_ends_with_their_time(installation: Installation) -> None:
    with installation.client_of("hanna") as client:
        room = client.post("/api/rooms", json={}).json()["room"]["id"]
        code = client.post(f"/api/rooms/{room}/invites", json={"guests": True}).json()["code"]
    page = Page(installation)
    answer = page.post(f"/invites/{code}/accept")
    login = answer.json()["login"]
    assert page.max_age == login["refresh_expires_in"] == 12 * 3600
    renewed = page.post("/auth/refresh")
    assert renewed.json()["user"]["id"] == login["user"]["id"], json.dumps(renewed.json())
    assert 12 * 3600 - 60 < page.max_age <= 12 * 3600

"""A real OpenID Connect provider (npm `oidc-provider`): from its login to a join token of 100ms, and its logout.

Everything goes over HTTP on loopback: discovery, keys, the code flow with PKCE, and the back-channel logout.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.e2e.node import FOLDER, require_node
from tests.e2e.policies import roomy
from tests.servers import HOST, NO_TLS, Installation, free_port, wait_until

CLIENT = "video-app"


class Browser:
    """A person at the provider: a cookie jar, and the requests that an app makes for them."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self.http = httpx.Client(base_url=provider, verify=NO_TLS, trust_env=False, timeout=10)

    def log_in(self, name: str) -> dict[str, Any]:
        """Return the token answer of a login with code and PKCE (RFC 7636)."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        app = f"{self.provider}/app"
        asked = {"client_id": CLIENT, "redirect_uri": app, "response_type": "code", "scope": "openid profile"}
        asked |= {"code_challenge": challenge, "code_challenge_method": "S256", "login_hint": name}
        answer = self.http.get("/auth", params=asked)
        while not answer.headers.get("location", "").startswith(app):
            assert answer.is_redirect, answer.text
            answer = self.http.get(answer.headers["location"])
        (code,) = parse_qs(urlsplit(answer.headers["location"]).query)["code"]
        body = {"grant_type": "authorization_code", "code": code, "code_verifier": verifier}
        tokens = self.http.post("/token", data=body | {"client_id": CLIENT, "redirect_uri": app})
        assert tokens.status_code == 200, tokens.text
        return dict(tokens.json())

    def log_out(self, id_token: str) -> None:
        page = self.http.get("/session/end", params={"id_token_hint": id_token})
        found = re.search(r'name="xsrf" value="([^"]+)"', page.text)
        assert found, page.text
        answer = self.http.post("/session/end/confirm", data={"xsrf": found[1], "logout": "yes"})
        assert answer.is_redirect, answer.text

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, str]]:
    """The provider, and a gateway that was started after it and accepts its tokens."""
    node, port, folder = require_node(packages=True), free_port(), tmp_path_factory.mktemp("oidc")
    url = f"http://{HOST}:{port}"
    table = f'\n[identity.node]\nissuer = "{url}"\naudience = "{CLIENT}"\n'
    table += 'create_accounts = true\ndefault_role = "member"\nroles_claim = "groups"\nroles.teachers = "host"\n'
    own = Installation(folder, policy=roomy() + table, fsync="always")
    log = folder / "provider.log"
    with log.open("wb") as output:
        command = [node, "provider.mjs", str(port), f"{own.url}/api/auth/logout/node"]
        process = subprocess.Popen(command, cwd=FOLDER, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        wait_until(lambda: "the provider listens" in log.read_text() or process.poll() is not None, "it listens")
        assert process.poll() is None, log.read_text()
        with own as running:
            yield running, url
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def own(parts: tuple[Installation, str]) -> Installation:
    return parts[0]


@pytest.fixture
def provider(parts: tuple[Installation, str]) -> str:
    return parts[1]


def exchange(own: Installation, token: str) -> httpx.Response:
    with own.client() as client:
        return client.post("/api/auth/exchange", json={"token": token})


def me(own: Installation, login: dict[str, Any]) -> int:
    with own.client(login["access_token"]) as client:
        return client.get("/api/auth/me").status_code


def test_from_a_login_at_the_provider_to_a_join_token(own: Installation, provider: str) -> None:
    with Browser(provider) as browser:
        login = exchange(own, browser.log_in("tessa")["id_token"]).json()
    assert (login["user"]["display_name"], login["user"]["roles"]) == ("tessa of Node", ["host"])
    with own.client(login["access_token"]) as client:
        room = client.post("/api/rooms", json={}).json()["room"]["id"]
        minted = client.post(f"/api/rooms/{room}/token", json={"role": "host"})
    assert minted.status_code == 200, minted.text
    assert minted.json()["user_id"] == login["user"]["id"]


def test_a_logout_at_the_provider_ends_the_session_here_and_no_other(own: Installation, provider: str) -> None:
    with Browser(provider) as phone, Browser(provider) as laptop:
        token = phone.log_in("mark")["id_token"]
        on_phone, on_laptop = exchange(own, token).json(), exchange(own, laptop.log_in("mark")["id_token"]).json()
        assert on_phone["user"] == on_laptop["user"]
        assert (me(own, on_phone), me(own, on_laptop)) == (200, 200)
        phone.log_out(token)
        wait_until(lambda: me(own, on_phone) == 401, "the session has ended")
        assert me(own, on_laptop) == 200
        assert exchange(own, token).status_code == 400, "the ID token from before opens no session"
        again = exchange(own, phone.log_in("mark")["id_token"])
        assert again.status_code == 200, again.text

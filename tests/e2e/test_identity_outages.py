"""A provider that rotates its keys, hangs or answers garbage, over HTTP; and everyone else beside it.

The cases are in tests/unit/auth/test_provider_keys.py; here it is one gateway, one real connection and one real burst.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from auth.provider_keys import DISCOVERY
from gateway.fetch import TOTAL_S
from tests.e2e.checks import assert_problem
from tests.e2e.policies import roomy
from tests.e2e.volley import fire, post
from tests.identity_provider import AUDIENCE, IdentityProvider, Key
from tests.servers import HOST, Installation, wait_until

BURST = 1000


class Site(ThreadingHTTPServer):
    """A provider's web server on this machine. `mode` is what it does with requests for its keys."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        self.url = f"http://{HOST}:{self.server_port}"
        self.mode = "works"
        self.asked: list[str] = []
        self.provider = IdentityProvider(self.url)
        self.resume = threading.Event()

    def rotate(self) -> None:
        self.provider.key = Key(kid=secrets.token_hex(4))


class _Handler(BaseHTTPRequestHandler):
    server: Site  # type: ignore[assignment]

    def do_GET(self) -> None:
        site = self.server
        site.asked.append(self.path)
        document: Any = {"issuer": site.url, "jwks_uri": f"{site.url}/keys"} if self.path == DISCOVERY else None
        if site.mode == "hangs":
            site.resume.wait(30)
            return
        body = json.dumps(document or site.provider.jwks).encode() if site.mode == "works" else b"<html>" * 100_000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write nothing."""

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the gateway may have stopped waiting
            super().handle()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.resume.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def others() -> IdentityProvider:
    return IdentityProvider("https://login.example.com")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, site: Site, others: IdentityProvider) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("outages")
    options = {"create_accounts": True, "default_role": "member"}
    remote = f'\n[identity.site]\nissuer = "{site.url}"\naudience = "{AUDIENCE}"\nalgorithms = ["ES256"]\n'
    remote += 'create_accounts = true\ndefault_role = "member"\n'
    policy = roomy() + others.table(folder, **options) + remote
    own = Installation(folder, policy=policy, fsync="always")
    own.set_constant("auth.provider_keys.COOL_DOWN_S", 0)  # each test rotates the keys
    with own as running:
        yield running


def exchange(own: Installation, token: str) -> httpx.Response:
    with own.client() as client:
        return client.post("/api/auth/exchange", json={"token": token})


async def test_a_burst_of_1000_exchanges_after_a_rotation_makes_one_fetch(own: Installation, site: Site) -> None:
    people = [f"person-{number}" for number in range(50)]
    for who in people:
        assert exchange(own, site.provider.token(sub=who)).status_code == 200
    site.rotate()
    site.asked.clear()
    # The same iat: the roles of these people are known, so no exchange writes an account.
    requests = [post("/api/auth/exchange", {"token": site.provider.token(sub=people[n % 50])}) for n in range(BURST)]
    answers = await fire(own.port, requests)
    assert [answer.status if answer else 0 for answer in answers] == [200] * BURST
    assert site.asked == [DISCOVERY, "/keys"], "one fetch: the discovery document, and the keys that it names"


@pytest.mark.parametrize("mode", ["hangs", "garbage"])
def test_a_provider_that_is_down_affects_nobody_else(
    own: Installation, site: Site, others: IdentityProvider, mode: str
) -> None:
    known = site.provider.token(sub="known")
    wait_until(lambda: exchange(own, known).status_code == 200, "the provider's keys are known")
    session = exchange(own, known).json()
    site.mode = mode
    site.asked.clear()
    site.resume.clear()
    site.rotate()
    waiting: list[httpx.Response] = []
    unknown = threading.Thread(target=lambda: waiting.append(exchange(own, site.provider.token(sub="known"))))
    unknown.start()
    try:
        begun = time.monotonic()
        assert exchange(own, others.token(sub="somebody")).status_code == 200
        assert exchange(own, known).status_code == 200, "tokens with a known key need no fetch"
        with own.client(session["access_token"]) as client:
            assert client.get("/api/auth/me").status_code == 200
            refreshed = client.post("/api/auth/refresh", json={"refresh_token": session["refresh_token"]})
            assert refreshed.status_code == 200
        assert time.monotonic() - begun < TOTAL_S - 0.5, "somebody waited for the provider"
        unknown.join()
        problem = assert_problem(waiting[0], 503, "unavailable")
        assert "identity provider" in problem["detail"]
        again = time.monotonic()
        assert_problem(exchange(own, site.provider.token(sub="known")), 503, "unavailable")
        assert time.monotonic() - again < 1, "a provider that has just failed is not waited for again"
        assert len(site.asked) == 1
    finally:
        site.mode = "works"
        site.resume.set()
        unknown.join()

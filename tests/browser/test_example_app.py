"""clients/example, built by Vite and served beside a real gateway, in Chromium."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.chromium import require_chromium
from tests.e2e.node import build_client
from tests.servers import HOST, NO_TLS, REPOSITORY, Installation, free_port, wait_until

CLIENTS = REPOSITORY / "clients"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    require_chromium()
    with Installation(tmp_path_factory.mktemp("example"), workers=1) as running:
        running.add_users(hanna="host")
        yield running


@pytest.fixture(scope="module")
def address(gateway: Installation) -> Iterator[str]:
    """Where the built app is served, with the gateway behind its /api."""
    if not (CLIENTS / "node_modules" / "vite").is_dir():
        missing = "the packages of the example are missing: npm ci --prefix clients"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    build_client()
    npm, port = shutil.which("npm"), free_port()
    assert npm is not None
    for package in ("react", "example"):
        done = subprocess.run(
            [npm, "run", "build", "-w", package], cwd=CLIENTS, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    node, vite = shutil.which("node"), CLIENTS / "node_modules" / "vite" / "bin" / "vite.js"
    server = subprocess.Popen(
        [str(node), str(vite), "preview", "--port", str(port), "--strictPort"],
        cwd=CLIENTS / "example",
        env={"PATH": os.environ["PATH"], "GATEWAY_URL": gateway.url},
        stdout=subprocess.DEVNULL,
    )
    try:
        url = f"http://{HOST}:{port}"
        wait_until(lambda: _answers(url), "the app is served")
        yield url
    finally:
        server.terminate()
        server.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, verify=NO_TLS, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    yield page
    context.close()


def test_a_user_logs_in_makes_a_room_and_gets_a_join_token(page: Page, gateway: Installation) -> None:
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))

    page.fill("[name=username]", "hanna")
    page.fill("[name=password]", "not her password")
    page.click("button")
    expect(page.get_by_role("alert")).to_contain_text("password")
    page.fill("[name=password]", gateway.passwords["hanna"])
    page.click("button")
    expect(page.get_by_text("You have no rooms yet.")).to_be_visible()

    page.fill("[name=name]", "Stand-up")
    page.click("text=Create room")
    expect(page.get_by_text("You may join as guest until")).to_be_visible()
    expect(page.get_by_role("button", name="Join")).to_be_enabled()
    with gateway.client_of("hanna") as hanna:
        counted = hanna.get("/api/usage").json()["usage"]["total"]
    assert counted["tokens.mint"]["ok"] == 1, "strict mode costs no second mint"

    page.reload()  # the login is kept
    expect(page.get_by_text("Stand-up")).to_be_visible()
    page.click("text=Enter")
    expect(page.get_by_text("You may join as guest until")).to_be_visible()
    page.click("text=Log out")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    assert complaints == []

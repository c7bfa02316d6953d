"""Pages of origins other than the gateway's, with the TypeScript client. See client.html."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser

from tests.browser.chromium import Tab
from tests.servers import HOST, Installation


class Site:
    """A separate origin on this machine, which serves client.html and a client compiled into a folder."""

    def __init__(self, built: Path) -> None:
        self.built = built
        page = Path(__file__).with_name("client.html")
        files = {"/": ("text/html", page.read_bytes())}
        files |= {f"/dist/{one.name}": ("text/javascript", one.read_bytes()) for one in built.glob("*.js")}

        class Files(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, content = files.get(urlsplit(self.path).path, ("", b""))
                self.send_response(200 if kind else 404)
                self.send_header("Content-Type", f"{kind or 'text/plain'}; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Files)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.origin = f"http://{HOST}:{self._server.server_port}"

    def page_for(self, api: str, *, cookies: bool) -> str:
        return f"{self.origin}/?api={api}{'&cookies' if cookies else ''}"

    def __enter__(self) -> Site:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Page:
    """A tab with the page of a site, whose client uses a gateway."""

    def __init__(self, tab: Tab, site: Site, api: str, *, cookies: bool) -> None:
        self.tab, self.ask, self.wait_for = tab, tab.ask, tab.wait_for
        self._origins = {site.origin, api.removesuffix("/api")}
        tab.open(site.page_for(api, cookies=cookies))
        tab.wait_for("window.client")

    def tried(self, method: str, *args: Any) -> dict[str, Any]:
        """Return the outcome of one call: its value or its error."""
        arguments = ", ".join(json.dumps(one) for one in (method, *args))
        # As JSON: Playwright would turn the errors of JavaScript that it holds into those of Python.
        came: dict[str, Any] = json.loads(self.ask(f"call({arguments}).then(JSON.stringify)"))
        return came

    def call(self, method: str, *args: Any) -> Any:
        came = self.tried(method, *args)
        assert "error" not in came, came
        return came["value"]

    def refused(self, method: str, *args: Any) -> dict[str, Any]:
        came = self.tried(method, *args)
        assert "error" in came, came
        error: dict[str, Any] = came["error"]
        return error

    def log_in(self, gateway: Installation, name: str = "tilda") -> dict[str, Any]:
        user: dict[str, Any] = self.call("login", name, gateway.passwords[name])
        return user

    def kept(self) -> dict[str, Any]:
        """Return the login as the browser stores it."""
        kept: dict[str, Any] = json.loads(self.ask("localStorage.getItem('hms-gateway.session')"))
        return kept

    def keep(self, session: dict[str, Any]) -> None:
        self.ask(f"storage.set({json.dumps(session)})")

    def assert_no_other_refusal(self, *refusals: int) -> None:
        """Check that requests went only to the gateway, and that the console has exactly these refusals."""
        self.assert_only_the_gateway_was_asked()
        statuses = [re.findall(r"^Failed to load resource: .* status of (\d+) ", line) for line in self.tab.complaints]
        assert sorted(statuses) == sorted([str(status)] for status in refusals), self.tab.complaints

    def assert_only_the_gateway_was_asked(self) -> None:
        asked = [urlsplit(url) for url in self.tab.requested if not url.startswith("data:")]
        assert {f"{url.scheme}://{url.netloc}" for url in asked} == self._origins


@dataclass(frozen=True, slots=True)
class Pages:
    """Opens pages for a gateway, logged out unless a page of the same origin is open."""

    browser: Browser
    gateway: Installation
    listed: Site

    def open(
        self, site: Site | None = None, *, beside: Page | None = None, cookies: bool = False, host: str = HOST
    ) -> Page:
        """Open a page, of the listed origin by default. `host` is the name by which it calls the gateway."""
        tab = beside.tab.beside() if beside else Tab.of(self.browser)
        return Page(tab, site or self.listed, f"http://{host}:{self.gateway.port}/api", cookies=cookies)

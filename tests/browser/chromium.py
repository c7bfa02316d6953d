"""Debian's Chromium, driven by Playwright, for the tests of pages."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

_WITHIN_MS = 20_000
# Polls in the page: Playwright's `wait_for_function` evaluates text again and again, which the pages' policy forbids.
_POLL = """
new Promise((done, failed) => {
  const until = performance.now() + %d;
  const look = () => {
    if (%s) done();
    else if (performance.now() > until) failed(new Error("it did not come true"));
    else setTimeout(look, 20);
  };
  look();
})"""


def require_chromium() -> str:
    """Return the path of Chromium. Without one, a laptop skips the test and CI fails it."""
    # The first is Chromium without a window, in which a new page takes a fourth of the time.
    for name in ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    if os.environ.get("CI"):
        pytest.fail("chromium is not installed")
    pytest.skip("chromium is not installed")


@contextmanager
def running(folder: Path) -> Iterator[Browser]:
    """Run a browser that can reach only this machine."""
    # Its many processes yield to the servers: if they kept Redis from answering, the gateway would report an outage.
    start = folder / "chromium"
    start.write_text(f'#!/bin/sh\nexec nice -n 10 {require_chromium()} "$@"\n')
    start.chmod(0o700)
    switches = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    switches += ["--disable-background-networking", "--disable-component-update"]
    switches += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=start, args=switches)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page of a browser. It records its requests and its console messages."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self.page = context.new_page()
        self.requested: list[str] = []
        self.answered: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requested.append(request.url))
        self.page.on("requestfinished", lambda request: self.answered.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    @classmethod
    def of(cls, browser: Browser) -> Tab:
        """Open a tab that shares its storage with none."""
        return cls(browser.new_context())

    def beside(self) -> Tab:
        """Open a tab that shares its storage with this one."""
        return Tab(self.context)

    def open(self, url: str) -> None:
        self.page.goto(url)

    def ask(self, expression: str) -> Any:
        """Return the value of an expression in the page; for a promise, the value it resolves to."""
        return self.page.evaluate(expression)

    def wait_for(self, expression: str) -> None:
        try:
            self.page.evaluate(_POLL % (_WITHIN_MS, expression))
        except Exception as error:
            unanswered = Counter(self.requested) - Counter(self.answered)
            error.add_note(f"{expression}\nnot answered: {[*unanswered]}\nthe console says: {self.complaints}")
            raise

    def resize(self, width: int, height: int) -> None:
        self.page.set_viewport_size({"width": width, "height": height})

"""The operators' console in a tab: signing in, moving between screens, reading and pressing what is shown."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Locator

from tests.browser.chromium import Tab
from tests.servers import Installation

Theme = Literal["light", "dark"]
AXE = Path(__file__).parents[1] / "node" / "node_modules" / "axe-core" / "axe.min.js"


def require_axe() -> None:
    """Without axe-core, a laptop skips the test and CI fails it."""
    if not AXE.exists():
        if os.environ.get("CI"):
            pytest.fail("axe-core is not installed: npm ci --prefix tests/node")
        pytest.skip("axe-core is not installed: npm ci --prefix tests/node")


class Console:
    """A tab with the console of an installation."""

    def __init__(self, tab: Tab, installation: Installation) -> None:
        self.tab, self.ask, self.wait_for = tab, tab.ask, tab.wait_for
        self._page, self._installation = tab.page, installation
        # Before the page's own scripts, so that no violation is missed.
        noted = "event.violatedDirective + ' ' + event.blockedURI + ' ' + event.sourceFile"
        listen = f"addEventListener('securitypolicyviolation', (event) => violations.push({noted}))"
        self._page.add_init_script(f"window.violations = []; {listen}")
        self.show()

    def show(self, theme: Theme = "light", width: int = 1280) -> None:
        self.tab.resize(width, 900 if width > 600 else 740)
        self._page.emulate_media(color_scheme=theme)

    def open(self, path: str = "") -> None:
        self.tab.open(f"{self._installation.operators_url}/operator{path}")
        self.wait_for("document.activeElement?.id === 'door-name'")

    def log_in(self, name: str) -> None:
        self.fill("#door-name", name)
        self.enter(self._installation.passwords[name])
        self.wait_for("!document.body.classList.contains('outside')")
        self.settle()

    def enter(self, password: str) -> None:
        """Enter a password of the user whose name is entered."""
        self.fill("#door-password", password)
        self._page.click("#door-enter")

    def go(self, path: str) -> None:
        """Move to a screen and wait until everything on it is loaded."""
        self.ask(f"location.hash = {json.dumps(f'#/{path}')}")
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is loading. The title of a screen about one thing comes with the thing."""
        self.ask("new Promise((done) => setTimeout(done, 30))")
        self.wait_for("!document.getElementById('main').ariaBusy && document.querySelector('#main h1, #main .failed')")

    def fill(self, selector: str, value: str) -> None:
        """Replace what a field has."""
        self._page.fill(selector, value)

    def press(self, label: str, within: str = "#main, #bar, dialog[open]") -> None:
        """Press the button or link of this label."""
        self._labelled(label, within).click()

    def _labelled(self, label: str, within: str) -> Locator:
        place = self._page.locator(within)
        buttons, links = (place.get_by_role(role, name=label, exact=True) for role in ("button", "link"))
        return buttons.or_(links).last

    def text(self, selector: str = "#main") -> str:
        return str(self.ask(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def said(self, part: str) -> None:
        """Wait until the page has said something that contains this."""
        self.wait_for(f"document.getElementById('said').textContent.includes({json.dumps(part)})")

    def table(self, title: str) -> list[dict[str, str]]:
        """Return the table of a panel: a row is its cells by column."""
        rows: list[dict[str, str]] = self.ask(
            f"""(() => {{
              const panel = [...document.querySelectorAll(".panel")]
                .find((one) => one.querySelector("h2")?.textContent.startsWith({json.dumps(title)}));
              const table = panel?.querySelector("table");
              const names = [...(table?.tHead.rows[0].cells ?? [])].map((cell) => cell.textContent);
              return [...(table?.tBodies[0].rows ?? [])].map((row) =>
                Object.fromEntries([...row.cells].map((cell, index) => [names[index], cell.textContent])));
            }})()"""
        )
        return rows

    def findings(self) -> list[dict[str, Any]]:
        """Return what axe-core finds wrong with the page as it is now."""
        if self.ask("typeof axe") == "undefined":
            self.ask(AXE.read_text() + "; null")
        found: list[dict[str, Any]] = self.ask(
            """axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations.map(
              ({ id, nodes }) => ({ id, nodes: nodes.map((node) => `${node.html} ${node.failureSummary}`) })))"""
        )
        return found

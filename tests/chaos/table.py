"""The table of docs/reliability.md: one row for each fault, with the figures of the run that wrote it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.pages import put
from tests.chaos.trial import Measured
from tests.servers import REPOSITORY

PAGE = REPOSITORY / "docs" / "reliability.md"
_HEAD = (
    "| fault | what is done | clients saw | first success, s | last failure, s | p99 of mints, ms | memory, MiB "
    "| lost | may be lost |\n|---|---|---|---|---|---|---|---|---|\n"
)
_BEGIN, _END = "<!-- measured: written by `make chaos CHAOS_WRITE=1` -->\n", "<!-- end -->\n"
_NAMES = {"redis": "Redis", "100ms": "100ms", "sigterm": "SIGTERM", "sighup": "SIGHUP", "sentinel": "Sentinel"}


def title_of(test: str) -> str:
    """Return the fault that a test is about, from its name without parameters."""
    words = test.removeprefix("test_").split("_")
    text = " ".join(_NAMES.get(word, word) for word in words)
    return text[0].upper() + text[1:]


def rows_of(page: str) -> dict[str, str]:
    """Return the rows of a page by their first cell."""
    lines = page.partition(_BEGIN)[2].partition(_END)[0].splitlines()
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines[2:] if line.startswith("| ")}


@dataclass
class Table:
    """The rows of this run, by title."""

    rows: dict[str, str] = field(default_factory=dict)

    def write(self) -> None:
        """Put the rows into the page. Those of tests that did not run stay."""
        from benchmarks.http import machine  # only here: it imports the other servers of the benchmark

        rows = rows_of(PAGE.read_text()) | self.rows
        text = _HEAD + "".join(f"{row}\n" for row in rows.values()) + f"\n{machine()}."
        put(PAGE, text, begin=_BEGIN, end=_END)


Row = Callable[..., None]
"""Takes what was measured, `may_lose`: what the fault may lose in the worst case, and figures for the docstring."""


def row_of(title: str, done: str, measured: Measured, may_lose: str) -> str:
    failed = sum(measured.failed.values())
    seen = ", ".join(f"{count} {name}" for name, count in sorted(measured.failed.items(), key=lambda one: -one[1]))
    last_s = (
        "none failed"
        if not failed
        else "none later"
        if measured.last_failure_s is None
        else _s(measured.last_failure_s)
    )
    before, during = measured.p99_ms["mint"]
    cells = (
        title,
        re.sub(r"\s+", " ", done),
        f"{measured.answered - failed} of {measured.answered} as usual" + (f"; {seen}" if seen else ""),
        _s(measured.first_success_s),
        last_s,
        f"{before:.0f}, then {during:.0f}",
        f"{measured.grown_kib / 1024:+.1f}",
        str(measured.lost),
        may_lose,
    )
    return "| " + " | ".join(cells) + " |"


def _s(seconds: float) -> str:
    return f"{seconds:.2f}"

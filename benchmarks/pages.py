"""Puts what a benchmark has measured into a page of the documentation."""

from __future__ import annotations

from pathlib import Path


def put(page: Path, report: str, *, begin: str, end: str) -> None:
    """Replace what is between two marks of a page, both ends of lines."""
    head, found, rest = page.read_text(encoding="utf-8").partition(begin)
    if not found:
        raise ValueError(f"{page.name} has no {begin.strip()}")
    page.write_text(head + begin + report.rstrip() + "\n" + end + rest.partition(end)[2], encoding="utf-8")

"""Prometheus and its promtool for tests: Debian's package `prometheus` has both."""

from __future__ import annotations

import os
import shutil

import pytest


def require(program: str) -> str:
    """Return the path of one of the two. Without it a laptop skips the test and CI fails it."""
    found = shutil.which(program)
    if found:
        return found
    if os.environ.get("CI"):
        pytest.fail(f"{program} is not installed")
    pytest.skip(f"{program} is not installed")

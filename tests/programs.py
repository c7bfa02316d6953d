"""Programs of Debian packages that tests need: `prometheus` has promtool too, `kubernetes-client` is kubectl."""

from __future__ import annotations

import os
import shutil

import pytest


def require(program: str) -> str:
    """Return the path of a program. Without it a laptop skips the test and CI fails it."""
    found = shutil.which(program)
    if found:
        return found
    if os.environ.get("CI"):
        pytest.fail(f"{program} is not installed")
    pytest.skip(f"{program} is not installed")

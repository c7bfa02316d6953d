"""Node.js for the tests of JavaScript: 100ms's SDKs and our own client."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Mapping

import pytest

from tests.servers import REPOSITORY

FOLDER = REPOSITORY / "tests" / "node"
CLIENT = REPOSITORY / "clients" / "typescript"
INSTALL = "npm ci --prefix tests/node --no-audit --no-fund"


def require_node(*, packages: bool) -> str:
    """Return the path of node. Without it, or without its packages, a laptop skips the test and CI fails it."""
    node = shutil.which("node")
    missing = "node is not installed" if node is None else f"the packages of tests/node are missing: {INSTALL}"
    if node is not None and (not packages or (FOLDER / "node_modules").is_dir()):
        return node
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


def run_node(*arguments: str, packages: bool = False, **env: str) -> subprocess.CompletedProcess[str]:
    """Run node in tests/node with exactly this environment, for 60 s at most."""
    node = require_node(packages=packages)
    environment: Mapping[str, str] = {"PATH": os.environ.get("PATH", "")} | env
    return subprocess.run(
        [node, *arguments], cwd=FOLDER, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@functools.cache
def build_client(project: str = ".", *, into: str = "") -> str:
    """Compile clients/typescript, or its tests, so that the tests use the current sources. Return node's path.

    `into` replaces the usual folder, for tests that run in parallel with those that build there.
    """
    found = shutil.which("node")
    compiler = CLIENT / "node_modules" / "typescript" / "bin" / "tsc"
    if found is None or not compiler.exists():
        missing = "Node, and `npm ci` in clients/typescript"
        if os.environ.get("CI"):
            pytest.fail(f"needs {missing}")
        pytest.skip(f"needs {missing}")
    done = subprocess.run(
        [found, str(compiler), "-p", project, *(["--outDir", into] if into else [])],
        cwd=CLIENT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return found

"""Node.js for the tests of JavaScript: 100ms's SDKs and our own client."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.servers import REPOSITORY

FOLDER = REPOSITORY / "tests" / "node"
CLIENT = REPOSITORY / "clients" / "typescript"
DIST = CLIENT / "dist"
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


def require_compiler() -> tuple[str, str]:
    """Return the paths of node and of the client's compiler. Without them, a laptop skips the test and CI fails it."""
    found = shutil.which("node")
    compiler = CLIENT / "node_modules" / "typescript" / "bin" / "tsc"
    if found is None or not compiler.exists():
        missing = "Node, and `npm ci` in clients/typescript"
        if os.environ.get("CI"):
            pytest.fail(f"needs {missing}")
        pytest.skip(f"needs {missing}")
    return found, str(compiler)


def build_client(project: str = ".") -> str:
    """Compile clients/typescript, or its tests, unless what is there is newer than the sources. Return node's path."""
    found, compiler = require_compiler()
    with (CLIENT / "tsconfig.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of the processes that run tests, one builds
        if not _is_built(project):
            command = [found, compiler, "-p", project]
            done = subprocess.run(command, cwd=CLIENT, capture_output=True, text=True, timeout=100, check=False)
            assert done.returncode == 0, done.stdout
    return found


def _is_built(project: str) -> bool:
    """Tell whether all results of the compiler are newer than all it reads; it writes none if it finds an error."""
    results = [*(DIST if project == "." else CLIENT / "build" / project).rglob("*.js")]
    sources = [CLIENT / "package-lock.json", CLIENT / "tsconfig.json", *(CLIENT / project).glob("tsconfig.json")]
    for folder in ("src",) if project == "." else ("src", project):
        sources += (CLIENT / folder).rglob("*.ts")
    return bool(results) and min(_written_ns(one) for one in results) > max(_written_ns(one) for one in sources)


def _written_ns(file: Path) -> int:
    return file.stat().st_mtime_ns

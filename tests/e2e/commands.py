"""Shared assertions about commands: one line on standard error after a failure, JSON on demand, never a secret."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

SECRETS = ("GATEWAY_SECRET", "HMS_APP_SECRET")


def assert_done(done: subprocess.CompletedProcess[str], env: Mapping[str, str]) -> str:
    """Check a command that succeeded; return what it printed."""
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert done.stderr == ""
    assert_no_secret(done, env)
    return done.stdout


def assert_failed(done: subprocess.CompletedProcess[str], env: Mapping[str, str], *words: str) -> str:
    """Check a command that failed; return its one line."""
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("gateway: ")
    for word in words:
        assert word in lines[0]
    assert_no_secret(done, env)
    return lines[0]


def assert_no_secret(done: subprocess.CompletedProcess[str], env: Mapping[str, str]) -> None:
    for name in SECRETS:
        if env.get(name):
            assert env[name] not in done.stdout + done.stderr, name


def parsed(done: subprocess.CompletedProcess[str], env: Mapping[str, str]) -> Any:
    """Check a command that succeeded; return its JSON."""
    return json.loads(assert_done(done, env))

"""Prometheus itself says that the alerts are valid, that each fires, and that none does for a healthy gateway."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.programs import require
from tests.servers import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "prometheus"


@pytest.mark.parametrize(
    "words",
    [
        ("check", "rules", "alerts.yml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),
        ("test", "rules", "alerts.test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_accepts(words: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run([require("promtool"), *words], cwd=FOLDER, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr

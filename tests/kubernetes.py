"""deploy/k8s as kubectl renders it, in a copy of the folder."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.programs import require
from tests.servers import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "k8s"
Document = dict[str, Any]


def copied(folder: Path, *options: str) -> Path:
    """Copy the folder, and activate those lines of kustomization.yaml that begin with one of the options."""
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns(".env*", "*.pem"))
    path = folder / "kustomization.yaml"
    text = path.read_text()
    for option in options:
        line = re.compile(rf"^  # (- (?:name: )?{re.escape(option)}\b.*)((?:\n  #   .*)*)$", re.MULTILINE)
        text, found = line.subn(_active, text)
        assert found == 1, option
    path.write_text(text)
    return folder


def _active(found: re.Match[str]) -> str:
    return f"  {found[1]}" + found[2].replace("\n  # ", "\n  ")


def rendered(folder: Path) -> list[Document]:
    """Return the documents that `kubectl apply -k` would send."""
    done = subprocess.run(
        [require("kubectl"), "kustomize", str(folder)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def only(documents: list[Document], kind: str, name: str = "gateway") -> Document:
    """Return the one document of a kind and a name."""
    [found] = [one for one in documents if one["kind"] == kind and one["metadata"]["name"] == name]
    return found

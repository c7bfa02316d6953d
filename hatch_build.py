"""Make the README of the package, in which relative links lead to the files of its release: PyPI has no other files."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")


def with_absolute_links(text: str, repository: str, version: str) -> str:
    """Return a page of the repository with its relative links leading to the repository's files at a release."""
    return _LINK.sub(rf"]({repository}/blob/v{version}/\1)", text)


class ReadmeHook(MetadataHookInterface):
    """Fills in the `readme` that pyproject.toml leaves to it."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set `readme`. The version is written in one place, which this reads too."""
        root = Path(self.root)
        found = re.search(r'^__version__ = "(.+)"$', (root / "gateway" / "__init__.py").read_text(), re.MULTILINE)
        if found is None:
            raise ValueError("gateway/__init__.py has no __version__")
        text = with_absolute_links((root / "README.md").read_text(), metadata["urls"]["Homepage"], found[1])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}

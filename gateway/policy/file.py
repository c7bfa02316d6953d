"""Reads policy.toml into a Policy. Every refusal is one line: file, key, reason."""

import os
import stat
import tomllib
from importlib.resources import files
from pathlib import Path

from gateway.policy.model import Policy
from gateway.policy.reader import Reader
from gateway.policy.tables import PolicyError

BUILT_IN = "the built-in policy"  # the source of the policy that comes with the gateway
MOST_BYTES = 1 << 20
_BUILT_IN = files(__package__).joinpath("policy.toml")


def load_policy(path: Path | None = None) -> Policy:
    """Read and check a policy file; without a path, the built-in one. Raises: PolicyError"""
    if path is None:
        return parse_policy(built_in_text(), BUILT_IN)
    try:
        text = _read(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path.name}: is not UTF-8 text") from error
    except OSError as error:
        raise PolicyError(f"{path.name}: cannot be read: {error.strerror}") from error
    return parse_policy(text, path.name, path.parent)


def _read(path: Path) -> bytes:
    # Reading a pipe waits for its writer, and a device may have no end.
    if not stat.S_ISREG(path.stat().st_mode):
        raise PolicyError(f"{path.name}: is not a regular file")
    with open(path, "rb", opener=_open_without_waiting) as file:  # the path may have become a pipe since
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise PolicyError(f"{path.name}: is larger than {MOST_BYTES >> 20} MiB")
    return content


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has no such flag


def built_in_text() -> str:
    """Return the text of the built-in policy, comments included."""
    return _BUILT_IN.read_text(encoding="utf-8")


def parse_policy(text: str, name: str, folder: Path = Path()) -> Policy:
    """Check the text of a policy; refusals call its file `name`. Files that it names are in `folder`.

    Raises: PolicyError
    """
    try:
        return Reader(name, tomllib.loads(built_in_text())["anonymous"], folder).policy(tomllib.loads(text))
    except RecursionError as error:
        raise PolicyError(f"{name}: is nested too deeply") from error
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{name}: {error}") from error

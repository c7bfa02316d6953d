"""Files that hold secrets, that nobody may find half written, or that one process at a time may use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Write a file, whole or not at all; unless `mode` says otherwise only its owner can read it."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    part.replace(path)


def hold(path: Path) -> BinaryIO:
    """Return a lock file, made if need be, that is this process's alone until it is closed or the process ends.

    Raises:
        BlockingIOError: another process has it.
        OSError: it cannot be made, opened or locked.
    """
    import fcntl  # not on Windows, where commands that lock nothing work all the same

    # Never removed: of two that wait for it, one could then lock a file that has no name any more.
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file

"""Files that are private, written atomically, or locked by one process at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Write a file atomically. By default only its owner can read it."""
    with writing_whole(path, mode=mode) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def writing_whole(path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends, and vanishes if the block fails."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def hold(path: Path, *, wait: bool = False) -> BinaryIO:
    """Return a file, created if missing, locked until it is closed.

    Raises BlockingIOError if it is locked, unless it is to `wait`.
    """
    import fcntl  # missing on Windows, where commands that lock nothing still work

    # Never removed: a process that waits for it could otherwise lock a file that has already lost its name.
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file

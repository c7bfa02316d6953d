"""What the processes of a gateway hold: memory and open files."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.workers import group_of
from tests.servers import Installation


@dataclass(frozen=True, slots=True)
class Vitals:
    """The resident memory and the open files of a gateway and its workers together."""

    memory_kib: int
    files: int


def vitals_of(installation: Installation) -> Vitals:
    pids = group_of(installation)
    return Vitals(sum(map(_memory_kib, pids)), sum(map(_open_files, pids)))


def workers_of(installation: Installation) -> list[int]:
    """Return the process ids of the workers; a gateway with one has no other process."""
    assert installation.gateway.process is not None
    return sorted(pid for pid in group_of(installation) if pid != installation.gateway.process.pid and _is_worker(pid))


def _is_worker(pid: int) -> bool:
    """Tell a worker from the process that multiprocessing starts beside spawned ones to count their resources."""
    return b"resource_tracker" not in _read(pid, "cmdline")


def _memory_kib(pid: int) -> int:
    for line in _read(pid, "status").splitlines():
        if line.startswith(b"VmRSS:"):
            return int(line.split()[1])
    return 0


def _open_files(pid: int) -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0


def _read(pid: int, name: str) -> bytes:
    """Return what the kernel says of a process: nothing if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""

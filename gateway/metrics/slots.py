"""Slots in the folder that the workers of one gateway share: a worker holds one for as long as it lives.

prometheus-client gives each process files of its own, named by its pid, which nothing removes. With files named by
slots, a worker goes on with those of one that has ended: counters keep their values, and files do not become more.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import BinaryIO

from gateway.files import hold
from gateway.setting_values import SettingsError
from gateway.settings import override, process_env

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client's name; it looks for it when it is imported
_GATE = "slots.lock"
_MEMORY = "/dev/shm"  # noqa: S108  a fresh folder in it, readable only by the gateway
_MIB = 1 << 20  # for each worker: five files of 64 KiB at first, which grow with the routes that are used


@dataclass(frozen=True, slots=True)
class Slot:
    """A number that no other living process of the folder has. `lock` is None in a folder of one process."""

    folder: Path
    number: int
    lock: BinaryIO | None = None

    def close(self) -> None:
        """Give the slot up; a folder of this process alone is removed."""
        if self.lock is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            self.lock.close()


@contextmanager
def shared_folder(*, workers: int) -> Iterator[None]:
    """Make a fresh folder for the worker processes that are started meanwhile. Raises: SettingsError"""
    with tempfile.TemporaryDirectory(prefix="gateway-metrics-", dir=_place(workers)) as folder:
        override(**{_FOLDER: folder})
        yield


def _place(workers: int) -> str:
    """Return where to make the folder: with no writable disk, in memory. Raises: SettingsError"""
    try:
        place = tempfile.gettempdir()
    except FileNotFoundError:
        place = _MEMORY
    if (free := _free_bytes(place)) < workers * _MIB:  # the kernel kills a worker that writes to its files beyond it
        raise SettingsError(
            f"GATEWAY_METRICS_TOKEN needs {workers} MiB in a folder for temporary files, and {place} has"
            f" {free >> 10} KiB; mount a larger one at /tmp, or leave it unset"
        )
    return place


def _free_bytes(folder: str) -> int:
    with suppress(OSError):
        return shutil.disk_usage(folder).free if os.access(folder, os.W_OK) else 0
    return 0


def claim(*, workers: int) -> Slot:
    """Return a slot in the folder of this gateway's workers; a single worker gets a folder of its own.

    To be called before anything imports prometheus-client. Raises: SettingsError
    """
    if workers == 1:
        folder = Path(tempfile.mkdtemp(prefix="gateway-metrics-", dir=_place(1)))
        override(**{_FOLDER: folder})
        return Slot(folder, 0)
    folder = Path(process_env()[_FOLDER])
    with hold(folder / _GATE, wait=True):
        for number in count():
            with suppress(BlockingIOError):
                lock = hold(_lock_of(folder, number))
                _forget_gauges(folder, number)  # of the one that held the slot before
                return Slot(folder, number, lock)
    raise AssertionError  # a count has no end


def forget_dead(slot: Slot) -> None:
    """Remove the present values, such as the length of a queue, of processes that have ended."""
    if slot.lock is None:
        return
    with hold(slot.folder / _GATE, wait=True):  # a worker that starts meanwhile must not find its slot locked
        for path in slot.folder.glob("*.slot"):
            with suppress(BlockingIOError), hold(path):
                _forget_gauges(slot.folder, int(path.stem))


def _lock_of(folder: Path, number: int) -> Path:
    return folder / f"{number}.slot"


def _forget_gauges(folder: Path, number: int) -> None:
    for path in folder.glob(f"gauge_live*_{number}.db"):
        path.unlink(missing_ok=True)

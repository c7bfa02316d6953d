"""Wall clocks that a test can set, of a Valkey and of a gateway. Their other clocks stay right."""

from __future__ import annotations

import struct
from pathlib import Path

from tests.servers import Installation, Valkey

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
# Python runs it when it starts. A gateway under libfaketime takes seconds to log 20 people in: the lock of the
# interpreter asks for the time as well.
_PYTHON = """
import mmap, struct, time
with open({path!r}, "r+b") as file:
    offset = mmap.mmap(file.fileno(), 8)
real, real_ns = time.time, time.time_ns
def read():
    return struct.unpack("q", offset[:])[0]
time.time = lambda: real() + read()
time.time_ns = lambda: real_ns() + read() * 1_000_000_000
"""


class ValkeyWithClock(Valkey):
    """A Valkey under libfaketime, which reads the offset of its clock from a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._file = folder / "clock"
        self.set_clock(0)

    def set_clock(self, offset_s: int) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset_s:+}")
        new.rename(self._file)

    @property
    def command(self) -> list[str]:
        settings = {"LD_PRELOAD": LIBRARY, "FAKETIME_TIMESTAMP_FILE": self._file, "FAKETIME_NO_CACHE": 1}
        settings["FAKETIME_DONT_FAKE_MONOTONIC"] = 1
        return ["/usr/bin/env", *(f"{name}={value}" for name, value in settings.items()), *super().command]


class GatewayClock:
    """What `time.time` tells a gateway that is a process of its own: the times of its tokens, not those in its log."""

    def __init__(self, made: Installation) -> None:
        folder = made.folder / "clock"
        folder.mkdir()
        self._file = folder / "offset"
        self.set(0)
        (folder / "sitecustomize.py").write_text(_PYTHON.format(path=str(self._file)))
        made.gateway.env["PYTHONPATH"] = f"{folder}:{made.env['PYTHONPATH']}"

    def set(self, offset_s: int) -> None:
        """Write in place: the gateway has mapped the file."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("q", offset_s))

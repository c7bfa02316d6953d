"""The wall clock of a process, which a test can set: libfaketime reads the offset from a file. Other clocks stay."""

from __future__ import annotations

from pathlib import Path

from tests.servers import Valkey

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


class FakeClock:
    """An offset from the real time, and the environment of the processes that it applies to."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(0)
        self.env = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset_s: float) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset_s:+}")
        new.rename(self._file)


class ValkeyWithClock(Valkey):
    """A Valkey by a clock that a test can set."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.clock = FakeClock(folder)

    @property
    def command(self) -> list[str]:
        return ["/usr/bin/env", *(f"{name}={value}" for name, value in self.clock.env.items()), *super().command]

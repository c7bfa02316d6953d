"""Slots: fresh folders, numbers that living processes do not share, and what the dead leave behind."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.metrics.slots import Slot, claim, forget_dead, shared_folder
from gateway.setting_values import SettingsError


@pytest.fixture(autouse=True)
def _old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment name a folder of somebody else, and restore it."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "stale"))


def touch(slot: Slot) -> list[Path]:
    """Write what prometheus-client would write for a slot: present values and a counter."""
    paths = [slot.folder / f"{kind}_{slot.number}.db" for kind in ("gauge_livesum", "gauge_livemax", "counter")]
    for path in paths:
        path.touch()
    return paths


def test_single_process_gets_a_fresh_folder_and_removes_it() -> None:
    slot = claim(workers=1)
    assert slot.folder.is_dir()
    assert str(slot.folder) == os.environ["PROMETHEUS_MULTIPROC_DIR"]
    assert "stale" not in str(slot.folder)
    slot.close()
    assert not slot.folder.exists()


def test_workers_share_a_fresh_folder_that_ends_with_their_supervisor() -> None:
    with shared_folder(workers=2):
        first, second = claim(workers=2), claim(workers=2)
        assert first.folder == second.folder
        assert (first.number, second.number) == (0, 1)
        second.close()
        assert first.folder.is_dir()
        first.close()
    assert not first.folder.exists()


def test_next_worker_takes_the_slot_of_a_dead_one_with_its_counters_and_without_its_present_values() -> None:
    with shared_folder(workers=2):
        first, second = claim(workers=2), claim(workers=2)
        sums, most, counter = touch(first)
        first.close()
        third = claim(workers=2)
        assert third.number == first.number
        assert [path.exists() for path in (sums, most, counter)] == [False, False, True]
        second.close()
        third.close()


def test_present_values_of_the_dead_are_forgotten_and_those_of_the_living_stay() -> None:
    with shared_folder(workers=2):
        first, second = claim(workers=2), claim(workers=2)
        dead, living = touch(first), touch(second)
        first.close()
        forget_dead(second)
        assert [path.exists() for path in dead] == [False, False, True]
        assert all(path.exists() for path in living)
        second.close()


def test_without_a_writable_disk_the_folder_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def gettempdir() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr("gateway.metrics.slots.tempfile.gettempdir", gettempdir)
    with shared_folder(workers=2):
        slot = claim(workers=2)
        slot.close()
    assert slot.folder.parent == Path("/dev/shm")  # noqa: S108


def test_folder_without_room_is_refused_before_a_worker_dies_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=64 * 1024))
    with pytest.raises(
        SettingsError, match=r"^GATEWAY_METRICS_TOKEN needs 2 MiB .* has 64 KiB; mount a larger one at /tmp"
    ):
        shared_folder(workers=2).__enter__()


def test_no_place_for_the_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "missing"))
    with pytest.raises(SettingsError, match=r"needs 1 MiB .*missing has 0 KiB"):
        claim(workers=1)

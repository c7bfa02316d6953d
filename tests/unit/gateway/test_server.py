"""What the supervisor of workers waits for."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.context import SpawnProcess
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.server import _Exit


@pytest.fixture
def worker() -> Iterator[SpawnProcess]:
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    process.start()
    yield process
    process.kill()
    process.join()


def exit_of(*processes: SpawnProcess) -> _Exit:
    workers: list[Any] = [SimpleNamespace(process=one) for one in processes]
    return _Exit(workers)


def test_the_death_of_a_worker_ends_the_wait(worker: SpawnProcess) -> None:
    should_exit = exit_of(worker)
    assert not should_exit.wait(0)
    worker.kill()
    begun = time.monotonic()
    assert not should_exit.wait(30)
    assert time.monotonic() - begun < 10


def test_a_wait_lasts_its_time_while_workers_live_and_if_one_died_before_the_first(worker: SpawnProcess) -> None:
    should_exit = exit_of(worker)
    for _ in range(2):
        begun = time.monotonic()
        assert not should_exit.wait(0.2)
        assert time.monotonic() - begun >= 0.2
    worker.kill()
    worker.join()
    begun = time.monotonic()
    assert not exit_of(worker).wait(0.2)
    assert time.monotonic() - begun >= 0.2


def test_a_wait_tells_whether_to_exit(worker: SpawnProcess) -> None:
    should_exit = exit_of(worker)
    should_exit.set()
    assert should_exit.wait(30)
    assert should_exit.wait(0.1)

"""The policy file is followed through all kinds of changes and errors."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.policy import live as policy_reload
from gateway.policy.effective import policy_of
from gateway.policy.file import built_in_text
from gateway.policy.live import PolicyInForce, PolicyReload
from gateway.policy.model import Policy
from gateway.policy.tables import PolicyError
from gateway.policy.templates import TemplateWatch
from gateway.settings import Settings

TEMPLATE = "5" * 24
LOOK_S = 0.02


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(policy_reload, "LOOK_S", LOOK_S)
    monkeypatch.setattr(policy_reload, "_SETTLE_S", LOOK_S)
    path = tmp_path / "policy.toml"
    path.write_text(built_in_text())
    return Settings("redis://x", "key", "s" * 32, TEMPLATE, ("g" * 32,), policy_path=path)


def sized(size: int) -> str:
    return built_in_text().replace("size = 100", f"size = {size}")


def path_of(settings: Settings) -> Path:
    assert settings.policy_path is not None
    return settings.policy_path


@asynccontextmanager
async def following(reload: PolicyReload, policy: PolicyInForce) -> AsyncIterator[list[int]]:
    """Follow the file and record the size of rooms at each change."""
    sizes: list[int] = []
    task = asyncio.create_task(reload.follow(policy, changed=lambda: sizes.append(policy.now.rooms.size)))
    yield sizes
    assert not task.done()
    task.cancel()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110  nothing signals that a file has been read
            await asyncio.sleep(LOOK_S / 4)


async def test_a_change_during_the_start_is_not_lost(settings: Settings) -> None:
    reload = PolicyReload(settings)
    policy = PolicyInForce(policy_of(settings))
    path_of(settings).write_text(sized(7))
    async with following(reload, policy) as sizes:
        await until(lambda: sizes == [7])


async def test_a_link_that_is_swapped_as_the_kubelet_does_is_followed(settings: Settings) -> None:
    """A mounted ConfigMap: policy.toml leads to ..data/policy.toml, and ..data to a folder of each version."""
    path = path_of(settings)
    path.unlink()

    def publish(version: str, size: int) -> None:
        (path.parent / version).mkdir()
        (path.parent / version / path.name).write_text(sized(size))
        (path.parent / "..data_tmp").symlink_to(version)
        (path.parent / "..data_tmp").rename(path.parent / "..data")

    publish("..2026_11_29_1", 6)
    path.symlink_to(f"..data/{path.name}")
    policy = PolicyInForce(policy_of(settings))
    assert policy.now.rooms.size == 6
    async with following(PolicyReload(settings), policy) as sizes:
        publish("..2026_11_29_2", 7)
        await until(lambda: sizes == [7])


async def test_a_file_that_is_still_being_written_is_not_read(settings: Settings) -> None:
    policy = PolicyInForce(policy_of(settings))
    async with following(PolicyReload(settings), policy) as sizes:
        for size in range(20, 60):
            path_of(settings).write_text(sized(size))
            await asyncio.sleep(LOOK_S / 4)
        await until(lambda: 59 in sizes)
    assert len(sizes) < 10  # on a loaded machine the file may seem finished now and then


async def test_an_unexpected_error_does_not_stop_following_the_file(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    policy = PolicyInForce(policy_of(settings))

    def fail(_: Settings) -> None:
        raise KeyError("oh")

    async with following(PolicyReload(settings), policy) as sizes:
        monkeypatch.setattr(policy_reload, "policy_of", fail)
        path_of(settings).write_text(sized(7))
        await until(lambda: "cannot be read" in caplog.text)
        assert policy.now.rooms.size == 100
        monkeypatch.setattr(policy_reload, "policy_of", policy_of)
        path_of(settings).write_text(sized(8))
        await until(lambda: sizes == [8])


async def test_a_pipe_in_place_of_the_file_is_refused_once_and_the_old_policy_stays(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    policy = PolicyInForce(policy_of(settings))
    async with following(PolicyReload(settings), policy) as sizes:
        path_of(settings).unlink()
        os.mkfifo(path_of(settings))
        await until(lambda: "is not a regular file" in caplog.text)
        await asyncio.sleep(10 * LOOK_S)
        assert [record.message for record in caplog.records] == [
            "the policy file is wrong; the old policy stays in force: policy.toml: is not a regular file"
        ]
        assert policy.now.rooms.size == 100
        path_of(settings).unlink()
        path_of(settings).write_text(sized(8))
        await until(lambda: sizes == [8])


async def test_a_hanging_read_blocks_only_one_thread_that_ends_with_the_process(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(policy_reload, "READ_S", LOOK_S)
    policy, hanging = PolicyInForce(policy_of(settings)), threading.Event()

    def hang(settings: Settings) -> Policy:
        hanging.wait(5)
        return policy_of(settings)

    async with following(PolicyReload(settings), policy) as sizes:
        monkeypatch.setattr(policy_reload, "policy_of", hang)
        path_of(settings).write_text(sized(7))
        await until(lambda: "was not read within" in caplog.text)
        await asyncio.sleep(10 * LOOK_S)
        assert [thread.daemon for thread in threading.enumerate() if thread.name == "policy"] == [True]
        assert (sizes, caplog.text.count("was not read within")) == ([], 1)
        hanging.set()
        await until(lambda: sizes == [7])


async def test_a_gateway_that_ends_while_the_file_is_read_leaves_no_error_behind(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reading, hanging = threading.Event(), threading.Event()

    def fail(_: Settings) -> Policy:
        reading.set()
        hanging.wait(5)
        raise PolicyError("too late")

    async with following(PolicyReload(settings), PolicyInForce(policy_of(settings))):
        monkeypatch.setattr(policy_reload, "policy_of", fail)
        path_of(settings).write_text(sized(7))
        await until(reading.is_set)
        (thread,) = (thread for thread in threading.enumerate() if thread.name == "policy")
    await asyncio.sleep(0)
    hanging.set()
    thread.join(5)
    await asyncio.sleep(0)
    gc.collect()
    assert caplog.text == ""


async def test_a_file_made_readable_is_read_although_its_text_is_unchanged(settings: Settings) -> None:
    """chmod does not change the mtime; a container that could not read the file must notice that it now can."""
    before = policy_reload.stamp_of(settings.policy_path)
    path_of(settings).chmod(0o640)
    assert policy_reload.stamp_of(settings.policy_path) != before


async def test_the_built_in_policy_is_not_followed(settings: Settings) -> None:
    built_in = Settings("redis://x", "key", "s" * 32, TEMPLATE, ("g" * 32,))
    async with asyncio.timeout(1):
        await PolicyReload(built_in).follow(PolicyInForce(policy_of(built_in)))


def test_missing_roles_are_reported_once_and_again_when_they_change(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    watch = TemplateWatch(PolicyInForce(policy_of(settings)))
    said = []
    for existing in ({"guest", "host"}, {"guest"}, {"guest"}, {"stage"}, {"guest", "host"}, {"guest"}):
        caplog.clear()
        watch.seen(TEMPLATE, frozenset(existing))
        said.append(len(caplog.records))
    watch.seen("6" * 24, frozenset())
    assert said == [0, 1, 0, 1, 0, 1]
    assert len(caplog.records) == 1

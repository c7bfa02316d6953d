"""The files of deploy/ that hosting platforms read: the gateway starts, serves and stops as each of them says.

A test reads the file, takes the command and the variables in it, and runs that with PORT, those variables and nothing
else, in a folder without files, in which nothing may be written.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.server import GRACE_S
from tests.servers import HOST, NO_TLS, REPOSITORY, Installation, free_port, wait_until

FOLDER = REPOSITORY / "deploy"
PAGE = (REPOSITORY / "docs" / "deploy.md").read_text()
PASSWORD = "blue lantern over seven quiet hills"
CLIENT = "203.0.113.9"


@dataclass(frozen=True, slots=True)
class Platform:
    """How a platform runs the gateway. `own` are the settings whose values differ between installations."""

    command: list[str]
    env: dict[str, str]
    health: str
    stop_within_s: int
    own: set[str]
    code: tuple[str, ...] = field(default=())  # what is in the working folder


def heroku() -> Platform:
    """Return what Heroku's Python buildpack does; a dyno has 30 s to stop, and no path is asked for its health."""
    found = dict(re.findall(r"^([a-z]+): (.+)$", (FOLDER / "heroku" / "Procfile").read_text(), re.MULTILINE))
    assert set(found) == {"web"}
    [requirements] = re.findall(r"^-r (.+)$", (FOLDER / "heroku" / "requirements.txt").read_text(), re.MULTILINE)
    assert "--hash=" in (REPOSITORY / requirements).read_text()
    version = (FOLDER / "heroku" / ".python-version").read_text().strip()
    assert re.search(rf"^FROM python:{re.escape(version)}-", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)
    code = ("auth", "gateway", "limits")
    assert "heroku-redis:premium-0        # sets REDIS_URL;" in section("Heroku")
    own = {"REDIS_URL", *commanded("Heroku", "heroku config:set")}
    return Platform(shlex.split(found["web"]), documented("Heroku"), "/health/ready", 30, own, code)


def railway() -> Platform:
    config = json.loads((FOLDER / "railway.json").read_text())
    assert config["build"] == {"builder": "DOCKERFILE", "dockerfilePath": "Dockerfile"}
    deploy = config["deploy"]
    assert set(deploy) == {"healthcheckPath", "healthcheckTimeout", "restartPolicyType", "drainingSeconds"}
    assert deploy["restartPolicyType"] == "ALWAYS"
    command, env = image()
    assert "the variables above" in section("Railway")
    env |= documented("Railway")
    return Platform(command, env, deploy["healthcheckPath"], deploy["drainingSeconds"], everywhere())


def fly() -> Platform:
    config = tomllib.loads((FOLDER / "fly.toml").read_text())
    assert config["kill_signal"] == "SIGTERM"
    assert config["http_service"]["internal_port"] == int(config["env"]["PORT"])
    [check] = config["http_service"]["checks"]
    assert '--command "/opt/gateway/bin/gateway users add' in PAGE
    assert re.search(r"^ENV PATH=/opt/gateway/bin:", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)
    command, env = image()
    own = commanded("Fly", "fly secrets set")
    return Platform(command, env | config["env"], check["path"], config["kill_timeout"], own)


def render() -> Platform:
    config = yaml.safe_load((FOLDER / "render.yaml").read_text())
    [web, store] = config["services"]
    assert (web["type"], web["runtime"], web["dockerfilePath"]) == ("web", "docker", "./Dockerfile")
    variables: dict[str, dict[str, Any]] = {one["key"]: one for one in web["envVars"]}
    assert variables["REDIS_URL"]["fromService"] == {
        "type": store["type"],
        "name": store["name"],
        "property": "connectionString",
    }
    assert (store["type"], store["maxmemoryPolicy"], store["ipAllowList"]) == ("keyvalue", "noeviction", [])
    asked = {name for name, one in variables.items() if one.get("sync") is False}
    made = {name for name, one in variables.items() if one.get("generateValue")}
    assert made == {"GATEWAY_SECRET", "HMS_WEBHOOK_SECRET"}
    command, env = image()
    env |= {name: one["value"] for name, one in variables.items() if "value" in one}
    own = {"REDIS_URL"} | asked | made
    return Platform(command, env, web["healthCheckPath"], web["maxShutdownDelaySeconds"], own)


def image() -> tuple[list[str], dict[str, str]]:
    """Return the command of the Dockerfile and the gateway's variables in it."""
    last = (REPOSITORY / "Dockerfile").read_text().rpartition("\nFROM ")[2].replace("\\\n", " ")
    [command] = re.findall(r"^CMD (\[.+\])$", last, re.MULTILINE)
    pairs = [pair for line in re.findall(r"^ENV (.+)$", last, re.MULTILINE) for pair in shlex.split(line)]
    env = dict(pair.split("=", 1) for pair in pairs)
    return list(json.loads(command)), {name: value for name, value in env.items() if name.startswith("GATEWAY_")}


def section(platform: str) -> str:
    return PAGE.partition(f"### {platform}\n")[2].partition("\n##")[0]


def documented(platform: str) -> dict[str, str]:
    """Return the variables that docs/deploy.md says to set on a platform whose file cannot hold them."""
    found = dict(re.findall(r"\b((?:GATEWAY|PYTHON)_[A-Z_]+)=([0-9A-Za-z.:/,-]+)", section(platform)))
    assert set(found) >= {"GATEWAY_TRUSTED_PROXIES", "PYTHON_CPU_COUNT"}
    return {name: value for name, value in found.items() if value != "..."}


def commanded(platform: str, command: str) -> set[str]:
    """Return the settings that the documented commands set, without those whose values they state."""
    lines = re.findall(rf"^    {command} (.+)$", section(platform), re.MULTILINE)
    pairs = re.findall(r"\b([A-Z][A-Z_]+)=(\S+)", " ".join(lines))
    return {name for name, value in pairs if value == "..." or "NAME" in value}


def everywhere() -> set[str]:
    """Return the settings that the page demands on every platform."""
    return set(re.findall(r"`([A-Z_]+)`", PAGE.partition("\nEverywhere:\n\n- Set ")[2].partition(".")[0]))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("platforms")).servers() as running:
        yield running


@pytest.mark.parametrize("read", [heroku, railway, fly, render])
def test_platform_starts_serves_and_stops_the_gateway(
    read: Callable[[], Platform], servers: Installation, tmp_path: Path
) -> None:
    servers.valkey.flush()
    platform, port = read(), free_port()
    assert platform.stop_within_s >= GRACE_S + 2 + 5  # 2 s for traces
    assert platform.own == everywhere()
    values = servers.env | {"GATEWAY_PUBLIC_URL": "https://video.example.com"}
    values |= {"GATEWAY_SECRET": generated(), "HMS_WEBHOOK_SECRET": generated()}
    env = platform.env | {name: values[name] for name in platform.own} | {"PORT": str(port)}
    # Of this test alone: a path to the programs, the local 100ms, and a machine that is busy.
    env |= {"PATH": str(Path(sys.executable).parent)}
    env |= {name: servers.env[name] for name in ("HMS_API_URL", "GATEWAY_REDIS_TIMEOUT_MS")}
    # The platforms' proxies call from private addresses, the test from this one.
    assert env["GATEWAY_TRUSTED_PROXIES"] in ("10.0.0.0/8", "0.0.0.0/0,::/0")
    env["GATEWAY_TRUSTED_PROXIES"] = env["GATEWAY_TRUSTED_PROXIES"].replace("10.0.0.0/8", f"{HOST}/32")
    folder = tmp_path / "app"
    folder.mkdir()
    for name in platform.code:
        (folder / name).symlink_to(REPOSITORY / name)
    folder.chmod(0o555)
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(platform.command, cwd=folder, env=env, stdout=output, stderr=output)
    try:
        with httpx.Client(base_url=f"http://{HOST}:{port}", verify=NO_TLS, trust_env=False, timeout=15) as client:
            wait_until(lambda: is_healthy(client, platform.health, process, log), "the platform finds it healthy")
            added = Installation(tmp_path, valkey=servers.valkey)
            added.env = env
            done = added.command("users", "add", "ada", "--role", "admin", "--role", "host", stdin=PASSWORD)
            assert done.returncode == 0, done.stderr
            serves(client, env.get("GATEWAY_ADDRESS_HEADER", "X-Forwarded-For"))
            assert client.post("/hooks/100ms", json={}).status_code == 401  # 404 without a secret: no minutes
        process.send_signal(signal.SIGTERM)
        assert process.wait(GRACE_S + 2) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
    assert set(os.listdir(folder)) == set(platform.code)


def generated() -> str:
    """Return a secret as Render makes it, and as `openssl rand -base64 32` does."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def is_healthy(client: httpx.Client, path: str, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return client.get(path).status_code == 200
    except httpx.HTTPError:
        return False


def serves(client: httpx.Client, header: str) -> None:
    """Log in behind the platform's proxy, whose header tells the client's address, and mint a join token."""
    login = client.post(
        "/api/auth/login", json={"username": "ada", "password": PASSWORD}, headers={header: CLIENT}
    ).raise_for_status()
    client.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
    [session] = client.get("/api/auth/sessions").json()["sessions"]
    assert session["address"] == CLIENT
    room = client.post("/api/rooms", json={}).raise_for_status().json()["room"]["id"]
    assert client.post(f"/api/rooms/{room}/token", json={}).raise_for_status().json()["token"]

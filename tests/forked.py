"""`gateway` commands as separate processes, forked from one that has already imported their modules.

A new interpreter spends most of a second on imports, and the suite runs hundreds of commands. These processes do not
reveal a broken entry point or a missing import; the tests of the demo and `test_real_and_forked_commands_agree` do.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

REPOSITORY = Path(__file__).parents[1]
WITHIN_S = 60


def run(
    arguments: Sequence[str], *, folder: Path, env: Mapping[str, str], stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run one command in a folder, with exactly this environment and a text as standard input."""
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as link:
        files = {name: str(Path(place, name)) for name in ("stdin", "stdout", "stderr")}
        Path(files["stdin"]).write_text(stdin)
        link.connect(_parent())
        link.sendall(json.dumps({"arguments": arguments, "folder": str(folder), "env": dict(env)} | files).encode())
        link.shutdown(socket.SHUT_WR)
        code = int(link.makefile().read())
        said = [Path(files[name]).read_text() for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess(list(arguments), code, *said)


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
    import gateway.app  # noqa: F401
    from gateway.cli import audit, doctor, init, limits, policy, rooms, usage, users  # noqa: F401

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
    """Run the requested command in a child, and send its exit code, negative for a signal."""
    request = json.loads(connection.makefile().read())
    pid = os.fork()
    if pid == 0:
        connection.close()
        _become(request)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(request: Mapping[str, Any]) -> NoReturn:
    from gateway.cli import main

    code: Any = 1
    try:
        os.setsid()
        signal.alarm(WITHIN_S)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["env"])
        for number, (name, flags) in enumerate(
            (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY | os.O_CREAT), ("stderr", os.O_WRONLY | os.O_CREAT))
        ):
            os.dup2(os.open(request[name], flags, 0o600), number)
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


if __name__ == "__main__":
    _serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))

"""A real PostgreSQL server for tests: Debian's, in a folder of its own, on loopback. It refuses to run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from tests.servers import HOST, free_port

# Debian keeps the servers' programs out of the PATH.
_FOLDERS = [os.environ.get("PATH", ""), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)]


def find(program: str) -> str | None:
    """Return the path of one of PostgreSQL's programs, None if it is not installed."""
    return shutil.which(program, path=os.pathsep.join(reversed(_FOLDERS)))


class Postgres:
    """A server with one empty database."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gateway-postgres-"))  # pytest's folders are closed to other users
        self.url = f"postgresql://tester@{HOST}:{free_port()}/postgres"
        self._user = None if os.getuid() else self._another_user()

    def _another_user(self) -> str:
        name = next(name for name in ("postgres", "nobody") if any(one.pw_name == name for one in pwd.getpwall()))
        os.chown(self.folder, pwd.getpwnam(name).pw_uid, -1)
        return name

    def __enter__(self) -> Postgres:
        data = str(self.folder / "data")
        self._run("initdb", "-D", data, "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale", "C")
        port = self.url.rsplit(":", 1)[1].partition("/")[0]
        options = f"-c listen_addresses={HOST} -c port={port} -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "-D", data, "-l", str(self.folder / "log"), "-o", options, "-w", "start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def restart(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "restart")

    def _run(self, program: str, *arguments: str) -> None:
        path = find(program)
        assert path is not None, f"{program} is not installed"
        # A file, not a pipe: the server inherits it and would keep a pipe open.
        with (self.folder / f"{program}.out").open("ab") as output:
            subprocess.run(
                [path, *arguments],
                check=True,
                timeout=60,
                cwd=self.folder,
                user=self._user,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

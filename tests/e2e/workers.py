"""Connections that are known to reach every worker of an installation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.servers import Installation

TELLS_WORKERS_APART = pytest.mark.skipif(
    not Path("/proc/net/tcp").exists(), reason="distinguishes workers by /proc, which only Linux has"
)
_MOST_CONNECTIONS = 60


@contextmanager
def on_every_worker(installation: Installation, token: str, path: str = "/api/auth/me") -> Iterator[list[httpx.Client]]:
    """Open connections of a caller until every worker has answered on three, and so has cached their credential."""
    with ExitStack() as stack:
        clients: list[httpx.Client] = []
        ports: list[int] = []
        serving: list[int] = []
        while min((serving.count(one) for one in set(serving)), default=0) < 3 or (
            len(set(serving)) < installation.workers
        ):
            assert len(clients) < _MOST_CONNECTIONS, f"{len(set(serving))} workers answer"
            for _ in range(6):
                client = stack.enter_context(installation.client(token))
                with client.stream("GET", path) as answer:
                    assert answer.status_code == 200
                    ports.append(answer.extensions["network_stream"].get_extra_info("client_addr")[1])
                    answer.read()
                clients.append(client)
            of_port = workers_of(installation)
            serving = [of_port[port] for port in ports]
        yield clients


def group_of(installation: Installation) -> list[int]:
    """Return the process ids of a gateway and its workers."""
    assert installation.gateway.process is not None
    group = installation.gateway.process.pid
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if os.getpgid(int(folder.name)) == group:
                    found.append(int(folder.name))
            except OSError:
                continue  # it ended meanwhile
    return found


def workers_of(installation: Installation) -> dict[int, int]:
    """Map the client's port of every open connection to the gateway worker that serves it."""
    inodes = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote, inode = fields[1], fields[2], fields[9]
        if int(local.split(":")[1], 16) == installation.port:
            inodes[f"socket:[{inode}]"] = int(remote.split(":")[1], 16)
    found = {}
    for pid in group_of(installation):
        try:
            links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue  # it ended meanwhile
        found.update({inodes[link]: pid for link in links if link in inodes})
    return found

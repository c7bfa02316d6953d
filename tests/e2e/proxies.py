"""Proxies of deploy/ as processes, and the DNS of a container engine."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.servers import HOST, REPOSITORY, free_port, wait_until

FOLDER = REPOSITORY / "deploy"


def program(name: str) -> str:
    """Return the path of a proxy. Without it, a laptop skips the test and CI fails it."""
    if found := shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin"):
        return found
    if os.environ.get("CI"):
        pytest.fail(f"{name} is not installed")
    pytest.skip(f"{name} is not installed")


@contextmanager
def running(command: list[str], folder: Path, url: str, **env: str) -> Iterator[httpx.Client]:
    """Run a proxy; yield a client that trusts it and calls it by name."""
    log = folder / "proxy.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **env},
            stdout=output,
            stderr=output,
        )
    # Its certificate is one of the test's own, which no authority signed.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = httpx.Client(base_url=url, verify=context, trust_env=False, timeout=10)
    try:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return client.get("/health/ready").status_code == 200
            except httpx.HTTPError:
                return False

        wait_until(ready, "the proxy answers")
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(10)


@contextmanager
def balancer(folder: Path, port: int, addresses: Sequence[str], *, site: str, **given: str) -> Iterator[httpx.Client]:
    """Run the load balancer of deploy/compose, for gateways that listen on this port of these addresses.

    `site` is scheme and host of its own address, `given` are more of its variables.
    """
    binary, public = program("caddy"), free_port()
    text = (FOLDER / "caddy" / "compose" / "Caddyfile").read_text()
    here = f"default_bind {HOST}\n\tauto_https disable_redirects\n\tstorage file_system {folder}/caddy"
    changes = {
        "admin off": f"admin off\n\t{here}",
        "vars port 8000": f"vars port {port}",
        "http://:8001": f"http://:{free_port()}",
        "http://127.0.0.1:8002": f"http://127.0.0.1:{free_port()}",
    }
    for written, changed in changes.items():
        assert written in text, written
        text = text.replace(written, changed)
    (folder / "Caddyfile").write_text(text)
    url = f"{site}:{public}"
    with names(addresses) as resolver:
        env = {"GATEWAY_DOMAIN": url, "GATEWAY_RESOLVER": resolver, **given}
        with running([binary, "run", "--config", str(folder / "Caddyfile")], folder, url, **env) as client:
            yield client


@contextmanager
def names(addresses: Sequence[str]) -> Iterator[str]:
    """Answer every DNS query for an address with these, as a container engine does for a service; yield where."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HOST, 0))
        thread = threading.Thread(target=_answer, args=(server, addresses))
        thread.start()
        try:
            yield f"udp/{HOST}:{server.getsockname()[1]}"
        finally:
            server.sendto(b"", server.getsockname())
            thread.join(5)


def _answer(server: socket.socket, addresses: Sequence[str]) -> None:
    """Answer until an empty packet comes (RFC 1035 section 4.1)."""
    while True:
        query, client = server.recvfrom(512)
        if not query:
            return
        end = query.index(b"\0", 12) + 5
        found = addresses if query[end - 4 : end - 2] == b"\0\x01" else ()  # type A; there are no IPv6 addresses
        counts = b"\0\x01" + len(found).to_bytes(2) + b"\0\0\0\0"
        records = (b"\xc0\x0c\0\x01\0\x01\0\0\0\x01\0\x04" + socket.inet_aton(address) for address in found)
        server.sendto(query[:2] + b"\x81\x80" + counts + query[12:end] + b"".join(records), client)

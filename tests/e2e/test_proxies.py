"""The TLS proxies of deploy/, as they are but for addresses and certificates, in front of a running gateway."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.proxies import FOLDER, balancer, program, running
from tests.servers import HOST, Installation, free_port


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Installation]:
    """An installation with two trusted proxies: one on this machine, and the address from which the tests call.

    The parameter is its GATEWAY_ADDRESS_HEADER.
    """
    own = Installation(tmp_path_factory.mktemp("behind"), workers=1)
    own.env |= {"GATEWAY_TRUSTED_PROXIES": f"{HOST}/32", "GATEWAY_ADDRESS_HEADER": request.param}
    with own as running:
        running.add_users(otto="operator")
        yield running


@contextmanager
def nginx(folder: Path, gateway: Installation) -> Iterator[httpx.Client]:
    binary, port = program("nginx"), free_port()
    subject = ["-subj", "/CN=localhost", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "1"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(["openssl", "req", "-x509", "-nodes", *subject, *files], check=True, capture_output=True, timeout=20)
    server = (FOLDER / "nginx" / "gateway.conf").read_text()
    for written, here in (
        ("server 127.0.0.1:8000;", f"server {HOST}:{gateway.port};"),
        ("listen 443 ssl;", f"listen {HOST}:{port} ssl;"),
        ("listen 80;", f"listen {HOST}:{free_port()};"),
        ("/etc/letsencrypt/live/video.example.com/fullchain.pem", str(folder / "cert.pem")),
        ("/etc/letsencrypt/live/video.example.com/privkey.pem", str(folder / "key.pem")),
    ):
        assert written in server, written
        server = server.replace(written, here)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    own = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    user = "user root;" if os.getuid() == 0 else ""  # its workers must be able to write to the test's folder
    main = f"{user} daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
    main += f"http {{ {own} access_log off;\n{server}}}\n"
    (folder / "nginx.conf").write_text(main)
    with running(
        [binary, "-c", str(folder / "nginx.conf"), "-p", str(folder)], folder, f"https://localhost:{port}"
    ) as client:
        yield client


@contextmanager
def caddy(folder: Path, gateway: Installation) -> Iterator[httpx.Client]:
    binary, port = program("caddy"), free_port()
    here = f"{{\nadmin off\nskip_install_trust\nauto_https disable_redirects\nstorage file_system {folder}/caddy\n}}\n"
    (folder / "Caddyfile").write_text(here + (FOLDER / "caddy" / "Caddyfile").read_text())
    env = {"GATEWAY_DOMAIN": f"https://localhost:{port}", "GATEWAY_ADDRESS": f"{HOST}:{gateway.port}"}
    with running(
        [binary, "run", "--config", str(folder / "Caddyfile")], folder, f"https://localhost:{port}", **env
    ) as client:
        yield client


@contextmanager
def of_compose(folder: Path, gateway: Installation) -> Iterator[httpx.Client]:
    given = (FOLDER / "compose" / "balancer.yml").read_text()
    [(name, default)] = re.findall(r'GATEWAY_ADDRESS_HEADER: "\$\{(GATEWAY_ADDRESS_HEADER):-(.+)\}"', given)
    header = gateway.env.get(name) or default
    with balancer(folder, gateway.port, [HOST], site="https://localhost", GATEWAY_ADDRESS_HEADER=header) as client:
        yield client


@pytest.mark.parametrize(
    ("behind", "proxy"),
    [
        *(("", proxy) for proxy in (nginx, caddy, of_compose)),
        *(("X-Real-IP", proxy) for proxy in (nginx, caddy, of_compose)),
        ("Fly-Client-IP", of_compose),
    ],
    indirect=["behind"],
)
def test_proxy_passes_addresses_and_events_on(
    proxy: Callable[[Path, Installation], Iterator[httpx.Client]], behind: Installation, tmp_path: Path
) -> None:
    with proxy(tmp_path, behind) as client:  # type: ignore[attr-defined]  # a context manager
        stated = dict.fromkeys(("X-Forwarded-For", "X-Real-IP", "Fly-Client-IP"), "192.0.2.7")
        login = {"username": "otto", "password": behind.passwords["otto"]}
        answer = client.post("/api/auth/login", json=login, headers=stated)
        assert answer.status_code == 200, answer.text
        bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        [session] = [
            one for one in client.get("/api/auth/sessions", headers=bearer).json()["sessions"] if one["current"]
        ]
        assert session["address"] == HOST, "an address that the client states is not believed"

        with client.stream("GET", "/api/admin/live", headers=bearer) as live:  # at once, and not when a buffer is full
            assert live.headers["content-type"].startswith("text/event-stream")
            assert next(live.iter_lines())
        big = client.post("/api/rooms", content=b"{" + b" " * 20_000, headers={"Content-Type": "application/json"})
        assert big.headers["content-type"] == "application/problem+json", big.text
        assert big.json()["code"] in ("payload_too_large", "invalid_token"), "the gateway answers, not the proxy"

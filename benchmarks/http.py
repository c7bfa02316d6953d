"""What a join token costs: the gateway with everything on, beside servers that do less, in one run.

    .venv/bin/python -m benchmarks.http [--quick] [--write]

Starts a Valkey and every server on this machine, sends the same load to one after the other in shuffled rounds, and
prints CPU time per request of the server process (user and system, all threads, from /proc), what each request cost in
Redis, requests per second, latencies and memory. The median of the rounds counts. `--write` puts the table and the
picture into docs/performance.md. Servers on Node.js are left out where Node.js 20 and npm are missing.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import jwt
import redis
import uvloop

from benchmarks.load import request_of, send_load
from benchmarks.pages import put
from benchmarks.picture import bars
from tests.servers import HOST, Installation, Valkey, free_port, wait_until

PEERS = Path(__file__).parent / "peers"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
PICTURE = PAGE.with_name("performance.svg")
USERS, CONNECTIONS = 64, 64
LIMIT = 10**9  # of the mints that must pass
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Never denied here; the numbers of a request's limits are read and charged all the same.
POLICY_RATE, POLICY_BURST = "1000000/s", 1_000_000


@dataclass(slots=True)
class Target:
    """One server and the requests that are sent to it, one per connection. `expected` is the status of its answers."""

    name: str
    port: int
    pid: int
    requests: list[bytes]
    redis_port: int
    expected: int = 200


@dataclass(slots=True)
class Cost:
    """Medians of the rounds: CPU in us, memory in MiB, latencies in ms, the rest per request."""

    cpu_us: float
    redis_us: float
    commands: float
    reads: float
    per_s: float
    p50_ms: float
    p99_ms: float
    rss_mib: float


@dataclass(slots=True)
class _Usage:
    cpu_s: float
    redis_cpu_s: float
    commands: int
    reads: int


@dataclass(slots=True)
class Rounds:
    values: dict[str, list[Cost]] = field(default_factory=lambda: defaultdict(list))

    def median(self, name: str) -> Cost:
        fields = Cost.__slots__
        return Cost(*(statistics.median(getattr(cost, one) for cost in self.values[name]) for one in fields))


def policy() -> str:
    """Return the built-in policy with numbers that deny nothing, and a role whose every mint is denied."""
    from gateway.policy.file import built_in_text

    lines = []
    for line in built_in_text().splitlines():
        if line.startswith("active_per_owner"):
            line = "active_per_owner = 100_000"
        if "rate = " in line and "burst = " in line:
            name = line.partition("=")[0]
            line = f'{name}= {{ rate = "{POLICY_RATE}", burst = {POLICY_BURST} }}'
        lines.append(line)
    number = f'{{ rate = "{POLICY_RATE}", burst = {POLICY_BURST} }}'
    denied = f'\n[roles.denied]\npermissions = ["rooms:join", "usage:read-own"]\nlimits.api = {number}\n'
    denied += 'limits."tokens.mint" = { rate = "1/d", burst = 1 }\n'
    return "\n".join(lines) + denied


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _used(target: Target) -> _Usage:
    with redis.Redis(host=HOST, port=target.redis_port) as client:
        info, commands = client.info(), client.info("commandstats")
    calls = sum(int(one["calls"]) for name, one in commands.items() if name.partition("_")[2] not in ("info",))
    redis_cpu_s = float(info["used_cpu_user"]) + float(info["used_cpu_sys"])
    return _Usage(cpu_s(target.pid), redis_cpu_s, calls, int(info["total_reads_processed"]))


async def measure(target: Target, seconds: float) -> Cost:
    """Send one round of load to a target and return its cost. Raises: RuntimeError, if it answered otherwise."""
    before = _used(target)
    load = await send_load(target.port, target.requests, seconds=seconds)
    after = _used(target)
    if set(load.statuses) != {target.expected}:
        raise RuntimeError(f"{target.name} answered {load.statuses}, not {target.expected}")
    count = len(load.latencies)
    return Cost(
        cpu_us=(after.cpu_s - before.cpu_s) / count * 1e6,
        redis_us=(after.redis_cpu_s - before.redis_cpu_s) / count * 1e6,
        commands=(after.commands - before.commands) / count,
        reads=(after.reads - before.reads) / count,
        per_s=count / seconds,
        p50_ms=load.percentile(0.5) * 1000,
        p99_ms=load.percentile(0.99) * 1000,
        rss_mib=rss_mib(target.pid),
    )


class Peer:
    """A server of benchmarks/peers in a process of its own."""

    def __init__(self, name: str, command: list[str], folder: Path, valkey: Valkey) -> None:
        self.name, self.port = name, free_port()
        self.valkey = valkey
        self.secret = secrets.token_hex(32)
        env = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "NODE_ENV": "production",
            "PORT": str(self.port),
            "REDIS_URL": valkey.url,
            "HMS_APP_ACCESS_KEY": secrets.token_hex(12),
            "HMS_APP_SECRET": secrets.token_urlsafe(48),
            "LOGIN_SECRET": self.secret,
            "LIMIT": str(LIMIT),
        }
        command = [word.replace("{port}", str(self.port)) for word in command]
        log = (folder / f"{name.replace(' ', '-')}.log").open("wb")
        self.process = subprocess.Popen(command, cwd=PEERS, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def target(self) -> Target:
        now = int(time.time())
        requests = []
        for number in range(CONNECTIONS):
            claims = {"sub": f"u{number % USERS}", "iat": now, "exp": now + 3600}
            token = jwt.encode(claims, self.secret, algorithm="HS256")
            requests.append(request_of("POST", f"/api/rooms/{'6' * 24}/token", token=token, body=b"{}"))
        return Target(self.name, self.port, self.process.pid, requests, self.valkey.port)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


UVICORN = [sys.executable, "-m", "uvicorn", "--port", "{port}", "--no-access-log", "--log-level", "error"]
PYTHON_PEERS = {
    "plain Litestar": [*UVICORN, "benchmarks.peers.plain_litestar:app"],
    "bare ASGI function": [*UVICORN, "benchmarks.peers.bare_asgi:app"],
}
NODE_PEERS = {
    "Express, signing only": ["node", "sign_only.js"],
    "Express with login, limit and counter": ["node", "express_limited.js"],
    "Fastify with login, limit and counter": ["node", "fastify_limited.js"],
}
OURS = "the gateway"


def node_peers() -> dict[str, list[str]]:
    """Return the servers on Node.js, with their packages installed; none where Node.js or npm is missing."""
    if not (shutil.which("node") and shutil.which("npm")):
        print("Node.js and npm are missing: the servers on Express and Fastify are left out", file=sys.stderr)
        return {}
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=PEERS, check=True)
    return NODE_PEERS


def gateway_targets(running: Installation) -> list[Target]:
    """Return the requests that are measured at the gateway; 64 users, each with 20 rooms in their list."""
    users = {f"user{number}": "host" for number in range(USERS)}
    running.add_users(**users, denied="denied")
    tokens, rooms = [], []
    for name in users:
        token = str(running.log_in(name)["access_token"])
        with running.client(token) as client:
            made = [client.post("/api/rooms", json={}).json()["room"]["id"] for _ in range(20)]
        tokens.append(token)
        rooms.append(made[0])
    denied = str(running.log_in("denied")["access_token"])
    with running.client(denied) as client:
        client.post(f"/api/rooms/{rooms[0]}/token", json={})

    def target(name: str, requests: list[bytes], expected: int = 200) -> Target:
        pid = running.gateway.process.pid if running.gateway.process else 0
        return Target(name, running.port, pid, requests[:CONNECTIONS], running.valkey.port, expected)

    pairs = list(zip(tokens, rooms, strict=True))
    mint = [request_of("POST", f"/api/rooms/{room}/token", token=token, body=b"{}") for token, room in pairs]
    refused = [request_of("POST", f"/api/rooms/{rooms[0]}/token", token=denied, body=b"{}")] * USERS
    unknown = [request_of("POST", f"/api/rooms/{rooms[0]}/token", token="a.b.c", body=b"{}")] * USERS
    # At most 50 calls to 100ms are in progress at once; more creates at once would be answered 503.
    creates = [request_of("POST", "/api/rooms", token=token, body=b"{}") for token in tokens[: CONNECTIONS // 2]]
    return [
        target(OURS, mint),
        target("denied by a limit (429)", refused, 429),
        target("no valid login (401)", unknown, 401),
        target("GET /api/usage", [request_of("GET", "/api/usage", token=token) for token in tokens]),
        target("GET /api/rooms/{id}", [request_of("GET", f"/api/rooms/{room}", token=one) for one, room in pairs]),
        target("POST /api/rooms, from 32", creates, 201),
        target("GET /api/rooms, 20 of them", [request_of("GET", "/api/rooms", token=token) for token in tokens]),
    ]


async def rounds(targets: list[Target], *, count: int, seconds: float) -> Rounds:
    """Measure all targets in shuffled rounds, after one that warms up."""
    found = Rounds()
    for number in range(count + 1):
        for target in random.sample(targets, len(targets)):
            cost = await measure(target, seconds if number else min(1.0, seconds))
            if number:
                found.values[target.name].append(cost)
        print(f"round {number} of {count}", file=sys.stderr)
    return found


def table(names: list[str], found: Rounds, base: str, head: str) -> str:
    """Return a Markdown table, each CPU time also as a multiple of one of them."""
    lines = [
        f"| {head} | CPU, us | ratio | Redis, us | commands | reads of Redis | per second | p50, ms | p99, ms | MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        cost, ratio = found.median(name), found.median(name).cpu_us / found.median(base).cpu_us
        lines.append(
            f"| {name} | {cost.cpu_us:.0f} | {ratio:.2f} | {cost.redis_us:.0f} | {cost.commands:.1f} |"
            f" {cost.reads:.2f} | {cost.per_s:.0f} | {cost.p50_ms:.1f} | {cost.p99_ms:.1f} | {cost.rss_mib:.0f} |"
        )
    return "\n".join(lines)


def machine() -> str:
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown CPU",
    )
    node = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout if shutil.which("node") else ""
    versions = f"Python {platform.python_version()}" + (f", Node.js {node.strip()[1:]}" if node else "")
    return f"{os.cpu_count()} cores of {model}; {versions}; load average {load} at the end"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short rounds, to try the benchmark itself")
    parser.add_argument("--write", action="store_true", help="put table and picture into docs/performance.md")
    options = parser.parse_args()
    count, seconds = (2, 1.0) if options.quick else (5, 2.5)
    with tempfile.TemporaryDirectory() as folder, Valkey(Path(folder)) as valkey:
        home = Path(folder) / "gateway"
        home.mkdir()
        peers = [Peer(name, command, Path(folder), valkey) for name, command in (node_peers() | PYTHON_PEERS).items()]
        try:
            for peer in peers:
                wait_until(lambda port=peer.port: _listens(port), f"{peer.name} listens")
            with Installation(home, policy=policy(), real=True) as running:
                ours = gateway_targets(running)
                targets = [*(peer.target() for peer in peers), *ours]
                found = uvloop.run(rounds(targets, count=count, seconds=seconds))
        finally:
            for peer in peers:
                peer.stop()
    servers = [*(peer.name for peer in peers), OURS]
    report = "\n\n".join(
        [
            table(servers, found, "bare ASGI function", "a join token from"),
            table([target.name for target in ours], found, OURS, "the gateway's answer"),
            f"{count} rounds of {seconds:g} s each, {CONNECTIONS} connections, one worker. {machine()}.",
        ]
    )
    print(report)
    if options.write:
        put(
            PAGE,
            report,
            begin="<!-- measured: written by `python -m benchmarks.http --write` -->\n",
            end="<!-- end -->",
        )
        PICTURE.write_text(bars([(name, found.median(name).cpu_us) for name in servers], "CPU per join token, us"))


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


if __name__ == "__main__":
    main()

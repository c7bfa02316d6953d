"""What webhooks cost, and what they cost the mints beside them: one worker, a fixed rate, latency from the due time.

    .venv/bin/python -m benchmarks.intake [--rate 500] [--mints 200] [--seconds 5] [--rounds 5]

In shuffled rounds the worker gets nothing, mints, webhooks, and both. Every webhook is a join or a leave of its own
stay. Prints the median of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import statistics
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import uvloop

from benchmarks.http import cpu_s, machine, policy
from benchmarks.load import request_of
from tests.month import stamp
from tests.servers import HOST, Installation

CONNECTIONS = 16


async def pace(port: int, request: Callable[[], bytes], *, rate: int, seconds: float) -> list[float]:
    """Send requests at a fixed rate over some connections; return latencies in ms from when each was due."""
    begun, every_s, latencies = time.perf_counter() + 0.1, CONNECTIONS / rate, []

    async def line(number: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        for turn in range(int(rate * seconds / CONNECTIONS)):
            due = begun + turn * every_s + number * every_s / CONNECTIONS
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            writer.write(request())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
            latencies.append((time.perf_counter() - due) * 1000)
        writer.close()

    async with asyncio.timeout(seconds * 4 + 10):
        await asyncio.gather(*map(line, range(CONNECTIONS)))
    return latencies


def webhooks(secret: str, room: str) -> Iterator[bytes]:
    """Return requests: joins, each followed by its leave a little later."""
    waiting: list[dict[str, str]] = []
    while True:
        if len(waiting) > 50:
            data = waiting.pop(0) | {"left_at": stamp(time.time_ns() // 1_000_000)}
        else:
            ids = {"room_id": room, "session_id": "5" * 24, "peer_id": str(uuid.uuid4()), "user_id": "u" + "a" * 20}
            data = ids | {"role": "guest", "joined_at": stamp(time.time_ns() // 1_000_000)}
            waiting.append(data)
        kind = "peer.leave.success" if "left_at" in data else "peer.join.success"
        body = json.dumps({"version": "2.0", "id": str(uuid.uuid4()), "type": kind, "data": data}).encode()
        head = request_of("POST", "/hooks/100ms", body=body)
        yield head.replace(b"\r\n", f"\r\nX-Gateway-Webhook-Secret: {secret}\r\n".encode(), 1)


async def run(running: Installation, options: argparse.Namespace) -> None:
    login = running.log_in("hanna")
    with running.client(login["access_token"]) as client:
        room = client.post("/api/rooms", json={}).json()["room"]["id"]
    mint = request_of("POST", f"/api/rooms/{room}/token", token=login["access_token"], body=b"{}")
    events = webhooks(running.env["HMS_WEBHOOK_SECRET"], room)
    assert running.gateway.process is not None
    pid, cpu, late = running.gateway.process.pid, defaultdict(list), defaultdict(list)
    loads = {"nothing": (), "mints": ("mints",), "webhooks": ("webhooks",), "both": ("mints", "webhooks")}
    for _ in range(options.rounds):
        for name in random.sample(list(loads), len(loads)):
            before, work = cpu_s(pid), []
            if "mints" in loads[name]:
                work.append(pace(running.port, lambda: mint, rate=options.mints, seconds=options.seconds))
            if "webhooks" in loads[name]:
                work.append(pace(running.port, lambda: next(events), rate=options.rate, seconds=options.seconds))
            found, _ = await asyncio.gather(asyncio.gather(*work), asyncio.sleep(options.seconds))
            await asyncio.sleep(0.5)  # what was stored last is credited
            cpu[name].append(cpu_s(pid) - before)
            for kind, latencies in zip(loads[name], found, strict=True):
                late[name, kind] += latencies

    def us(more: str, less: str, count: float) -> float:
        return (statistics.median(cpu[more]) - statistics.median(cpu[less])) / count * 1e6

    sent, minted = options.rate * options.seconds, options.mints * options.seconds
    alone, beside = us("mints", "nothing", minted), us("both", "webhooks", minted)
    print(f"webhooks at {options.rate}/s: {us('webhooks', 'nothing', sent):.0f} us CPU each, stored and credited")
    for (name, kind), latencies in sorted(late.items()):
        cuts = statistics.quantiles(latencies, n=100)
        print(f"{kind} ({name}): p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms of {len(latencies)}")
    print(f"a mint costs {alone:.0f} us CPU alone, {beside:.0f} us beside the webhooks: {beside / alone:.2f}")
    print(machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("rate", 500), ("mints", 200), ("seconds", 5), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        running = Installation(Path(folder), policy=policy(), real=True)
        running.env |= {"HMS_WEBHOOK_SECRET": secrets.token_urlsafe(48), "GATEWAY_REDIS_TIMEOUT_MS": "250"}
        with running:
            running.add_users(hanna="host")
            uvloop.run(run(running, options))


if __name__ == "__main__":
    main()

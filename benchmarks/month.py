"""A simulated month of minutes: disturbed webhooks, workers killed meanwhile, then the comparison with the truth.

    .venv/bin/python -m benchmarks.month [--users 10000] [--rooms 3000] [--stays 200000] [--seed 1]

Stores the webhooks in a real Valkey and processes them in two processes, one of which is killed (kill -9) and replaced
now and then. Then reconciles every session with what 100ms would say, in a process that is killed as well and
started again. Prints the error before and after, in seconds, and exits with 1 unless the second is 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from gateway.audit import Audit
from gateway.hms.replies import read_session
from gateway.metering import keys
from gateway.metering.consumer import Consumer
from gateway.metering.reconcile import Reconciliation
from gateway.metering.stays import Stays
from gateway.redis.store import Store, connect
from limits.counters import Counters
from limits.derived import Derived
from tests.month import Disturbed, Month, simulate
from tests.servers import Valkey

KILLS = 20  # in each of the two parts, evenly over its work
DEADLINE_S = 20.0
DONE = "month:reconciled"


def stays_of(store: Store) -> Stays:
    return Stays(store.execute, Derived(store.execute, store.post))


async def consume(url: str) -> None:
    """Process events until killed."""
    store = Store(connect(url), deadline_s=DEADLINE_S)
    await Consumer(store.execute, stays_of(store), asyncio.Event(), reclaim_ms=1000).run()


async def reconcile(url: str, path: Path) -> None:
    """Reconcile the sessions of a file, one per line, that are not noted as done yet."""
    store = Store(connect(url), deadline_s=DEADLINE_S)

    async def clock() -> int:
        return time.time_ns() // 1_000_000

    reconciliation = Reconciliation(store.execute, stays_of(store), Audit(store.execute, store.post), clock)
    places = asyncio.Semaphore(8)

    async def one(line: str) -> None:
        async with places:
            found = read_session(json.loads(line))
            if not await store.execute("SISMEMBER", DONE, found.id):
                await reconciliation.apply(found)
                await store.execute("SADD", DONE, found.id)

    with path.open() as lines:
        await asyncio.gather(*map(one, lines))
    await store.close()


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "benchmarks.month", *arguments])


def disturb(processes: list[subprocess.Popen[bytes]], *arguments: str) -> int:
    """Kill a process and start another in its place."""
    victim = processes.pop(0)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    processes.append(start(*arguments))
    return 1


def work_off(valkey: Valkey) -> int:
    """Wait until all events are processed; return how many processes were killed meanwhile."""
    processes, kills = [start("--consume", valkey.url) for _ in range(2)], 0
    with valkey.client() as client:
        step = client.xlen(keys.EVENTS) // (KILLS + 1)
        while waiting := client.xlen(keys.EVENTS):
            if waiting < step * (KILLS - kills):
                kills += disturb(processes, "--consume", valkey.url)
            time.sleep(0.005)
    for process in processes:
        process.kill()
        process.wait()
    return kills


def reconcile_all(valkey: Valkey, path: Path, sessions: int) -> int:
    """Reconcile every session; return how many processes were killed meanwhile."""
    arguments = ("--reconcile", valkey.url, str(path))
    processes, kills = [start(*arguments)], 0
    with valkey.client() as client:
        while processes[0].poll() is None:
            if kills < KILLS and client.scard(DONE) > sessions // (KILLS + 1) * (kills + 1):
                kills += disturb(processes, *arguments)
            time.sleep(0.005)
    if processes[0].returncode:
        raise SystemExit("the reconciliation failed")
    return kills


async def counted(url: str, month: Month, months: list[str]) -> dict[str, Counter[tuple[str, str]]]:
    """Return the seconds by (subject, day) as the counters have them, in the form of `Month.minutes`."""
    store = Store(connect(url), deadline_s=DEADLINE_S)
    counters = Counters(store.execute)
    found: dict[str, Counter[tuple[str, str]]] = {kind: Counter() for kind in ("user", "room", "owner", "all")}

    async def read(subject: str, *kinds: tuple[str, str], of_room: bool = False) -> None:
        for name in months:
            raw = await (counters.raw_room_month if of_room else counters.raw_month)(subject, name)
            for field, value in raw:
                day, _, metric = field.partition(":")
                for kind, wanted in kinds:
                    if metric == wanted and day != "*" and value:
                        found[kind][subject, f"{name}-{day}"] += value

    for at in range(0, len(month.users), 500):
        some = month.users[at : at + 500]
        await asyncio.gather(*(read(uid, ("user", "minutes.ok"), ("owner", "owned.ok")) for uid in some))
    await asyncio.gather(*(read(room, ("room", "minutes.ok"), of_room=True) for room in month.owners))
    await read("all", ("all", "minutes.ok"))
    await store.close()
    return found


def error_s(truth: dict[str, Counter[tuple[str, str]]], found: dict[str, Counter[tuple[str, str]]]) -> dict[str, int]:
    """Return the sum of absolute differences in seconds, per kind of account."""
    return {
        kind: sum(abs(truth[kind][at] - found[kind][at]) for at in truth[kind].keys() | found[kind].keys())
        for kind in truth
    }


def run(valkey: Valkey, folder: Path, month: Month, bodies: list[bytes]) -> tuple[dict[str, int], dict[str, int]]:
    """Store, process and reconcile a month; return the errors before and after the reconciliation."""
    truth = month.minutes()
    months = sorted({day[:7] for _, day in truth["all"]})
    now_ms = time.time_ns() // 1_000_000

    valkey.load(("HSET", f"rm:1:{{{room}}}", "owner", owner) for room, owner in month.owners.items())
    with valkey.client() as client, client.pipeline(transaction=False) as pipe:
        for at in range(0, len(bodies), 5000):
            for body in bodies[at : at + 5000]:
                pipe.xadd(keys.EVENTS, {"body": body, "at": now_ms})
            pipe.execute()
    begun = time.monotonic()
    kills = work_off(valkey)
    took_s = time.monotonic() - begun
    print(f"{len(bodies):,} events processed in {took_s:.0f} s ({len(bodies) / took_s:,.0f}/s), {kills} kills")
    before = error_s(truth, asyncio.run(counted(valkey.url, month, months)))
    path = folder / "sessions.jsonl"
    path.write_text("".join(json.dumps(session.reply()) + "\n" for session in month.sessions))
    begun = time.monotonic()
    kills = reconcile_all(valkey, path, len(month.sessions))
    print(f"{len(month.sessions):,} sessions reconciled in {time.monotonic() - begun:.0f} s, {kills} kills")
    return before, error_s(truth, asyncio.run(counted(valkey.url, month, months)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--rooms", type=int, default=3_000)
    parser.add_argument("--stays", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--consume", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--reconcile", nargs=2, metavar=("URL", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.consume:
        asyncio.run(consume(options.consume))
    elif options.reconcile:
        asyncio.run(reconcile(options.reconcile[0], Path(options.reconcile[1])))
    else:
        source = random.Random(options.seed)
        month = simulate(source, users=options.users, rooms=options.rooms, stays=options.stays, until=datetime.now(UTC))
        bodies = month.events(source, Disturbed())
        total_s = sum(month.minutes()["all"].values())
        print(f"{options.stays:,} stays in {len(month.sessions):,} sessions, {total_s // 60:,} minutes")
        print(f"lost: {dict(month.lost)}, {month.lost_s:,} s")
        with tempfile.TemporaryDirectory() as folder, Valkey(Path(folder)) as valkey:
            before, after = run(valkey, Path(folder), month, bodies)
            with valkey.client() as client:
                memory = client.info("memory")["used_memory"]
        print(f"error before reconciliation: {before['all']:,} s of {total_s:,} ({before['all'] / total_s:.2%})")
        print(f"error after it, in seconds: {after}; Redis holds {memory / 2**20:,.0f} MiB")
        sys.exit(any(after.values()))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()

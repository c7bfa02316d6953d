"""What ten million users need of gateways and of Redis: measured costs, a plan, and a simulation of its masters.

    .venv/bin/python -m benchmarks.scale [--accounts 10000000] [--quick] [--write]

Measures on this machine what requests cost and what users weigh, adds up the busiest minute of a day, and simulates
the masters of a Redis Cluster in it: how even they are, a room that many people enter within a minute, and a master
that is gone until its replica takes over. `--write` puts the tables into docs/scaling.md.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import secrets
import statistics
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import uvloop
from redis.crc import key_slot

from benchmarks import footprint
from benchmarks.footprint import Footprint
from benchmarks.http import Target, cpu_s, machine, measure, policy
from benchmarks.intake import webhooks
from benchmarks.load import request_of, send_each
from benchmarks.pages import put
from tests.servers import Installation, Valkey

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
SLOTS, CONNECTIONS = 16_384, 32
HASHING = 8  # logins at once: more would wait longer for their hash than the gateway lets them
BUSIEST = 0.12 * 1.5 / 3600  # of a day's requests, in each second of its busiest minute: 12 % of them come in one hour
UTILIZATION = 0.5  # of a core, in that minute
NODE_GB, FULL = 32, 0.6  # memory of a master, and the part of it that data may take
STAYS_DAILY, LEDGER_DAYS = 3, 40
ZSET = 1_000_000  # members of the top list in which writes are timed


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of request: how often an active user sends it on a day, and the CPU that one costs, in us."""

    name: str
    daily: float
    gateway_us: float = 0.0
    redis_us: float = 0.0


KINDS = [
    Kind("login with a password", 0.3),
    Kind("refresh of a session", 4.0),
    Kind("join token", 3.0),
    Kind("any other request, such as `GET /api/rooms/{id}`", 15.0),
    Kind("new room", 0.2),
    Kind("webhook, stored and credited", 2.0 * STAYS_DAILY),
]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a number of accounts needs, of whom a number is active on a day."""

    accounts: int
    active: int
    per_s: float
    gateway_cores: float
    redis_cores: float
    gb: float  # with the archive, which lets Redis forget old months
    gb_without: float
    gb_of_all: float  # of these, in keys that all users share
    masters: int
    most_stays: float  # on a day, at which the ledger of the installation alone fills a master


def _targets(running: Installation, valkey_port: int) -> list[Target]:
    """Return the requests whose cost is measured, in the order of `KINDS` without the webhook."""
    users, others = (
        [f"{stem}{number}" for number in range(count)] for stem, count in (("user", CONNECTIONS), ("login", HASHING))
    )
    running.add_users(**dict.fromkeys([*users, *others], "host"))  # others, because logins end a user's oldest sessions
    logins = [running.log_in(name) for name in users]
    tokens = [str(one["access_token"]) for one in logins]
    rooms = []
    for token in tokens:
        with running.client(token) as client:
            rooms.append(client.post("/api/rooms", json={}).json()["room"]["id"])

    def body(**values: str) -> bytes:
        return ("{" + ", ".join(f'"{name}": "{value}"' for name, value in values.items()) + "}").encode()

    log_in = [
        request_of("POST", "/api/auth/login", body=body(username=n, password=running.passwords[n])) for n in others
    ]
    refresh = [request_of("POST", "/api/auth/refresh", body=body(refresh_token=one["refresh_token"])) for one in logins]
    pairs = list(zip(tokens, rooms, strict=True))
    mint = [request_of("POST", f"/api/rooms/{room}/token", token=token, body=b"{}") for token, room in pairs]
    get = [request_of("GET", f"/api/rooms/{room}", token=token) for token, room in pairs]
    create = [request_of("POST", "/api/rooms", token=token, body=b"{}") for token in tokens]
    assert running.gateway.process is not None
    pid, sent = running.gateway.process.pid, [log_in, refresh, mint, get, create]
    answers = zip(KINDS, sent, (200, 200, 200, 200, 201), strict=False)
    return [Target(kind.name, running.port, pid, some, valkey_port, status) for kind, some, status in answers]


async def costs(running: Installation, *, rounds: int, seconds: float) -> list[Kind]:
    """Return the kinds with what they cost this gateway and its Redis: medians of rounds."""
    targets = _targets(running, running.valkey.port)
    found = []
    for kind, target in zip(KINDS, targets, strict=False):
        some = [await measure(target, seconds) for _ in range(rounds + 1)][1:]
        medians = statistics.median(one.cpu_us for one in some), statistics.median(one.redis_us for one in some)
        found.append(replace(kind, gateway_us=medians[0], redis_us=medians[1]))
    events = webhooks(running.env["HMS_WEBHOOK_SECRET"], "6" * 24)
    count = int(500 * seconds)
    await send_each(running.port, (next(events) for _ in range(count)), connections=CONNECTIONS)  # warms up
    before, redis_before = cpu_s(targets[0].pid), _redis_s(running.valkey)
    await send_each(running.port, (next(events) for _ in range(count)), connections=CONNECTIONS)
    await asyncio.sleep(1.0)  # what was stored last is credited
    used, redis_used = cpu_s(targets[0].pid) - before, _redis_s(running.valkey) - redis_before
    return [*found, replace(KINDS[-1], gateway_us=used / count * 1e6, redis_us=redis_used / count * 1e6)]


def _redis_s(valkey: Valkey) -> float:
    with valkey.client() as client:
        info = client.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def ranking_us(valkey: Valkey) -> float:
    """Return how long Redis takes for one write to a top list of a million users, in us."""
    with valkey.client() as client:
        for at in range(0, ZSET, 10_000):
            client.zadd("top", {f"u{n:020}": n for n in range(at, at + 10_000)})
        client.config_resetstat()
        with client.pipeline(transaction=False) as pipe:
            for _ in range(20_000):
                pipe.zincrby("top", 1, f"u{random.randrange(ZSET):020}")
            pipe.execute()
        spent = float(client.info("commandstats")["cmdstat_zincrby"]["usec_per_call"])
        client.delete("top")
    return spent


def plan(accounts: int, active: int, kinds: list[Kind], weighs: Footprint) -> Plan:
    """Add up what the busiest minute of a day needs, and what all users weigh."""
    per_s = {kind: active * kind.daily * BUSIEST for kind in kinds}
    monthly = min(accounts, 3 * active)
    stays = active * STAYS_DAILY * LEDGER_DAYS
    lists = 4 * active * weighs.ranked * 2  # of this day and this month, for four counters
    of_all = accounts * weighs.indexed + stays * weighs.stay_of_all + lists + monthly * weighs.indexed_room
    always = accounts * weighs.account + monthly * (1.5 * weighs.session + weighs.room) + stays * weighs.stay + lists
    gb, gb_without = (always + months * monthly * weighs.month for months in (2, 13))
    redis_cores = sum(rate * kind.redis_us for kind, rate in per_s.items()) / 1e6
    by_memory = math.ceil(gb / 1e9 / (NODE_GB * FULL))
    return Plan(
        accounts,
        active,
        sum(per_s.values()),
        sum(rate * kind.gateway_us for kind, rate in per_s.items()) / 1e6 / UTILIZATION,
        redis_cores / UTILIZATION,
        gb / 1e9,
        gb_without / 1e9,
        of_all / 1e9,
        max(3, by_memory, math.ceil(redis_cores / UTILIZATION)),
        NODE_GB * FULL * 1e9 / (LEDGER_DAYS * weighs.stay_of_all),
    )


@dataclass(frozen=True, slots=True)
class Shards:
    """What the simulation found: the fullest and the busiest master against the mean; waits (p99) in ms."""

    memory: float
    load: float
    used: float  # of a core, by the busiest
    wait_ms: float
    hot_used: float
    hot_wait_ms: float
    top_used: float
    refused: int
    refused_share: float
    after_peak: float
    after_wait_ms: float


def simulate(of: Plan, kinds: list[Kind], zincrby_us: float, options: argparse.Namespace) -> Shards:
    """Simulate the masters in the busiest minute, each as one queue that serves requests in their order."""
    draw, masters = random.Random(options.seed), of.masters
    homes = [_home(f"u{draw.getrandbits(80):020x}", masters) for _ in range(options.sample)]
    placed = Counter(homes)
    load: Counter[int] = Counter()
    for home in homes:  # few people do much: the busiest hundredth of them a tenth of all
        load[home] += draw.lognormvariate(0, 1)
    share = {one: load[one] / sum(load.values()) for one in range(masters)}
    busiest = max(share, key=lambda one: share[one])
    service = [(kind.redis_us, kind.daily) for kind in kinds]
    rate = of.per_s * share[busiest]
    used, waits = _queue(draw, rate, service)
    join = next(kind for kind in kinds if kind.name == "join token")
    entering = options.crowd / 60
    hot_mix = [(us, rate * weight / sum(w for _, w in service)) for us, weight in service] + [(join.redis_us, entering)]
    hot_used, hot_waits = _queue(draw, rate + entering, hot_mix)
    ranked = max(kind.daily for kind in kinds) / sum(kind.daily for kind in kinds) * of.per_s
    refused, peak, after = _outage(draw, rate, service, options.outage)
    mean = options.sample / masters
    return Shards(
        max(placed.values()) / mean,
        share[busiest] * masters,
        used,
        _p99(waits),
        hot_used,
        _p99(hot_waits),
        2 * ranked * zincrby_us / 1e6,
        refused,
        share[busiest],
        peak / rate,
        _p99(after),
    )


def _home(uid: str, masters: int) -> int:
    return key_slot(f"u:1:{{{uid}}}".encode()) * masters // SLOTS


def _queue(
    draw: random.Random, rate: float, service: list[tuple[float, float]], seconds: float = 30
) -> tuple[float, list[float]]:
    """Return how much of its time one server works, and the waits in seconds. `service`: us and weight of each kind."""
    times, weights = zip(*service, strict=True)
    at = free = busy = 0.0
    waits = []
    while at < seconds:
        at += draw.expovariate(rate)
        takes = draw.choices(times, weights)[0] / 1e6
        waits.append(max(0.0, free - at))
        free, busy = max(free, at) + takes, busy + takes
    return busy / seconds, waits


def _outage(
    draw: random.Random, rate: float, service: list[tuple[float, float]], lasts_s: float
) -> tuple[int, int, list[float]]:
    """Let a master be gone: what is refused meanwhile comes again after Retry-After (1 s, up to 10 % more).

    Returns how many answers were 503, how many requests came in the first second after it, and their waits.
    """
    times, weights = zip(*service, strict=True)
    arrivals, at = [], 0.0
    while at < lasts_s + 1:
        at += draw.expovariate(rate)
        arrivals.append(at)
    refused, served = 0, []
    for at in arrivals:
        while at < lasts_s:
            refused += 1
            at += 1 + draw.random() / 10
        if at < lasts_s + 1:
            served.append(at)
    free, waits = lasts_s, []
    for at in sorted(served):
        waits.append(max(0.0, free - at))
        free = max(free, at) + draw.choices(times, weights)[0] / 1e6
    return refused, len(served), waits


def _p99(waits: list[float]) -> float:
    return sorted(waits)[int(len(waits) * 0.99)] * 1000


def _tables(
    kinds: list[Kind],
    weighs: Footprint,
    zincrby_us: float,
    found: list[tuple[Plan, Shards]],
    options: argparse.Namespace,
) -> str:
    lines = ["| request | per active user and day | gateway, CPU us | Redis, CPU us |", "|---|---|---|---|"]
    lines += [f"| {kind.name} | {kind.daily:g} | {kind.gateway_us:.0f} | {kind.redis_us:.0f} |" for kind in kinds]
    lines += ["", "| in Redis, indices included | bytes |", "|---|---|"]
    lines += [f"| {footprint.MEANS[name]} | {size:.0f} |" for name, size in asdict(weighs).items()]
    plans = [one for one, _ in found]
    lines += [
        "",
        "| "
        + " | ".join([f"{options.accounts:,} accounts", *(f"{one.active:,} active on a day" for one in plans)])
        + " |",
    ]
    lines.append("|---|" + "---|" * len(found))

    def row(name: str, *values: str) -> None:
        lines.append("| " + " | ".join([name, *values]) + " |")

    row("requests per second, in the busiest minute", *(f"{one.per_s:,.0f}" for one in plans))
    row(f"cores of gateways, {UTILIZATION:.0%} used", *(f"{one.gateway_cores:.1f}" for one in plans))
    row(f"cores of Redis, {UTILIZATION:.0%} used", *(f"{one.redis_cores:.2f}" for one in plans))
    row("memory of Redis with the archive, GB", *(f"{one.gb:.0f}" for one in plans))
    row("memory of Redis without it, GB", *(f"{one.gb_without:.0f}" for one in plans))
    row("of these in keys that all users share, GB", *(f"{one.gb_of_all:.1f}" for one in plans))
    row(f"masters of {NODE_GB} GB, {FULL:.0%} full, with the archive", *(str(one.masters) for one in plans))
    row("stays on a day, in millions", *(f"{one.active * STAYS_DAILY / 1e6:.1f}" for one in plans))
    row(
        "stays on a day for which the master of the installation's ledger has room, in millions",
        *(f"{one.most_stays / 1e6:.1f}" for one in plans),
    )
    shards = [one for _, one in found]
    row("the fullest master against the mean", *(f"{one.memory:.3f}" for one in shards))
    row("the busiest master against the mean", *(f"{one.load:.3f}" for one in shards))
    row("how much of its core it uses", *(f"{one.used:.1%}" for one in shards))
    row("wait there, p99, ms", *(f"{one.wait_ms:.3f}" for one in shards))
    row(
        f"the same while {options.crowd:,} people enter one room in a minute",
        *(f"{one.hot_used:.1%}, {one.hot_wait_ms:.3f} ms" for one in shards),
    )
    row("of a core, for the two largest top lists", *(f"{one.top_used:.1%}" for one in shards))
    row(f"a master is gone for {options.outage:g} s: users concerned", *(f"{one.refused_share:.1%}" for one in shards))
    row("answers 503 meanwhile", *(f"{one.refused:,}" for one in shards))
    row("requests in the first second after it, against any other", *(f"{one.after_peak:.1f}" for one in shards))
    row("wait in that second, p99, ms", *(f"{one.after_wait_ms:.2f}" for one in shards))
    lines += ["", f"A write to a top list of {ZSET:,} users takes Redis {zincrby_us:.1f} us. {machine()}."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--accounts", type=int, default=10_000_000)
    parser.add_argument(
        "--active", type=float, nargs="+", default=[0.1, 1.0], help="shares of them who are active on a day"
    )
    parser.add_argument("--crowd", type=int, default=20_000, help="people who enter one room within a minute")
    parser.add_argument("--outage", type=float, default=5.0, help="seconds until a replica has taken over")
    parser.add_argument("--sample", type=int, default=1_000_000, help="user ids that are placed on the masters")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="short rounds, to try the benchmark itself")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scaling.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home, empty = Path(folder) / "gateway", Path(folder) / "empty"
        home.mkdir()
        empty.mkdir()
        running = Installation(home, policy=policy(), real=True)
        running.env["HMS_WEBHOOK_SECRET"] = secrets.token_urlsafe(48)
        with running:
            kinds = uvloop.run(costs(running, rounds=1 if options.quick else 5, seconds=0.5 if options.quick else 2.0))
        with Valkey(empty) as valkey:
            weighs = uvloop.run(footprint.measure(valkey.url, users=500 if options.quick else 4000))
            zincrby_us = ranking_us(valkey)
    found = []
    for share in options.active:
        one = plan(options.accounts, int(options.accounts * share), kinds, weighs)
        found.append((one, simulate(one, kinds, zincrby_us, options)))
    report = _tables(kinds, weighs, zincrby_us, found, options)
    print(report)
    if options.write:
        begin = "<!-- measured: written by `python -m benchmarks.scale --write` -->\n"
        put(PAGE, report, begin=begin, end="<!-- end -->")


if __name__ == "__main__":
    main()

"""What ten million users need of gateways and of Redis: measured costs, a plan, and a simulation of its masters.

    .venv/bin/python -m benchmarks.scale [--accounts 10000000] [--quick] [--write]

Measures on this machine what requests cost and what users weigh, computes the load of a day's busiest minute, and
simulates the masters of a Redis Cluster in it: how full and how busy they are, a room that many people enter within a
minute, and a master that is gone until its replica takes over. `--write` puts the tables into docs/scaling.md.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import uvloop

from benchmarks import footprint
from benchmarks.footprint import Footprint
from benchmarks.http import Target, cpu_s, machine, measure, policy
from benchmarks.intake import webhooks
from benchmarks.load import request_of, send_each
from benchmarks.masters import Service, Shared, Users, needed, outage, p99_ms, place, queue
from benchmarks.pages import put
from limits.derived import FLUSH_S
from tests.servers import Installation, Valkey

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
CONNECTIONS = 32
HASHING = 8  # logins at once: more would wait longer for their hash than the gateway lets them
BUSIEST = 0.12 * 1.5 / 3600  # of a day's requests, in each second of its busiest minute: 12 % of them come in one hour
UTILIZATION = 0.5  # of a core, in that minute
NODE_GB, FULL = 32, 0.6  # memory of a master, and the part of it that data may take
LOGINS, MINTS, OTHERS, ROOMS, STAYS_DAILY = 0.3, 3.0, 15.0, 0.2, 3.0  # of an active user on a day
LEDGER_DAYS, LEDGER = 40, "sl:1:{all}:*"  # of each day another key, all in one slot
WEBHOOK_PARTS = 5  # equal parts of its work in Redis: the queue, and the accounts of installation, user, owner and room
AUDIT_US = 4.0  # of Redis, for an entry of the audit trail
ZSET = 1_000_000  # members of the top list in which writes are timed
YEAR = date(2027, 1, 1)  # on each of whose days top lists have other names, and so other slots
RANKED = {
    "api": OTHERS,
    "tokens.mint": MINTS,
    "login": LOGINS,
    "rooms.create": ROOMS,
    "minutes": STAYS_DAILY,
    "owned": STAYS_DAILY,
}
"""Counters with top lists, and how often an active user adds to each on a day."""
QUIET = 2.0  # a load average above it makes requests look dearer than they are


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of request: how often an active user sends it on a day, and the CPU that one costs, in us."""

    name: str
    daily: float
    gateway_us: float = 0.0
    redis_us: float = 0.0


KINDS = [
    Kind("login with a password", LOGINS),
    Kind("refresh of a session", 4.0),
    Kind("join token", MINTS),
    Kind("any other request, such as `GET /api/rooms/{id}`", OTHERS),
    Kind("new room", ROOMS),
    Kind("webhook, stored and credited", 2.0 * STAYS_DAILY),
]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a number of accounts needs, of whom a number is active on a day. Sizes are in GB."""

    accounts: int
    active: int
    per_s: float
    gateway_cores: float
    redis_cores: float
    gb: float  # with the archive, which lets Redis forget old months
    gb_without: float
    gb_of_all: float  # of these, in keys that all users share
    gb_of_ledger: float  # of these, in the ledger of the installation
    days: list[list[Shared]]  # the keys that all users share, by day
    most_stays: float  # on a day, at which the ledger alone fills a master as far as data may


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
    """Return how long Redis takes for one write to a top list of a million users, in us: the median of five rounds."""
    most, found = int(2 * OTHERS), []
    with valkey.client() as client:
        for at in range(0, ZSET, 10_000):  # in the evening, when the counts of many users are equal
            client.zadd("top", {f"u{n:020}": random.randint(1, most) for n in range(at, at + 10_000)})
        for _ in range(5):
            client.config_resetstat()
            with client.pipeline(transaction=False) as pipe:
                for _ in range(20_000):
                    pipe.zincrby("top", 1, f"u{random.randrange(ZSET):020}")
                pipe.execute()
            found.append(float(client.info("commandstats")["cmdstat_zincrby"]["usec_per_call"]))
        client.delete("top")
    return statistics.median(found)


def plan(accounts: int, active: int, kinds: list[Kind], weighs: Footprint, zincrby_us: float) -> Plan:
    """Compute what the busiest minute of a day needs, and what all users weigh."""
    per_s = {kind: active * kind.daily * BUSIEST for kind in kinds}
    monthly = min(accounts, 3 * active)
    stays = active * STAYS_DAILY * LEDGER_DAYS
    gateway_cores = sum(rate * kind.gateway_us for kind, rate in per_s.items()) / 1e6 / UTILIZATION
    redis_cores = sum(rate * kind.redis_us for kind, rate in per_s.items()) / 1e6 / UTILIZATION

    ids, names = accounts * weighs.indexed_id, accounts * weighs.indexed_name
    webhooks = Service(kinds[-1].redis_us, per_s[kinds[-1]] / WEBHOOK_PARTS)
    always = [
        Shared("ui:1", ids),
        Shared("ni:1", names),
        Shared("ra:1", monthly * weighs.indexed_room),
        Shared(LEDGER, stays * weighs.stay_of_all, webhooks),
        Shared("wh:1", 0, webhooks),
        Shared("audit:1", 0, Service(AUDIT_US, active * MINTS * BUSIEST)),
    ]
    workers = math.ceil(gateway_cores)

    def lists(day: date) -> Iterator[Shared]:
        for counter, daily in RANKED.items():
            rate = active * daily * BUSIEST
            batches = min(rate, workers / FLUSH_S)
            writes = Service(zincrby_us * rate / batches, batches)
            yield Shared(f"tp:1:{day}:{counter}.ok", active * min(1, daily) * weighs.ranked, writes)
            yield Shared(f"tp:1:{day:%Y-%m}:{counter}.ok", monthly * weighs.ranked, writes)

    days = [[*always, *lists(YEAR + timedelta(day))] for day in range(365)]
    of_all = sum(one.size for one in days[0])
    of_lists = sum(one.size for one in days[0][len(always) :])
    users = accounts * weighs.account + monthly * (1.5 * weighs.session + weighs.room) + stays * weighs.stay
    gb, gb_without = ((users + of_lists + months * monthly * weighs.month) / 1e9 for months in (2, 13))
    most_stays = NODE_GB * FULL * 1e9 / (LEDGER_DAYS * weighs.stay_of_all)
    sizes = gb, gb_without, of_all / 1e9, stays * weighs.stay_of_all / 1e9
    return Plan(accounts, active, sum(per_s.values()), gateway_cores, redis_cores, *sizes, days, most_stays)


@dataclass(frozen=True, slots=True)
class Masters:
    """What the simulation found of the masters: the fullest and the busiest of a year; waits (p99) in ms."""

    count: int
    in_parts: bool  # the ledger of the installation, because no master has room for it
    fullest: float  # of its memory
    against_mean: float
    used: float  # of a core, by the busiest
    used_by_lists: float  # of a core, by the two largest top lists
    wait_ms: float
    hot_used: float
    hot_wait_ms: float
    lost_share: float
    refused: float
    after_peak: float
    after_wait_ms: float


def simulate(of: Plan, kinds: list[Kind], options: argparse.Namespace) -> Masters:
    """Simulate the masters in the busiest minute of each day of a year."""
    users, days, in_parts = Users(options.seed, options.sample), of.days, False
    size, shared_parts = (of.gb - of.gb_of_all) * 1e9, 2
    least = max(3, math.ceil(of.gb / (NODE_GB * FULL)), math.ceil(of.redis_cores))
    if (count := needed(least, NODE_GB * FULL * 1e9, users, size, days)) is None:
        # In parts, it lies evenly, as users do.
        days, in_parts, shared_parts = [[one for one in day if one.key != LEDGER] for day in days], True, 1
        size += of.gb_of_ledger * 1e9
        count = needed(least, NODE_GB * FULL * 1e9, users, size, days)
    if count is None:
        raise ValueError("no number of masters has room for the keys that all users share")
    all_asked, load = _of_users(of, kinds, shared_parts), users.load(count)
    placed = place(count, users, size, sum(one.us * one.per_s for one in all_asked) / 1e6, days)
    asked = _part(all_asked, load[placed.busiest])
    used, waits = queue(options.seed, asked, placed.writes, requests=options.requests)
    crowd = Service(next(kind.redis_us for kind in kinds if kind.name == "join token"), options.crowd / 60)
    hot_used, hot_waits = queue(options.seed, asked, [*placed.writes, crowd], requests=options.requests)
    lost = _part(all_asked, max(load))
    gone = outage(options.seed, lost, options.outage, requests=options.requests)
    lists = sorted((one.used for one in days[0] if one.key.startswith("tp:")), reverse=True)
    mean = of.gb * 1e9 / count
    return Masters(
        count,
        in_parts,
        placed.fullest / (NODE_GB * 1e9),
        placed.fullest / mean,
        used,
        sum(lists[:2]),
        p99_ms(waits),
        hot_used,
        p99_ms(hot_waits),
        max(load),
        gone.refused,
        gone.first_second / sum(one.per_s for one in lost),
        p99_ms(gone.waits),
    )


def _of_users(of: Plan, kinds: list[Kind], shared_parts: int) -> list[Service]:
    """Return what users ask of the masters that have their keys: of a webhook, all but the parts in shared keys."""
    daily = [*(kind.daily for kind in kinds[:-1]), kinds[-1].daily * (1 - shared_parts / WEBHOOK_PARTS)]
    return [Service(kind.redis_us, of.active * n * BUSIEST) for kind, n in zip(kinds, daily, strict=True)]


def _part(asked: list[Service], share: float) -> list[Service]:
    return [Service(one.us, one.per_s * share) for one in asked]


def tables(kinds: list[Kind], weighs: Footprint, zincrby_us: float, options: argparse.Namespace) -> str:
    """Return what the page shows: costs, sizes, and the plans with their masters."""
    plans = [
        plan(options.accounts, int(options.accounts * share), kinds, weighs, zincrby_us) for share in options.active
    ]
    masters = [simulate(one, kinds, options) for one in plans]
    lines = ["| request | per active user and day | gateway, CPU us | Redis, CPU us |", "|---|---|---|---|"]
    lines += [f"| {kind.name} | {kind.daily:g} | {kind.gateway_us:.0f} | {kind.redis_us:.0f} |" for kind in kinds]
    lines += ["", "| in Redis, indices included | bytes |", "|---|---|"]
    lines += [f"| {footprint.MEANS[name]} | {size:.0f} |" for name, size in asdict(weighs).items()]
    lines.append("")

    def row(name: str, values: Iterable[str]) -> None:
        lines.append("| " + " | ".join([name, *values]) + " |")

    parts = (", with the ledger in parts (not built)" if one.in_parts else "" for one in masters)
    heads = (f"{one.active:,} active on a day{more}" for one, more in zip(plans, parts, strict=True))
    row(f"{options.accounts:,} accounts", heads)
    lines.append("|---|" + "---|" * len(plans))
    row("requests per second, in the busiest minute", (f"{one.per_s:,.0f}" for one in plans))
    row(f"cores of gateways, {UTILIZATION:.0%} used", (f"{one.gateway_cores:.1f}" for one in plans))
    row(f"cores of Redis, {UTILIZATION:.0%} used", (f"{one.redis_cores:.2f}" for one in plans))
    row("memory of Redis with the archive, GB", (f"{one.gb:.0f}" for one in plans))
    row("memory of Redis without it, GB", (f"{one.gb_without:.0f}" for one in plans))
    row("of these in keys that all users share, GB", (f"{one.gb_of_all:.1f}" for one in plans))
    row("of these in the installation's ledger of stays, GB", (f"{one.gb_of_ledger:.1f}" for one in plans))
    row("stays on a day, in millions", (f"{one.active * STAYS_DAILY / 1e6:.1f}" for one in plans))
    fits = f"for which the ledger fits on one master, {FULL:.0%} full, in millions"
    row(f"most stays on a day {fits}", (f"{one.most_stays / 1e6:.1f}" for one in plans))
    row(f"most people active on a day {fits}", (f"{one.most_stays / STAYS_DAILY / 1e6:.1f}" for one in plans))
    row(f"masters of {NODE_GB} GB, at most {FULL:.0%} full, with the archive", (str(one.count) for one in masters))
    row("how full the fullest master gets in a year", (f"{one.fullest:.0%}" for one in masters))
    row("the fullest master against the mean", (f"{one.against_mean:.2f}" for one in masters))
    row(
        "share of its core that the busiest master uses, on the worst day of a year",
        (f"{one.used:.1%}" for one in masters),
    )
    row("share of a core used by the two largest top lists", (f"{one.used_by_lists:.1%}" for one in masters))
    row("wait at the busiest master, p99, ms", (f"{one.wait_ms:.2g}" for one in masters))
    crowd = f"use and wait there while {options.crowd:,} people enter one room in a minute"
    row(crowd, (f"{one.hot_used:.1%}, {one.hot_wait_ms:.2g} ms" for one in masters))
    row(f"a master is gone for {options.outage:g} s: users affected", (f"{one.lost_share:.1%}" for one in masters))
    row("answers 503 meanwhile", (f"{one.refused:,.0f}" for one in masters))
    row(
        "requests in the first second after it, compared with a normal second",
        (f"{one.after_peak:.1f}" for one in masters),
    )
    row("wait in that second, p99, ms", (f"{one.after_wait_ms:.2g}" for one in masters))
    lines += ["", f"A write to a top list of {ZSET:,} users takes Redis {zincrby_us:.1f} us."]
    lines[-1] += f" Each wait is the 99th percentile of {options.requests:,} simulated requests, seed {options.seed}."
    return "\n".join(lines)


def main() -> None:
    options = _parser().parse_args()
    begun, load = time.monotonic(), os.getloadavg()[0]
    if load > QUIET:
        print(f"warning: load average {load:.1f}: requests will look dearer than they are", file=sys.stderr)
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
    measured = f"{machine()}, {load:.1f} at the start"
    report = f"{tables(kinds, weighs, zincrby_us, options)} {measured}."
    print(report)
    if options.write:
        begin = "<!-- measured: written by `python -m benchmarks.scale --write` -->\n"
        put(PAGE, report, begin=begin, end="<!-- end -->")
    print(f"took {time.monotonic() - begun:.0f} s", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
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
    parser.add_argument("--requests", type=int, default=1_000_000, help="requests of each simulation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="short rounds, to try the benchmark itself")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scaling.md")
    return parser


if __name__ == "__main__":
    main()

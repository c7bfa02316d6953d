"""How much memory one worker needs, and whether it grows: join tokens of very many users.

    .venv/bin/python -m benchmarks.memory [--requests 300000] [--users 20000]

Prints the resident memory of the worker after the start and after each third of the requests.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import uvloop

from auth.accounts import Accounts
from auth.keys import KeyRing
from auth.passwords import Passwords
from auth.sessions import Sessions
from auth.tokens import MOST_TTL_S, LoginTokens
from benchmarks.http import policy, rss_mib
from benchmarks.load import request_of, send_each
from gateway.redis.store import Store, connect
from tests.servers import Installation

CONNECTIONS, ROOMS, PARTS = 64, 200, 3


async def log_in(running: Installation, users: int) -> list[str]:
    """Return login tokens of new users, written straight to Redis: logins would take an argon2 hash each."""
    store = Store(connect(running.valkey.url), deadline_s=5)
    keys = [running.env["GATEWAY_SECRET"]]
    passwords = Passwords()
    accounts, sessions = Accounts(store.execute, passwords), Sessions(store.execute, KeyRing(keys, "refresh"))
    tokens = LoginTokens(KeyRing(keys, "login-token"), ttl_s=MOST_TTL_S)

    async def one(number: int) -> str:
        grant = await sessions.open(await accounts.add(f"user-{number}", None, roles=["host"]))
        return tokens.issue(grant.principal, auth_time=grant.auth_time)

    issued: list[str] = []
    for first in range(0, users, CONNECTIONS):
        issued += await asyncio.gather(*map(one, range(first, min(first + CONNECTIONS, users))))
    await store.close()
    passwords.close()
    return issued


def mints(running: Installation, tokens: list[str]) -> Iterator[bytes]:
    """Yield one join token's request after another without end, of every user in turn, each in one of 200 rooms."""
    rooms = []
    for token in tokens[:ROOMS]:
        with running.client(token) as client:
            rooms.append(client.post("/api/rooms", json={}).json()["room"]["id"])
    pairs = zip(tokens, itertools.cycle(rooms), strict=False)
    return itertools.cycle(
        [request_of("POST", f"/api/rooms/{room}/token", token=token, body=b"{}") for token, room in pairs]
    )


async def measure(running: Installation, *, users: int, requests: int) -> None:
    pid = running.gateway.process.pid if running.gateway.process else 0
    print(f"after the start: {rss_mib(pid):.1f} MiB", flush=True)
    sent, todo = 0, mints(running, await log_in(running, users))
    for _ in range(PARTS):
        part = itertools.islice(todo, requests // PARTS)
        load = await send_each(running.port, part, connections=CONNECTIONS)
        if set(load.statuses) != {200}:
            raise RuntimeError(f"the gateway answered {load.statuses}, not 200")
        sent += len(load.latencies)
        print(f"after {sent:,} requests: {rss_mib(pid):.1f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--requests", type=int, default=300_000)
    parser.add_argument("--users", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Installation(Path(folder), policy=policy(), real=True) as running:
        uvloop.run(measure(running, users=options.users, requests=options.requests))


if __name__ == "__main__":
    main()

"""How much memory Redis needs for a user, a month of their use, a stay and a room.

Writes them as the gateway does, and measures their memory:

.venv/bin/python -m benchmarks.footprint [--users 2000]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import uvloop

from auth.accounts import Accounts
from auth.keys import KeyRing
from auth.passwords import Passwords
from auth.sessions import Sessions
from gateway.metering.events import Stay
from gateway.metering.stays import Stays
from gateway.policy.file import load_policy
from gateway.redis.store import Store, connect
from gateway.rooms import keys
from gateway.rooms.room import Room, words_of
from limits.derived import Derived
from limits.limiter import Limiter
from limits.metered import CONFIRMED
from limits.policy import Charge
from tests.servers import Valkey

DAYS, STAYS, PEOPLE = 8, 8, 4  # days on which a user is active in a month, their stays in it, people in a session
RANKED = 100_000  # members of the top list whose cost is measured
START_MS = 1_793_541_600_000  # 2026-11-01T14:00:00Z
_MINUTE_MS, _DAY_MS = 60_000, 86_400_000


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes in Redis, indices included; `MEANS` says of what."""

    account: float
    session: float
    month: float
    stay: float
    room: float
    indexed_id: float
    indexed_name: float
    indexed_room: float
    stay_of_all: float
    ranked: float


MEANS = {
    "account": "an account with a password",
    "session": "a session",
    "month": f"a month of counters, {DAYS} days active",
    "stay": f"a stay in a room, {PEOPLE} people in a session, in all ledgers and counters",
    "room": "a room",
    "indexed_id": "of an account, in the index of all users",
    "indexed_name": "of an account, in the index of all names",
    "indexed_room": "of a room, in the index of all rooms",
    "stay_of_all": "of a stay, in the ledger of the installation",
    "ranked": "a user in one top list of a day or month",
}


@asynccontextmanager
async def _weighing(store: Store, found: dict[str, float], name: str, count: int) -> AsyncIterator[None]:
    before = await _used(store)
    yield
    found[name] = (await _used(store) - before) / count


async def _used(store: Store) -> int:
    reply = await store.execute("INFO", "memory")
    text = reply.decode() if isinstance(reply, bytes) else str(reply)
    return int(next(line for line in text.splitlines() if line.startswith("used_memory:")).partition(":")[2])


async def measure(url: str, *, users: int) -> Footprint:
    """Write users with what belongs to them; return how much memory each part takes. Redis must be empty."""
    store = Store(connect(url), deadline_s=30)
    execute, found = store.execute, dict[str, float]()
    passwords = Passwords()
    hashed = await passwords.hash(secrets.token_urlsafe(12))
    accounts, sessions = Accounts(execute, passwords), Sessions(execute, KeyRing([secrets.token_hex(32)], "refresh"))
    async with _weighing(store, found, "account", users):
        people = [await accounts.add(f"person-{n:06}", None, roles=["member"]) for n in range(users)]
        for one in people:  # as if each had a hash of their own, which would take a day
            await execute("HSET", f"u:1:{{{one.id}}}", "password", hashed)
    for name, key in ("indexed_id", "ui:1"), ("indexed_name", "ni:1"):
        found[name] = await execute("MEMORY", "USAGE", key, "SAMPLES", 0) / users
    async with _weighing(store, found, "session", users):
        for one in people:
            await sessions.open(one, address="203.0.113.7", agent="Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0")
    uids = [one.id for one in people]
    async with _weighing(store, found, "month", users):
        await _use(store, uids)
    async with _weighing(store, found, "stay", users * STAYS):
        await _stay(store, uids)
    ledgers = [key async for key in _keys(store, "sl:1:{all}:*")]
    sizes = [await execute("MEMORY", "USAGE", key, "SAMPLES", 0) for key in ledgers]
    found["stay_of_all"] = sum(sizes) / (users * STAYS)
    async with _weighing(store, found, "room", users):
        for uid in uids:
            names = "Weekly stand-up", "", "open", "default", uid
            room = Room(secrets.token_hex(12), *names, True, START_MS, uid, upstream="weekly-stand-up." + "0" * 26)
            await execute("HSET", keys.room(room.id), *words_of(room))
            for index in (keys.rooms_of(uid), keys.ALL_ROOMS):
                await execute("ZADD", index, room.created_ms, room.id)
    found["indexed_room"] = await execute("MEMORY", "USAGE", keys.ALL_ROOMS, "SAMPLES", 0) / users
    for at in range(0, RANKED, 1000):
        members = [(n, f"u{n:020}") for n in range(at, at + 1000)]
        await execute("ZADD", "ranked", *itertools.chain.from_iterable(members))
    found["ranked"] = await execute("MEMORY", "USAGE", "ranked", "SAMPLES", 0) / RANKED
    await store.close()
    passwords.close()
    return Footprint(**{one.name: found[one.name] for one in fields(Footprint)})


async def _use(store: Store, uids: list[str]) -> None:
    """Let every user log in, call the API and mint join tokens on some days of a month."""
    clock = {"us": 0}
    limiter = Limiter(store.execute, script_clock=lambda: clock["us"])
    role = load_policy(None).roles["member"]
    charges = {name: Charge(limit) for name, limit in role.limits.items()}
    api, mint = charges["api"], charges["tokens.mint"]
    for day in range(DAYS):
        clock["us"] = (START_MS + day * 3 * _DAY_MS) * 1000
        for at in range(0, len(uids), 100):
            takes = []
            for uid in uids[at : at + 100]:
                takes += [limiter.take(uid, [], metric="login"), limiter.take(uid, [api], metric="api")]
                takes.append(limiter.take(uid, [api, mint], metric="tokens.mint"))
            await asyncio.gather(*takes)


async def _stay(store: Store, uids: list[str]) -> None:
    """Credit stays of every user, of a quarter of an hour, in sessions of a few people, on some days of a month."""
    draw, stays = random.Random(1), Stays(store.execute, Derived(store.execute, lambda *words: None))
    for number in range(STAYS):
        draw.shuffle(uids)
        joined_ms = START_MS + number * 3 * _DAY_MS
        credited = []
        for group in _groups(uids):
            room, session = secrets.token_hex(12), secrets.token_hex(12)
            for uid in group:
                peer = secrets.token_hex(16)
                left_ms = joined_ms + 15 * _MINUTE_MS
                credited.append(Stay(room, session, peer, uid, "guest", joined_ms, left_ms, CONFIRMED, left_ms))
        await stays.credit(credited)


def _groups(uids: list[str]) -> Iterator[list[str]]:
    for at in range(0, len(uids), PEOPLE):
        yield uids[at : at + PEOPLE]


async def _keys(store: Store, pattern: str) -> AsyncIterator[bytes]:
    cursor = b"0"
    while True:
        cursor, found = await store.execute("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
        for key in found:
            yield key
        if cursor == b"0":
            return


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.footprint", description=__doc__)
    parser.add_argument("--users", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Valkey(Path(folder)) as valkey:
        found = uvloop.run(measure(valkey.url, users=options.users))
    for one in fields(Footprint):
        print(f"{getattr(found, one.name):6.0f} bytes: {MEANS[one.name]}")


if __name__ == "__main__":
    main()

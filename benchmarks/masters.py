"""Simulates the masters of a Redis Cluster: where keys lie, how full and busy each is, how long requests wait.

Slots are those of Redis, shared out among the masters in equal ranges. Each master is one queue that serves requests
in their order.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from redis.crc import key_slot

SLOTS = 16_384
MOST = 1000  # masters of a cluster that Redis recommends at most
_APART = 1000  # between the seeds of the streams of one simulation


@dataclass(frozen=True, slots=True)
class Service:
    """What a server is asked: us of one request, and how many come in a second."""

    us: float
    per_s: float


@dataclass(frozen=True, slots=True)
class Shared:
    """A key that all users share: its bytes, and the writes to it."""

    key: str
    size: float
    writes: Service = Service(0.0, 0.0)

    @property
    def used(self) -> float:
        """The part of a core that the writes take."""
        return self.writes.us * self.writes.per_s / 1e6


class Users:
    """Where users lie, by a sample of random ids, and what each does: the busiest hundredth of them a tenth of all."""

    def __init__(self, seed: int, sample: int) -> None:
        draw = random.Random(seed)
        self._count, self._load = [0.0] * SLOTS, [0.0] * SLOTS
        for _ in range(sample):
            slot = key_slot(f"u:1:{{u{draw.getrandbits(80):020x}}}".encode())
            self._count[slot] += 1 / sample
            self._load[slot] += draw.lognormvariate(0, 1)
        self._sum = sum(self._load)

    def placed(self, masters: int) -> list[float]:
        """Return the share of users on each master."""
        return _by_master(self._count, masters)

    def load(self, masters: int) -> list[float]:
        """Return the share of users' requests on each master."""
        return [one / self._sum for one in _by_master(self._load, masters)]


def _by_master(by_slot: Sequence[float], masters: int) -> list[float]:
    found = [0.0] * masters
    for slot, value in enumerate(by_slot):
        found[home(slot, masters)] += value
    return found


def home(slot: int, masters: int) -> int:
    """Return the master that has a slot."""
    return slot * masters // SLOTS


def slot_of(key: str) -> int:
    """Return the slot of a key."""
    return key_slot(key.encode())


@dataclass(frozen=True, slots=True)
class Placed:
    """The masters on the days on which one is fullest and busiest."""

    masters: int
    fullest: float  # bytes
    busiest: int  # a master
    used: float  # of its core
    writes: tuple[Service, ...]  # to the shared keys that it has


def place(masters: int, users: Users, size: float, cores: float, days: Sequence[Sequence[Shared]]) -> Placed:
    """Place what users have (bytes), what they do (cores) and, for each of some days, the keys that all share."""
    sizes = [share * size for share in users.placed(masters)]
    used = [share * cores for share in users.load(masters)]
    fullest, busiest = 0.0, (0.0, 0, tuple[Service, ...]())
    for shared in days:
        keys: dict[int, list[Shared]] = {}
        for one in shared:
            keys.setdefault(home(slot_of(one.key), masters), []).append(one)
        for master in range(masters):
            here = keys.get(master, [])
            fullest = max(fullest, sizes[master] + sum(one.size for one in here))
            at = used[master] + sum(one.used for one in here)
            if at > busiest[0]:
                busiest = at, master, tuple(one.writes for one in here if one.used)
    return Placed(masters, fullest, busiest[1], busiest[0], busiest[2])


def needed(least: int, most_bytes: float, users: Users, size: float, days: Sequence[Sequence[Shared]]) -> int | None:
    """Return how many masters keep the fullest below so many bytes, on all days; None if no number does."""
    worst = max(sum(one.size for one in shared if one.key == key) for shared in days for key in {o.key for o in shared})
    if worst > most_bytes:
        return None
    for masters in range(least, MOST + 1):
        if place(masters, users, size, 0.0, days).fullest <= most_bytes:
            return masters
    return None


def queue(
    seed: int, asked: Sequence[Service], others: Sequence[Service] = (), *, requests: int
) -> tuple[float, list[float]]:
    """Let one server serve what it is asked and, in between, others.

    Returns how much of its time it works, and the waits in seconds of `requests` of what it is asked: the same ones
    with any others, so that two simulations differ by the others alone.
    """
    streams = [_arrivals(seed, asked, counts=True)]
    if others:
        streams += [_arrivals(seed + _APART * n, [one], counts=False) for n, one in enumerate(others, 1)]
    at = free = busy = 0.0
    waits: list[float] = []
    for at, takes, counts in heapq.merge(*streams):
        if counts:
            waits.append(max(0.0, free - at))
        free, busy = max(free, at) + takes, busy + takes
        if len(waits) == requests:
            break
    return busy / at, waits


def _arrivals(seed: int, asked: Sequence[Service], *, counts: bool) -> Iterator[tuple[float, float, bool]]:
    """Yield when requests come, at random, and what each takes, in seconds."""
    draw, rate, at = random.Random(seed), sum(one.per_s for one in asked), 0.0
    takes, bounds = [one.us / 1e6 for one in asked], list(accumulate(one.per_s for one in asked))
    while True:
        at += draw.expovariate(rate)
        yield at, draw.choices(takes, cum_weights=bounds)[0] if len(takes) > 1 else takes[0], counts


@dataclass(frozen=True, slots=True)
class Outage:
    """What a master that is gone leads to: answers 503, requests in the first second after it, and their waits."""

    refused: float
    first_second: float
    waits: list[float]


def outage(seed: int, asked: Sequence[Service], lasts_s: float, *, requests: int) -> Outage:
    """Let a master be gone: what is refused meanwhile comes again after Retry-After (1 s, up to 10 % more).

    Repeats it until so many requests have come in the first second after it; returns means, and all their waits.
    """
    draw, times = random.Random(seed), 0
    refused, waits = 0, list[float]()
    while len(waits) < requests:
        times += 1
        served: list[tuple[float, float]] = []
        for at, takes, _ in _arrivals(draw.getrandbits(64), asked, counts=True):
            if at >= lasts_s + 1:
                break
            while at < lasts_s:
                refused += 1
                at += 1 + draw.random() / 10
            if at < lasts_s + 1:
                served.append((at, takes))
        free = lasts_s
        for at, takes in sorted(served):
            waits.append(max(0.0, free - at))
            free = max(free, at) + takes
    return Outage(refused / times, len(waits) / times, waits)


def p99_ms(waits: list[float]) -> float:
    """Return the 99th percentile of waits in seconds, in ms."""
    return sorted(waits)[int(len(waits) * 0.99)] * 1000

"""A master of Redis dies or hangs, and a replica takes its place: in a cluster, and behind Sentinels."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.chaos.conftest import start
from tests.chaos.table import Row
from tests.chaos.trial import AFTER_S, AWAY, Expected, Trial, in_thread
from tests.servers import Installation, Valkey, wait_until
from tests.topologies import Cluster, Watched, is_master

pytestmark = pytest.mark.alone

TIMEOUT_MS = 1000
LAG_S = 0.25  # what a master has answered in so long before it died may have reached no replica
MAY_LOSE = "what had not reached a replica"
_OWN = ("me", "usage")  # requests that need one user's keys alone
_LOST_MASTER = r"Redis at \S+ is unavailable"

Promoted = Callable[[], bool]


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, Cluster]]:
    cluster = Cluster(tmp_path_factory.mktemp("nodes"), timeout_ms=TIMEOUT_MS)
    with start(tmp_path_factory.mktemp("clustered"), valkey=cluster) as running:  # type: ignore[arg-type]
        yield running, cluster


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, Watched]]:
    watched = Watched(tmp_path_factory.mktemp("servers"), timeout_ms=TIMEOUT_MS)
    with start(tmp_path_factory.mktemp("watched"), valkey=watched) as running:  # type: ignore[arg-type]
        yield running, watched


async def promotion(others: Sequence[Valkey]) -> float:
    """Wait until one of these is a master that was none; return how long that took."""
    begun = time.monotonic()
    before = [one for one in others if await asyncio.to_thread(is_master, one)]
    while not [one for one in others if one not in before and await asyncio.to_thread(is_master, one)]:
        assert time.monotonic() < begun + 20, "no replica was promoted"
        await asyncio.sleep(0.01)
    return time.monotonic() - begun


async def lose(trial: Trial, victim: Valkey, servers: Sequence[Valkey], *, hang: bool) -> float:
    """Kill a master, or freeze it; return how long it takes until a replica is promoted."""
    await trial.calm(1)
    waiting = asyncio.create_task(promotion([one for one in servers if one is not victim]))
    await asyncio.sleep(0.3)
    trial.strike()
    struck = time.monotonic()
    await in_thread(victim.pause if hang else victim.kill)
    while not waiting.done():  # a request that fails for want of this master may have been counted by another one
        trial.moment()
        await asyncio.wait([waiting], timeout=0.2)
    await waiting
    took_s = time.monotonic() - struck
    trial.repair()
    while time.monotonic() < trial.repaired + AFTER_S:
        await trial.calm(0.25)
        trial.moment()
    return took_s


async def bring_back(victim: Valkey, is_well: Promoted, *, hang: bool) -> None:
    await in_thread(victim.resume if hang else victim.start)
    await in_thread(lambda: wait_until(is_well, "the former master is a replica"))


async def trial_of_cluster(clustered: tuple[Installation, Cluster], write: Row, *, hang: bool) -> None:
    own, cluster = clustered
    async with Trial(own) as trial:
        [scarce] = trial.crowd.of_role("scarce")  # whose limit must not be exceeded
        victim = cluster.master_of(f"{{{scarce.id}}}")
        theirs = {one.id for one in trial.crowd.people if cluster.master_of(f"{{{one.id}}}") is victim}
        took_s = await lose(trial, victim, cluster.nodes, hang=hang)
    try:
        await check_cluster(trial, theirs, took_s, write)
    finally:
        await bring_back(victim, lambda: not is_master(victim) and cluster.is_whole(), hang=hang)


async def check_cluster(trial: Trial, theirs: set[str], took_s: float, write: Row) -> None:
    others = [one for one in trial.load.results if one.ask.action in _OWN and one.ask.who not in theirs]
    assert len(others) > 50
    assert [one for one in others if not one.succeeded] == [], "users of the other masters notice nothing"
    measured = await trial.check(expected(_LOST_MASTER, trial.installation))
    write(measured, may_lose=MAY_LOSE, took_s=took_s)


async def trial_of_sentinels(watched: tuple[Installation, Watched], write: Row, *, hang: bool) -> None:
    own, servers = watched
    async with Trial(own) as trial:
        victim = servers.master
        took_s = await lose(trial, victim, servers.servers, hang=hang)
    try:
        measured = await trial.check(expected("Redis is unavailable", own))
        write(measured, may_lose=MAY_LOSE, took_s=took_s)
    finally:
        await bring_back(victim, lambda: not is_master(victim), hang=hang)


def expected(error: str, own: Installation) -> Expected:
    """Return what clients may see. A request asks Redis several times, and each may wait for a new connection."""
    return Expected(codes=AWAY, seen=("503 unavailable",), lost_s=LAG_S, slowest_s=6.0, errors={error: 4 * own.workers})


async def test_master_of_a_cluster_is_killed(clustered: tuple[Installation, Cluster], row: Row) -> None:
    """`kill -9` of one of three masters; its replica is promoted {took_s:.1f} s later, and times are from then"""
    await trial_of_cluster(clustered, row, hang=False)


async def test_master_of_a_cluster_hangs(clustered: tuple[Installation, Cluster], row: Row) -> None:
    """SIGSTOP of one of three masters; its replica is promoted {took_s:.1f} s later, and times are from then"""
    await trial_of_cluster(clustered, row, hang=True)


async def test_master_behind_sentinel_is_killed(watched: tuple[Installation, Watched], row: Row) -> None:
    """`kill -9` of the master; a replica is promoted {took_s:.1f} s later, and times are from then"""
    await trial_of_sentinels(watched, row, hang=False)


async def test_master_behind_sentinel_hangs(watched: tuple[Installation, Watched], row: Row) -> None:
    """SIGSTOP of the master; a replica is promoted {took_s:.1f} s later, and times are from then"""
    await trial_of_sentinels(watched, row, hang=True)

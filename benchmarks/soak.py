"""Minutes of mixed load on a whole installation: nothing may grow, be lost, or answer otherwise than documented.

    make soak                 # 10 minutes
    make soak SECONDS=60

It has parts, each with twenty new people, who log in, refresh, create rooms, join, invite and are administered (the
mix of `make chaos`), while 100ms reports stays, consoles watch, the policy is rewritten, and 100ms fails now and
then. After each part everything that was answered is compared with what is stored, half of its people are deleted, and
its rooms end. Prints a line for each part, then a table; exits with 1 if a bound is broken. It needs Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.http import machine
from tests.chaos import answers, people
from tests.chaos.crowd import Crowd, gather
from tests.chaos.ledger import Doubt, Ledger
from tests.chaos.load import Ask, Load, Result
from tests.e2e.people import strike
from tests.e2e.workers import group_of
from tests.servers import HOST, Installation

WARM = 2  # parts that are not compared: caches fill up
RATE = 80  # requests a second
CONSOLES = 4
FAULTS = ("status=500", "reset", "garbage", "delay=2")
UPSTREAM = frozenset({"upstream_error", "upstream_timeout", "upstream_busy"})
# What a machine that is too slow for the load may lead to. The table shows how often.
OVERLOAD = frozenset({"busy", "unavailable", "idempotency_conflict"})
CLOSED = "closed"  # a connection that was idle for 5 s, at the moment at which its client used it
MOST_GROWTH_KIB = 16 * 1024  # of each process, from the end of the warm parts to the end
MOST_FILES = 16  # more than after the warm parts, of all processes
MOST_CLIENTS = 8  # of Redis, more than after the warm parts
# Keys that never expire, of which there is one for each user or room. Of others there are a few in all.
LASTING = dict.fromkeys(("u", "un", "uc", "ur", "dn", "op"), "user") | dict.fromkeys(("rc", "rm", "rr"), "room")
FEW = 40


@dataclass(frozen=True, slots=True)
class Part:
    """What was measured in one part."""

    requests: int
    p50_ms: float
    p99_ms: float
    refused: Counter[str]
    kib: dict[str, int]  # resident memory, by process
    files: int
    redis_mib: float
    keys: int
    clients: int
    events: int  # that consoles got


@dataclass(slots=True)
class Soak:
    """The run: what was measured, and every bound that was broken."""

    own: Installation
    part_s: float
    count: int
    parts: list[Part] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    users: int = 0
    rooms: int = 0
    _events: int = 0
    _reloads: int = 0

    async def run(self) -> None:
        for number in range(self.count):
            crowd = await gather(self.own)
            load = Load(self.own.port, crowd.asks(), crowd.notice, rate=RATE)
            await load.open()
            for ask in crowd.opening():
                await load.ask(ask)
            async with self._disturbed(crowd, load.results):
                load.start()
                await asyncio.sleep(self.part_s)
            await load.stop()
            await self._settle(number, crowd, load)
            await load.close()
            await asyncio.sleep(0.5)  # the gateway closes them, too, and they are not counted
            part = self._measure(load.results)
            self.parts.append(part)
            place = f"{number + 1:2}/{self.count}"
            memory = ", ".join(f"{name} {kib / 1024:.0f}" for name, kib in part.kib.items())
            print(
                f"{place}  {part.requests} requests, p50 {part.p50_ms:.1f}, p99 {part.p99_ms:.1f} ms;"
                f" MiB: {memory}, Redis {part.redis_mib:.1f} with {part.keys} keys; {part.files} files",
                flush=True,
            )
        self.broken += judge(self.parts)
        self._check_keys()
        self._check_log()

    @contextlib.asynccontextmanager
    async def _disturbed(self, crowd: Crowd, results: list[Result]) -> AsyncIterator[None]:
        """Let consoles watch, the policy change and 100ms fail, for the time of the context."""
        [operator] = crowd.of_role("operator")
        tasks = [asyncio.create_task(self._watch(operator, results)) for _ in range(CONSOLES)]
        tasks += [asyncio.create_task(self._reload()), asyncio.create_task(self._fail())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.to_thread(self.own.mend_upstream)  # a fault may wait for a call
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                self.broken.append(f"a disturbance failed: {outcome!r}")

    async def _watch(self, who: people.Person, results: list[Result]) -> None:
        """Read the live view, anew after a while, as a page does that is left and opened."""
        path = "/api/admin/live"
        while True:
            result = Result(Ask("admin", "GET", path, path, who.id, who.token), due=time.monotonic())
            results.append(result)
            reader, writer = await asyncio.open_connection(HOST, self.own.port)
            try:
                writer.write(result.ask.encoded())
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                result.done, result.status = time.monotonic(), int(first.split(" ")[1])
                result.fields = dict(line.split(": ", 1) for line in lines if line)
                if result.status != 200:
                    result.body = await reader.readexactly(int(result.fields["content-length"]))
                    await asyncio.sleep(1)
                    continue
                async with asyncio.timeout(max(2.5, self.part_s / 4)):
                    while line := await reader.readline():
                        self._events += line.startswith(b"event: overview")
                self.broken.append("a console's stream ended")
            except TimeoutError:
                pass
            finally:
                writer.close()

    async def _reload(self) -> None:
        path = Path(self.own.env["GATEWAY_POLICY"])
        while True:
            await asyncio.sleep(max(1.0, self.part_s / 4))
            self._reloads += 1
            await asyncio.to_thread(path.write_text, f"{people.POLICY}\n# {self._reloads}\n")

    async def _fail(self) -> None:
        for number in range(sys.maxsize):
            await asyncio.sleep(max(0.5, self.part_s / 6))
            await asyncio.to_thread(strike, self.own, FAULTS[number % len(FAULTS)], match="/v2/rooms")

    async def _settle(self, number: int, crowd: Crowd, load: Load) -> None:
        """Compare the answers with what is stored, and end what this part has made."""
        self.users += len(crowd.people) + len(crowd.added)
        for result in tuple(load.results):
            if problem := unexpected(result):
                self.broken.append(f"part {number + 1}: {problem}")
        try:
            await self._finish(crowd, load)
            # What was refused because Redis was silent, or not answered, may have taken effect, but once.
            doubtful = [one.done for one in load.results if one.code == "unavailable" or not one.status]
            await Ledger(self.own, crowd, load, Doubt(doubtful)).check()
        except AssertionError as error:
            self.broken.append(f"part {number + 1}: {str(error).splitlines()[0]}")
        [admin] = crowd.of_role("admin")
        created = [one for one in load.results if one.ask.action == "create" and one.status == 201]
        made = {one.json()["room"]["id"] for one in created}
        self.rooms += len(made)
        for room in made:
            path, route = f"/api/rooms/{room}/end", "/api/rooms/{room_id}/end"
            await self._expect(load, Ask("end", "POST", route, path, token=admin.token, body={"lock": True}), 202)
        for person in crowd.people[::2]:
            if person is not admin:
                path, route = f"/api/admin/users/{person.id}", "/api/admin/users/{user}"
                await self._expect(load, Ask("delete", "DELETE", route, path, token=admin.token), 204)

    async def _finish(self, crowd: Crowd, load: Load) -> None:
        until = time.monotonic() + 10
        while crowd.unfinished:
            assert time.monotonic() < until, "what clients repeat does not succeed"
            for ask in tuple(crowd.repetitions()):
                await load.ask(ask)
            await asyncio.sleep(0.1)

    async def _expect(self, load: Load, ask: Ask, status: int) -> None:
        answer = await load.ask(ask)
        if answer.lost == CLOSED:
            answer = await load.ask(ask)
        if answer.status != status and answer.code not in OVERLOAD:
            self.broken.append(f"{answer} {answer.body[:200]!r}")

    def _measure(self, results: Sequence[Result]) -> Part:
        took_ms = [result.took_ms for result in results if result.status]
        cuts = statistics.quantiles(took_ms, n=100)
        refused = Counter(f"{result.status} {result.code}" for result in results if not result.succeeded)
        with self.own.valkey.client() as redis:
            used = int(redis.info("memory")["used_memory"])
            clients, keys = int(redis.info("clients")["connected_clients"]), int(redis.dbsize())
        pids, kib = processes(self.own), {}
        for name, pid in pids.items():
            kib[name] = resident_kib(pid)
        files = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids.values())
        events, self._events = self._events, 0
        return Part(len(results), cuts[49], cuts[98], refused, kib, files, used / 2**20, keys, clients, events)

    def _check_keys(self) -> None:
        """Keys that never expire are as many as the users and rooms that there are, or a few."""
        most = {"user": self.users + 10, "room": self.rooms + 10}
        with self.own.valkey.client() as redis:
            lasting = Counter(key.decode().split(":")[0] for key in redis.scan_iter(count=1000) if redis.ttl(key) == -1)
        print("keys without a lifetime:", ", ".join(f"{name} {count}" for name, count in sorted(lasting.items())))
        for name, count in lasting.items():
            per = most[LASTING[name]] if name in LASTING else FEW
            if count > per:
                self.broken.append(f"{count} keys {name}:… never expire; at most {per} are expected")

    def _check_log(self) -> None:
        for line in self.own.gateway.output().splitlines():
            if '"traceback"' in line or '"level":"critical"' in line:
                self.broken.append(f"the log says {line[:300]}")

    def table(self) -> Table:
        table = Table(title=f"{self.count} parts of {self.part_s:.0f} s, {self._reloads} changes of the policy")
        names = [*self.parts[0].kib]
        for name in ("part", "requests", "p50 ms", "p99 ms", *(f"{name} MiB" for name in names)):
            table.add_column(name, justify="right")
        for name in ("files", "Redis MiB", "keys", "clients", "events", "not 2xx"):
            table.add_column(name, justify="right")
        for number, part in enumerate(self.parts, 1):
            memory = [f"{part.kib[name] / 1024:.1f}" for name in names]
            refused = ", ".join(f"{count} {name}" for name, count in part.refused.most_common())
            cells = (number, part.requests, f"{part.p50_ms:.1f}", f"{part.p99_ms:.1f}", *memory, part.files)
            table.add_row(*map(str, (*cells, f"{part.redis_mib:.1f}", part.keys, part.clients, part.events, refused)))
        return table


def unexpected(result: Result) -> str:
    """Return what is wrong with an answer; empty if it is documented, and expected here."""
    if not result.status:
        return "" if result.lost == CLOSED else f"{result}: no answer"
    try:
        answers.check(result)
    except (AssertionError, KeyError) as error:
        return f"{result} is not documented: {error}"
    if result.succeeded or (result.code == "rate_limited" and result.ask.action == "limited"):
        return ""
    expected = OVERLOAD | UPSTREAM if result.ask.action == "create" else OVERLOAD
    return "" if result.code in expected else f"{result} {result.body[:200]!r}"


def judge(parts: Sequence[Part]) -> list[str]:
    """Return the bounds that are broken by what grew since the warm parts."""
    warm, last = parts[WARM - 1], parts[-1]
    broken = []
    if warm.kib.keys() != last.kib.keys():
        broken.append("a process has ended, and another one was started")
    for name in warm.kib.keys() & last.kib.keys():
        if (grown := last.kib[name] - warm.kib[name]) > MOST_GROWTH_KIB:
            broken.append(f"the memory of {name} has grown by {grown} KiB; {MOST_GROWTH_KIB} are allowed")
    for what, more, most in (
        ("open files", last.files - warm.files, MOST_FILES),
        ("clients of Redis", last.clients - warm.clients, MOST_CLIENTS),
    ):
        if more > most:
            broken.append(f"{more} more {what}; {most} are allowed")
    if not all(part.events for part in parts):
        broken.append("consoles got no events")
    return broken


def processes(own: Installation) -> dict[str, int]:
    """Return the process ids of the gateway that stay: the one that supervises, and its workers."""
    assert own.gateway.process is not None
    supervisor = own.gateway.process.pid
    workers = [pid for pid in sorted(group_of(own)) if pid != supervisor and "resource_tracker" not in _command(pid)]
    return {"supervisor": supervisor} | {f"worker {number}": pid for number, pid in enumerate(workers, 1)}


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def resident_kib(pid: int) -> int:
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="of load (default: 600)")
    parser.add_argument("--parts", type=int, default=10, help="to divide it into, three or more (default: 10)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        own = Installation(Path(folder), workers=2, policy=people.POLICY, real=True)
        people.settings(own)
        with own:
            soak = Soak(own, options.seconds / options.parts, options.parts)
            asyncio.run(soak.run())
    Console(width=None if sys.stdout.isatty() else 240).print(soak.table())
    total = sum(part.requests for part in soak.parts)
    print(f"{total} requests, {soak.users} users, {soak.rooms} rooms. {machine()}.")
    for line in soak.broken[:20]:
        print(f"broken: {line}")
    print("All bounds hold." if not soak.broken else f"{len(soak.broken)} bounds are broken.")
    sys.exit(1 if soak.broken else 0)


if __name__ == "__main__":
    main()

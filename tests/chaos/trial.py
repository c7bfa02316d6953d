"""One fault under load: what clients see before, during and after it, and what is left of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from tests.chaos import answers
from tests.chaos.crowd import MIX, Crowd, gather
from tests.chaos.ledger import Doubt, Ledger
from tests.chaos.load import CONNECTIONS, RATE, UNASKED, Load, Result
from tests.chaos.processes import Vitals, vitals_of, workers_of
from tests.servers import Installation

RECOVERED_S = 2.0  # after a fault; then every request must succeed
CALM_S = 0.7  # before a fault
AFTER_S = RECOVERED_S + 0.5
EVERYTHING = frozenset(MIX) - {"live"}
# Of all processes together. A trial without a fault takes 1 to 2 MiB: caches of tokens and people fill up. This is less
# than 16 KiB for each of the thousand requests that fail in the longest outage.
MOST_GROWTH_KIB = 12 * 1024
KEPT_FILES = 4  # of a worker: connections to 100ms, which it keeps for the next calls; so many creates run at once
_PATIENT_S = {"add": 3.0, "admin": 2.5}  # an account waits for the disk, reports longer than decisions
_IN_LIMITS = "rate_limited"


DOWN = ("503 unavailable", "503 not ready")
"""What clients must be answered then: /health/ready tells it too."""
AWAY = ("unavailable", "not ready", "idempotency_conflict")
"""What clients may be answered while Redis is away; the last one while the attempt before still holds the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a fault may do to clients. Everything else must succeed.

    `codes`: of problems, `not ready` for that of /health/ready. `seen`: what must have failed, as the table names it;
    without it a fault without an effect would pass. `actions`: which may fail. `may_break`: connections
    break without an answer; `may_refuse`: none are accepted. `lost_s`: what was answered in so many seconds before the
    fault may be lost. `more_admitted`: by each limit. `errors`: what the log must say, and how often at most.
    `slowest_s`: until a failure is answered. `worker_died`: then others process its events, after ten seconds.
    """

    codes: Collection[str] = ()
    seen: Collection[str] = ()
    actions: Collection[str] = EVERYTHING
    may_break: bool = False
    may_refuse: bool = False
    lost_s: float = 0.0
    more_admitted: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    slowest_s: float = 1.0
    worker_died: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """What a trial showed. Times in seconds after the fault ended; None: nothing failed, or nothing was affected."""

    answered: int
    failed: dict[str, int]
    first_success_s: float
    last_failure_s: float | None
    grown_kib: int
    lost: int
    p99_ms: dict[str, tuple[float, float]]  # of each action: before the fault, and during it


class Trial:
    """A load on an installation, as a context; `strike` and `repair` mark when the fault begins and ends.

    The load goes on for `AFTER_S` after `repair`, in which `check` looks for failures.
    """

    def __init__(self, installation: Installation, *, port: int = 0) -> None:
        self.installation = installation
        self.doubt = Doubt()
        self.struck = self.repaired = 0.0
        self._port = port or installation.port
        self._said = 0

    async def __aenter__(self) -> Trial:
        self._said = len(self.installation.gateway.output())
        self.crowd: Crowd = await gather(self.installation)
        self.before: Vitals = vitals_of(self.installation)
        self.load = Load(self._port, self.crowd.asks(), self.crowd.notice)
        await self._connect()
        for ask in self.crowd.opening():
            await self.load.ask(ask)
        self.load.start()
        return self

    async def _connect(self) -> None:
        """Connect to one worker while the others are stopped: the kernel would give one of them nearly all."""
        workers = workers_of(self.installation) if self._port == self.installation.port else []
        for one in workers or [0]:
            others = [pid for pid in workers if pid != one]
            for pid in others:
                os.kill(pid, signal.SIGSTOP)
            try:
                await self.load.open(CONNECTIONS // max(1, len(workers)))
            finally:
                for pid in others:
                    os.kill(pid, signal.SIGCONT)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            await self.load.abandon()
            return
        if self.repaired:
            await self.calm(self.repaired + AFTER_S - time.monotonic())
        await self.load.stop()

    async def calm(self, seconds: float = CALM_S) -> None:
        """Let the load go on."""
        await asyncio.sleep(seconds)

    def strike(self) -> None:
        """Note that the fault begins. What is under way and fails may or may not have taken effect."""
        self.struck = time.monotonic()
        self.moment()

    def moment(self) -> None:
        """Note that the fault strikes now, for the first time or again."""
        self.doubt.moments.append(time.monotonic())

    def repair(self) -> None:
        """Note that the fault has ended."""
        self.repaired = time.monotonic()
        self.moment()

    async def check(self, expected: Expected) -> Measured:
        """Check everything that holds for every fault, and return what was measured."""
        try:
            return await self._check(expected)
        finally:
            await self.load.close()

    async def _check(self, expected: Expected) -> Measured:
        results = tuple(self.load.results)
        failed = [result for result in results if not result.succeeded and result.code != _IN_LIMITS]
        self._check_rate(results)
        self._check_answers(results, failed, expected)
        first_s, last_s = self._check_recovery(results, failed, expected)
        grown_kib = await self._check_vitals()
        ledger = Ledger(
            self.installation, self.crowd, self.load, self.doubt, expected.more_admitted, expected.worker_died
        )
        self.doubt.lost_s = expected.lost_s
        await self._repeat()
        await ledger.check()
        self._check_log(results, expected)
        seen = Counter(_name(result) for result in failed)
        assert set(expected.seen) <= set(seen), f"the fault caused only {dict(seen)}"
        return Measured(len(results), dict(seen), first_s, last_s, grown_kib, ledger.lost, self._latencies(results))

    def _check_rate(self, results: tuple[Result, ...]) -> None:
        took_s = self.load.ended - self.load.begun
        sent = sum(1 for result in results if result.due >= self.load.begun)
        late_s = statistics.quantiles([result.sent - result.due for result in results], n=100)[98]
        assert sent / took_s >= RATE * 0.99, f"{sent / took_s:.0f} requests a second"
        assert late_s < 1, f"the client was late by {late_s:.2f} s"

    def _check_answers(self, results: tuple[Result, ...], failed: list[Result], expected: Expected) -> None:
        assert not UNASKED
        for result in results:
            if result.status:
                answers.check(result)
            if result.code == _IN_LIMITS:
                assert result.ask.action == "limited", result
        for result in failed:
            assert result.done >= self.struck, f"{result}, {self.struck - result.done:.3f} s before the fault"
            assert result.ask.action in expected.actions or not result.status, (
                f"{result}, {result.done - self.struck:.3f} s after the fault"
            )
            slowest_s = max(expected.slowest_s, _PATIENT_S.get(result.ask.action, 0))
            assert result.done - result.sent < slowest_s, f"{result} took {result.done - result.sent:.2f} s"
            if result.status:
                assert (result.code or "not ready") in expected.codes, f"{result} {result.body!r}"
            elif result.was_sent:
                broken = expected.may_break and any(at - 0.05 <= result.done <= at + 0.5 for at in self.doubt.moments)
                assert broken, f"{result}, {result.done - self.struck:.3f} s after the fault"
            else:
                assert expected.may_refuse, f"{result}, {result.done - self.struck:.3f} s after the fault"

    def _check_recovery(
        self, results: tuple[Result, ...], failed: list[Result], expected: Expected
    ) -> tuple[float, float | None]:
        """Return when the first request succeeded and the last one failed, of those sent after the fault had ended."""
        after = [result.sent for result in results if result.sent >= self.repaired and result.succeeded]
        affected = [
            result.done
            for result in results
            if result.sent >= self.repaired and result.succeeded and result.ask.action in expected.actions
        ]
        assert after, "nothing was answered after the fault"
        assert max(after) > self.repaired + RECOVERED_S, "nothing was answered so late that it must have succeeded"
        assert affected, "nothing that the fault concerns was answered after it"
        first_s = min(affected) - self.repaired
        late = [result for result in failed if result.sent >= self.repaired]
        last_s = max((result.done for result in late), default=None)
        said = Counter(_name(result) for result in late)
        assert first_s <= RECOVERED_S, f"the first success came {first_s:.2f} s after the fault"
        if last_s is not None:
            last_s -= self.repaired
            assert last_s <= RECOVERED_S, f"the last failure came {last_s:.2f} s after the fault: {dict(said)}"
        return first_s, last_s

    async def _repeat(self) -> None:
        """Repeat what clients and 100ms repeat until it succeeds."""
        until = time.monotonic() + 5
        while self.crowd.unfinished:
            assert time.monotonic() < until, "what clients repeat does not succeed"
            for ask in tuple(self.crowd.repetitions()):
                await self.load.ask(ask)
            await asyncio.sleep(0.05)

    def log(self) -> list[dict[str, Any]]:
        """Return what the gateway has said since the load began."""
        return [json.loads(line) for line in self.installation.gateway.output()[self._said :].splitlines()]

    def _check_log(self, results: tuple[Result, ...], expected: Expected) -> None:
        """The log has every answer; it names an outage once for each worker and store, and says nothing unexpected."""
        lines = self.log()
        logged = {line.get("request_id") for line in lines}
        for result in results:
            if result.ask.action in ("ready", "live"):
                continue  # these are not logged
            dead = expected.worker_died and self.doubt.covers(result)
            assert not result.status or dead or result.fields["x-request-id"] in logged, f"not in the log: {result}"
        assert not (bad := [line for line in lines if "traceback" in line]), bad[:2]
        said: Counter[str] = Counter()
        for line in lines:
            if line["level"] in ("error", "critical"):
                kind = next((one for one in expected.errors if re.search(one, line["message"])), None)
                assert kind, line
                said[kind] += 1
        for kind, most in expected.errors.items():
            assert 1 <= said[kind] <= most, f"{kind}: {said[kind]} lines"

    async def _check_vitals(self) -> int:
        """Check that files are closed and memory is given back; return by how many KiB it has grown.

        Before the ledger is checked: its long lists take more memory than any fault.
        """
        await self.load.close()
        until = time.monotonic() + 5
        most = self.before.files + KEPT_FILES * self.installation.workers
        while (now := vitals_of(self.installation)).files > most and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert now.files <= most, f"{now.files} open files, {self.before.files} before"
        grown_kib = now.memory_kib - self.before.memory_kib
        assert grown_kib <= MOST_GROWTH_KIB, f"{grown_kib} KiB more"
        return grown_kib

    def _latencies(self, results: tuple[Result, ...]) -> dict[str, tuple[float, float]]:
        found = {}
        for action in MIX:
            mine = [one for one in results if one.ask.action == action and one.due >= self.load.begun]
            found[action] = (
                _p99([one.took_ms for one in mine if one.done < self.struck]),
                _p99([one.took_ms for one in mine if self.struck <= one.due < max(self.repaired, self.struck + 1)]),
            )
        return found


def _p99(took_ms: list[float]) -> float:
    return statistics.quantiles(took_ms, n=100, method="inclusive")[98] if len(took_ms) > 1 else 0.0


def _name(result: Result) -> str:
    """Return how a failure is named in the table."""
    if result.status:
        return f"{result.status} {result.code or 'not ready'}"
    return result.lost if result.lost == "refused" else "no answer"


async def in_thread(work: Callable[[], Any]) -> None:
    """Do what blocks without stopping the load."""
    await asyncio.to_thread(work)


async def warm(installation: Installation) -> None:
    """Put an installation under load for the first time, so that the memory that it needs for that is not new later.

    So many accounts are added that each worker reads its list of common passwords.
    """
    async with Trial(installation) as trial:
        await trial.calm()
        await asyncio.gather(*map(trial.load.ask, trial.crowd.newcomers(CONNECTIONS)))
    await trial.load.close()


def unavailable(installation: Installation) -> dict[str, int]:
    """Return what the log says while Redis is away: at most one line for each store of each worker."""
    return {"Redis is unavailable": 2 * installation.workers}

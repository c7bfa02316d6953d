"""The limiter: several limits, one atomic decision, all charged or none, the usage counted in the same call."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Any

from .periods import Day, day_of
from .policy import Charge, Clock, Decision, LimitState

Execute = Callable[..., Awaitable[Any]]
"""Sends one Redis command given as its words, returns the reply (bytes, int, list or None)."""

Guard = tuple[str, str, str]
"""(key, field, expected value) of a hash that must hold for anything to be charged."""

KEEP_COUNTERS_MS = 400 * 86_400_000  # a report reaches back 366 days; months are dropped whole
AMEND_WINDOW_US = 60 * 1_000_000  # the longest request lives 5 s; older amendments are mistakes

_TAKE = files(__package__).joinpath("take.lua").read_text()
_AMEND = files(__package__).joinpath("amend.lua").read_text()


class Limiter:
    """Charges limits of a subject and counts what it did.

    `wall_clock` only says which day's counter keys to hand to the script, which then picks by the clock of Redis, so
    a worker whose clock is off by less than a day still counts on the right one. `script_clock` replaces the clock of
    Redis itself, in tests.
    """

    def __init__(self, execute: Execute, *, wall_clock: Clock | None = None, script_clock: Clock | None = None) -> None:
        self._execute = execute
        self._script_clock = script_clock
        self._wall_clock = wall_clock or script_clock or (lambda: time.time_ns() // 1000)
        self._ids = map(f"{secrets.token_hex(8)}{{:x}}".format, itertools.count())

    async def take(
        self, subject: str, charges: Sequence[Charge], *, metric: str = "", guards: Sequence[Guard] = ()
    ) -> Decision:
        """Charge every limit, or none, and count the request under `metric` as ok or denied.

        All guards must live in the subject's own cluster slot. A guard that does not hold stops everything before
        anything is evaluated or written; see `Decision.failed_guard`. A charge that costs 0 only looks.

        One round trip. Whatever `execute` raises passes through: then nothing is known, and nothing may be retried.
        """
        today = day_of(self._wall_clock())
        tomorrow = day_of(today.end_us)
        keys = [f"rl:1:{{{subject}}}", *_counter_keys("uc", subject, today, tomorrow)]
        keys += _counter_keys("dn", subject, today, tomorrow)
        args: list[str | int] = [self._script_now(), len(charges), metric, today.field, today.end_us, tomorrow.field]
        args.append(KEEP_COUNTERS_MS)
        for charge in charges:
            args += (charge.limit.id, charge.limit.emission_us, charge.limit.burst, charge.cost)
        for key, field, expected in guards:
            keys.append(key)
            args += (field, expected)
        reply = await self._execute("EVAL", _TAKE, len(keys), *keys, *args)
        return self._decision(subject, metric, tuple(charges), reply)

    async def peek(self, subject: str, charges: Sequence[Charge], *, guards: Sequence[Guard] = ()) -> Decision:
        """Return the state of the charges' limits; charge and count nothing."""
        return await self.take(subject, [Charge(charge.limit, 0) for charge in charges], guards=guards)

    async def amend(self, decision: Decision, outcome: str, *, refund: bool) -> bool:
        """Move an allowed decision's count from ok to `outcome` (`failed`, `refused.<code>`); give units back if asked.

        Happens at most once per decision and only within a minute of it; returns whether it did. A limit whose number
        changed meanwhile is refunded at the number it was charged under.

        Raises:
            ValueError: the decision was a denial: nothing had been charged.
        """
        if not decision.allowed:
            raise ValueError("a denied decision charged nothing that could be amended")
        day = day_of(decision.now_us)
        subject = decision.subject
        keys = [f"rl:1:{{{subject}}}", f"uc:1:{{{subject}}}:{day.month}", f"uc:1:{{{subject}}}:all"]
        keys.append(f"rf:1:{{{subject}}}")
        args: list[str | int] = [self._script_now(), decision.id, decision.now_us, AMEND_WINDOW_US]
        args += (day.field, decision.metric, outcome)
        if refund:
            for charge in decision.charges:
                if charge.cost:
                    args += (charge.limit.id, charge.cost)
        return bool(await self._execute("EVAL", _AMEND, len(keys), *keys, *args))

    def _script_now(self) -> str | int:
        return self._script_clock() if self._script_clock else ""

    def _decision(self, subject: str, metric: str, charges: tuple[Charge, ...], reply: list[bytes]) -> Decision:
        status = int(reply[0])
        if status < 0:
            return Decision("", subject, metric, 0, False, (), charges, failed_guard=-status - 1)
        numbers = [int(word) for word in reply[1:]]
        states = tuple(
            LimitState(charge.limit, numbers[at] == 1, *numbers[at + 1 : at + 4])
            for charge, at in zip(charges, range(1, len(numbers), 4), strict=True)
        )
        return Decision(next(self._ids), subject, metric, numbers[0], status == 1, states, charges)


def _counter_keys(kind: str, subject: str, today: Day, tomorrow: Day) -> tuple[str, str, str]:
    stem = f"{kind}:1:{{{subject}}}:"
    return stem + today.month, stem + tomorrow.month, stem + "all"

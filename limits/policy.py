"""Limits as values, and their arithmetic. No I/O.

The arithmetic is GCRA (the generic cell rate algorithm, ITU-T I.371) in integer microseconds: a limit is an emission
interval `T` and a capacity `burst`; its whole state is one theoretical arrival time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

US_PER_S = 1_000_000
_UNITS_S = {"s": 1, "sec": 1, "min": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}
_RATE = re.compile(r"([1-9][0-9]{0,8})\s*/\s*([1-9][0-9]{0,3})?\s*(s|sec|min|h|hour|d|day)")
# Lua numbers are doubles: now_us (1.8e15) + burst * T must stay far below 2**53 (9.0e15). Ten years leave that room.
MAX_REFILL_US = 10 * 366 * 86400 * US_PER_S


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit: `count` units every `period_us`, of which `burst` may be spent at once.

    Guarantee: at most `burst` units in an instant and at most `burst + d / emission_us` in any interval of d
    microseconds.

    Raises:
        ValueError: a number is out of range; the text names the rule.
    """

    id: str
    count: int
    period_us: int
    burst: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_.-]{0,39}", self.id):
            raise ValueError("a limit's name is 1 to 40 of a-z 0-9 _ . -, starting with a letter")
        if self.count < 1 or self.period_us < 1:
            raise ValueError("rate must be at least one unit per period")
        if self.burst < 1:
            raise ValueError("burst must be at least 1")
        if self.period_us < self.count:
            raise ValueError("rate is finer than one unit per microsecond")
        if self.burst * self.emission_us > MAX_REFILL_US:
            raise ValueError("burst takes more than ten years to refill")

    @property
    def emission_us(self) -> int:
        """T: microseconds until one spent unit is back, rounded up so that the rate is never exceeded."""
        return -(-self.period_us // self.count)

    @property
    def window_s(self) -> int:
        """Whole seconds in which an empty bucket refills: the `w` of the RateLimit-Policy header."""
        return -(-self.burst * self.emission_us // US_PER_S)

    @property
    def rate(self) -> str:
        """The rate as it is written in a policy file, e.g. `10/h`."""
        for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
            times, rest = divmod(self.period_us, seconds * US_PER_S)
            if not rest:
                return f"{self.count}/{unit if times == 1 else f'{times}{unit}'}"
        return f"{self.count}/{self.period_us}us"


def parse_rate(text: str) -> tuple[int, int]:
    """Read a rate such as `120/min`, `10/h` or `100/10min` as (count, period in microseconds).

    Raises:
        ValueError: not of that form.
    """
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"rate {text!r} is not of the form 120/min, 10/h or 100/10min (units: s, min, h, d)")
    count, times, unit = match.groups()
    return int(count), int(times or 1) * _UNITS_S[unit] * US_PER_S


def most_generous(limits: list[Limit]) -> Limit:
    """Combine one limit's numbers from several roles: the fastest rate and the largest burst, each on its own."""
    fastest = max(limits, key=lambda limit: limit.count / limit.period_us)
    return Limit(fastest.id, fastest.count, fastest.period_us, max(limit.burst for limit in limits))


@dataclass(frozen=True, slots=True)
class Charge:
    """Units asked of one limit. A cost of 0 is a peek."""

    limit: Limit
    cost: int = 1

    def __post_init__(self) -> None:
        if self.cost < 0:
            raise ValueError("a cost cannot be negative; refunds go through Limiter.amend")


@dataclass(frozen=True, slots=True)
class LimitState:
    """One limit as a decision left it. Times are microseconds.

    `retry_us` is 0 where the limit allowed the request, and -1 where no waiting can help (cost above burst).
    """

    limit: Limit
    allowed: bool
    remaining: int
    retry_us: int
    full_again_us: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What one `Limiter.take` decided. `now_us` is the clock of Redis, microseconds since the epoch.

    `failed_guard` is the position of the first guard that did not hold; then nothing was evaluated or written and
    `states` is empty.
    """

    id: str
    subject: str
    metric: str
    now_us: int
    allowed: bool
    states: tuple[LimitState, ...]
    charges: tuple[Charge, ...]
    failed_guard: int | None = None

    @property
    def violated(self) -> tuple[LimitState, ...]:
        return tuple(state for state in self.states if not state.allowed)

    @property
    def never(self) -> bool:
        """Whether the request can never pass: it asks more than a limit's whole burst."""
        return any(state.retry_us < 0 for state in self.states)

    @property
    def retry_us(self) -> int:
        """Microseconds until the same request passes, if nothing else is spent: the longest of the violated limits."""
        return max((state.retry_us for state in self.violated), default=0)


Clock = Callable[[], int]
"""Returns microseconds since the epoch."""

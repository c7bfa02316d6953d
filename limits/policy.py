"""Limits, quotas and leases as values, and their arithmetic. No I/O.

The arithmetic of a limit is GCRA (the generic cell rate algorithm, ITU-T I.371) in integer microseconds: a limit is an
emission interval `T` and a capacity `burst`; its whole state is one theoretical arrival time.
"""

import math
import re
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Literal

from msgspec import Struct

from .periods import PERIODS, zone_of

US_PER_S = 1_000_000
_UNITS_S = {"s": 1, "sec": 1, "min": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}
_RATE = re.compile(r"([1-9][0-9]{0,8})\s*/\s*([1-9][0-9]{0,3})?\s*(s|sec|min|h|hour|d|day)")
_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,39}")
# Lua numbers are doubles: now_us (1.8e15) + burst * T must stay far below 2**53 (9.0e15), as ten years do.
MAX_REFILL_US = 10 * 366 * 86400 * US_PER_S
MOST_UNITS = 10**9


class Limit(Struct, frozen=True):
    """One limit: `count` units every `period_us`, of which `burst` may be spent at once.

    Guarantee: at most `burst` units in an instant and at most `burst + d / emission_us` in any interval of d
    microseconds. A `strict` limit refills more slowly, so that no window of `period_us` ever sees more than `count`.
    A `shadow` limit is evaluated and counted, and decides nothing. Raises ValueError if a number is out of range.
    """

    id: str
    count: int
    period_us: int
    burst: int
    strict: bool = False
    shadow: bool = False

    def __post_init__(self) -> None:
        check_name(self.id)
        if self.count < 1 or self.period_us < 1:
            raise ValueError("rate must be at least one unit per period")
        if not 1 <= self.burst <= MOST_UNITS:
            raise ValueError(f"burst must be from 1 to {MOST_UNITS}")
        if self.strict and self.burst >= self.count:
            raise ValueError("a strict limit needs a burst below its count, or nothing would ever refill")
        if self.period_us < self.count:
            raise ValueError("rate is finer than one unit per microsecond")
        if self.burst * self.emission_us > MAX_REFILL_US:
            raise ValueError("burst takes more than ten years to refill")

    @property
    def emission_us(self) -> int:
        """T: microseconds until one spent unit is back, rounded up so that the rate is never exceeded."""
        return -(-self.period_us // (self.count - self.burst if self.strict else self.count))

    @property
    def rate(self) -> str:
        """The rate as it is written in a policy file, e.g. `10/h`."""
        return write_rate(self.count, self.period_us)


class Quota(Struct, frozen=True):
    """At most `amount` admitted requests counted as `counter` per calendar day, ISO week or month of a time zone."""

    id: str
    counter: str
    amount: int
    period: Literal["day", "week", "month"]
    zone: str = "UTC"
    shadow: bool = False
    unit: int = 1  # how many of its counter's one of `amount` is: 60 for minutes that are counted in seconds
    metered: bool = False  # something else counts: a decision asks only whether anything is left, and takes nothing

    def __post_init__(self) -> None:
        check_name(self.id)
        if not 1 <= self.amount <= MOST_UNITS:
            raise ValueError(f"amount must be from 1 to {MOST_UNITS}")
        if self.period not in PERIODS:
            raise ValueError(f"period must be one of: {', '.join(PERIODS)}")
        zone_of(self.zone)

    def is_counter(self, zone: str) -> bool:
        """Tell whether the usage counter itself decides: it has the same periods if its days are those of `zone`."""
        return self.zone == zone and self.period != "week"


class Lease(Struct, frozen=True):
    """At most `most` holders at once. `holder` is the one that asks ('' only reads); a lease ends after `lasts_us`."""

    id: str
    most: int
    lasts_us: int
    holder: str = ""


def check_name(name: str) -> None:
    """Check the name of a limit or quota. Raises: ValueError"""
    if not _NAME.fullmatch(name) or name == "block":
        raise ValueError("a name is 1 to 40 of a-z 0-9 _ . -, starting with a letter, and not `block`")


def parse_rate(text: str) -> tuple[int, int]:
    """Read a rate such as `120/min`, `10/h` or `100/10min` as (count, period in microseconds). Raises: ValueError"""
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"rate {text!r} is not of the form 120/min, 10/h or 100/10min (units: s, min, h, d)")
    count, times, unit = match.groups()
    return int(count), int(times or 1) * _UNITS_S[unit] * US_PER_S


@lru_cache(maxsize=256)
def write_rate(count: int, period_us: int) -> str:
    """Return a rate as `parse_rate` reads it."""
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
        times, rest = divmod(period_us, seconds * US_PER_S)
        if not rest:
            return f"{count}/{unit if times == 1 else f'{times}{unit}'}"
    seconds = period_us // US_PER_S
    return f"{count}/{'' if seconds == 1 else seconds}s"


def most_generous(limits: list[Limit]) -> Limit:
    """Combine one limit's numbers from several roles: the fastest rate and the largest burst, each on its own."""
    fastest = min(limits, key=lambda limit: limit.emission_us)
    burst = max(limit.burst for limit in limits)
    # The refill of a strict limit depends on its burst: a larger burst must not make it slower, so its count follows.
    count = fastest.count + burst - fastest.burst if fastest.strict else fastest.count
    return Limit(fastest.id, count, fastest.period_us, burst, fastest.strict, fastest.shadow)


class Charge(Struct, frozen=True):
    """Units requested from one limit. A cost of 0 only reads."""

    limit: Limit
    cost: int = 1

    def __post_init__(self) -> None:
        if self.cost < 0:
            raise ValueError("a cost cannot be negative; refunds go through Limiter.amend")


class LimitState(Struct, frozen=True):
    """One limit after a decision."""

    limit: Limit
    allowed: bool
    remaining: int
    retry_us: int  # 0 if the limit allowed the request, -1 if waiting cannot help (cost above burst)
    full_again_us: int
    emission_us: int  # in force, like `burst`: an override may differ from `limit`
    burst: int
    override: str = ""  # the rate of an override in force, as it was written

    @property
    def name(self) -> str:
        return self.limit.id

    @property
    def decides(self) -> bool:
        return not self.limit.shadow

    @property
    def rate(self) -> str:
        """The rate in force, as it was written."""
        return self.override or self.limit.rate

    @property
    def window_s(self) -> int:
        """Whole seconds in which an empty bucket refills: the `w` of the RateLimit-Policy header."""
        return -(-self.burst * self.emission_us // US_PER_S)


class QuotaState(Struct, frozen=True):
    """One quota after a decision: `used` of `amount` until `ends_us` (epoch); `retry_us` is 0 if it allowed.

    `counted` is what has been used in the counter's own units, `left` what is left in them; `used` is rounded up and
    `remaining` down to units of the quota. `amount` is the one in force: an override may differ from `quota`.
    """

    quota: Quota
    allowed: bool
    counted: int
    amount: int
    ends_us: int
    retry_us: int
    window_s: int

    @property
    def name(self) -> str:
        return self.quota.id

    @property
    def decides(self) -> bool:
        return not self.quota.shadow

    @property
    def used(self) -> int:
        return -(-self.counted // self.quota.unit)

    @property
    def left(self) -> int:
        return max(0, self.amount * self.quota.unit - self.counted)

    @property
    def remaining(self) -> int:
        return self.left // self.quota.unit


class LeaseState(Struct, frozen=True):
    """The holders of a lease after a decision."""

    lease: Lease
    allowed: bool
    held: int
    retry_us: int  # until the next of them expires
    is_new: bool = False  # given by this decision; an amendment gives back no other, and none is ever extended

    @property
    def name(self) -> str:
        return self.lease.id

    @property
    def decides(self) -> bool:
        return True


class BlockState(Struct, frozen=True):
    """An operator's block of the subject, which ends in `retry_us`."""

    retry_us: int
    name: str = "block"


State = LimitState | QuotaState | LeaseState


class Decision(Struct, frozen=True, dict=True):  # with a dict for what is cached
    """What one `Limiter.take` decided."""

    id: str  # empty where there is nothing to amend: after a failed guard, and after a `peek`
    subject: str
    metric: str
    now_us: int  # by the clock of Redis, since the epoch
    allowed: bool
    limits: tuple[LimitState, ...] = ()
    quotas: tuple[QuotaState, ...] = ()
    leases: tuple[LeaseState, ...] = ()
    block: BlockState | None = None
    charges: tuple[Charge, ...] = ()
    zone: str = "UTC"  # of the day that it was counted on
    failed_guard: int | None = None  # position of the first that did not hold; then nothing was evaluated or written

    @property
    def states(self) -> tuple[State, ...]:
        return (*self.limits, *self.quotas, *self.leases)

    @cached_property  # a denial asks seven times
    def violated(self) -> tuple[State | BlockState, ...]:
        """What denied the request; never a shadow limit."""
        states = tuple(state for state in self.states if not state.allowed and state.decides)
        return (self.block, *states) if self.block else states

    @property
    def worst(self) -> State | BlockState:
        """The one of `violated` with the longest wait, as take.lua picks it: the denial is counted under its name."""
        return max(self.violated, key=lambda state: math.inf if state.retry_us < 0 else state.retry_us)

    @property
    def never(self) -> bool:
        """Whether the request can never pass, because it costs more than a limit's burst."""
        return any(state.retry_us < 0 for state in self.violated)

    @property
    def retry_us(self) -> int:
        """Microseconds until the same request passes if nothing else is spent: the longest wait of what denied it."""
        return max((state.retry_us for state in self.violated), default=0)


Clock = Callable[[], int]
"""Returns microseconds since the epoch."""

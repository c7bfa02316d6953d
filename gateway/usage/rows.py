"""Counters as people read them: minutes instead of seconds, money where there are prices, time zones of days."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, Self

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.policy.model import Prices
from limits.counters import METERED, PEAK, ZONE, Daily, Denied, Failed, Refused, Tally, WouldDeny, tally

_CENT = Decimal("0.01")

Ok = Annotated[float, Meta(description="Requests that succeeded; of `minutes` and `owned`, minutes to two decimals.")]
Seconds = Annotated[
    int | UnsetType, Meta(description="Exact number behind `ok`, only of `minutes` (time in rooms) and `owned`.")
]
Money = Annotated[
    Decimal | UnsetType, Meta(description="Price of these minutes, rounded to cents; only where the policy has prices.")
]
Peak = Annotated[
    int | UnsetType,
    Meta(
        description="Most people at once; only of `minutes` of a room or of all, and of `owned`, where joins were seen."
    ),
]


class Counts(msgspec.Struct):
    """What was counted of one action, by outcome."""

    ok: Ok
    denied: Denied
    refused: Refused
    failed: Failed
    would_deny: WouldDeny
    seconds: Seconds = UNSET

    @classmethod
    def of(cls, action: str, counted: Tally) -> Self:
        outcomes = counted.denied, counted.refused, counted.failed, counted.would_deny
        if action in METERED:
            return cls(minutes_of(counted.ok), *outcomes, counted.ok)
        return cls(counted.ok, *outcomes)


class UsageRow(msgspec.Struct, kw_only=True):
    """What was counted of one action on a day, of a user, in a room, ..., as the report is grouped."""

    date: Annotated[str | UnsetType, Meta(description="Day.")] = UNSET
    month: Annotated[str | UnsetType, Meta(description="Month, e.g. `2026-11`.")] = UNSET
    user_id: Annotated[str | UnsetType, Meta(description="Id of the user.")] = UNSET
    username: Annotated[str | UnsetType, Meta(description="Name of the user; empty if deleted.")] = UNSET
    room_id: Annotated[str | UnsetType, Meta(description="Id of the room.")] = UNSET
    room_name: Annotated[str | UnsetType, Meta(description="Name of the room; empty if not registered.")] = UNSET
    owner_id: Annotated[str | UnsetType, Meta(description="Id of the room's owner; empty if not registered.")] = UNSET
    template: Annotated[str | UnsetType, Meta(description="Template of the rooms.")] = UNSET
    action: Annotated[str, Meta(description="What was counted, e.g. `tokens.mint` or `minutes`.")]
    ok: Ok
    seconds: Seconds = UNSET
    people_peak: Peak = UNSET
    denied: Denied
    refused: Refused
    failed: Failed
    would_deny: WouldDeny
    money: Money = UNSET


class UsageDay(msgspec.Struct):
    """One day of a user or of a room."""

    date: Annotated[str, Meta(description="Day.")]
    usage: Annotated[dict[str, Counts], Meta(description="Counters by action.")]
    people_peak: Annotated[int, Meta(description="Most people at once in the room, or in the rooms of the user.")]


class TopRow(msgspec.Struct):
    """One user of a top list."""

    user_id: Annotated[str, Meta(description="Id of the user.")]
    username: Annotated[str, Meta(description="Name of the user; empty if the account was deleted.")]
    count: Annotated[float, Meta(description="Value of the counter; minutes to two decimals.")]
    seconds: Seconds = UNSET
    money: Money = UNSET


@dataclass(frozen=True, slots=True)
class Zones:
    """The time zones in which days were counted, by day; `now` is that of days without any count."""

    by_day: Mapping[str, tuple[str, ...]]
    now: str

    @classmethod
    def of(cls, totals: Daily, now: str) -> Self:
        """Read them from the totals of all, which name them. Days of an older gateway do not: they are UTC days."""
        return cls({day.isoformat(): _zones(counts, now) for day, counts in totals.items()}, now)

    @property
    def text(self) -> str:
        """The zone of all days; if it was changed between them, each of them, separated by commas."""
        return ", ".join(dict.fromkeys(zone for zones in self.by_day.values() for zone in zones)) or self.now

    def of_day(self, day: str | UnsetType) -> str:
        """Return the zone of a day, which has two if it was changed on it; without a day, that of all days."""
        return ", ".join(self.by_day[day]) if isinstance(day, str) and day in self.by_day else self.text


def _zones(counts: Mapping[str, int], now: str) -> tuple[str, ...]:
    """Return the zones of a day, the present one last."""
    zones = (name.removeprefix(ZONE) for name in counts if name.startswith(ZONE))
    return tuple(sorted(zones, key=lambda zone: (zone == now, zone))) or ("UTC",)


def rows_of(
    counts: dict[str, int], *, action: str | None, prices: Prices | None, keys: dict[str, str]
) -> list[UsageRow]:
    """Return a row per action (all, or only one) of some counters; `keys` are the fields that say what they are of."""
    return [
        UsageRow(
            **keys,
            action=name,
            ok=minutes_of(counted.ok) if name in METERED else counted.ok,
            seconds=counted.ok if name in METERED else UNSET,
            denied=counted.denied,
            refused=counted.refused,
            failed=counted.failed,
            would_deny=counted.would_deny,
            money=money_of(counted.ok, prices) if name in METERED else UNSET,
            people_peak=UNSET,
        )
        for name, counted in sorted(tally(counts.items()).items())
        if action in (None, name)
    ]


def day_of(date: str, counts: dict[str, int]) -> UsageDay:
    return UsageDay(date, shown(tally(counts.items())), counts.get(PEAK, 0))


def shown(tallies: dict[str, Tally]) -> dict[str, Counts]:
    """Return tallies as people read them, by action."""
    return {action: Counts.of(action, counted) for action, counted in sorted(tallies.items())}


def minutes_of(seconds: int) -> float:
    """Return seconds as minutes with two decimals, halves rounded up, without errors of binary fractions."""
    return (seconds * 100 + 30) // 60 / 100


def money_of(seconds: int, prices: Prices | None) -> Decimal | UnsetType:
    """Return what seconds cost, rounded to cents; nothing without prices."""
    if prices is None:
        return UNSET
    return (seconds * prices.per_1000_minutes / 60_000).quantize(_CENT, ROUND_HALF_UP)

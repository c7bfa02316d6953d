"""Totals as JSON: those of a step of time, and their sum."""

from decimal import Decimal
from typing import Annotated, Any, Self

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.overview.totals import Step, Total
from gateway.policy.model import Prices
from gateway.usage.rows import minutes_of, money_of

At = Annotated[
    str,
    Meta(
        description="When the step begins; of a day or month, midnight in `time_zone`, with its offset. "
        "The last step is not over yet.",
        extra_json_schema={"format": "date-time"},
    ),
]


class Sums(msgspec.Struct, kw_only=True):
    """Requests of all users by outcome, and their time in rooms."""

    ok: Annotated[int, Meta(description="Requests that succeeded.")]
    denied: Annotated[int, Meta(description="Requests that a limit denied.")]
    refused: Annotated[int, Meta(description="Requests refused for another reason than a limit.")]
    failed: Annotated[int, Meta(description="Requests that failed because of the server.")]
    minutes: Annotated[float, Meta(description="Time of all people in rooms, in minutes to two decimals.")]
    seconds: Annotated[int, Meta(description="Exact number behind `minutes`.")]
    money: Annotated[
        Decimal | UnsetType, Meta(description="Price of these minutes; only where the policy has prices.")
    ] = UNSET

    @classmethod
    def of(cls, total: Total, prices: Prices | None) -> Self:
        return cls(**_numbers(total, prices))


class Point(Sums, kw_only=True):
    """The sums of one step."""

    at: At

    @classmethod
    def of_step(cls, step: Step, prices: Prices | None) -> Self:
        at, total = step
        return cls(at=at.isoformat().replace("+00:00", "Z"), **_numbers(total, prices))


def _numbers(total: Total, prices: Prices | None) -> dict[str, Any]:
    return {
        "ok": total.ok,
        "denied": total.denied,
        "refused": total.refused,
        "failed": total.failed,
        "minutes": minutes_of(total.seconds),
        "seconds": total.seconds,
        "money": money_of(total.seconds, prices),
    }

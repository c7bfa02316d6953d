"""/api/admin/limits/{user}: one user's limits for the operator."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from gateway.accounts.actor import Actor
from gateway.accounts.limits import Wanted
from gateway.http.access import needs
from gateway.http.context import Call
from gateway.http.problems import Problem
from gateway.routes.schemas import LimitsNow, iso
from gateway.routes.services import Services
from gateway.text import FieldError
from limits.overrides import BLOCK, Override


class Reset(msgspec.Struct, forbid_unknown_fields=True):
    names: Annotated[list[Annotated[str, msgspec.Meta(max_length=40)]], msgspec.Meta(max_length=8)] | None = None


class SetOverride(msgspec.Struct, forbid_unknown_fields=True):
    lasts_s: int
    reason: Annotated[str, msgspec.Meta(max_length=200)]
    name: Annotated[str, msgspec.Meta(max_length=40)] | None = None
    block: bool = False
    rate: Annotated[str, msgspec.Meta(max_length=40)] | None = None
    burst: int | None = None
    amount: int | None = None


class LimitedUser(msgspec.Struct):
    id: str
    username: str
    roles: list[str]


class OneOverride(msgspec.Struct):
    """`rate` and `burst` for a limit, `amount` for a quota, neither for a block."""

    name: str
    block: bool
    until: str
    reason: str
    by: str
    rate: str | msgspec.UnsetType = msgspec.UNSET
    burst: int | msgspec.UnsetType = msgspec.UNSET
    amount: int | msgspec.UnsetType = msgspec.UNSET


class UserLimitsNow(LimitsNow):
    user: LimitedUser
    overrides: list[OneOverride]


class WhatWasUsed(msgspec.Struct):
    used: dict[str, int]


class OverrideSet(msgspec.Struct):
    override: OneOverride


@get("/api/admin/limits/{user:str}", opt=needs("limits.manage", refuses=("not_found",)))
async def show_limits(
    user: FromPath[str],
    request: Call,
    services: NamedDependency[Services],
) -> UserLimitsNow:
    """Show how a user's limits, quotas and leases stand, and what is set for him alone."""
    standing = await services.user_limits.show(user, by=Actor.of(request.user, services.policy.now))
    one = standing.user
    now = LimitsNow.of(standing.decision)
    limited = LimitedUser(one.id, one.username, list(one.roles))
    overrides = [_override(override) for override in standing.overrides]
    return UserLimitsNow(now.limits, now.quotas, now.leases, now.blocked_until, limited, overrides)


@post("/api/admin/limits/{user:str}/reset", opt=needs("limits.manage", refuses=("not_found",)), status_code=200)
async def reset_limits(
    user: FromPath[str],
    data: JSONBody[Reset],
    request: Call,
    services: NamedDependency[Services],
) -> WhatWasUsed:
    """Give a user his limits back, all or the named ones; usage counters stay. Answers what had been used."""
    return WhatWasUsed(
        await services.user_limits.reset(user, data.names, by=Actor.of(request.user, services.policy.now))
    )


@put("/api/admin/limits/{user:str}/override", opt=needs("limits.manage", refuses=("not_found",)))
async def set_override(
    user: FromPath[str],
    data: JSONBody[SetOverride],
    request: Call,
    services: NamedDependency[Services],
) -> OverrideSet:
    """Set other numbers for one limit or quota of a user, or block him, for a while; live with his next request."""
    if data.block == (data.name is not None) or data.name == BLOCK:
        raise FieldError("name", "give the name of a limit or quota, or block: true")
    wanted = Wanted(data.name or BLOCK, data.lasts_s, data.reason, data.rate, data.burst, data.amount)
    return OverrideSet(
        _override(await services.user_limits.override(user, wanted, by=Actor.of(request.user, services.policy.now)))
    )


@delete("/api/admin/limits/{user:str}/override", opt=needs("limits.manage", refuses=("not_found",)), status_code=204)
async def lift_override(
    user: FromPath[str],
    request: Call,
    services: NamedDependency[Services],
    name: Annotated[str, QueryParameter(max_length=40)],
) -> None:
    """Lift the override of one limit or quota (`name`), or the block (`name=*`)."""
    if not await services.user_limits.lift(user, name, by=Actor.of(request.user, services.policy.now)):
        raise Problem(404, "not_found", "Nothing of that name is set for this user.")


def _override(override: Override) -> OneOverride:
    return OneOverride(
        name=override.name,
        block=override.name == BLOCK,
        until=iso(override.until_us / 1_000_000),
        reason=override.reason,
        by=override.by,
        rate=override.rate or msgspec.UNSET,
        burst=override.burst or msgspec.UNSET,
        amount=override.amount or msgspec.UNSET,
    )

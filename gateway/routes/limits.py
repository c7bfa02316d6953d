"""/api/admin/limits/{user}: the limits of one user, for operators."""

from typing import Annotated

import msgspec
from litestar import delete, get, post, put
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta

from gateway.accounts.limits import Reason, SetOverride
from gateway.http.access import needs
from gateway.http.context import Call
from gateway.http.problems import Problem
from gateway.routes.schemas import By, Instant, LimitsNow, Roles, UserId, Username, iso
from gateway.routes.services import Injected, UserInPath
from limits.overrides import BLOCK, Override


class Reset(msgspec.Struct, forbid_unknown_fields=True):
    names: Annotated[
        Annotated[list[Annotated[str, Meta(max_length=40)]], Meta(max_length=8)] | None,
        Meta(description="Names of limits and quotas. Without it: all."),
    ] = None


class LimitedUser(msgspec.Struct):
    id: UserId
    username: Username
    roles: Roles


class OneOverride(msgspec.Struct):
    """Other numbers for one user: `rate` and `burst` of a limit, `amount` of a quota, or a block."""

    name: Annotated[str, Meta(description="Name of the limit or quota; `*` for a block.")]
    block: Annotated[bool, Meta(description="True: every request is denied.")]
    until: Annotated[Instant, Meta(description="When it ends.")]
    reason: Reason
    by: By
    rate: Annotated[str | msgspec.UnsetType, Meta(description="Count per window, e.g. `60/min`.")] = msgspec.UNSET
    burst: Annotated[int | msgspec.UnsetType, Meta(description="Units that can be used at once.")] = msgspec.UNSET
    amount: Annotated[
        int | msgspec.UnsetType, Meta(description="Units per period; minutes, if the quota counts them.")
    ] = msgspec.UNSET


class UserLimitsNow(LimitsNow):
    user: Annotated[LimitedUser, Meta(description="The user.")]
    overrides: Annotated[list[OneOverride], Meta(description="The overrides set for this user.")]


class WhatWasUsed(msgspec.Struct):
    used: Annotated[
        dict[str, int],
        Meta(description="Units used before the reset, by limit or quota; whole minutes of budgets of minutes."),
    ]


class OverrideSet(msgspec.Struct):
    override: Annotated[OneOverride, Meta(description="The override that is now in force.")]


@get("/api/admin/limits/{user:str}", opt=needs("limits.manage", refuses=("not_found",)))
async def show_limits(user: UserInPath, request: Call, services: Injected) -> UserLimitsNow:
    """Return the current state of a user's limits, and their overrides."""
    standing = await services.user_limits.show(user, by=services.actor(request.user))
    one = standing.user
    limited = LimitedUser(one.id, one.username, list(one.roles))
    overrides = [_override(override) for override in standing.overrides]
    return UserLimitsNow.of(standing.decision, user=limited, overrides=overrides)


@post("/api/admin/limits/{user:str}/reset", opt=needs("limits.manage", refuses=("not_found",)), status_code=200)
async def reset_limits(user: UserInPath, data: JSONBody[Reset], request: Call, services: Injected) -> WhatWasUsed:
    """Reset limits and quotas of a user, all or the named ones. Usage counters stay. Returns the units used before."""
    return WhatWasUsed(await services.user_limits.reset(user, data.names, by=services.actor(request.user)))


@put("/api/admin/limits/{user:str}/override", opt=needs("limits.manage", refuses=("not_found",)))
async def set_override(user: UserInPath, data: JSONBody[SetOverride], request: Call, services: Injected) -> OverrideSet:
    """Override one limit or quota of a user, or block them, for some time. Takes effect with their next request."""
    return OverrideSet(_override(await services.user_limits.override(user, data, by=services.actor(request.user))))


@delete("/api/admin/limits/{user:str}/override", opt=needs("limits.manage", refuses=("not_found",)), status_code=204)
async def lift_override(
    user: UserInPath,
    request: Call,
    services: Injected,
    name: Annotated[str, QueryParameter(max_length=40, description="Name of the limit or quota; `*` for a block.")],
) -> None:
    """Remove the override of one limit or quota, or the block (`name=*`)."""
    if not await services.user_limits.lift(user, name, by=services.actor(request.user)):
        raise Problem(404, "not_found", "This user has no override of that name.")


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

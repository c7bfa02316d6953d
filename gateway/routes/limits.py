"""/api/admin/limits/{user}: one user's limits for the operator."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request, delete, get, post, put
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from gateway.admission import Admitted
from gateway.problems import Problem, invalid
from gateway.shapes import iso, limit_states
from gateway.user_limits import BadOverride, UserLimits, Wanted
from limits.overrides import BLOCK, Override

_OPT = {"action": "limits.manage"}


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


@get("/api/admin/limits/{user:str}", opt=_OPT)
async def show_limits(user: FromPath[str], user_limits: NamedDependency[UserLimits]) -> dict[str, Any]:
    """Show how a user's limits, quotas and leases stand, and what is set for him alone."""
    standing = await user_limits.show(user)
    one = standing.user
    return {
        "user": {"id": one.id, "username": one.username, "roles": list(one.roles)},
        **limit_states(standing.decision),
        "overrides": [_override(override) for override in standing.overrides],
    }


@post("/api/admin/limits/{user:str}/reset", opt=_OPT, status_code=200)
async def reset_limits(
    user: FromPath[str],
    data: JSONBody[Reset],
    request: Request[Any, Admitted, State],
    user_limits: NamedDependency[UserLimits],
) -> dict[str, Any]:
    """Give a user his limits back, all or the named ones; usage counters stay. Answers what had been used."""
    try:
        return {"used": await user_limits.reset(user, data.names, by=request.user.uid)}
    except BadOverride as error:
        raise invalid(error.field, error.rule) from error


@put("/api/admin/limits/{user:str}/override", opt=_OPT)
async def set_override(
    user: FromPath[str],
    data: JSONBody[SetOverride],
    request: Request[Any, Admitted, State],
    user_limits: NamedDependency[UserLimits],
) -> dict[str, Any]:
    """Set other numbers for one limit or quota of a user, or block him, for a while; live with his next request."""
    if data.block == (data.name is not None) or data.name == BLOCK:
        raise invalid("name", "give the name of a limit or quota, or block: true")
    wanted = Wanted(data.name or BLOCK, data.lasts_s, data.reason, data.rate, data.burst, data.amount)
    try:
        return {"override": _override(await user_limits.override(user, wanted, by=request.user.uid))}
    except BadOverride as error:
        raise invalid(error.field, error.rule) from error


@delete("/api/admin/limits/{user:str}/override", opt=_OPT, status_code=204)
async def lift_override(
    user: FromPath[str],
    request: Request[Any, Admitted, State],
    user_limits: NamedDependency[UserLimits],
    name: Annotated[str, QueryParameter(max_length=40)],
) -> None:
    """Lift the override of one limit or quota (`name`), or the block (`name=*`)."""
    if not await user_limits.lift(user, name, by=request.user.uid):
        raise Problem(404, "not_found", "Nothing of that name is set for this user.")


def _override(override: Override) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    if override.rate:
        numbers = {"rate": override.rate, "burst": override.burst}
    elif override.amount:
        numbers = {"amount": override.amount}
    return {
        "name": override.name,
        "block": override.name == BLOCK,
        **numbers,
        "until": iso(override.until_us / 1_000_000),
        "reason": override.reason,
        "by": override.by,
    }

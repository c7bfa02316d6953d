"""One user's limits, for the operator: their state, temporary overrides, a block, a reset."""

from __future__ import annotations

import time
from dataclasses import dataclass

from auth.accounts import Accounts
from auth.users import User
from gateway.accounts.actor import Actor
from gateway.audit import Audit
from gateway.policy.live import PolicyInForce
from gateway.text import FieldError, plain_text
from limits.limiter import Limiter
from limits.overrides import BLOCK, Override, Overrides
from limits.policy import Decision, Limit, parse_rate

MOST_OVERRIDE_S = 366 * 86_400


@dataclass(frozen=True, slots=True)
class Wanted:
    """A requested override. `name` is a limit, a quota, or `*` for a block."""

    name: str
    lasts_s: int
    reason: str
    rate: str | None = None
    burst: int | None = None
    amount: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a user's limits, and the overrides set for them."""

    user: User
    decision: Decision
    overrides: list[Override]


@dataclass(repr=False, eq=False)
class UserLimits:
    """Shows and changes one user's limits; every change takes effect with the user's next request.

    Audits changes before it makes them, and a reset afterwards, when the used amounts are known. Actors cannot
    change their own limits, nor those of a user with a power that they do not have: an operator could otherwise lock
    out every admin.
    """

    _accounts: Accounts
    _limiter: Limiter
    _overrides: Overrides
    _policy: PolicyInForce
    _audit: Audit

    async def show(self, user: str, *, by: Actor) -> Standing:
        """Return the state of a user's limits (by name or id) and audit the access. Raises: UnknownUser"""
        one = await self._accounts.lookup(user)
        self._audit.note_reading("limits", by=by.id, subject=one.id)
        charges, quotas = self._policy.now.charges(one.roles, "*"), self._policy.now.quotas(one.roles, "*")
        leases = [self._policy.now.rooms.lease()] if "rooms:create" in self._policy.now.permissions(one.roles) else []
        decision = await self._limiter.peek(one.id, charges, quotas=quotas, leases=leases)
        return Standing(one, decision, await self._overrides.current(one.id))

    async def reset(self, user: str, names: list[str] | None, *, by: Actor) -> dict[str, int]:
        """Reset limits and quotas (None: all of them); return and audit the units that had been used.

        Raises:
            UnknownUser, NotAllowed, FieldError
        """
        one = await self._target(user, by)
        charges, quotas = self._policy.now.charges(one.roles, "*"), self._policy.now.quotas(one.roles, "*")
        known = {charge.limit.id for charge in charges} | {quota.id for quota in quotas}
        for name in names or ():
            if name not in known:
                raise FieldError("names", f"{one.username} has no limit or quota {name!r}")
        wanted = known if names is None else set(names)
        used = await self._overrides.reset(
            one.id,
            [charge for charge in charges if charge.limit.id in wanted],
            [quota for quota in quotas if quota.id in wanted],
        )
        said = {f"used.{name}": count for name, count in used.items()}
        await self._audit.record("limits.reset", by=by.id, subject=one.id, **said)
        return used

    async def override(self, user: str, wanted: Wanted, *, by: Actor) -> Override:
        """Set other numbers, or a block, for a limited time.

        Raises:
            UnknownUser, NotAllowed, FieldError
        """
        if not 1 <= wanted.lasts_s <= MOST_OVERRIDE_S:
            raise FieldError("lasts_s", f"must be from 1 to {MOST_OVERRIDE_S}")
        if not 1 <= len(wanted.reason.strip()) <= 200:
            raise FieldError("reason", "must have 1 to 200 characters")
        plain_text("reason", wanted.reason)
        one = await self._target(user, by)
        limit = self._limit(wanted)
        until_us = time.time_ns() // 1000 + wanted.lasts_s * 1_000_000
        said: dict[str, str | int] = {"name": wanted.name, "until_us": until_us, "reason": wanted.reason}
        said |= {"rate": wanted.rate or "", "burst": wanted.burst or 0, "amount": wanted.amount or 0}
        await self._audit.record("limits.override", by=by.id, subject=one.id, **said)
        if limit is not None:
            return await self._overrides.set_limit(one.id, limit, until_us=until_us, reason=wanted.reason, by=by.id)
        if wanted.amount is not None:
            return await self._overrides.set_quota(
                one.id, wanted.name, wanted.amount, until_us=until_us, reason=wanted.reason, by=by.id
            )
        return await self._overrides.block(one.id, until_us=until_us, reason=wanted.reason, by=by.id)

    async def lift(self, user: str, name: str, *, by: Actor) -> bool:
        """Remove an override or block; tell whether there was one. Raises: UnknownUser, NotAllowed"""
        one = await self._target(user, by)
        await self._audit.record("limits.lift", by=by.id, subject=one.id, name=name)
        return await self._overrides.lift(one.id, name)

    async def _target(self, user: str, by: Actor) -> User:
        one = await self._accounts.lookup(user)
        by.check_other(one)
        by.check_reach(self._policy.now, one)
        return one

    def _limit(self, wanted: Wanted) -> Limit | None:
        """Return the limit that an override sets, None for a quota or a block. Raises: FieldError"""
        if wanted.name == BLOCK:
            self._only(wanted, set())
            return None
        if any(wanted.name in role.quotas for role in self._policy.now.roles.values()):
            self._only(wanted, {"amount"})
            if not 1 <= (wanted.amount or 0) <= 10**9:
                raise FieldError("amount", "must be from 1 to 1000000000")
            return None
        if wanted.name not in self._policy.now.applies_to:
            raise FieldError("name", f"there is no limit or quota {wanted.name!r}")
        self._only(wanted, {"rate", "burst"})
        if wanted.rate is None or wanted.burst is None:
            raise FieldError("rate", "a limit needs rate and burst")
        try:
            return Limit(wanted.name, *parse_rate(wanted.rate), wanted.burst)
        except ValueError as error:
            raise FieldError("rate", str(error)) from error

    @staticmethod
    def _only(wanted: Wanted, fields: set[str]) -> None:
        for name in ("rate", "burst", "amount"):
            if getattr(wanted, name) is not None and name not in fields:
                raise FieldError(name, f"does not belong to {wanted.name!r}")

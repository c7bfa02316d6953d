"""The limits of one user or service key, for the operator: their state, temporary overrides, a block, a reset."""

import time
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta, structs

from auth.accounts import Accounts
from auth.key_texts import KEY_ID
from auth.service_keys import ServiceKeys
from auth.users import User
from gateway.accounts.actor import Actor
from gateway.audit import Audit
from gateway.policy.live import PolicyInForce
from gateway.policy.model import Policy
from gateway.policy.scopes import ROLE, narrowed
from gateway.text import FieldError, near, no_such, plain_text
from limits.limiter import Limiter
from limits.overrides import BLOCK, Override, Overrides
from limits.policy import MOST_UNITS, Decision, Limit, Quota, parse_rate

MOST_OVERRIDE_S = 366 * 86_400
Reason = Annotated[str, Meta(description="Why; kept in the audit trail.")]


class SetOverride(msgspec.Struct, forbid_unknown_fields=True):
    lasts_s: Annotated[int, Meta(description="Seconds until it ends.", examples=[7200])]
    reason: Annotated[Reason, Meta(max_length=200, examples=["conference"])]
    name: Annotated[
        Annotated[str, Meta(max_length=40)] | None,
        Meta(description="Name of a limit or quota in the policy; omitted with `block`.", examples=["tokens.mint"]),
    ] = None
    block: Annotated[bool, Meta(description="Deny the user every request.")] = False
    rate: Annotated[
        Annotated[str, Meta(max_length=40)] | None,
        Meta(description="For a limit: count per window, e.g. `60/min`.", examples=["600/min"]),
    ] = None
    burst: Annotated[int | None, Meta(description="For a limit: units that can be used at once.", examples=[100])] = (
        None
    )
    amount: Annotated[int | None, Meta(description="For a quota: units per period; minutes, if it counts them.")] = None

    def __post_init__(self) -> None:
        if self.block == (self.name is not None) or self.name == BLOCK:
            raise FieldError("name", "give the name of a limit or quota, or block: true")

    @property
    def target(self) -> str:
        """Return the name of the limit or quota, `*` for a block."""
        return self.name or BLOCK


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a user's limits, and the overrides set for them."""

    user: User
    decision: Decision
    overrides: list[Override]


@dataclass(repr=False, eq=False)
class UserLimits:
    """Shows and changes the limits of one user or service key; every change takes effect with their next request.

    Audits changes before it makes them, and a reset afterwards, when the used amounts are known. Actors cannot
    change their own limits, nor those of a user with a power that they do not have: an operator could otherwise lock
    out every admin.
    """

    _accounts: Accounts
    _keys: ServiceKeys
    _limiter: Limiter
    _overrides: Overrides
    _policy: PolicyInForce
    _audit: Audit

    async def show(self, user: str, *, by: Actor) -> Standing:
        """Return the state of a user's limits (by name or id) and audit the access. Raises: UnknownUser"""
        one, policy = await self._find(user)
        self._audit.note_reading("limits", by=by.id, subject=one.id)
        charges, quotas = policy.charges(one.roles, "*"), policy.quotas(one.roles, "*")
        leases = [policy.rooms_of(one.roles).lease()] if "rooms:create" in policy.permissions(one.roles) else []
        decision = await self._limiter.peek(one.id, charges, quotas=quotas, leases=leases)
        return Standing(one, decision, await self._overrides.current(one.id))

    async def reset(self, user: str, names: list[str] | None, *, by: Actor) -> dict[str, int]:
        """Reset some or all limits and quotas; return and audit what was used. Raises as `override`."""
        one, policy = await self._find_other(user, by)
        charges, quotas = policy.charges(one.roles, "*"), policy.quotas(one.roles, "*")
        known = {charge.limit.id for charge in charges} | {quota.id for quota in quotas}
        for name in names or ():
            if name not in known:
                raise FieldError("names", f"{one.username} has no limit or quota {name!r}; {near(name, sorted(known))}")
        wanted = known if names is None else set(names)
        used = await self._overrides.reset(
            one.id,
            [charge for charge in charges if charge.limit.id in wanted],
            [quota for quota in quotas if quota.id in wanted],
        )
        said = {f"used.{name}": count for name, count in used.items()}
        await self._audit.record("limits.reset", by=by.id, subject=one.id, **said)
        return used

    async def override(self, user: str, wanted: SetOverride, *, by: Actor) -> Override:
        """Set other numbers, or a block, for a limited time. Raises: UnknownUser, NotAllowed, FieldError"""
        if not 1 <= wanted.lasts_s <= MOST_OVERRIDE_S:
            raise FieldError("lasts_s", f"must be from 1 to {MOST_OVERRIDE_S}")
        if not 1 <= len(wanted.reason.strip()) <= 200:
            raise FieldError("reason", "must have 1 to 200 characters")
        plain_text("reason", wanted.reason)
        one, policy = await self._find_other(user, by)
        quota = self._quota(wanted, policy)
        limit = None if quota else self._limit(wanted, policy)
        until_us = time.time_ns() // 1000 + wanted.lasts_s * 1_000_000
        said: dict[str, str | int] = {"name": wanted.target, "until_us": until_us, "reason": wanted.reason}
        said |= {"rate": wanted.rate or "", "burst": wanted.burst or 0, "amount": wanted.amount or 0}
        await self._audit.record("limits.override", by=by.id, subject=one.id, **said)
        if limit is not None:
            return await self._overrides.set_limit(one.id, limit, until_us=until_us, reason=wanted.reason, by=by.id)
        if quota is not None:
            return await self._overrides.set_quota(one.id, quota, until_us=until_us, reason=wanted.reason, by=by.id)
        return await self._overrides.block(one.id, until_us=until_us, reason=wanted.reason, by=by.id)

    async def lift(self, user: str, name: str, *, by: Actor) -> bool:
        """Remove an override or block; tell whether there was one. Raises: UnknownUser, NotAllowed, FieldError

        One of a limit that the policy does not have any more can be removed, too.
        """
        one, policy = await self._find_other(user, by)
        await self._audit.record("limits.lift", by=by.id, subject=one.id, name=name)
        gone = await self._overrides.lift(one.id, name)
        if not gone and name not in (BLOCK, *policy.limit_names):
            raise FieldError("name", no_such("limit or quota", name, policy.limit_names))
        return gone

    async def _find(self, user: str) -> tuple[User, Policy]:
        """Return a user (by name or id), or a service key (by id) as a user with its own role; and the policy for them.

        Raises: UnknownUser, UnknownKey
        """
        if not KEY_ID.fullmatch(user):
            return await self._accounts.lookup(user), self._policy.now
        key = await self._keys.get(user)
        one = User(key.id, key.name, key.name, (ROLE,), key.status, 0, key.created_ms)
        return one, narrowed(self._policy.now, key.scopes, acting=False)

    async def _find_other(self, user: str, by: Actor) -> tuple[User, Policy]:
        """Do the same for one whom an actor may act on. Raises: NotAllowed, too"""
        one, policy = await self._find(user)
        by.check_other(one)
        by.check_reach(policy, one)
        return one, policy

    def _quota(self, wanted: SetOverride, policy: Policy) -> Quota | None:
        """Return the quota that an override sets, None if it is not about one. Raises: FieldError"""
        quotas = (role.quotas.get(wanted.target) for role in policy.roles.values())
        quota = next((quota for quota in quotas if quota is not None), None)
        if quota is None:
            if any(wanted.target == one.id for one in policy.installation):
                raise FieldError("name", f"{wanted.target!r} is the budget of all users together")
            return None
        self._only(wanted, {"amount"})
        if not 1 <= (wanted.amount or 0) <= MOST_UNITS:
            raise FieldError("amount", f"must be from 1 to {MOST_UNITS}")
        return structs.replace(quota, amount=wanted.amount)

    def _limit(self, wanted: SetOverride, policy: Policy) -> Limit | None:
        """Return the limit that an override sets, None for a block. Raises: FieldError"""
        if wanted.target == BLOCK:
            self._only(wanted, set())
            return None
        if wanted.target not in policy.applies_to:
            raise FieldError("name", no_such("limit or quota", wanted.target, policy.limit_names))
        self._only(wanted, {"rate", "burst"})
        if wanted.rate is None or wanted.burst is None:
            raise FieldError("rate", "a limit needs rate and burst")
        try:
            return Limit(wanted.target, *parse_rate(wanted.rate), wanted.burst)
        except ValueError as error:
            raise FieldError("rate", str(error)) from error

    @staticmethod
    def _only(wanted: SetOverride, fields: set[str]) -> None:
        for name in ("rate", "burst", "amount"):
            if getattr(wanted, name) is not None and name not in fields:
                raise FieldError(name, f"does not belong to {wanted.target!r}")

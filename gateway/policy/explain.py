"""Explains a decision with the functions that make it."""

from dataclasses import dataclass

from auth.users import User
from gateway.policy.decide import RoleVerdict, Verdict, decide, decide_role, effective_relation
from gateway.policy.live import PolicyInForce
from gateway.policy.model import Policy, RoomFacts
from limits.limiter import Limiter
from limits.policy import Charge, Decision, Quota


@dataclass(frozen=True, slots=True)
class Question:
    """A question: may a user perform an action? `room` and `requested`, a 100ms role, are for actions on a room.

    `room` is None if the registry has no such room. `existing` are the roles of the room's template, None if 100ms was
    not asked or did not answer.
    """

    user: User
    action: str
    room: RoomFacts | None = None
    requested: str | None = None
    existing: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision and its grounds. `stored` is the relation in the registry, `effective` the one that counts.

    `role` is the decision on the 100ms role, None unless the action is `tokens.mint` and is allowed so far.
    """

    allowed: bool
    rule: str
    code: str
    reason: str
    permissions: tuple[str, ...]
    missing: str | None
    stored: str | None
    effective: str | None
    role: RoleVerdict | None
    charges: tuple[Charge, ...]
    quotas: tuple[Quota, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of the limits that an action charges to a user. `short` names those that would deny it now."""

    decision: Decision
    short: tuple[str, ...]


def explain(policy: Policy, question: Question) -> Explanation:
    """Decide as the gateway does, and return the decision with its grounds."""
    user, room = question.user, question.room
    verdict = decide(policy, user.roles, question.action, room)
    role = None
    if verdict.allowed and question.action == "tokens.mint" and room is not None:
        role = decide_role(policy, room.template, verdict.relation or "", question.requested, question.existing)
    allowed, rule, code, reason = _outcome(user, verdict, role)
    return Explanation(
        allowed=allowed,
        rule=rule,
        code=code,
        reason=reason,
        permissions=tuple(sorted(policy.permissions(user.roles))),
        missing=verdict.missing,
        stored=room.relation if room else None,
        effective=effective_relation(policy, user.roles, room) if room else None,
        role=role,
        charges=policy.charges(user.roles, question.action),
        quotas=policy.quotas(user.roles, question.action),
    )


def _outcome(user: User, verdict: Verdict, role: RoleVerdict | None) -> tuple[bool, str, str, str]:
    if not user.is_active:
        # Not a decision of the policy: the user's sessions have ended, so their requests are refused before it.
        reason = "The account is disabled: login is refused, and its tokens are void."
        return False, "user disabled", "invalid_token", reason
    if role is not None and role.code:
        return False, "100ms role", role.code, role.reason
    return verdict.allowed, verdict.rule, verdict.code, verdict.reason


async def standing(limiter: Limiter, policy: PolicyInForce, user: User, action: str) -> Standing:
    """Return the state of what an action charges; charge nothing. Raises: StoreError"""
    now = policy.now
    charges = now.charges(user.roles, action)
    creates = action == "rooms.create" and "rooms:create" in now.permissions(user.roles)
    decision = await limiter.peek(
        user.id,
        charges,
        quotas=now.quotas(user.roles, action),
        leases=[now.rooms_of(user.roles).lease()] if creates else [],
    )
    costs = {charge.limit.id: charge.cost for charge in charges}
    short = [state.name for state in decision.limits if state.decides and state.remaining < costs[state.name]]
    short += [state.name for state in decision.quotas if state.decides and state.left < 1]
    short += [state.name for state in decision.leases if state.held >= state.lease.most]
    if decision.block is not None:
        short.insert(0, decision.block.name)
    return Standing(decision, tuple(short))

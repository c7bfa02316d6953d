"""Scopes: what a service key may do by itself, and for the users for whom it acts.

A scope is a permission, `act:user` or `tokens:introspect`. A key that acts for a user may do what both may do.
"""

from dataclasses import replace

from auth.tokens import Principal
from gateway.policy.actions import ACTIONS, LIMITED_ACTIONS, PERMISSIONS
from gateway.policy.decide import Verdict, decide
from gateway.policy.model import Policy, Role, RoomFacts

ACT, INTROSPECT = "act:user", "tokens:introspect"
SCOPES = PERMISSIONS | {ACT, INTROSPECT}
ROLE = "service key"
"""The role of a key that acts for itself; no role of a policy file has a space."""

_MOST_REMEMBERED = 1000  # sets of scopes

# Of actions that have no permission of their own, or another one: the scopes of which a key needs one. An action
# without a scope here takes a login, or, by itself, a user for whom the key acts.
_MANAGES, _READS = ("rooms:create",), ("rooms:join", "rooms:create", "rooms:read-any")
_FOR_USERS: dict[str, tuple[str, ...]] = {
    "account.read": (),
    "account.manage": (),
    "keys.manage": (),
    "rooms.list": _READS,
    "rooms.read": _READS,
    "members.read": _READS,
    "rooms.update": (*_MANAGES, "rooms:end-any"),
    "rooms.end": (*_MANAGES, "rooms:end-any"),
    "members.change": _MANAGES,
    "invites.manage": _MANAGES,
}
_BY_ITSELF: dict[str, tuple[str, ...]] = _FOR_USERS | {
    "rooms.create": (),
    "tokens.mint": (),
    "invites.accept": (),
    "members.change": (),
    "invites.manage": (),
    "rooms.list": ("rooms:read-any",),
    "rooms.read": ("rooms:read-any",),
    "members.read": ("rooms:read-any",),
    "rooms.update": ("rooms:end-any",),
    "rooms.end": ("rooms:end-any",),
}


def narrowed(policy: Policy, scopes: frozenset[str], *, acting: bool) -> Policy:
    """Return a policy as it applies to a service key with these scopes.

    If it acts for a user, every role grants only what the scopes contain: whatever asks the narrowed policy about the
    user gets the rights that both have. If it acts for itself, its only role grants the scopes that do not need a user.
    """
    found = policy.narrowed.get((acting, scopes))
    if found is None:
        found = _within(policy, scopes) if acting else _of_key(policy, scopes)
        if len(policy.narrowed) < _MOST_REMEMBERED:
            policy.narrowed[acting, scopes] = found
    return found


def _within(policy: Policy, scopes: frozenset[str]) -> Policy:
    roles = {name: replace(role, permissions=role.permissions & scopes) for name, role in policy.roles.items()}
    return replace(policy, roles=roles)


def _of_key(policy: Policy, scopes: frozenset[str]) -> Policy:
    own = Role(scopes - {ACT, "rooms:create", "rooms:join"}, policy.key_limits, open_rooms=False)
    applies_to = {**policy.applies_to, "api": LIMITED_ACTIONS}
    return replace(policy, roles={ROLE: own}, applies_to=applies_to, costs={**policy.costs, "api": 1})


def scopes_of(action: str, *, acting: bool) -> tuple[str, ...]:
    """Return the scopes of which a key needs one for an action; none if no key may perform it in this way."""
    listed = (_FOR_USERS if acting else _BY_ITSELF).get(action)
    if listed is None and (permission := ACTIONS[action]):
        return (permission,)
    return listed or ()


def decide_for(policy: Policy, caller: Principal, action: str, room: RoomFacts | None = None) -> Verdict:
    """Decide as `decide` does, for any caller; `policy` is the one that applies to them (`PolicyInForce.of`)."""
    if caller.key is not None:
        needed = scopes_of(action, acting=caller.is_acting)
        if not needed:
            return _takes_a_user(action)
        if caller.key.scopes.isdisjoint(needed):
            names = " or ".join(needed)
            reason = f"This needs the scope {names}, which the service key does not have."
            return Verdict(False, "forbidden", reason, missing=needed[0], rule="permission")
    return decide(policy, caller.roles, action, room)


def _takes_a_user(action: str) -> Verdict:
    reason = "A service key must not do this: it takes a login."
    if scopes_of(action, acting=True):
        reason = "A service key has no rooms of its own: name the user for whom it acts in the header X-Act-As."
    return Verdict(False, "forbidden", reason, rule="permission")

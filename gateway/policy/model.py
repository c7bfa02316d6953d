"""The policy: who may do what, decided by pure functions. Whatever it does not grant is denied.

Gateway role -> permissions and limits. Relation to a room x template -> the 100ms roles a join token may name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from limits.policy import US_PER_S, Charge, Lease, Limit, Quota, most_generous

PERMISSIONS = frozenset(
    [
        "rooms:create",
        "rooms:join",
        "rooms:read-any",
        "rooms:end-any",
        "usage:read-own",
        "usage:read-any",
        "limits:manage",
        "users:manage",
        "audit:read",
    ]
)
# What gives power over others. Whoever manages users may hand out the ordinary permissions even where he has not got
# them himself (an admin gets no join tokens, yet makes hosts); of these he may pass on only what he holds. Nobody gets
# one by registering himself.
POWERS = frozenset({"rooms:read-any", "rooms:end-any", "usage:read-any", "limits:manage", "users:manage", "audit:read"})
RELATIONS = ("owner", "cohost", "participant", "viewer")
BANNED = "banned"
# Every action a route can name, and the permission it needs; None: being logged in is enough, or the room decides.
ACTIONS: dict[str, str | None] = {
    "account.read": None,
    "account.manage": None,
    "rooms.create": "rooms:create",
    "rooms.list": None,
    "rooms.read": None,
    "rooms.update": None,
    "rooms.end": None,
    "members.read": None,
    "members.change": None,
    "invites.manage": None,
    "invites.accept": "rooms:join",
    "tokens.mint": "rooms:join",
    "usage.read": "usage:read-own",
    "usage.read-any": "usage:read-any",
    "limits.manage": "limits:manage",
    "users.manage": "users:manage",
    "audit.read": "audit:read",
}


@dataclass(frozen=True, slots=True)
class RoomRule:
    """Which relations to a room allow an action on it, and which permission does where no relation does, for what."""

    relations: frozenset[str]
    anywhere: str | None = None
    only_to: str = ""


_ANYBODY = frozenset(RELATIONS)
_IN_CHARGE = frozenset({"owner", "cohost"})
ROOM_ACTIONS = {
    "rooms.read": RoomRule(_ANYBODY, "rooms:read-any"),
    "tokens.mint": RoomRule(_ANYBODY),
    "rooms.update": RoomRule(_IN_CHARGE, "rooms:end-any", only_to="lock and unlock it"),
    "rooms.end": RoomRule(_IN_CHARGE, "rooms:end-any"),
    "members.read": RoomRule(_IN_CHARGE, "rooms:read-any"),
    "members.change": RoomRule(_IN_CHARGE),
    "invites.manage": RoomRule(_IN_CHARGE),
}
LIMITED_ACTIONS = frozenset(ACTIONS) - {"usage.read"}  # reading one's own usage charges nothing
# What is counted by name; every other request counts as `api`, so that a user's counters stay few.
COUNTED = frozenset({"rooms.create", "tokens.mint"})
COUNTERS = COUNTED | {"api"}


@dataclass(frozen=True, slots=True)
class Role:
    """What one gateway role grants. `limits` and `quotas` hold its numbers of each, by name.

    Without `open_rooms` an open room is like an invited one to it: it joins only what it was let into.
    """

    permissions: frozenset[str]
    limits: Mapping[str, Limit]
    quotas: Mapping[str, Quota] = field(default_factory=dict)
    open_rooms: bool = True


@dataclass(frozen=True, slots=True)
class Anonymous:
    """Limits of callers nobody knows yet, by client address or by account name; `flood` is per process, in memory."""

    flood: Limit
    requests: Limit
    failures: Limit
    account: Limit
    known_account: Limit
    refresh: Limit
    register: Limit


@dataclass(frozen=True, slots=True)
class Registration:
    """Who may make himself an account, and in which roles. `mode` is closed, invite or open."""

    mode: str
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Guests:
    """Who comes in by an invite for guests: the gateway role he gets, and for how long. No role: no guests."""

    role: str = ""
    lasts_s: int = 12 * 3600


@dataclass(frozen=True, slots=True)
class RoomDefaults:
    """What a room is created with. Durations in seconds; `active_per_owner` rooms at once."""

    access: str
    region: str
    size: int
    max_duration_s: int
    token_ttl_s: int
    active_per_owner: int = 50
    unique_names: bool = False

    def lease(self, holder: str = "") -> Lease:
        """Return the bound on an owner's rooms at once; a room counts for as long as one session of it may last."""
        return Lease("rooms.active", self.active_per_owner, self.max_duration_s * US_PER_S, holder)


@dataclass(frozen=True, slots=True)
class RoomFacts:
    """What a decision needs to know of a room: `relation` is the caller's own, None if he has none."""

    relation: str | None
    access: str
    enabled: bool
    template: str


Rule = Literal["login", "permission", "relation", "banned", "room disabled", "default deny"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an action is allowed, and why not. `code` is the problem code, `relation` the one that counted, `missing`
    the permission that lacks. `rule` is what decided: for operators, since a caller may not learn of some of it."""

    allowed: bool
    code: str = ""
    reason: str = ""
    relation: str | None = None
    missing: str | None = None
    rule: Rule = field(default="default deny", compare=False)


@dataclass(frozen=True)
class Policy:
    """A whole policy, checked. Immutable; `source` is the file it came from, or says that there is none."""

    source: str
    roles: Mapping[str, Role]
    applies_to: Mapping[str, frozenset[str]]
    templates: Mapping[str, Mapping[str, tuple[str, ...]]]
    rooms: RoomDefaults
    anonymous: Anonymous
    registration: Registration = Registration("closed", ())
    guests: Guests = Guests()
    costs: Mapping[str, int] = field(default_factory=dict)
    template_ids: Mapping[str, str] = field(default_factory=dict)
    _cache: dict[tuple[tuple[str, ...], str], tuple[tuple[Charge, ...], tuple[Quota, ...]]] = field(
        default_factory=dict, compare=False
    )

    def permissions(self, roles: Iterable[str]) -> frozenset[str]:
        """Return all that a set of gateway roles grants; a role the policy does not know grants nothing."""
        return frozenset[str]().union(*(self.roles[role].permissions for role in roles if role in self.roles))

    def joins_open_rooms(self, roles: Iterable[str]) -> bool:
        """Tell whether an open room lets these roles in without any relation to it."""
        held = [self.roles[role] for role in roles if role in self.roles]
        return any(role.open_rooms and "rooms:join" in role.permissions for role in held)

    def charges(self, roles: tuple[str, ...], action: str) -> tuple[Charge, ...]:
        """Return what an attempt of an action charges, or, for `*`, every limit these roles have."""
        return self._demand(roles, action)[0]

    def quotas(self, roles: tuple[str, ...], action: str) -> tuple[Quota, ...]:
        """Return the quotas that an action draws on, or, for `*`, all that these roles have."""
        return self._demand(roles, action)[1]

    def _demand(self, roles: tuple[str, ...], action: str) -> tuple[tuple[Charge, ...], tuple[Quota, ...]]:
        found = self._cache.get((roles, action))
        if found is None:
            held = [self.roles[role] for role in roles if role in self.roles]
            charges = tuple(
                Charge(most_generous(numbers), self.costs.get(name, 1))
                for name, actions in self.applies_to.items()
                if action == "*" or action in actions
                if (numbers := [role.limits[name] for role in held if name in role.limits])
            )
            best: dict[str, Quota] = {}
            for quota in (quota for role in held for quota in role.quotas.values()):
                if action == "*" or quota.counter == counter_of(action):
                    best[quota.id] = max(quota, best.get(quota.id, quota), key=lambda one: one.amount)
            found = charges, tuple(best.values())
            if len(self._cache) < 1000:
                self._cache[roles, action] = found
        return found

    def mintable(self, template: str, relation: str) -> tuple[str, ...]:
        """Return the 100ms roles that a relation to a room of a template may join with, least first."""
        return self.templates.get(template, {}).get(relation, ())


def counter_of(action: str) -> str:
    """Return the name under which requests of an action are counted."""
    return action if action in COUNTED else "api"


def decide(policy: Policy, roles: tuple[str, ...], action: str, room: RoomFacts | None = None) -> Verdict:
    """Decide whether somebody with these gateway roles may perform an action, on a room where it concerns one.

    Forbids win over grants; a room that a stranger must not know of is `not_found`.
    """
    if action not in ACTIONS:
        return Verdict(False, "forbidden", f"There is no action {action!r}.")
    if not any(role in policy.roles for role in roles):  # a role that was renamed has no limits either
        return Verdict(False, "forbidden", "The policy has none of your roles.")
    held = policy.permissions(roles)
    needed = ACTIONS[action]
    if needed is not None and needed not in held:
        reason = f"This needs the permission {needed}, which your roles do not grant."
        return Verdict(False, "forbidden", reason, missing=needed, rule="permission")
    rule = ROOM_ACTIONS.get(action)
    if rule is None:
        if needed is None:
            return Verdict(True, reason="being logged in is enough", rule="login")
        return Verdict(True, reason=f"permission {needed}", rule="permission")
    relation = effective_relation(policy, roles, room) if room else None
    if room is None or relation not in rule.relations:
        return _without_relation(rule, held, room, relation)
    if action == "tokens.mint" and not room.enabled:
        reason = "The room is disabled; nobody can join it."
        return Verdict(False, "room_disabled", reason, relation, rule="room disabled")
    return Verdict(True, reason=f"relation {relation}", relation=relation, rule="relation")


def _without_relation(rule: RoomRule, held: frozenset[str], room: RoomFacts | None, relation: str | None) -> Verdict:
    """Decide for somebody whose relation does not allow an action: by a permission, or as much as he may know."""
    nothing = "There is no such room, or you have no relation to it."
    if room is None or room.relation == BANNED:
        return Verdict(False, "not_found", nothing, rule="banned" if room else "default deny")
    if rule.anywhere in held:
        bounds = f", only to {rule.only_to}" if rule.only_to else ""
        return Verdict(True, reason=f"permission {rule.anywhere}{bounds}", rule="permission")
    needs = " or ".join(sorted(rule.relations))
    if relation is not None:
        reason = f"You are {relation} of this room; this takes its {needs}."
        return Verdict(False, "forbidden", reason, relation, rule="relation")
    if "rooms:read-any" in held:  # he can see it
        return Verdict(False, "forbidden", f"You have no relation to this room; this takes its {needs}.")
    return Verdict(False, "not_found", nothing)


def effective_relation(policy: Policy, roles: Iterable[str], room: RoomFacts) -> str | None:
    """Return the relation that counts: the stored one, or participant of an open room, or none for the banned."""
    if room.relation == BANNED:
        return None
    if room.relation in RELATIONS:
        return room.relation
    return "participant" if room.access == "open" and policy.joins_open_rooms(roles) else None


def decide_member(actor: str, target: str | None, wanted: str) -> Verdict:
    """Decide whether somebody of one relation may give another person of a room a relation (`banned` among them).

    A cohost decides on participants and viewers. Only the owner decides on cohosts, and only he hands the room over.
    """
    if actor == "owner":
        return Verdict(True, reason="relation owner", rule="relation")
    if actor != "cohost" or target in _IN_CHARGE or wanted in _IN_CHARGE:
        return Verdict(
            False, "forbidden", "Only the owner decides on cohosts and on who owns the room.", actor, rule="relation"
        )
    return Verdict(True, reason="relation cohost", rule="relation")


def outranks(one: str | None, other: str) -> bool:
    """Tell whether a relation is at least another: owner, cohost, participant, viewer."""
    return one in RELATIONS and RELATIONS.index(one) <= RELATIONS.index(other)


def loses_roles(policy: Policy, template: str, before: str | None, after: str) -> bool:
    """Tell whether a change of relation takes away a 100ms role that the user may be in the room with."""
    return not set(policy.mintable(template, before or "participant")) <= set(policy.mintable(template, after))


@dataclass(frozen=True, slots=True)
class RoleVerdict:
    """The 100ms role a join token may name, or why none: `code`, `reason` and the roles that are `allowed`."""

    role: str
    allowed: tuple[str, ...] = ()
    code: str = ""
    reason: str = ""


def decide_role(
    policy: Policy, template: str, relation: str, requested: str | None, existing: frozenset[str] | None
) -> RoleVerdict:
    """Decide the 100ms role of a join token: the one asked for if allowed, else none; without a wish the least.

    `existing` are the roles the template really has, None when nobody could ask 100ms yet; then the policy's own lists
    stand in for them. Names match exactly: 100ms's roles are case-sensitive.
    """
    listed = policy.mintable(template, relation)
    known = existing
    if known is None:
        known = frozenset(role for roles in policy.templates.get(template, {}).values() for role in roles)
    allowed = tuple(role for role in listed if role in known)
    if requested is None and allowed:
        return RoleVerdict(allowed[0], allowed)
    if requested in allowed:
        return RoleVerdict(str(requested), allowed)
    if requested is not None and requested not in known:
        return RoleVerdict("", allowed, "unknown_role", "The room's template has no such role.")
    if not allowed and listed:
        return RoleVerdict("", allowed, "unknown_role", "The room's template has none of the roles the policy names.")
    names = ", ".join(allowed) or "none"
    return RoleVerdict("", allowed, "role_not_allowed", f"You may not join this room in that role. Allowed: {names}.")


class PolicyInForce:
    """The policy of this moment. Whoever decides reads `now` anew for each decision: the file may have been changed."""

    def __init__(self, policy: Policy) -> None:
        self.now = policy

"""The values of a policy: permissions, actions, roles and their numbers, templates, defaults of rooms.

Gateway role -> permissions and limits. Relation to a room x template -> the 100ms roles a join token may name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

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
IN_CHARGE = frozenset({"owner", "cohost"})
ROOM_ACTIONS = {
    "rooms.read": RoomRule(_ANYBODY, "rooms:read-any"),
    "tokens.mint": RoomRule(_ANYBODY),
    "rooms.update": RoomRule(IN_CHARGE, "rooms:end-any", only_to="lock and unlock it"),
    "rooms.end": RoomRule(IN_CHARGE, "rooms:end-any"),
    "members.read": RoomRule(IN_CHARGE, "rooms:read-any"),
    "members.change": RoomRule(IN_CHARGE),
    "invites.manage": RoomRule(IN_CHARGE),
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

    def common_charges(self, roles: tuple[str, ...], action: str) -> tuple[Charge, ...]:
        """Return those charges of an action that every other action has too; all of them if it has none of these."""
        charges = self.charges(roles, action)
        common = tuple(charge for charge in charges if self.applies_to[charge.limit.id] >= LIMITED_ACTIONS)
        return common or charges

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

"""The values of a policy: roles with permissions and limits, 100ms roles by relation, defaults of rooms."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.policy.actions import LIMITED_ACTIONS, counter_of
from limits.policy import US_PER_S, Charge, Lease, Limit, Quota, most_generous


@dataclass(frozen=True, slots=True)
class Role:
    """What one gateway role grants. `limits` and `quotas` hold its numbers of each, by name.

    Without `open_rooms` the role does not join open rooms, only rooms to which the user has a relation.
    """

    permissions: frozenset[str]
    limits: Mapping[str, Limit]
    quotas: Mapping[str, Quota] = field(default_factory=dict)
    open_rooms: bool = True


@dataclass(frozen=True, slots=True)
class Anonymous:
    """Limits of unauthenticated callers, by client address or account name; `flood` is per process, in memory."""

    flood: Limit
    requests: Limit
    failures: Limit
    account: Limit
    known_account: Limit
    refresh: Limit
    register: Limit


@dataclass(frozen=True, slots=True)
class Registration:
    """The rules of registration. `mode` is closed, invite or open; empty if the file does not set it."""

    mode: str
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Guests:
    """The gateway role of people who accept an invite for guests, and how long they stay. No role: no guests."""

    role: str = ""
    lasts_s: int = 12 * 3600


@dataclass(frozen=True, slots=True)
class RoomDefaults:
    """Defaults of new rooms. An owner may have `active_per_owner` rooms at once."""

    access: str
    region: str
    size: int
    max_duration_s: int
    token_ttl_s: int
    active_per_owner: int = 50
    unique_names: bool = False

    def lease(self, holder: str = "") -> Lease:
        """Return the lease that bounds an owner's rooms at once. A room counts as long as one session may last."""
        return Lease("rooms.active", self.active_per_owner, self.max_duration_s * US_PER_S, holder)


@dataclass(frozen=True, slots=True)
class RoomFacts:
    """The facts about a room that a decision needs. `relation` is the caller's, None without one."""

    relation: str | None
    access: str
    enabled: bool
    template: str


@dataclass(frozen=True)
class Policy:
    """A whole policy, checked. `source` names its file, or is BUILT_IN of gateway.policy.file."""

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
        """Return the permissions of a set of gateway roles. A role that the policy does not have grants none."""
        return frozenset[str]().union(*(self.roles[role].permissions for role in roles if role in self.roles))

    def joins_open_rooms(self, roles: Iterable[str]) -> bool:
        """Tell whether these roles join open rooms without a relation to them."""
        held = [self.roles[role] for role in roles if role in self.roles]
        return any(role.open_rooms and "rooms:join" in role.permissions for role in held)

    def charges(self, roles: tuple[str, ...], action: str) -> tuple[Charge, ...]:
        """Return the charges of an attempt at an action; for `*`, every limit of these roles."""
        return self._demand(roles, action)[0]

    def common_charges(self, roles: tuple[str, ...], action: str) -> tuple[Charge, ...]:
        """Return those charges of an action that all actions have in common; all of its charges if there are none."""
        charges = self.charges(roles, action)
        common = tuple(charge for charge in charges if self.applies_to[charge.limit.id] >= LIMITED_ACTIONS)
        return common or charges

    def quotas(self, roles: tuple[str, ...], action: str) -> tuple[Quota, ...]:
        """Return the quotas that an action charges; for `*`, all of these roles."""
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
        """Return the 100ms roles of a relation to a room of this template, the least privileged first."""
        return self.templates.get(template, {}).get(relation, ())

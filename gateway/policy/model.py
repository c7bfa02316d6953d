"""The values of a policy: roles with permissions and limits, 100ms roles by relation, defaults of rooms."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property

from msgspec import Struct

from auth.federation import Provider
from gateway.policy.actions import LIMITED_ACTIONS, MINUTES, OWNED, counter_of
from gateway.policy.endpoints import Endpoint
from limits.policy import US_PER_S, Charge, Lease, Limit, Quota, most_generous

_MOST_REMEMBERED = 1000  # combinations of roles
KEY_API = Limit("api", 6000, 60 * US_PER_S, 1200)


@dataclass(frozen=True, slots=True)
class Role:
    """What one gateway role grants. `limits` and `quotas` hold its numbers of each, by name.

    Without `open_rooms` the role does not join open rooms, only rooms to which the user has a relation.
    `concurrent_rooms` and `max_participants` are its own numbers in place of those of [rooms], 0 if it has none.
    """

    permissions: frozenset[str]
    limits: Mapping[str, Limit]
    quotas: Mapping[str, Quota] = field(default_factory=dict)
    open_rooms: bool = True
    concurrent_rooms: int = 0
    max_participants: int = 0


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
class Prices:
    """What 1,000 participant-minutes cost, in a currency of ISO 4217."""

    currency: str
    per_1000_minutes: Decimal


def written(quota: Quota, amount: int) -> str:
    """Return an amount of a quota for people, such as `10 per day, UTC` or `30 min per month, Europe/Berlin`."""
    return f"{amount}{' min' if quota.metered else ''} per {quota.period}, {quota.zone}"


class RoomFacts(Struct, frozen=True):
    """The facts about a room that a decision needs. `relation` is the caller's, None without one.

    `people` are in the room now, as far as is known; `size` may be, 0 if the room is older than that number.
    """

    relation: str | None
    access: str
    enabled: bool
    template: str
    people: int = 0
    size: int = 0


@dataclass(frozen=True)
class Policy:
    """A whole policy, checked. `source` names its file, or is BUILT_IN of gateway.policy.file.

    `time_zone` is that of the days and months of reports, and so of all usage counters.
    `installation` are the budgets of all users together. `ending` names the budgets that end rooms once they are spent.
    `key_limits` are the limits of each service key; that named `api` counts all of its requests. `narrowed` remembers
    what `gateway.policy.scopes` makes of this policy for service keys.
    """

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
    prices: Prices | None = None
    installation: tuple[Quota, ...] = ()
    ending: frozenset[str] = frozenset()
    endpoints: tuple[Endpoint, ...] = ()
    key_limits: Mapping[str, Limit] = field(default_factory=lambda: {"api": KEY_API})
    identities: tuple[Provider, ...] = ()
    time_zone: str = "UTC"
    _cache: dict[tuple[tuple[str, ...], str], tuple[tuple[Charge, ...], tuple[Quota, ...]]] = field(
        default_factory=dict, compare=False, init=False
    )
    _permissions: dict[tuple[str, ...], frozenset[str]] = field(default_factory=dict, compare=False, init=False)
    narrowed: dict[tuple[bool, frozenset[str]], "Policy"] = field(default_factory=dict, compare=False, init=False)

    def permissions(self, roles: Iterable[str]) -> frozenset[str]:
        """Return the permissions of a set of gateway roles. A role that the policy does not have grants none."""
        roles = tuple(roles)
        found = self._permissions.get(roles)
        if found is None:
            found = frozenset[str]().union(*(self.roles[role].permissions for role in roles if role in self.roles))
            if len(self._permissions) < _MOST_REMEMBERED:
                self._permissions[roles] = found
        return found

    def joins_open_rooms(self, roles: Iterable[str]) -> bool:
        """Tell whether these roles join open rooms without a relation to them."""
        held = [self.roles[role] for role in roles if role in self.roles]
        return any(role.open_rooms and "rooms:join" in role.permissions for role in held)

    def charges(self, roles: tuple[str, ...], action: str) -> tuple[Charge, ...]:
        """Return the charges of an attempt at an action; for `*`, every limit of these roles."""
        return self._demand(roles, action)[0]

    def common_charges(self, roles: tuple[str, ...], action: str) -> tuple[Charge, ...]:
        """Return those charges of an action that all actions have in common; all of its charges if there are none."""
        charges, own = self.charges(roles, action), self.own_charges(roles, action)
        return tuple(charge for charge in charges if charge not in own) or charges

    def own_charges(self, roles: tuple[str, ...], action: str) -> tuple[Charge, ...]:
        """Return those charges of an action that not all actions have in common."""
        charges = self.charges(roles, action)
        return tuple(charge for charge in charges if not self.applies_to[charge.limit.id] >= LIMITED_ACTIONS)

    def quotas(self, roles: tuple[str, ...], action: str) -> tuple[Quota, ...]:
        """Return the quotas that an action charges; for `*`, all of these roles.

        A join token is minted only while minutes are left, so minting has the budgets of the user's own minutes.
        """
        return self._demand(roles, action)[1]

    def owner_budgets(self, roles: tuple[str, ...]) -> tuple[Quota, ...]:
        """Return the budgets of all minutes in the rooms of an owner with these roles.

        An owner whose roles are not in the policy, or whose account was deleted, has the smallest amounts of any role.
        """
        if any(role in self.roles for role in roles):
            return tuple(quota for quota in self.quotas(roles, "*") if quota.counter == OWNED)
        least: dict[str, Quota] = {}
        every = (quota for role in self.roles.values() for quota in role.quotas.values())
        for quota in (quota for quota in every if quota.counter == OWNED):
            least[quota.id] = min(quota, least.get(quota.id, quota), key=lambda one: one.amount)
        return tuple(least.values())

    def scope_of(self, quota: Quota) -> str:
        """Return whose use a quota bounds: that of the `user`, of the `owner` of rooms, or of `all` users together."""
        if quota in self.installation:
            return "all"
        return "owner" if quota.counter == OWNED else "user"

    @property
    def limit_names(self) -> list[str]:
        """Return the names of all limits and quotas."""
        of_roles = (quota.id for role in self.roles.values() for quota in role.quotas.values())
        of_all = (quota.id for quota in self.installation)
        return list(dict.fromkeys([*self.applies_to, *of_roles, *of_all]))

    def has_budgets(self, scope: str) -> bool:
        """Tell whether there are budgets of a scope: `user`, `owner` or `all`."""
        return scope in self._scopes

    @cached_property
    def _scopes(self) -> frozenset[str]:
        return frozenset(map(self.scope_of, self.metered))

    @cached_property
    def metered(self) -> tuple[Quota, ...]:
        """Every budget of minutes of every role, and those of the installation."""
        of_roles = (quota for role in self.roles.values() for quota in role.quotas.values() if quota.metered)
        return (*of_roles, *self.installation)

    @cached_property
    def metered_calendars(self) -> frozenset[tuple[str, str]]:
        """The (period, time zone) in which minutes must be counted beside the days and months of all counters."""
        return frozenset((quota.period, quota.zone) for quota in self.metered if not quota.is_counter(self.time_zone))

    def rooms_of(self, roles: Iterable[str]) -> RoomDefaults:
        """Return the defaults of rooms that a user with these roles creates: the most generous numbers of the roles."""
        makers = [role for name in roles if (role := self.roles.get(name)) and "rooms:create" in role.permissions]
        if not any(role.concurrent_rooms or role.max_participants for role in makers):
            return self.rooms
        return replace(
            self.rooms,
            active_per_owner=max(role.concurrent_rooms or self.rooms.active_per_owner for role in makers),
            size=max(role.max_participants or self.rooms.size for role in makers),
        )

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
            counters = (counter_of(action), MINUTES) if action == "tokens.mint" else (counter_of(action),)
            best: dict[str, Quota] = {}
            for quota in (quota for role in held for quota in role.quotas.values()):
                if action == "*" or quota.counter in counters:
                    best[quota.id] = max(quota, best.get(quota.id, quota), key=lambda one: one.amount)
            found = charges, tuple(best.values())
            if len(self._cache) < _MOST_REMEMBERED:
                self._cache[roles, action] = found
        return found

    def mintable(self, template: str, relation: str) -> tuple[str, ...]:
        """Return the 100ms roles of a relation to a room of this template, the least privileged first."""
        return self.templates.get(template, {}).get(relation, ())

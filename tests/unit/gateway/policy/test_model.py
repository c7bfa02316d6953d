"""The values of the policy: the built-in numbers, and what a request charges."""

import itertools

from gateway.policy.actions import LIMITED_ACTIONS, PERMISSIONS
from gateway.policy.file import load_policy
from gateway.policy.model import Policy, Role, RoomDefaults
from limits.policy import US_PER_S, Limit

BUILT_IN = load_policy()
MINUTE, HOUR = 60 * US_PER_S, 3600 * US_PER_S


# --- the built-in policy equals the contract's ---


def test_the_built_in_roles_have_the_permissions_of_the_contract() -> None:
    member = {"rooms:join", "usage:read-own"}
    operator = {"usage:read-own", "usage:read-any", "rooms:read-any", "rooms:end-any", "limits:manage", "audit:read"}
    assert {name: set(role.permissions) for name, role in BUILT_IN.roles.items()} == {
        "guest": member,
        "member": member,
        "host": member | {"rooms:create"},
        "operator": operator,
        "admin": operator | {"users:manage"},
    }


def test_the_built_in_limits_have_the_numbers_of_the_contract() -> None:
    people, staff = Limit("api", 120, MINUTE, 60), Limit("api", 600, MINUTE, 120)
    mint, create = Limit("tokens.mint", 60, MINUTE, 30), Limit("rooms.create", 10, HOUR, 5)
    assert {name: dict(role.limits) for name, role in BUILT_IN.roles.items()} == {
        "guest": {"api": Limit("api", 60, MINUTE, 30), "tokens.mint": Limit("tokens.mint", 20, MINUTE, 10)},
        "member": {"api": people, "tokens.mint": mint},
        "host": {"api": people, "tokens.mint": mint, "rooms.create": create},
        "operator": {"api": staff},
        "admin": {"api": staff},
    }


def test_the_built_in_limits_apply_to_the_actions_they_are_named_after() -> None:
    assert dict(BUILT_IN.applies_to) == {
        "api": LIMITED_ACTIONS,
        "rooms.create": {"rooms.create"},
        "tokens.mint": {"tokens.mint"},
    }


def test_the_built_in_template_lets_owner_and_cohost_be_host() -> None:
    assert BUILT_IN.templates == {
        "default": {
            "owner": ("guest", "host"),
            "cohost": ("guest", "host"),
            "participant": ("guest",),
            "viewer": ("guest",),
        }
    }
    assert BUILT_IN.rooms == RoomDefaults("open", "auto", 100, 43_200, 3600)


def test_the_closed_list_of_permissions_is_the_contracts() -> None:
    contract = "rooms:create rooms:join rooms:read-any rooms:end-any usage:read-own usage:read-any limits:manage"
    assert set(contract.split()) | {"users:manage", "audit:read"} == PERMISSIONS


# --- charges ---


def charged(policy: Policy, roles: tuple[str, ...], action: str) -> dict[str, Limit]:
    charges = policy.charges(roles, action)
    assert all(charge.cost == 1 for charge in charges)
    return {charge.limit.id: charge.limit for charge in charges}


def test_a_request_charges_every_limit_that_applies_to_its_action() -> None:
    assert charged(BUILT_IN, ("host",), "rooms.create").keys() == {"api", "rooms.create"}
    assert charged(BUILT_IN, ("host",), "tokens.mint").keys() == {"api", "tokens.mint"}
    assert charged(BUILT_IN, ("host",), "rooms.list").keys() == {"api"}
    assert charged(BUILT_IN, ("host",), "usage.read") == {}
    assert charged(BUILT_IN, ("host",), "*").keys() == {"api", "rooms.create", "tokens.mint"}


def test_every_limited_action_charges_every_built_in_role() -> None:
    for role, action in itertools.product(BUILT_IN.roles, LIMITED_ACTIONS):
        assert charged(BUILT_IN, (role,), action), (role, action)


def test_an_attempt_without_the_permission_is_also_charged() -> None:
    assert charged(BUILT_IN, ("member",), "rooms.create").keys() == {"api"}


def test_the_most_generous_number_of_several_roles_counts_in_any_order() -> None:
    for roles in itertools.permutations(("member", "admin", "unknown")):
        assert charged(BUILT_IN, roles, "tokens.mint") == {
            "api": Limit("api", 600, MINUTE, 120),
            "tokens.mint": Limit("tokens.mint", 60, MINUTE, 30),
        }


def test_rate_and_burst_are_each_the_most_generous() -> None:
    def holding(limit: Limit) -> Role:
        return Role(frozenset(), {"api": limit})

    fast, deep = Limit("api", 100, MINUTE, 1), Limit("api", 100, HOUR, 50)
    policy = Policy(
        "test.toml",
        {"fast": holding(fast), "deep": holding(deep)},
        {"api": LIMITED_ACTIONS},
        {},
        BUILT_IN.rooms,
        BUILT_IN.anonymous,
    )
    for roles in (("fast", "deep"), ("deep", "fast")):
        assert charged(policy, roles, "rooms.list") == {"api": Limit("api", 100, MINUTE, 50)}
    assert charged(policy, ("fast",), "rooms.list") == {"api": fast}
    assert charged(policy, ("deep",), "rooms.list") == {"api": deep}


def test_cached_charges_are_those_of_the_same_roles_and_action() -> None:
    for _ in range(2):
        assert charged(BUILT_IN, ("member",), "rooms.list")["api"].burst == 60
        assert charged(BUILT_IN, ("admin",), "rooms.list")["api"].burst == 120
        assert charged(BUILT_IN, ("member",), "tokens.mint").keys() == {"api", "tokens.mint"}


def test_unknown_roles_do_not_fill_the_cache() -> None:
    policy = load_policy()
    for n in range(3000):
        policy.charges((f"role{n}",), "rooms.list")
    assert len(policy._cache) <= 1000
    assert charged(policy, ("member",), "rooms.list")["api"].burst == 60

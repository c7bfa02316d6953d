"""The values of the policy: the built-in numbers, and what a request charges."""

import itertools

import pytest

from gateway.policy.actions import LIMITED_ACTIONS, PERMISSIONS
from gateway.policy.file import load_policy, parse_policy
from gateway.policy.model import Policy, Role, RoomDefaults
from limits.policy import US_PER_S, Limit, Quota

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


# --- budgets and numbers of rooms ---

BUDGETS = """
[roles.host]
permissions = ["rooms:create", "rooms:join"]
quotas.mine = 60
quotas.rooms = 600
max_participants = 20
[roles.school]
permissions = ["rooms:create", "rooms:join"]
quotas.rooms = 90
concurrent_rooms = 200
[roles.member]
permissions = ["rooms:join"]
[limits.api]
applies_to = ["*"]
rate = "120/min"
burst = 60
[quotas.mints]
counter = "tokens.mint"
period = "day"
amount = 5
[quotas.mine]
counter = "minutes"
period = "week"
amount = 30
[quotas.rooms]
counter = "minutes"
scope = "owner"
period = "month"
time_zone = "Europe/Berlin"
[quotas.installation]
counter = "minutes"
scope = "all"
period = "month"
amount = 9000
on_exhausted = "end"
[templates.default]
owner = ["host"]
"""


@pytest.fixture
def policy() -> Policy:
    return parse_policy(BUDGETS, "mine.toml")


def amounts(quotas: tuple[Quota, ...]) -> dict[str, int]:
    return {quota.id: quota.amount for quota in quotas}


def test_a_mint_has_the_callers_own_budgets_and_a_look_also_that_of_their_rooms(policy: Policy) -> None:
    assert amounts(policy.quotas(("host",), "tokens.mint")) == {"mints": 5, "mine": 60}
    assert amounts(policy.quotas(("host",), "rooms.create")) == {}
    assert amounts(policy.quotas(("host",), "*")) == {"mints": 5, "mine": 60, "rooms": 600}


def test_an_owner_has_the_budget_of_their_roles(policy: Policy) -> None:
    assert amounts(policy.owner_budgets(("school",))) == {"rooms": 90}
    assert amounts(policy.owner_budgets(("host", "school"))) == {"rooms": 600}
    assert amounts(policy.owner_budgets(("member",))) == {}


def test_an_owner_without_a_role_of_the_policy_has_the_smallest_budget(policy: Policy) -> None:
    assert amounts(policy.owner_budgets(())) == amounts(policy.owner_budgets(("gone",))) == {"rooms": 90}


def test_calendars_of_budgets_are_those_that_the_counters_do_not_have(policy: Policy) -> None:
    assert policy.metered_calendars == {("week", "UTC"), ("month", "Europe/Berlin")}
    assert BUILT_IN.metered_calendars == frozenset()


def test_quotas_have_the_zone_of_reports_unless_they_state_one(policy: Policy) -> None:
    zones = {quota.id: quota.zone for quota in (*policy.quotas(("host",), "*"), *policy.installation)}
    assert (policy.time_zone, zones.pop("rooms"), set(zones.values())) == ("UTC", "Europe/Berlin", {"UTC"})
    berlin = parse_policy(f'{BUDGETS}[reports]\ntime_zone = "Europe/Berlin"', "mine.toml")
    assert berlin.time_zone == "Europe/Berlin"
    assert {quota.zone for quota in (*berlin.quotas(("host",), "*"), *berlin.installation)} == {"Europe/Berlin"}
    assert berlin.metered_calendars == {("week", "Europe/Berlin")}, "the counters have its days and months"


def test_a_role_has_its_own_numbers_of_rooms_and_people(policy: Policy) -> None:
    def numbers(*roles: str) -> tuple[int, int]:
        rooms = policy.rooms_of(roles)
        return rooms.active_per_owner, rooms.size

    assert numbers("host") == (50, 20)
    assert numbers("school") == (200, 100)
    assert numbers("host", "school") == numbers("school", "host") == (200, 100)
    assert numbers("member") == numbers() == numbers("unknown") == (50, 100)
    assert numbers("member", "host") == (50, 20)

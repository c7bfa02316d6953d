"""Decisions of the policy; tests/e2e/test_matrix.py has the whole table."""

import itertools
from copy import deepcopy
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from gateway.policy.actions import ACTIONS, BANNED, RELATIONS
from gateway.policy.decide import decide, decide_role
from gateway.policy.file import load_policy
from gateway.policy.model import Policy, Role, RoomFacts

BUILT_IN = load_policy()


def room(relation: str | None, access: str = "open", *, enabled: bool = True) -> RoomFacts:
    return RoomFacts(relation, access, enabled, "default")


def outcome(role: str, action: str, facts: RoomFacts | None = None) -> str:
    """Return the relation of an allowed action ("yes" where there is none), or the code of the refusal."""
    verdict = decide(BUILT_IN, (role,), action, facts)
    return (verdict.relation or "yes") if verdict.allowed else verdict.code


# --- decide ---

EVERYWHERE = {"account.read": "yes", "rooms.list": "yes", "usage.read": "yes"}
WITHOUT_ROOM = {
    "member": EVERYWHERE | {"rooms.create": "forbidden", "usage.read-any": "forbidden"},
    "host": EVERYWHERE | {"rooms.create": "yes", "usage.read-any": "forbidden"},
    "operator": EVERYWHERE | {"rooms.create": "forbidden", "usage.read-any": "yes"},
    "admin": EVERYWHERE | {"rooms.create": "forbidden", "usage.read-any": "yes"},
    "unknown": {
        "account.read": "forbidden",
        "rooms.list": "forbidden",
        "usage.read": "forbidden",
        "rooms.create": "forbidden",
        "usage.read-any": "forbidden",
    },
}


@pytest.mark.parametrize(
    ("role", "action", "expected"),
    [(role, action, expected) for role, row in WITHOUT_ROOM.items() for action, expected in row.items()],
)
def test_actions_without_a_room_follow_the_permissions(role: str, action: str, expected: str) -> None:
    assert outcome(role, action) == expected
    assert outcome(role, action, room(BANNED, "invited", enabled=False)) == expected  # no room can change them


# (relation, access) -> what members and hosts / operators and admins may: read, mint
ROOMS: dict[tuple[str | None, str], tuple[tuple[str, str], tuple[str, str]]] = {
    ("owner", "open"): (("owner", "owner"), ("owner", "forbidden")),
    ("owner", "invited"): (("owner", "owner"), ("owner", "forbidden")),
    ("cohost", "invited"): (("cohost", "cohost"), ("cohost", "forbidden")),
    ("participant", "invited"): (("participant", "participant"), ("participant", "forbidden")),
    ("viewer", "open"): (("viewer", "viewer"), ("viewer", "forbidden")),
    ("viewer", "invited"): (("viewer", "viewer"), ("viewer", "forbidden")),
    (None, "open"): (("participant", "participant"), ("yes", "forbidden")),
    (None, "invited"): (("not_found", "not_found"), ("yes", "forbidden")),
    (BANNED, "open"): (("not_found", "not_found"), ("not_found", "forbidden")),
    (BANNED, "invited"): (("not_found", "not_found"), ("not_found", "forbidden")),
    ("Owner", "invited"): (("not_found", "not_found"), ("yes", "forbidden")),
    ("", "invited"): (("not_found", "not_found"), ("yes", "forbidden")),
    (None, "OPEN"): (("not_found", "not_found"), ("yes", "forbidden")),
}


@pytest.mark.parametrize("where", ROOMS)
def test_actions_on_a_room_follow_the_relation(where: tuple[str | None, str]) -> None:
    people, staff = ROOMS[where]
    unknown = ("forbidden", "forbidden")
    for roles, (read, mint) in ((("member", "host"), people), (("operator", "admin"), staff), (("unknown",), unknown)):
        for role in roles:
            assert outcome(role, "rooms.read", room(*where)) == read, role
            assert outcome(role, "tokens.mint", room(*where)) == mint, role


def test_a_disabled_room_can_be_read_but_not_joined() -> None:
    for relation in (*RELATIONS, None):
        facts = room(relation, enabled=False)
        assert outcome("member", "tokens.mint", facts) == "room_disabled"
        assert outcome("member", "rooms.read", facts) == (relation or "participant")


def test_a_full_room_can_be_read_but_not_joined() -> None:
    for people, size, expected in ((3, 3, "room_full"), (4, 3, "room_full"), (2, 3, "owner"), (9, 0, "owner")):
        facts = structs.replace(room("owner"), people=people, size=size)
        assert outcome("member", "tokens.mint", facts) == expected
        assert outcome("member", "rooms.read", facts) == "owner"
    stranger = structs.replace(room(None, "invited"), people=3, size=3)
    assert outcome("member", "tokens.mint", stranger) == "not_found"


def test_a_stranger_does_not_learn_that_a_room_is_disabled() -> None:
    assert outcome("member", "tokens.mint", room(None, "invited", enabled=False)) == "not_found"
    assert outcome("member", "tokens.mint", room(BANNED, enabled=False)) == "not_found"


@pytest.mark.parametrize("action", ["rooms.read", "tokens.mint"])
def test_an_unregistered_room_is_like_one_without_a_relation(action: str) -> None:
    ours = decide(BUILT_IN, ("member",), action, room(None, "invited"))
    banned = decide(BUILT_IN, ("member",), action, room(BANNED))
    assert decide(BUILT_IN, ("member",), action, None) == ours == banned
    assert not ours.allowed


@pytest.mark.parametrize("roles", [*itertools.combinations(BUILT_IN.roles, 2), tuple(BUILT_IN.roles)])
def test_banned_users_stay_out_whatever_their_roles(roles: tuple[str, ...]) -> None:
    for action, access in itertools.product(("rooms.read", "tokens.mint"), ("open", "invited")):
        assert not decide(BUILT_IN, roles, action, room(BANNED, access)).allowed


def test_an_operator_who_is_also_a_member_may_join() -> None:
    assert decide(BUILT_IN, ("operator", "member"), "tokens.mint", room(None)).relation == "participant"


def test_a_missing_permission_is_named() -> None:
    verdict = decide(BUILT_IN, ("member",), "rooms.create")
    assert (verdict.code, verdict.missing) == ("forbidden", "rooms:create")
    assert "rooms:create" in verdict.reason


@pytest.mark.parametrize("roles", [(), ("unknown",), ("MEMBER",), ("member ",), ("",)])
def test_an_unknown_role_grants_nothing(roles: tuple[str, ...]) -> None:
    assert BUILT_IN.permissions(roles) == frozenset()
    for action, permission in ACTIONS.items():
        if permission:
            assert not decide(BUILT_IN, roles, action, room("owner")).allowed


@pytest.mark.parametrize("action", ["", "rooms.delete", "ROOMS.READ", "rooms.read ", "*"])
def test_an_unknown_action_is_denied_to_all(action: str) -> None:
    for role in BUILT_IN.roles:
        assert outcome(role, action, room("owner")) == "forbidden"


ROLES = st.lists(st.sampled_from([*BUILT_IN.roles, "unknown"]), max_size=4).map(tuple)
ANY_ACTION = st.sampled_from([*ACTIONS, "unknown.action"])
ANY_ROOM = st.none() | st.builds(
    RoomFacts,
    st.sampled_from([None, *RELATIONS, BANNED, "stranger"]),
    st.sampled_from(["open", "invited", "odd"]),
    st.booleans(),
    st.sampled_from(["default", "unknown"]),
)


@given(roles=ROLES, action=ANY_ACTION, facts=ANY_ROOM)
def test_a_policy_without_roles_denies_every_action(
    roles: tuple[str, ...], action: str, facts: RoomFacts | None
) -> None:
    assert not decide(replace(BUILT_IN, roles={}), roles, action, facts).allowed


@given(roles=ROLES, action=ANY_ACTION, facts=ANY_ROOM)
def test_a_role_without_permissions_may_do_only_what_a_login_or_a_relation_allows(
    roles: tuple[str, ...], action: str, facts: RoomFacts | None
) -> None:
    bare = replace(BUILT_IN, roles={name: Role(frozenset(), {}) for name in BUILT_IN.roles})
    verdict = decide(bare, roles, action, facts)
    assert not verdict.allowed or (ACTIONS[action] is None and verdict.rule in ("login", "relation"))


@given(roles=ROLES, action=ANY_ACTION, facts=ANY_ROOM)
def test_a_decision_depends_only_on_its_arguments_and_changes_none(
    roles: tuple[str, ...], action: str, facts: RoomFacts | None
) -> None:
    policy = deepcopy(BUILT_IN)
    first, again = decide(policy, roles, action, facts), decide(BUILT_IN, roles, action, facts)
    assert (first, first.rule) == (again, again.rule)
    assert policy == BUILT_IN


@given(roles=ROLES, action=ANY_ACTION, facts=ANY_ROOM)
def test_invariants_hold_for_all_roles_relations_and_rooms(
    roles: tuple[str, ...], action: str, facts: RoomFacts | None
) -> None:
    verdict = decide(BUILT_IN, roles, action, facts)
    assert verdict.allowed == (verdict.code == "")
    if not verdict.allowed:
        assert verdict.reason
        return
    assert action in ACTIONS
    assert ACTIONS[action] is None or ACTIONS[action] in BUILT_IN.permissions(roles)
    if action == "tokens.mint":
        assert facts is not None
        assert facts.enabled
        assert facts.relation != BANNED
        assert verdict.relation in RELATIONS
        assert facts.relation == verdict.relation or facts.access == "open"


# --- decide_role ---


def policy_of(**relations: tuple[str, ...]) -> Policy:
    return Policy("test.toml", {}, {}, {"default": relations}, BUILT_IN.rooms, BUILT_IN.anonymous)


FOUR = policy_of(owner=("guest", "host"), viewer=("guest",), cohost=())
REAL = frozenset({"guest", "host", "observer"})


@pytest.mark.parametrize("existing", [REAL, None])
@pytest.mark.parametrize(
    ("relation", "requested", "expected"),
    [
        ("owner", None, "guest"),
        ("owner", "guest", "guest"),
        ("owner", "host", "host"),
        ("viewer", None, "guest"),
        ("viewer", "guest", "guest"),
        ("viewer", "host", "role_not_allowed"),
        ("cohost", None, "role_not_allowed"),
        ("cohost", "guest", "role_not_allowed"),
        ("participant", None, "role_not_allowed"),
        ("participant", "host", "role_not_allowed"),
        ("", "guest", "role_not_allowed"),
        ("owner", "Host", "unknown_role"),
        ("owner", "host ", "unknown_role"),
        ("owner", "", "unknown_role"),
        ("owner", "admin", "unknown_role"),
        ("viewer", "HOST", "unknown_role"),
    ],
)
def test_a_relation_joins_in_the_roles_the_policy_lists_for_it(
    relation: str, requested: str | None, expected: str, existing: frozenset[str] | None
) -> None:
    verdict = decide_role(FOUR, "default", relation, requested, existing)
    assert (verdict.code or verdict.role) == expected
    assert bool(verdict.code) == (verdict.role == "")
    assert bool(verdict.reason) == bool(verdict.code)


def test_a_role_the_template_has_but_the_policy_does_not_list_is_not_allowed() -> None:
    verdict = decide_role(FOUR, "default", "owner", "observer", REAL)
    assert (verdict.code, verdict.allowed) == ("role_not_allowed", ("guest", "host"))
    assert "guest, host" in verdict.reason


def test_before_the_template_is_read_the_policys_own_lists_are_used() -> None:
    assert decide_role(FOUR, "default", "owner", "observer", None).code == "unknown_role"
    assert decide_role(FOUR, "default", "viewer", "host", None).code == "role_not_allowed"


def test_a_listed_role_the_template_does_not_have_is_left_out() -> None:
    verdict = decide_role(FOUR, "default", "owner", None, frozenset({"host"}))
    assert (verdict.role, verdict.allowed) == ("host", ("host",))
    assert decide_role(FOUR, "default", "owner", "guest", frozenset({"host"})).code == "unknown_role"


@pytest.mark.parametrize("existing", [frozenset[str](), frozenset({"Guest", "HOST"}), frozenset({"stage"})])
@pytest.mark.parametrize("requested", [None, "guest"])
def test_a_template_with_none_of_the_listed_roles_is_unknown_role(
    existing: frozenset[str], requested: str | None
) -> None:
    verdict = decide_role(FOUR, "default", "owner", requested, existing)
    assert (verdict.code, verdict.role, verdict.allowed) == ("unknown_role", "", ())


def test_a_template_the_policy_does_not_have_gives_no_role() -> None:
    for existing in (REAL, None):
        assert decide_role(FOUR, "other", "owner", None, existing).code == "role_not_allowed"
        assert decide_role(FOUR, "other", "owner", "host", existing).role == ""


@given(
    relation=st.sampled_from([*RELATIONS, BANNED, ""]),
    requested=st.none() | st.sampled_from(["guest", "host", "Host", "observer", ""]),
    existing=st.none() | st.frozensets(st.sampled_from(["guest", "host", "observer"])),
)
def test_every_given_role_is_listed_and_exists(
    relation: str, requested: str | None, existing: frozenset[str] | None
) -> None:
    verdict = decide_role(FOUR, "default", relation, requested, existing)
    if verdict.role:
        assert verdict.role in FOUR.mintable("default", relation)
        assert existing is None or verdict.role in existing
        assert requested in (None, verdict.role)
    else:
        assert verdict.code in ("unknown_role", "role_not_allowed")


def test_the_reason_states_which_part_of_an_action_a_permission_allows() -> None:
    actions = ("rooms.update", "rooms.end")
    reasons = {action: decide(BUILT_IN, ("operator",), action, room(None)).reason for action in actions}
    assert reasons == {
        "rooms.update": "permission rooms:end-any, only to lock and unlock it",
        "rooms.end": "permission rooms:end-any",
    }

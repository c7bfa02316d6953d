"""Properties of every policy, whatever its roles grant."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.actions import ACTIONS, BANNED, PERMISSIONS, RELATIONS, ROOM_ACTIONS
from gateway.policy.decide import Verdict, decide, decide_role, effective_relation
from gateway.policy.file import load_policy
from gateway.policy.model import Policy, Role, RoomFacts

BUILT_IN = load_policy()
NAMES = ("a", "b", "c", "d")
STRANGE = st.text(max_size=6).filter(lambda name: name not in NAMES)

roles = st.builds(
    lambda permissions, open_rooms: Role(permissions, {}, open_rooms=open_rooms),
    st.frozensets(st.sampled_from(sorted(PERMISSIONS))),
    st.booleans(),
)
policies = st.dictionaries(st.sampled_from(NAMES), roles).map(
    lambda held: Policy("test.toml", held, {}, dict(BUILT_IN.templates), BUILT_IN.rooms, BUILT_IN.anonymous)
)
holdings = st.lists(st.sampled_from(NAMES) | STRANGE, max_size=4).map(tuple)
actions = st.sampled_from(sorted(ACTIONS)) | st.text(max_size=12)
facts = st.builds(
    RoomFacts,
    st.sampled_from([None, *RELATIONS, BANNED]) | st.text(max_size=8),
    st.sampled_from(["open", "invited"]) | st.text(max_size=8),
    st.booleans(),
    st.sampled_from(["default", "other"]),
)


def banned(room: RoomFacts) -> RoomFacts:
    return RoomFacts(BANNED, room.access, room.enabled, room.template)


@given(policies, holdings, holdings, actions, st.none() | facts)
def test_more_roles_never_take_a_permission_away(
    policy: Policy, held: tuple[str, ...], more: tuple[str, ...], action: str, room: RoomFacts | None
) -> None:
    assert policy.permissions(held) <= policy.permissions(held + more)
    if decide(policy, held, action, room).allowed:
        assert decide(policy, held + more, action, room).allowed
        assert decide(policy, more + held, action, room).allowed


@given(policies, holdings, st.sampled_from(sorted(ROOM_ACTIONS)), facts)
def test_a_ban_wins_over_every_role_on_every_action_of_the_room(
    policy: Policy, held: tuple[str, ...], action: str, room: RoomFacts
) -> None:
    verdict = decide(policy, held, action, banned(room))
    assert not verdict.allowed
    assert effective_relation(policy, held, banned(room)) is None
    if verdict.code == "not_found":
        assert verdict.rule == "banned"


@given(policies, holdings, facts)
def test_a_disabled_room_wins_over_every_role_and_relation(
    policy: Policy, held: tuple[str, ...], room: RoomFacts
) -> None:
    disabled = RoomFacts(room.relation, room.access, False, room.template)
    assert not decide(policy, held, "tokens.mint", disabled).allowed


@given(policies, st.lists(STRANGE, max_size=4).map(tuple), holdings, actions, st.none() | facts)
def test_an_unknown_role_neither_grants_nor_changes_anything(
    policy: Policy, strange: tuple[str, ...], held: tuple[str, ...], action: str, room: RoomFacts | None
) -> None:
    assert not decide(policy, strange, action, room).allowed
    assert policy.permissions(strange) == frozenset()
    assert not policy.joins_open_rooms(strange)
    assert decide(policy, held + strange, action, room) == decide(policy, held, action, room)


@given(policies, holdings, actions, facts)
def test_names_of_roles_actions_and_relations_are_case_sensitive(
    policy: Policy, held: tuple[str, ...], action: str, room: RoomFacts
) -> None:
    upper = tuple(role.upper() for role in held)
    assert policy.permissions(role for role in upper if role not in NAMES) == frozenset()
    for other in (action.upper(), f" {action}", f"{action} "):
        if other not in ACTIONS:
            assert not decide(policy, held, other, room).allowed
    if room.relation and room.relation.upper() not in (*RELATIONS, BANNED):
        loud = RoomFacts(room.relation.upper(), "invited", room.enabled, room.template)
        assert effective_relation(policy, held, loud) is None


@given(policies, holdings, actions, st.none() | facts)
def test_every_verdict_names_its_rule(
    policy: Policy, held: tuple[str, ...], action: str, room: RoomFacts | None
) -> None:
    verdict = decide(policy, held, action, room)
    permissions = policy.permissions(held)
    match verdict.rule:
        case "login":
            assert verdict.allowed
            assert ACTIONS[action] is None
        case "permission":
            assert verdict.allowed == (verdict.missing is None)
            named = verdict.missing or verdict.reason.removeprefix("permission ").partition(",")[0]
            assert (named in permissions) == verdict.allowed
        case "relation":
            assert (verdict.relation in ROOM_ACTIONS[action].relations) == verdict.allowed
        case "banned":
            assert room is not None
            assert room.relation == BANNED
            assert not verdict.allowed
        case "room disabled":
            assert room is not None
            assert not room.enabled
            assert not verdict.allowed
        case "default deny":
            assert not verdict.allowed


def test_the_rule_is_only_for_operators_and_not_compared() -> None:
    invited = RoomFacts(None, "invited", True, "default")
    verdicts: list[Verdict] = [decide(BUILT_IN, ("member",), "rooms.read", room) for room in (invited, banned(invited))]
    assert verdicts[0] == verdicts[1]
    assert [verdict.rule for verdict in verdicts] == ["default deny", "banned"]


@given(
    st.sampled_from([*RELATIONS, BANNED, ""]),
    st.none() | st.sampled_from(["guest", "host"]) | st.text(max_size=6),
    st.frozensets(st.sampled_from(["guest", "host", "Guest", "HOST", "stage"])),
)
def test_a_100ms_role_is_given_only_under_the_exact_name_that_policy_and_template_share(
    relation: str, requested: str | None, existing: frozenset[str]
) -> None:
    verdict = decide_role(BUILT_IN, "default", relation, requested, existing)
    both = set(BUILT_IN.mintable("default", relation)) & existing
    assert set(verdict.allowed) == both
    if verdict.role:
        assert verdict.role in both
    elif requested is None:
        assert not both
    else:
        assert requested not in both

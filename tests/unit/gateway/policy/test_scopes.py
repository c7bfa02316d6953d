"""Scopes of service keys: neither side's rights are ever exceeded, and each action of the policy has a rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.service_keys import ServiceKey
from auth.tokens import Principal
from gateway.accounts.actor import Actor
from gateway.policy.actions import ACTIONS, BANNED, COUNTED, RELATIONS, ROOM_ACTIONS
from gateway.policy.decide import decide, effective_relation
from gateway.policy.file import load_policy
from gateway.policy.live import PolicyInForce
from gateway.policy.model import RoomFacts
from gateway.policy.scopes import ACT, INTROSPECT, ROLE, SCOPES, decide_for, narrowed, scopes_of

POLICY = load_policy(None)
LIVE = PolicyInForce(POLICY)
UID = "u" + "a" * 20
ROLES = st.lists(st.sampled_from(sorted(POLICY.roles)), min_size=1, max_size=3, unique=True).map(tuple)
SETS_OF_SCOPES = st.frozensets(st.sampled_from(sorted(SCOPES)))
FACTS = st.one_of(
    st.none(),
    st.builds(
        RoomFacts,
        relation=st.sampled_from([None, *RELATIONS, BANNED]),
        access=st.sampled_from(["open", "invited"]),
        enabled=st.booleans(),
        template=st.just("default"),
    ),
)


def key_with(scopes: Iterable[str]) -> ServiceKey:
    return ServiceKey("gwk_abcdefghijkl", "crm", frozenset(scopes), "active", 1, "cli", 0, (), "m", "d", "", 0, 0)


def acting(scopes: Iterable[str], roles: tuple[str, ...]) -> Principal:
    return Principal(UID, "", roles, 1, key_with(scopes))


def alone(scopes: Iterable[str]) -> Principal:
    key = key_with(scopes)
    return Principal(key.id, "", (ROLE,), 0, key)


def may(caller: Principal, action: str, room: RoomFacts | None = None) -> bool:
    return decide_for(LIVE.of(caller), caller, action, room).allowed


@given(SETS_OF_SCOPES, ROLES, st.sampled_from(sorted(ACTIONS)), FACTS)
def test_key_that_acts_for_a_user_may_only_what_both_may(
    scopes: frozenset[str], roles: tuple[str, ...], action: str, room: RoomFacts | None
) -> None:
    caller = acting(scopes, roles)
    if not may(caller, action, room):
        return
    assert decide(POLICY, roles, action, room).allowed, "the user may not do this"
    assert scopes & set(scopes_of(action, acting=True)), "the key may not do this for anybody"
    assert may(acting(SCOPES, roles), action, room)
    needed = ACTIONS[action]
    assert needed is None or needed in scopes


@given(SETS_OF_SCOPES, ROLES, FACTS)
def test_whatever_asks_the_narrowed_policy_gets_the_rights_of_both(
    scopes: frozenset[str], roles: tuple[str, ...], room: RoomFacts | None
) -> None:
    caller = acting(scopes, roles)
    policy = LIVE.of(caller)
    assert policy.permissions(roles) == POLICY.permissions(roles) & scopes
    assert Actor.of(caller, policy).permissions == POLICY.permissions(roles) & scopes
    if policy.joins_open_rooms(roles):
        assert POLICY.joins_open_rooms(roles)
        assert "rooms:join" in scopes
    if room is not None and effective_relation(policy, roles, room) is not None:
        assert effective_relation(policy, roles, room) == effective_relation(POLICY, roles, room)
    # The user's own limits, quotas and budgets count, whatever the key may do.
    for action in (*sorted(ACTIONS), "*"):
        assert policy.charges(roles, action) == POLICY.charges(roles, action)
        assert policy.quotas(roles, action) == POLICY.quotas(roles, action)
    assert policy.owner_budgets(roles) == POLICY.owner_budgets(roles)


@given(SETS_OF_SCOPES, st.sampled_from(sorted(ACTIONS)), FACTS)
def test_key_by_itself_may_only_what_its_scopes_say(
    scopes: frozenset[str], action: str, room: RoomFacts | None
) -> None:
    caller = alone(scopes)
    assert LIVE.of(caller).permissions((ROLE,)) <= scopes - {ACT}
    if may(caller, action, room):
        assert scopes & set(scopes_of(action, acting=False))
        assert action not in COUNTED
        assert room is None or room.relation != BANNED or action not in ROOM_ACTIONS


@given(SETS_OF_SCOPES, ROLES, st.sampled_from(sorted(ACTIONS)), FACTS)
def test_a_further_scope_never_takes_anything_away(
    scopes: frozenset[str], roles: tuple[str, ...], action: str, room: RoomFacts | None
) -> None:
    for more in SCOPES:
        if may(acting(scopes, roles), action, room):
            assert may(acting(scopes | {more}, roles), action, room)
        if may(alone(scopes), action, room):
            assert may(alone(scopes | {more}), action, room)


def test_key_with_all_scopes_acts_like_its_user_except_on_accounts_and_keys() -> None:
    for role in POLICY.roles:
        for action in ACTIONS:
            room = RoomFacts("owner", "open", True, "default") if action in ROOM_ACTIONS else None
            expected = decide(POLICY, (role,), action, room).allowed
            if action in ("account.read", "account.manage", "keys.manage"):
                expected = False
            assert may(acting(SCOPES, (role,)), action, room) == expected, (role, action)


def test_what_a_key_may_do_by_itself() -> None:
    allowed = {action for action in ACTIONS if may(alone(SCOPES), action, RoomFacts(None, "open", True, "default"))}
    assert allowed == {
        "rooms.list", "rooms.read", "rooms.update", "rooms.end", "members.read", "usage.read", "usage.read-any",
        "limits.manage", "users.manage", "audit.read", "tokens.introspect",
    }  # fmt: skip


@pytest.mark.parametrize(("scope", "allowed"), [(ACT, set()), (INTROSPECT, {"tokens.introspect"})])
def test_scope_that_is_no_permission_allows_nothing_for_users(scope: str, allowed: set[str]) -> None:
    room = RoomFacts("owner", "open", True, "default")
    assert {action for action in ACTIONS if may(alone({scope}), action, room)} == allowed
    for role in POLICY.roles:
        assert not any(may(acting({scope}, (role,)), action, room) for action in ACTIONS)


def test_denial_names_the_missing_scope_or_the_header() -> None:
    verdict = decide_for(LIVE.of(alone({ACT})), alone({ACT}), "usage.read-any")
    assert (verdict.code, verdict.missing) == ("forbidden", "usage:read-any")
    assert "usage:read-any" in verdict.reason
    for action in ("rooms.create", "tokens.mint", "members.change"):
        verdict = decide_for(LIVE.of(alone(SCOPES)), alone(SCOPES), action)
        assert verdict.code == "forbidden"
        assert "X-Act-As" in verdict.reason
    verdict = decide_for(LIVE.of(alone(SCOPES)), alone(SCOPES), "account.manage")
    assert "login" in verdict.reason
    lacking = acting({ACT, "rooms:create"}, ("member",))  # the key may, the user may not
    verdict = decide_for(LIVE.of(lacking), lacking, "rooms.create")
    assert (verdict.code, verdict.missing) == ("forbidden", "rooms:create")


def test_every_request_of_a_key_takes_from_its_limit_api_whatever_the_file_says() -> None:
    without = replace(POLICY, applies_to={}, roles={})
    for action in ACTIONS:
        if action != "usage.read":
            charges = narrowed(without, frozenset(), acting=False).charges((ROLE,), action)
            assert [charge.limit.id for charge in charges] == ["api"], action
            assert charges[0].cost == 1


def test_narrowed_policies_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.policy.scopes._MOST_REMEMBERED", 2)
    policy = replace(POLICY)
    sets = [frozenset({scope}) for scope in sorted(SCOPES)[:3]]
    made = [narrowed(policy, scopes, acting=True) for scopes in sets]
    assert narrowed(policy, sets[0], acting=True) is made[0]
    assert narrowed(policy, sets[2], acting=True) is not made[2]
    assert len(policy.narrowed) == 2

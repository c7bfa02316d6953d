"""Decisions of the policy about rooms and their members; the whole table is in tests/e2e/test_matrix.py."""

import dataclasses
import itertools

import pytest
from msgspec.structs import replace

from gateway.policy.actions import ACTIONS, BANNED, RELATIONS, ROOM_ACTIONS
from gateway.policy.decide import decide, decide_member, effective_relation, loses_roles, outranks
from gateway.policy.file import load_policy
from gateway.policy.model import RoomFacts

BUILT_IN = load_policy()
GIVEN = (*RELATIONS, BANNED)


def test_rooms_actions_are_actions_and_the_others_take_no_room() -> None:
    assert ROOM_ACTIONS.keys() < ACTIONS.keys()
    on_rooms = {"rooms.read", "rooms.update", "rooms.end", "members.read", "members.change", "invites.manage"}
    assert ROOM_ACTIONS.keys() == on_rooms | {"tokens.mint"}


def test_only_owner_and_cohost_may_change_a_room() -> None:
    for action, relation in itertools.product(ROOM_ACTIONS, ("participant", "viewer")):
        facts = RoomFacts(relation, "open", True, "default")
        allowed = decide(BUILT_IN, ("host", "member", "guest"), action, facts).allowed
        assert allowed is (action in ("rooms.read", "tokens.mint")), action


def test_an_operator_needs_no_relation_to_a_room() -> None:
    """This distinguishes an operator's lock from an owner's."""
    for relation, action in itertools.product((None, "participant", "viewer"), ("rooms.update", "rooms.end")):
        for roles in (("operator",), ("operator", "member")):
            verdict = decide(BUILT_IN, roles, action, RoomFacts(relation, "open", True, "default"))
            assert (verdict.allowed, verdict.relation) == (True, None)
    verdict = decide(BUILT_IN, ("operator",), "rooms.end", RoomFacts("owner", "open", True, "default"))
    assert (verdict.allowed, verdict.relation) == (True, "owner")


def test_a_room_that_a_user_may_read_is_not_reported_missing() -> None:
    for action in ("members.change", "invites.manage"):
        verdict = decide(BUILT_IN, ("operator",), action, RoomFacts(None, "invited", True, "default"))
        assert (verdict.allowed, verdict.code) == (False, "forbidden")
        assert decide(BUILT_IN, ("operator",), action, None).code == "not_found"


@pytest.mark.parametrize(
    ("roles", "joins"),
    [(("guest",), False), (("member",), True), (("guest", "member"), True), (("operator",), False), ((), False)],
)
def test_an_open_room_is_open_only_to_roles_that_join_open_rooms(roles: tuple[str, ...], joins: bool) -> None:
    facts = RoomFacts(None, "open", True, "default")
    assert effective_relation(BUILT_IN, roles, facts) == ("participant" if joins else None)
    assert effective_relation(BUILT_IN, roles, replace(facts, access="invited")) is None
    assert effective_relation(BUILT_IN, roles, replace(facts, relation=BANNED)) is None
    assert effective_relation(BUILT_IN, roles, replace(facts, relation="viewer")) == "viewer"


# actor -> the relations they may give to an owner, cohost, participant, viewer, banned user, user without relation:
# owner, cohost, participant, viewer, banned
ALL, NONE, SMALL = "yyyyy", "-----", "--yyy"
MAY = {
    "owner": (ALL, ALL, ALL, ALL, ALL, ALL),
    "cohost": (NONE, NONE, SMALL, SMALL, SMALL, SMALL),
    "participant": (NONE,) * 6,
    "viewer": (NONE,) * 6,
    "banned": (NONE,) * 6,
    "": (NONE,) * 6,
}


@pytest.mark.parametrize("actor", MAY)
def test_relations_may_be_given_according_to_the_table(actor: str) -> None:
    for target, row in zip((*RELATIONS, BANNED, None), MAY[actor], strict=True):
        for wanted, expected in zip(GIVEN, row, strict=True):
            verdict = decide_member(actor, target, wanted)
            assert verdict.allowed is (expected == "y"), (actor, target, wanted)
            assert verdict.code == ("" if verdict.allowed else "forbidden")


def test_only_relations_rank_and_each_outranks_those_below() -> None:
    for high, low in itertools.product(range(4), repeat=2):
        assert outranks(RELATIONS[high], RELATIONS[low]) is (high <= low)
    for nothing in (None, BANNED, "", "Owner"):
        assert not outranks(nothing, "viewer")


def test_a_role_is_lost_if_the_template_does_not_give_it_to_the_new_relation() -> None:
    roles = {"owner": ("a", "b"), "cohost": ("b",), "participant": (), "viewer": ("a",)}
    mixed = dataclasses.replace(BUILT_IN, templates={"t": roles})
    changes = itertools.product((None, *GIVEN), GIVEN)
    lost = {(before, after) for before, after in changes if loses_roles(mixed, "t", before, after)}
    assert lost == {
        ("owner", "cohost"), ("owner", "participant"), ("owner", "viewer"), ("owner", "banned"),
        ("cohost", "participant"), ("cohost", "viewer"), ("cohost", "banned"),
        ("viewer", "cohost"), ("viewer", "participant"), ("viewer", "banned"),
    }  # fmt: skip

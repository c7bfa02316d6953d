"""An explanation states what the gateway would decide, and why."""

from __future__ import annotations

import itertools

import pytest

from auth.users import User
from gateway.policy.actions import ACTIONS, BANNED, RELATIONS, ROOM_ACTIONS
from gateway.policy.decide import decide
from gateway.policy.explain import Explanation, Question, explain
from gateway.policy.file import load_policy
from gateway.policy.model import RoomFacts

BUILT_IN = load_policy()


def user(*roles: str, status: str = "active") -> User:
    return User("u1", "mira", "Mira", roles, status, 1, 0)


def facts(relation: str | None, access: str = "open", *, enabled: bool = True) -> RoomFacts:
    return RoomFacts(relation, access, enabled, "default")


def mint(relation: str | None, requested: str | None = None, *, status: str = "active", **room: object) -> Explanation:
    where = facts(relation, **room)  # type: ignore[arg-type]
    return explain(BUILT_IN, Question(user("member", status=status), "tokens.mint", where, requested))


@pytest.mark.parametrize(
    ("explanation", "rule", "code"),
    [
        (explain(BUILT_IN, Question(user("member"), "rooms.list")), "login", ""),
        (explain(BUILT_IN, Question(user("host"), "rooms.create")), "permission", ""),
        (explain(BUILT_IN, Question(user("member"), "rooms.create")), "permission", "forbidden"),
        (explain(BUILT_IN, Question(user("gone"), "rooms.list")), "default deny", "forbidden"),
        (explain(BUILT_IN, Question(user("member"), "rooms.read")), "default deny", "not_found"),
        (explain(BUILT_IN, Question(user("operator"), "rooms.end", facts(None))), "permission", ""),
        (explain(BUILT_IN, Question(user("member"), "rooms.end", facts("viewer"))), "relation", "forbidden"),
        (mint(None), "relation", ""),
        (mint(None, access="invited"), "default deny", "not_found"),
        (mint(BANNED), "banned", "not_found"),
        (mint("owner", enabled=False), "room disabled", "room_disabled"),
        (mint("viewer", "host"), "100ms role", "role_not_allowed"),
        (mint("owner", "Host"), "100ms role", "unknown_role"),
        (mint("owner", "host", status="disabled"), "user disabled", "invalid_token"),
    ],
)
def test_the_deciding_rule_is_named(explanation: Explanation, rule: str, code: str) -> None:
    assert (explanation.rule, explanation.code) == (rule, code)
    assert explanation.allowed == (code == "")
    assert explanation.reason or explanation.allowed


@pytest.mark.parametrize(
    ("relation", "access", "effective"),
    [
        (None, "open", "participant"),
        (None, "invited", None),
        ("viewer", "open", "viewer"),
        ("owner", "invited", "owner"),
        (BANNED, "open", None),
    ],
)
def test_the_effective_relation_is_shown_with_the_stored_one(
    relation: str | None, access: str, effective: str | None
) -> None:
    explanation = mint(relation, access=access)
    assert (explanation.stored, explanation.effective) == (relation, effective)


def test_an_explanation_agrees_with_the_decision_everywhere() -> None:
    rooms = [
        None,
        *(
            facts(relation, access, enabled=enabled)
            for relation, access, enabled in itertools.product(
                (None, *RELATIONS, BANNED), ("open", "invited"), (True, False)
            )
        ),
    ]
    for role, action, where in itertools.product((*BUILT_IN.roles, "gone"), ACTIONS, rooms):
        verdict = decide(BUILT_IN, (role,), action, where)
        explanation = explain(BUILT_IN, Question(user(role), action, where))
        assert (explanation.allowed, explanation.rule, explanation.code) == (
            verdict.allowed,
            verdict.rule,
            verdict.code,
        )
        assert explanation.charges == BUILT_IN.charges((role,), action)


def test_100ms_roles_are_considered_only_if_the_user_may_join() -> None:
    assert mint(None).role is not None
    assert mint(None, access="invited").role is None
    assert explain(BUILT_IN, Question(user("member"), "rooms.read", facts("owner"))).role is None


def test_the_actual_roles_of_a_template_count() -> None:
    where = facts("owner")
    question = Question(user("host"), "tokens.mint", where, None, frozenset({"host"}))
    role = explain(BUILT_IN, question).role
    assert role is not None
    assert (role.role, role.allowed) == ("host", ("host",))


def test_every_rule_for_relations_is_of_an_action() -> None:
    assert set(ROOM_ACTIONS) <= set(ACTIONS)

"""Attempts to take over another user's room: by name, by id, by claimed ownership, by an answer of 100ms.

OWASP API Security 2023 API1 (broken object level authorization), API3; CWE-639. 100ms overwrites a room when
a create uses its name (100ms docs: server-side v2, create-room).
"""

from __future__ import annotations

import itertools

import pytest

from tests.e2e.checks import assert_problem
from tests.e2e.people import Person, ask, calls_since, new_room, newcomers, strike, upstream
from tests.servers import Installation

FOREIGN_IDS = [
    "f" * 24, "F" * 24, "0" * 23, "0" * 25, "..", "%2e%2e", "0" * 24 + "%00", "0" * 24 + "%0a", "%2f" + "0" * 23, "*",
    "{" + "0" * 22 + "}", "my-room-name", "0" * 24 + "%3fenabled=true", "null", "-1",
]  # fmt: skip
ON_A_ROOM = [
    ("GET", "", None),
    ("PATCH", "", {"name": "x", "description": "x", "enabled": False}),
    ("POST", "/token", {}),
    ("POST", "/end", {"lock": True}),
    ("GET", "/members", None),
    ("PUT", "/members/{me}", {"relation": "owner"}),
    ("DELETE", "/members/{me}", None),
    ("POST", "/invites", {}),
    ("GET", "/invites", None),
    ("DELETE", "/invites/x", None),
]


@pytest.fixture(scope="module")
def victim(target: Installation) -> Person:
    return newcomers(target, "host")[0]


@pytest.fixture(scope="module")
def mallory(target: Installation) -> Person:
    """An attacker who may create rooms."""
    return newcomers(target, "host")[0]


def test_no_route_sends_an_unregistered_room_to_100ms(target: Installation, mallory: Person) -> None:
    before = target.upstream_calls()
    for room, (method, path, body) in itertools.product(FOREIGN_IDS, ON_A_ROOM):
        answer = ask(target, mallory, method, f"/rooms/{room}{path.format(me=mallory.id)}", body)
        assert answer.status_code in (404, 405), (method, room, path, answer.text)
        assert answer.json()["code"] in ("not_found", "method_not_allowed")
    assert calls_since(target, before) == []


def test_room_that_exists_only_at_100ms_belongs_to_no_user(target: Installation, mallory: Person) -> None:
    """A room made in the dashboard, or by another system of the workspace."""
    template = target.env["HMS_TEMPLATE_ID"]
    room = new_room(target, mallory)
    with target.valkey.client() as redis:
        redis.delete(f"rm:1:{{{room}}}", f"rr:1:{{{room}}}")
    assert upstream(target, f"/rooms/{room}")["template_id"] == template
    before = target.upstream_calls()
    for method, path, body in ON_A_ROOM:
        answer = ask(target, mallory, method, f"/rooms/{room}{path.format(me=mallory.id)}", body)
        assert_problem(answer, 404, "not_found")
    assert calls_since(target, before) == []


def test_invited_room_of_another_user_answers_as_if_it_did_not_exist(
    target: Installation, victim: Person, mallory: Person
) -> None:
    room = new_room(target, victim, access="invited")
    was = ask(target, victim, "GET", f"/rooms/{room}").json()
    before = target.upstream_calls()
    for method, path, body in ON_A_ROOM:
        documents = [
            assert_problem(
                ask(target, mallory, method, f"/rooms/{one}{path.format(me=mallory.id)}", body), 404, "not_found"
            )
            | {"request_id": "", "instance": ""}
            for one in (room, "f" * 24)
        ]
        assert documents[0] == documents[1]
    assert calls_since(target, before) == []
    assert ask(target, victim, "GET", f"/rooms/{room}").json() == was
    assert ask(target, mallory, "GET", "/rooms?limit=100").text.count(room) == 0


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "", {"name": "mine now"}),
        ("PATCH", "", {"access": "invited"}),
        ("PATCH", "", {"enabled": False}),
        ("POST", "/end", {}),
        ("PUT", "/members/{me}", {"relation": "owner"}),
        ("PUT", "/members/{me}", {"relation": "cohost"}),
        ("DELETE", "/members/{victim}", None),
        ("GET", "/members", None),
        ("POST", "/invites", {"relation": "cohost"}),
        ("GET", "/invites", None),
    ],
)
def test_implicit_participant_of_an_open_room_cannot_change_anything(
    target: Installation, victim: Person, mallory: Person, method: str, path: str, body: dict[str, str] | None
) -> None:
    room = new_room(target, victim)
    before = target.upstream_calls()
    address = f"/rooms/{room}{path.format(me=mallory.id, victim=victim.id)}"
    assert_problem(ask(target, mallory, method, address, body), 403, "forbidden")
    assert calls_since(target, before) == []


@pytest.mark.parametrize(
    "field", ["owner_id", "owner", "creator", "created_by", "relation", "user_id", "held", "lease"]
)
def test_no_request_field_sets_the_owner(target: Installation, victim: Person, mallory: Person, field: str) -> None:
    room = new_room(target, mallory)
    before = target.upstream_calls()
    for method, path in (("POST", "/rooms"), ("PATCH", f"/rooms/{room}")):
        answer = ask(target, mallory, method, path, {"name": "x", field: victim.id})
        assert_problem(answer, 400, "invalid_request", field=field)
    assert calls_since(target, before) == []
    assert ask(target, mallory, "GET", f"/rooms/{room}").json()["room"]["owner_id"] == mallory.id


def test_upstream_name_of_another_users_room_cannot_select_it_by_create_or_rename(
    target: Installation, victim: Person, mallory: Person
) -> None:
    room = new_room(target, victim, name="Board meeting")
    upstream_name = upstream(target, f"/rooms/{room}")["name"]
    before = target.upstream_calls()
    mine = new_room(target, mallory, name=upstream_name)
    assert mine != room
    assert (
        ask(target, mallory, "PATCH", f"/rooms/{mine}", {"name": upstream_name, "description": "x"}).status_code == 200
    )
    sent = [call["body"] for call in calls_since(target, before) if call["method"] == "POST"]
    assert [body.get("name") == upstream_name for body in sent] == [False, False]
    assert "name" not in sent[1]
    assert upstream(target, f"/rooms/{room}")["name"] == upstream_name


def test_wrong_room_in_an_answer_of_100ms_does_not_change_its_owner(
    target: Installation, victim: Person, mallory: Person
) -> None:
    """Whether caused by a repeated name or an error of 100ms, the victim's room does not change."""
    room = new_room(target, victim, name="Board meeting", access="invited")
    was = ask(target, victim, "GET", f"/rooms/{room}").json()
    strike(target, "status=400", match="/v2/rooms")
    refused = ask(target, mallory, "POST", "/rooms", {}, Idempotency_Key="takeover")
    assert_problem(refused, 502, "upstream_error")
    with target.valkey.client() as redis:
        [record] = redis.keys(f"ik:1:{{{mallory.id}}}:*")  # type: ignore[misc]
        redis.hset(record, "name", upstream(target, f"/rooms/{room}")["name"])
    answer = ask(target, mallory, "POST", "/rooms", {}, Idempotency_Key="takeover")
    assert_problem(answer, 502, "upstream_error")
    assert room not in answer.text
    assert ask(target, victim, "GET", f"/rooms/{room}").json() == was
    assert_problem(ask(target, mallory, "GET", f"/rooms/{room}"), 404, "not_found")
    assert room not in ask(target, mallory, "GET", "/rooms?limit=100").text


def test_user_named_like_another_users_id_gets_none_of_their_relations(target: Installation, victim: Person) -> None:
    """An owner selects a member by id; a user whose name is that id must not be selected instead (CWE-706).

    Such names are refused today; this one predates the rule.
    """
    bob, squatter = newcomers(target, "member", "member")
    with target.valkey.client() as redis:
        redis.set(f"un:1:{bob.id}", squatter.id)
    room = new_room(target, victim, access="invited")
    answer = ask(target, victim, "PUT", f"/rooms/{room}/members/{bob.id}", {"relation": "cohost"})
    assert answer.json()["member"]["username"] == bob.name
    assert ask(target, bob, "GET", f"/rooms/{room}").status_code == 200
    assert_problem(ask(target, squatter, "GET", f"/rooms/{room}"), 404, "not_found")

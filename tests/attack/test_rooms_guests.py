"""Attempts of a guest to exceed their room. OWASP API Security 2023 API5 (broken function level authorization)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.checks import assert_problem
from tests.e2e.people import Person, ask, calls_since, mint, new_room, newcomers
from tests.servers import Installation


@pytest.fixture(scope="module")
def host(target: Installation) -> Person:
    return newcomers(target, "host")[0]


@pytest.fixture(scope="module")
def room(target: Installation, host: Person) -> str:
    return new_room(target, host, access="invited")


@pytest.fixture(scope="module")
def guest(target: Installation, host: Person, room: str) -> Person:
    code = ask(target, host, "POST", f"/rooms/{room}/invites", {"guests": True}).json()["code"]
    login = ask(target, None, "POST", f"/invites/{code}/accept", {"display_name": "Gus"}).json()["login"]
    return Person(login["user"]["id"], login["user"]["username"], login["access_token"])


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/rooms", {}),
        ("PATCH", "/rooms/{room}", {"name": "mine"}),
        ("PATCH", "/rooms/{room}", {"access": "open"}),
        ("POST", "/rooms/{room}/end", {"lock": True}),
        ("GET", "/rooms/{room}/members", None),
        ("PUT", "/rooms/{room}/members/{host}", {"relation": "banned"}),
        ("PUT", "/rooms/{room}/members/{me}", {"relation": "owner"}),
        ("DELETE", "/rooms/{room}/members/{host}", None),
        ("POST", "/rooms/{room}/invites", {"guests": True}),
        ("GET", "/rooms/{room}/invites", None),
        ("POST", "/rooms/{room}/token", {"role": "host"}),
        ("GET", "/admin/users", None),
        ("PATCH", "/admin/users/{me}", {"roles": ["admin"]}),
        ("GET", "/admin/usage", None),
        ("GET", "/admin/audit", None),
        ("PUT", "/admin/limits/{me}/override", {"name": "api", "rate": "9/s", "burst": 9, "lasts_s": 9, "reason": "r"}),
    ],
)
def test_guest_may_only_join(
    target: Installation, host: Person, room: str, guest: Person, method: str, path: str, body: Any
) -> None:
    before = target.upstream_calls()
    answer = ask(target, guest, method, path.format(room=room, host=host.id, me=guest.id), body)
    assert_problem(answer, 403, "role_not_allowed" if path.endswith("/token") else "forbidden")
    assert calls_since(target, before) == []


def test_guest_sees_no_open_room(target: Installation, host: Person, room: str, guest: Person) -> None:
    other = new_room(target, host, access="open")
    for method, path in (("GET", ""), ("POST", "/token"), ("POST", "/end"), ("GET", "/members")):
        body = {} if method == "POST" else None
        assert_problem(ask(target, guest, method, f"/rooms/{other}{path}", body), 404, "not_found")
    assert [one["id"] for one in ask(target, guest, "GET", "/rooms").json()["rooms"]] == [room]


def test_guest_cannot_accept_another_invite(target: Installation, host: Person, room: str, guest: Person) -> None:
    other = new_room(target, host)
    for body in ({"relation": "cohost"}, {"guests": True}):
        for where in (room, other):
            code = ask(target, host, "POST", f"/rooms/{where}/invites", body).json()["code"]
            assert_problem(ask(target, guest, "POST", f"/invites/{code}/accept", {}), 403, "forbidden")
    assert_problem(ask(target, guest, "GET", f"/rooms/{other}"), 404, "not_found")
    assert ask(target, guest, "GET", f"/rooms/{room}").json()["room"]["relation"] == "participant"


@pytest.mark.parametrize("relation", ["owner", "cohost"])
def test_guest_cannot_be_made_owner_or_cohost_even_by_the_owner(
    target: Installation, host: Person, room: str, guest: Person, relation: str
) -> None:
    answer = ask(target, host, "PUT", f"/rooms/{room}/members/{guest.id}", {"relation": relation})
    assert_problem(answer, 400, "invalid_request", field="relation")


def test_guest_cannot_be_added_to_another_room_even_by_its_owner(target: Installation, guest: Person) -> None:
    [other] = newcomers(target, "host")
    room = new_room(target, other, access="invited")
    for relation in ("participant", "viewer"):
        answer = ask(target, other, "PUT", f"/rooms/{room}/members/{guest.id}", {"relation": relation})
        assert_problem(answer, 400, "invalid_request", field="relation")
    assert_problem(ask(target, guest, "GET", f"/rooms/{room}"), 404, "not_found")
    assert ask(target, other, "DELETE", f"/rooms/{room}/members/{guest.id}").status_code == 204


def test_guest_can_become_viewer_and_participant_again_in_their_own_room(
    target: Installation, host: Person, room: str, guest: Person
) -> None:
    for relation in ("viewer", "participant"):
        answer = ask(target, host, "PUT", f"/rooms/{room}/members/{guest.id}", {"relation": relation})
        assert answer.status_code == 200, answer.text


def test_banned_guest_is_removed_and_does_not_return(target: Installation, host: Person) -> None:
    room = new_room(target, host, access="invited")
    code = ask(target, host, "POST", f"/rooms/{room}/invites", {"guests": True}).json()["code"]
    login = ask(target, None, "POST", f"/invites/{code}/accept", {}).json()["login"]
    gus = Person(login["user"]["id"], "", login["access_token"])
    assert mint(target, gus, room).status_code == 200
    assert ask(target, host, "DELETE", f"/rooms/{room}/members/{gus.id}").status_code == 204
    assert_problem(mint(target, gus, room), 404, "not_found")
    assert ask(target, gus, "GET", "/rooms").json()["rooms"] == []


def test_guest_cannot_make_their_account_permanent(target: Installation, guest: Person) -> None:
    body = {"current_password": "", "new_password": "a long enough passphrase 7"}
    answer = ask(target, guest, "POST", "/auth/password", body)
    assert answer.status_code in (400, 401)
    assert ask(target, guest, "GET", "/auth/me").json()["permissions"] == ["rooms:join", "usage:read-own"]

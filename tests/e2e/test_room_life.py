"""The life of a room: changes, locks, places, names, members, hand-over, lists."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest

from tests.e2e.checks import assert_problem
from tests.e2e.people import (
    Person,
    arrive,
    ask,
    at_once,
    calls_since,
    join,
    mint,
    new_room,
    newcomers,
    peers,
    places,
    strike,
    upstream,
)
from tests.e2e.volley import post
from tests.servers import Installation, wait_until


@pytest.fixture
def host(house: Installation) -> Person:
    return newcomers(house, "host")[0]


def patch(house: Installation, who: Person, room: str, **body: Any) -> httpx.Response:
    return ask(house, who, "PATCH", f"/rooms/{room}", body)


def put(house: Installation, who: Person, room: str, member: Person, relation: str) -> httpx.Response:
    return ask(house, who, "PUT", f"/rooms/{room}/members/{member.id}", {"relation": relation})


def operator(house: Installation) -> Person:
    return newcomers(house, "operator")[0]


# --- PATCH ---


def test_change_returns_the_room_and_sends_only_the_description_to_100ms(house: Installation, host: Person) -> None:
    room = new_room(house, host, name=f"Tea of {host.name}", description="about")
    before = house.upstream_calls()
    changes = {"name": f"Coffee of {host.name}", "description": "new"}
    answer = patch(house, host, room, **changes)
    assert answer.status_code == 200, answer.text
    shown = answer.json()["room"]
    assert {name: shown[name] for name in changes} == changes
    assert ask(house, host, "GET", f"/rooms/{room}").json()["room"] == shown
    assert [(call["path"], call["body"]) for call in calls_since(house, before)] == [
        (f"/v2/rooms/{room}", {"description": "new"})
    ]
    assert patch(house, host, room).json()["room"] == shown


def test_change_that_100ms_refuses_changes_nothing(house: Installation, host: Person) -> None:
    room = new_room(house, host, name=f"Tea of {host.name}", description="about")
    was = ask(house, host, "GET", f"/rooms/{room}").json()
    strike(house, "status=400", match=f"/v2/rooms/{room}")
    answer = patch(house, host, room, name=f"Coffee of {host.name}", description="new", access="invited")
    assert_problem(answer, 502, "upstream_error")
    assert ask(house, host, "GET", f"/rooms/{room}").json() == was
    a_minute_later(house, f"Coffee of {host.name}")
    assert new_room(house, host, name=f"Coffee of {host.name}")


@pytest.mark.parametrize(
    ("body", "field"),
    [({"owner_id": "x"}, "owner_id"), ({"template": "x"}, "template"), ({"size": 3}, "size"), ({"held": 0}, "held"),
     ({"enabled": "no"}, "enabled"), ({"access": "secret"}, "access"), ({"name": "a\nb"}, "name")],
)  # fmt: skip
def test_change_by_a_user_without_the_relation_is_refused(
    house: Installation, host: Person, body: dict[str, Any], field: str
) -> None:
    room = new_room(house, host)
    assert_problem(patch(house, host, room, **body), 400, "invalid_request", field=field)


def test_room_that_becomes_invited_is_hidden_from_users_who_had_only_joined_it(
    house: Installation, host: Person
) -> None:
    [mira] = newcomers(house, "member")
    room = new_room(house, host, name=f"Secret of {host.name}")
    assert mint(house, mira, room).status_code == 200
    assert [one["id"] for one in ask(house, mira, "GET", "/rooms").json()["rooms"]] == [room]
    assert patch(house, host, room, access="invited").status_code == 200
    assert ask(house, mira, "GET", "/rooms").json()["rooms"] == []
    assert_problem(ask(house, mira, "GET", f"/rooms/{room}"), 404, "not_found")
    assert_problem(mint(house, mira, room), 404, "not_found")


def test_when_a_room_becomes_invited_everyone_without_a_relation_is_removed(house: Installation, host: Person) -> None:
    """Users who may no longer mint are removed from the session; a repeated request removes those who stayed."""
    mira, nils, olaf = newcomers(house, "member", "member", "member")
    room = new_room(house, host)
    assert ask(house, host, "PUT", f"/rooms/{room}/members/{nils.id}", {"relation": "viewer"}).status_code == 200
    everybody = (host, mira, nils, olaf)
    for who in everybody:
        assert join(house, mint(house, who, room).json()["token"], f"{room}-{who.name}").status_code == 200
    strike(house, "status=400", match=f"/v2/active-rooms/{room}/remove-peers")
    failed = patch(house, host, room, access="invited")
    assert_problem(failed, 502, "upstream_error")
    assert "now for invited people only" in failed.json()["detail"]
    assert_problem(mint(house, mira, room), 404, "not_found")
    assert patch(house, host, room, access="invited").status_code == 200
    assert peers(house, room) == {f"{room}-{who.name}" for who in (host, nils)}
    assert patch(house, host, room, name=f"Closed of {host.name}").status_code == 200
    assert peers(house, room) == {f"{room}-{who.name}" for who in (host, nils)}


def test_when_a_room_becomes_invited_banned_users_are_removed_too(house: Installation, host: Person) -> None:
    """After a ban an old token lets them join again until it expires."""
    [mallory] = newcomers(house, "member")
    room = new_room(house, host)
    token = mint(house, mallory, room).json()["token"]
    path = f"/rooms/{room}/members/{mallory.id}"
    assert ask(house, host, "PUT", path, {"relation": "banned"}).status_code == 200
    assert join(house, token, f"{room}-back").status_code == 200
    assert join(house, mint(house, host, room).json()["token"], f"{room}-host").status_code == 200
    assert patch(house, host, room, access="invited").status_code == 200
    assert peers(house, room) == {f"{room}-host"}


# --- end and lock ---


def test_ending_removes_everyone_and_leaves_the_room_open(house: Installation, host: Person) -> None:
    room = new_room(house, host)
    assert join(house, mint(house, host, room).json()["token"], f"{host.name}-1").status_code == 200
    ended = ask(house, host, "POST", f"/rooms/{room}/end", {"reason": "supper"})
    assert (ended.status_code, ended.json()) == (202, {"ended": True, "locked": False})
    assert peers(house, room) == set()
    assert mint(house, host, room).status_code == 200
    again = ask(house, host, "POST", f"/rooms/{room}/end", {})
    assert (again.status_code, again.json()) == (202, {"ended": False, "locked": False})


def test_operator_removes_one_user_who_may_join_again(house: Installation, host: Person) -> None:
    otto, [mira] = operator(house), newcomers(house, "member")
    room = new_room(house, host)
    for who, peer in ((host, "host"), (mira, "phone"), (mira, "laptop")):
        assert join(house, mint(house, who, room).json()["token"], f"{room}-{peer}").status_code == 200
    removed = ask(house, otto, "POST", f"/rooms/{room}/remove", {"user": mira.name, "reason": "noise"})
    assert (removed.status_code, removed.json()) == (200, {"removed": 2})
    assert peers(house, room) == {f"{room}-host"}
    again = ask(house, otto, "POST", f"/rooms/{room}/remove", {"user": mira.id})
    assert (again.status_code, again.json()) == (200, {"removed": 0})
    assert mint(house, mira, room).status_code == 200
    body = {"user": "nobody-at-all"}
    assert_problem(ask(house, otto, "POST", f"/rooms/{room}/remove", body), 404, "not_found")
    strike(house, "status=400", match=f"/v2/active-rooms/{room}/remove-peers")
    body = {"user": host.id, "reason": "a test"}
    assert_problem(ask(house, otto, "POST", f"/rooms/{room}/remove", body), 502, "upstream_error")
    trail = ask(house, otto, "GET", f"/admin/audit?user={otto.id}&action=peer.removed").json()["items"]
    assert [(one["subject"], one["details"]) for one in trail] == [
        (host.id, {"room": room, "reason": "a test", "code": "upstream"}),
        (mira.id, {"room": room, "reason": "noise"}),
    ]


@pytest.mark.parametrize("running", [True, False])
def test_ending_with_a_lock_stops_old_and_new_tokens(house: Installation, host: Person, running: bool) -> None:
    room = new_room(house, host)
    token = mint(house, host, room).json()["token"]
    if running:
        assert join(house, token, f"{host.name}-1").status_code == 200
    ended = ask(house, host, "POST", f"/rooms/{room}/end", {"lock": True})
    assert (ended.status_code, ended.json()) == (202, {"ended": running, "locked": True})
    assert_problem(mint(house, host, room), 409, "room_disabled")
    assert join(house, token, f"{host.name}-2").status_code == 403
    assert upstream(house, f"/rooms/{room}")["enabled"] is False
    assert patch(house, host, room, enabled=True).json()["room"]["enabled"] is True
    assert join(house, mint(house, host, room).json()["token"], f"{host.name}-3").status_code == 200


def test_lock_holds_when_100ms_fails_and_the_repetition_reaches_100ms(house: Installation, host: Person) -> None:
    room = new_room(house, host)
    strike(house, "status=400", match=f"/v2/rooms/{room}")
    refused = assert_problem(patch(house, host, room, enabled=False), 502, "upstream_error")
    assert "The gateway has locked the room nevertheless" in refused["detail"]
    assert_problem(mint(house, host, room), 409, "room_disabled")
    assert upstream(house, f"/rooms/{room}")["enabled"] is True
    assert patch(house, host, room, enabled=False).status_code == 200
    assert upstream(house, f"/rooms/{room}")["enabled"] is False


@pytest.mark.parametrize("how", ["patch", "end", "patch after the owner", "end after the owner"])
def test_owner_cannot_unlock_a_room_that_an_operator_locked(house: Installation, host: Person, how: str) -> None:
    otto, room = operator(house), new_room(house, host)
    if "owner" in how:
        assert patch(house, host, room, enabled=False).status_code == 200
    if how.startswith("patch"):
        assert patch(house, otto, room, enabled=False).status_code == 200
    else:
        assert ask(house, otto, "POST", f"/rooms/{room}/end", {"lock": True}).status_code == 202
    assert patch(house, host, room, enabled=False).status_code == 200  # does not weaken the operator's lock
    assert_problem(patch(house, host, room, enabled=True), 403, "forbidden")
    assert_problem(mint(house, host, room), 409, "room_disabled")
    assert patch(house, otto, room, enabled=True).status_code == 200
    assert mint(house, host, room).status_code == 200


@pytest.mark.parametrize("relation", ["viewer", None])
def test_operator_without_a_relation_can_change_only_the_lock(
    house: Installation, host: Person, relation: str | None
) -> None:
    otto, room = operator(house), new_room(house, host)
    if relation:
        assert put(house, host, room, otto, relation).status_code == 200
    changed = patch(house, otto, room, enabled=False)
    assert changed.status_code == 200
    assert changed.json()["room"]["relation"] == relation
    assert ask(house, otto, "GET", f"/rooms/{room}").json()["room"]["relation"] == relation
    refused = assert_problem(patch(house, otto, room, name="x"), 403, "forbidden")
    assert "Only an owner or cohost" in refused["detail"]


@pytest.mark.parametrize("how", ["patch", "end"])
def test_operator_who_is_a_cohost_locks_as_an_operator(house: Installation, host: Person, how: str) -> None:
    otto, room = operator(house), new_room(house, host)
    assert put(house, host, room, otto, "cohost").status_code == 200
    if how == "patch":
        assert patch(house, otto, room, enabled=False, description="closed").status_code == 200
    else:
        assert ask(house, otto, "POST", f"/rooms/{room}/end", {"lock": True}).status_code == 202
    assert_problem(patch(house, host, room, enabled=True), 403, "forbidden")
    assert patch(house, otto, room, enabled=True).status_code == 200


def test_operators_lock_outlasts_a_slow_unlock_at_100ms(house: Installation, host: Person) -> None:
    otto, room = operator(house), new_room(house, host)
    assert patch(house, host, room, enabled=False).status_code == 200
    strike(house, "delay=1", match=f"/v2/rooms/{room}")
    before, answers = house.upstream_calls(), []
    unlocking = threading.Thread(target=lambda: answers.append(patch(house, host, room, enabled=True)))
    unlocking.start()
    wait_until(lambda: bool(calls_since(house, before)), "100ms is asked to enable the room")
    assert patch(house, otto, room, enabled=False).status_code == 200
    unlocking.join()
    assert_problem(answers[0], 409, "room_disabled")
    assert_problem(mint(house, host, room), 409, "room_disabled")
    assert upstream(house, f"/rooms/{room}")["enabled"] is False
    assert_problem(patch(house, host, room, enabled=True), 403, "forbidden")


# --- places: three rooms at once ---


def test_places_are_bounded_freed_by_a_lock_and_taken_again_by_an_unlock(house: Installation, host: Person) -> None:
    rooms = [new_room(house, host) for _ in range(3)]
    document = assert_problem(ask(house, host, "POST", "/rooms", {}), 429, "quota_exceeded")
    assert document["violated-policies"] == ["rooms.active"]
    assert patch(house, host, rooms[0], enabled=False).status_code == 200
    assert places(house, host) == 2
    new_room(house, host)
    assert_problem(patch(house, host, rooms[0], enabled=True, name="x"), 429, "quota_exceeded")
    shown = ask(house, host, "GET", f"/rooms/{rooms[0]}").json()["room"]
    assert (shown["enabled"], shown["name"]) == (False, "Untitled room")
    assert ask(house, host, "POST", f"/rooms/{rooms[1]}/end", {"lock": True}).status_code == 202
    assert patch(house, host, rooms[0], enabled=True).status_code == 200
    assert places(house, host) == 3


def test_handing_a_room_over_frees_no_place(house: Installation, host: Person) -> None:
    [other] = newcomers(house, "host")
    rooms = [new_room(house, host) for _ in range(3)]
    assert put(house, host, rooms[0], other, "owner").status_code == 200
    assert_problem(ask(house, host, "POST", "/rooms", {}), 429, "quota_exceeded")
    assert (places(house, host), places(house, other)) == (3, 0)
    assert patch(house, other, rooms[0], enabled=False).status_code == 200
    assert places(house, host) == 2


def test_create_that_100ms_refuses_holds_neither_place_nor_name(house: Installation, host: Person) -> None:
    for _ in range(3):
        strike(house, "status=400", match="/v2/rooms")
        refused = ask(house, host, "POST", "/rooms", {"name": f"Tea of {host.name}"})
        assert_problem(refused, 502, "upstream_error")
    assert places(house, host) == 0
    assert new_room(house, host, name=f"Tea of {host.name}")


# --- unique names ---


async def test_one_of_several_racing_creates_of_a_name_succeeds_on_two_workers(house: Installation) -> None:
    hosts = await arrive(house, *["host"] * 12)
    name = f"Plenum {hosts[0].name}"
    answers = await at_once(house, *(post("/api/rooms", {"name": name}, token=host.token) for host in hosts))
    assert sorted(answer.status for answer in answers) == [201] + [409] * 11
    assert {answer.json()["code"] for answer in answers if answer.status == 409} == {"name_taken"}
    assert sum(places(house, host) for host in hosts) == 1


def a_minute_later(house: Installation, name: str) -> None:
    """Let a minute pass for a name that a room has given up, so that any room may take it."""
    with house.valkey.client() as redis:
        redis.hset(f"nm:1:{name.lower()}", "at", 0)


def test_names_are_unique_regardless_of_case_and_move_with_a_rename(house: Installation, host: Person) -> None:
    [other] = newcomers(house, "host")
    tea, coffee = f"Tea of {host.name}", f"Coffee of {host.name}"
    room = new_room(house, host, name=tea)
    assert_problem(ask(house, other, "POST", "/rooms", {"name": tea.upper()}), 409, "name_taken")
    theirs = new_room(house, other, name=coffee)
    assert_problem(patch(house, host, room, name=coffee, access="invited"), 409, "name_taken")
    assert ask(house, host, "GET", f"/rooms/{room}").json()["room"]["access"] == "open"
    assert patch(house, host, room, name=tea.upper()).status_code == 200
    assert patch(house, other, theirs, name=f"Milk of {host.name}").status_code == 200
    assert_problem(patch(house, host, room, name=coffee), 409, "name_taken")
    a_minute_later(house, coffee)
    assert patch(house, host, room, name=coffee).status_code == 200
    a_minute_later(house, tea)
    assert patch(house, other, theirs, name=tea).status_code == 200


def test_any_number_of_rooms_may_have_no_name(house: Installation, host: Person) -> None:
    """The seed's client creates rooms without a name."""
    assert len({new_room(house, host) for _ in range(3)}) == 3

"""`Idempotency-Key` on POST /api/rooms: a repeated request returns the same room and is charged once."""

from __future__ import annotations

import threading
import time
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
    new_room,
    newcomers,
    places,
    strike,
    upstream,
    usage,
)
from tests.e2e.volley import post
from tests.servers import Installation, wait_until

BLOCK = {"block": True, "lasts_s": 600, "reason": "a test"}


@pytest.fixture
def host(house: Installation) -> Person:
    return newcomers(house, "host")[0]


def create(house: Installation, who: Person, key: str, **body: Any) -> httpx.Response:
    return ask(house, who, "POST", "/rooms", body, Idempotency_Key=key)


def forget_what_it_became(house: Installation, host: Person) -> None:
    """Change the host's only key to the state left by an attempt that crashed after registering its room."""
    with house.valkey.client() as redis:
        [record] = redis.keys(f"ik:1:{{{host.id}}}:*")  # type: ignore[misc]
        redis.hdel(record, "room")
        redis.hset(record, "until", 0)


def rooms_of(house: Installation, who: Person) -> list[str]:
    return [room["id"] for room in ask(house, who, "GET", "/rooms?limit=100").json()["rooms"]]


def names_asked(house: Installation, before: list[dict[str, Any]]) -> list[str]:
    """Return the names of the creates that were sent to 100ms."""
    return [call["body"]["name"] for call in calls_since(house, before) if call["path"] == "/v2/rooms"]


def heard(house: Installation, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the calls to 100ms, except those of the sweep of other tests' guests."""
    return [call for call in calls_since(house, before) if not call["path"].startswith("/v2/active-rooms")]


def test_repetition_returns_the_first_room_free_of_charge(house: Installation, host: Person) -> None:
    before = house.upstream_calls()
    first = create(house, host, "k-1", name=f"Tea of {host.name}")
    assert first.status_code == 201
    assert "idempotency-replayed" not in first.headers
    left = first.headers["ratelimit"]
    for _ in range(3):
        again = create(house, host, "k-1", name=f"Tea of {host.name}")
        assert (again.status_code, again.json()) == (201, first.json())
        assert again.headers["idempotency-replayed"] == "true"
    assert len(names_asked(house, before)) == 1
    assert rooms_of(house, host) == [first.json()["room"]["id"]]
    assert usage(house, host, "rooms.create")["ok"] == 1
    assert usage(house, host, "rooms.create")["refused"] == {"replayed": 3}
    assert places(house, host) == 1
    assert "r=9999" in left  # so that the units below are those of this create


def test_a_used_up_limit_of_creates_denies_no_repetition_and_the_header_shows_what_is_left(
    house: Installation, host: Person
) -> None:
    with house.client_of("ada") as ada:
        override = {"name": "rooms.create", "rate": "1/d", "burst": 2, "lasts_s": 600, "reason": "a test"}
        assert ada.put(f"/api/admin/limits/{host.id}/override", json=override).status_code == 200
    left = []
    for key in ("a", "a", "b", "b", "a"):
        answer = create(house, host, key)
        assert answer.status_code == 201, answer.text
        left.append(answer.headers["ratelimit"].partition('"rooms.create";r=')[2][:1])
    assert left == ["1", "1", "0", "0", "0"]
    assert_problem(create(house, host, "c"), 429, "rate_limited")
    assert_problem(create(house, host, "a", name="Other"), 429, "rate_limited")
    [other] = newcomers(house, "host")
    assert "idempotency-replayed" not in create(house, other, "a").headers
    assert usage(house, host, "rooms.create")["refused"] == {"replayed": 3}
    with house.client_of("ada") as ada:
        assert ada.put(f"/api/admin/limits/{host.id}/override", json=BLOCK).status_code == 200
    assert_problem(create(house, host, "a"), 429, "rate_limited")


async def test_fifty_concurrent_requests_make_one_room(house: Installation) -> None:
    [host] = await arrive(house, "host")
    before = house.upstream_calls()
    request = post("/api/rooms", {}, token=host.token).replace(b"\r\n", b"\r\nIdempotency-Key: fifty\r\n", 1)
    answers = await at_once(house, *[request] * 50)
    made = [answer.json()["room"]["id"] for answer in answers if answer.status == 201]
    waiting = [answer.json()["code"] for answer in answers if answer.status != 201]
    assert len(set(made)) == 1
    assert set(waiting) <= {"idempotency_conflict"}
    assert len(made) + len(waiting) == 50
    assert len(names_asked(house, before)) == 1
    assert rooms_of(house, host) == made[:1]
    assert (usage(house, host, "rooms.create")["ok"], places(house, host)) == (1, 1)


def test_repetitions_during_the_first_request_use_up_no_creates(house: Installation, host: Person) -> None:
    with house.client_of("ada") as ada:
        override = {"name": "rooms.create", "rate": "1/h", "burst": 3, "lasts_s": 600, "reason": "a test"}
        assert ada.put(f"/api/admin/limits/{host.id}/override", json=override).status_code == 200
    before, answers = house.upstream_calls(), []
    strike(house, "delay=3", match="/v2/rooms")
    first = threading.Thread(target=lambda: answers.append(create(house, host, "slow")))
    first.start()
    wait_until(lambda: bool(names_asked(house, before)), "100ms is called")
    repeats = [create(house, host, "slow") for _ in range(5)]
    first.join()
    waited = [repeat for repeat in repeats if repeat.status_code == 409]
    assert len(waited) >= 1, "the first request ended before the repetitions"
    for repeat in repeats:
        assert repeat.status_code in (201, 409), repeat.text
    for repeat in waited:
        assert_problem(repeat, 409, "idempotency_conflict")
        assert repeat.headers["retry-after"] == "1"
    assert [answer.status_code for answer in answers] == [201]
    assert usage(house, host, "rooms.create")["refused"]["idempotency_conflict"] == len(waited)
    left = [create(house, host, f"another-{number}").status_code for number in range(3)]
    assert left == [201, 201, 429], "one create cost one unit"


def test_repetition_with_another_body_is_refused_but_not_with_reordered_fields(
    house: Installation, host: Person
) -> None:
    first = create(house, host, "k-1", name=f"Tea of {host.name}", access="open")
    for body in ({}, {"name": f"Tea of {host.name}"}, {"name": f"Tea of {host.name}", "access": "invited"}):
        assert_problem(create(house, host, "k-1", **body), 422, "idempotency_mismatch")
    assert create(house, host, "k-1", access="open", name=f"Tea of {host.name}").json() == first.json()
    assert (places(house, host), len(rooms_of(house, host))) == (1, 1)


def test_keys_of_different_users_are_independent(house: Installation, host: Person) -> None:
    [other] = newcomers(house, "host")
    mine, theirs = (create(house, who, "same").json()["room"] for who in (host, other))
    assert mine["id"] != theirs["id"]
    assert (mine["owner_id"], theirs["owner_id"]) == (host.id, other.id)


@pytest.mark.parametrize("key", ["", "a b", "x" * 129, "caf\u00e9"])
def test_malformed_key_is_refused_before_100ms_is_called(house: Installation, host: Person, key: str) -> None:
    before = house.upstream_calls()
    with house.client(host.token) as client:
        answer = client.post("/api/rooms", json={}, headers=[(b"Idempotency-Key", key.encode())])
    assert_problem(answer, 400, "invalid_request", field="Idempotency-Key")
    assert heard(house, before) == []
    assert places(house, host) == 0


def test_two_keys_are_refused(house: Installation, host: Person) -> None:
    before = house.upstream_calls()
    with house.client(host.token) as client:
        answer = client.post("/api/rooms", json={}, headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")])
    assert_problem(answer, 400, "invalid_request", field="Idempotency-Key")
    assert heard(house, before) == []


def test_repetition_succeeds_even_if_all_places_are_taken(house: Installation, host: Person) -> None:
    last = [create(house, host, f"k-{number}") for number in range(3)][-1]
    assert_problem(create(house, host, "k-3"), 429, "quota_exceeded")
    assert create(house, host, "k-2").json() == last.json()
    assert places(house, host) == 3


def test_repetition_after_a_timeout_requests_the_same_room(house: Installation, host: Person) -> None:
    """100ms creates the room although the request has timed out; the repetition must find it."""
    before = house.upstream_calls()
    strike(house, "delay=30", match="/v2/rooms")
    assert_problem(create(house, host, "slow", name=f"Tea of {host.name}"), 504, "upstream_timeout")
    assert (places(house, host), rooms_of(house, host)) == (0, [])
    again = create(house, host, "slow", name=f"Tea of {host.name}")
    assert again.status_code == 201
    names = names_asked(house, before)
    assert len(names) == 2
    assert len(set(names)) == 1
    found = upstream(house, "/rooms", name=names[0])["data"]
    assert [room["id"] for room in found] == [again.json()["room"]["id"]] == rooms_of(house, host)
    tally = usage(house, host, "rooms.create")
    assert (tally["ok"], tally["failed"], places(house, host)) == (1, 1, 1)


def test_repetition_after_a_failure_begins_at_once(house: Installation, host: Person) -> None:
    for _ in range(2):
        strike(house, "status=400", match="/v2/rooms")
        assert_problem(create(house, host, "k"), 502, "upstream_error")
    assert create(house, host, "k").status_code == 201
    assert places(house, host) == 1


def test_repetition_by_a_creator_who_was_banned_meanwhile_is_not_found(house: Installation, host: Person) -> None:
    [heir] = newcomers(house, "host")
    room = create(house, host, "k").json()["room"]["id"]
    for who, whom, relation in ((host, heir, "owner"), (heir, host, "banned")):
        answer = ask(house, who, "PUT", f"/rooms/{room}/members/{whom.id}", {"relation": relation})
        assert answer.status_code == 200, answer.text
    assert_problem(create(house, host, "k"), 404, "not_found")


def test_killed_gateway_leaves_one_room_and_the_repetition_succeeds_within_three_seconds(
    house: Installation, host: Person
) -> None:
    """kill -9 before the room is registered; 100ms creates it nevertheless."""
    before = house.upstream_calls()
    strike(house, "delay=30", match="/v2/rooms")
    thread = threading.Thread(target=_create_and_be_cut_off, args=(house, host))
    thread.start()
    wait_until(lambda: len(names_asked(house, before)) == 1, "100ms is called")
    time.sleep(1.2)  # the hold has been renewed by now
    house.gateway.kill()
    killed_s = time.monotonic()
    thread.join()
    house.start_gateway()
    assert (rooms_of(house, host), places(house, host)) == ([], 1)
    again = create(house, host, "killed", name=f"Tea of {host.name}")
    while again.status_code != 201:
        assert_problem(again, 409, "idempotency_conflict")
        assert time.monotonic() - killed_s < 3, "the hold of the killed process has not ended"
        time.sleep(0.1)
        again = create(house, host, "killed", name=f"Tea of {host.name}")
    names = names_asked(house, before)
    assert len(names) == 2
    assert len(set(names)) == 1
    assert rooms_of(house, host) == [again.json()["room"]["id"]]
    assert len(upstream(house, "/rooms", name=names[0])["data"]) == 1
    assert places(house, host) == 1
    assert new_room(house, host)


def test_a_request_that_100ms_answers_slowly_is_not_carried_out_twice(house: Installation, host: Person) -> None:
    """The hold lasts two seconds and is renewed while its process runs."""
    before, answers = house.upstream_calls(), []
    strike(house, "delay=4", match="/v2/rooms")
    first = threading.Thread(target=lambda: answers.append(create(house, host, "slow")))
    first.start()
    wait_until(lambda: bool(names_asked(house, before)), "100ms is called")
    began_s = time.monotonic()
    while time.monotonic() - began_s < 3:
        assert_problem(create(house, host, "slow"), 409, "idempotency_conflict")
        time.sleep(0.3)
    first.join()
    assert [answer.status_code for answer in answers] == [201]
    assert len(names_asked(house, before)) == 1


def test_unanswered_attempt_that_registered_its_room_leaves_one_room(house: Installation, host: Person) -> None:
    before = house.upstream_calls()
    room = create(house, host, "killed", name=f"Tea of {host.name}").json()["room"]["id"]
    forget_what_it_became(house, host)
    again = create(house, host, "killed", name=f"Tea of {host.name}")
    assert (again.status_code, again.json()["room"]["id"]) == (201, room)
    names = names_asked(house, before)
    assert len(names) == 2
    assert len(set(names)) == 1
    assert (rooms_of(house, host), places(house, host)) == ([room], 1)


def test_registered_room_whose_key_was_not_completed_holds_one_place_and_is_audited(
    house: Installation, host: Person
) -> None:
    """Redis failed after the registration: the first answer was 503, and its place was freed."""
    room = create(house, host, "k").json()["room"]["id"]
    with house.valkey.client() as redis:
        [record] = redis.keys(f"ik:1:{{{host.id}}}:*")  # type: ignore[misc]
        redis.hdel(record, "room")
        redis.hset(record, "until", 0)
        redis.delete(f"ls:1:{{{host.id}}}:rooms.active")
        seen = len(redis.xrange("audit:1"))  # type: ignore[arg-type]
        assert create(house, host, "k").json()["room"]["id"] == room
        entries = [fields[b"entry"].decode() for _, fields in redis.xrange("audit:1")[seen:]]  # type: ignore[index]
    assert places(house, host) == 1
    assert [entry for entry in entries if "room.created" in entry and room in entry]
    assert create(house, host, "k").json()["room"]["id"] == room
    assert places(house, host) == 1


def test_failed_repetition_does_not_free_the_place_of_a_registered_room(house: Installation, host: Person) -> None:
    """The first attempt crashed after it had registered the room, before the key was completed."""
    room = create(house, host, "k").json()["room"]["id"]
    forget_what_it_became(house, host)
    strike(house, "status=400", match="/v2/rooms")
    assert_problem(create(house, host, "k"), 502, "upstream_error")
    assert places(house, host) == 1
    assert create(house, host, "k").json()["room"]["id"] == room
    assert places(house, host) == 1


def test_repetition_after_a_lock_and_an_unlock_takes_no_second_place(house: Installation, host: Person) -> None:
    room = create(house, host, "k").json()["room"]["id"]
    for enabled in (False, True):
        assert ask(house, host, "PATCH", f"/rooms/{room}", {"enabled": enabled}).status_code == 200
    forget_what_it_became(house, host)
    assert create(house, host, "k").json()["room"]["id"] == room
    assert places(house, host) == 1


def _create_and_be_cut_off(house: Installation, host: Person) -> None:
    with pytest.raises(httpx.TransportError):
        create(house, host, "killed", name=f"Tea of {host.name}")

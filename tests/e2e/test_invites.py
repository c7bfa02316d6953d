"""Invites to rooms, over HTTP."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.e2e.checks import assert_problem
from tests.e2e.people import Person, arrive, ask, at_once, mint, new_room, newcomers
from tests.e2e.volley import post
from tests.servers import Installation


@pytest.fixture(scope="module")
def cast(house: Installation) -> list[Person]:
    """A host, two members."""
    return newcomers(house, "host", "member", "member")


@pytest.fixture
def room(house: Installation) -> tuple[Person, str]:
    """A new host and their invited room."""
    [host] = newcomers(house, "host")
    return host, new_room(house, host, access="invited")


def invite(house: Installation, who: Person, room: str, **body: Any) -> str:
    answer = ask(house, who, "POST", f"/rooms/{room}/invites", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["code"])


def accept(house: Installation, who: Person | None, code: str, **body: Any) -> httpx.Response:
    return ask(house, who, "POST", f"/invites/{code}/accept", body)


def test_invite_gives_its_relation_only_when_accepted(house: Installation, room: tuple[Person, str]) -> None:
    host, room_id = room
    [mira] = newcomers(house, "member")
    code = invite(house, host, room_id, relation="viewer")
    assert_problem(ask(house, mira, "GET", f"/rooms/{room_id}"), 404, "not_found")
    answer = accept(house, mira, code)
    assert (answer.status_code, answer.json()["relation"], answer.json()["login"]) == (200, "viewer", None)
    assert ask(house, mira, "GET", f"/rooms/{room_id}").json()["room"]["relation"] == "viewer"
    assert [one["id"] for one in ask(house, mira, "GET", "/rooms").json()["rooms"]] == [room_id]
    assert mint(house, mira, room_id).status_code == 200


async def test_fifty_concurrent_accepts_succeed_exactly_as_often_as_there_are_uses(house: Installation) -> None:
    host, *members = await arrive(house, "host", *["member"] * 50)
    room = new_room(house, host, access="invited")
    code = invite(house, host, room, max_uses=20)
    path = f"/api/invites/{code}/accept"
    answers = await at_once(house, *(post(path, {}, token=member.token) for member in members))
    assert sorted(answer.status for answer in answers) == [200] * 20 + [403] * 30
    assert {answer.json()["code"] for answer in answers if answer.status == 403} == {"invite_invalid"}
    assert len(ask(house, host, "GET", f"/rooms/{room}/members").json()["members"]) == 21
    assert ask(house, host, "GET", f"/rooms/{room}/invites").json()["invites"] == []


@pytest.mark.parametrize("end", ["used", "revoked", "expired", "maker demoted", "maker disabled", "banned", "unknown"])
def test_every_invalid_invite_has_the_same_answer(house: Installation, room: tuple[Person, str], end: str) -> None:
    host, room_id = room
    cohost, mira, nora = newcomers(house, "member", "member", "member")
    path = f"/rooms/{room_id}/members"
    assert ask(house, host, "PUT", f"{path}/{cohost.id}", {"relation": "cohost"}).status_code == 200
    code = invite(house, cohost, room_id, expires_in_s=60)
    [listed] = ask(house, host, "GET", f"/rooms/{room_id}/invites").json()["invites"]
    assert (listed["by"], listed["uses_left"], code in str(listed)) == (cohost.id, 1, False)
    with house.valkey.client() as redis:
        match end:
            case "used":
                assert accept(house, nora, code).status_code == 200
            case "revoked":
                revoking = f"/rooms/{room_id}/invites/{listed['id']}"
                assert ask(house, host, "DELETE", revoking).status_code == 204
                assert_problem(ask(house, host, "DELETE", revoking), 404, "not_found")
            case "expired":
                assert redis.pexpire(f"vo:1:room:{listed['id']}", 1)
                time.sleep(0.01)
            case "maker demoted":
                assert ask(house, host, "PUT", f"{path}/{cohost.id}", {"relation": "viewer"}).status_code == 200
            case "maker disabled":
                redis.hset(f"u:1:{{{cohost.id}}}", "status", "disabled")
            case "banned":
                assert ask(house, host, "DELETE", f"{path}/{mira.id}").status_code == 204
            case _:
                code = "a" * 26
    document = assert_problem(accept(house, mira, code), 403, "invite_invalid")
    strange = assert_problem(accept(house, mira, "b" * 26), 403, "invite_invalid")
    same = {"request_id": "", "instance": ""}
    assert document | same == strange | same
    assert_problem(ask(house, mira, "GET", f"/rooms/{room_id}"), 404, "not_found")


def test_cohost_can_invite_participants_and_viewers_but_no_cohosts(
    house: Installation, room: tuple[Person, str]
) -> None:
    host, room_id = room
    cohost, mira = newcomers(house, "member", "member")
    assert accept(house, cohost, invite(house, host, room_id, relation="cohost")).json()["relation"] == "cohost"
    refused = ask(house, cohost, "POST", f"/rooms/{room_id}/invites", {"relation": "cohost"})
    assert_problem(refused, 403, "forbidden")
    assert accept(house, mira, invite(house, cohost, room_id)).json()["relation"] == "participant"
    assert_problem(ask(house, mira, "POST", f"/rooms/{room_id}/invites", {}), 403, "forbidden")
    assert_problem(ask(house, mira, "GET", f"/rooms/{room_id}/invites"), 403, "forbidden")


def test_lowered_user_is_not_raised_again_by_the_invite_they_used(
    house: Installation, room: tuple[Person, str]
) -> None:
    host, room_id = room
    [mira] = newcomers(house, "member")
    code = invite(house, host, room_id, relation="cohost", max_uses=10)
    assert accept(house, mira, code).json()["relation"] == "cohost"
    lowered = ask(house, host, "PUT", f"/rooms/{room_id}/members/{mira.id}", {"relation": "viewer"})
    assert lowered.status_code == 200
    assert_problem(accept(house, mira, code), 403, "invite_invalid")
    assert ask(house, mira, "GET", f"/rooms/{room_id}").json()["room"]["relation"] == "viewer"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"relation": "owner"}, "relation"),
        ({"relation": "banned"}, "relation"),
        ({"relation": "cohost", "guests": True}, "relation"),
        ({"max_uses": 0}, "max_uses"),
        ({"max_uses": 10_001}, "max_uses"),
        ({"expires_in_s": 59}, "expires_in_s"),
        ({"expires_in_s": 2_592_001}, "expires_in_s"),
        ({"code": "x"}, "code"),
        ({"by": "x"}, "by"),
    ],
)
def test_invite_with_invalid_fields_is_refused_by_field(
    house: Installation, cast: list[Person], body: dict[str, Any], field: str
) -> None:
    [host] = newcomers(house, "host")
    answer = ask(house, host, "POST", f"/rooms/{new_room(house, host)}/invites", body)
    assert_problem(answer, 400, "invalid_request", field=field)

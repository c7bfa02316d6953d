"""Guests: they join one room with an invite and without a login, for a few minutes."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import datetime
from pathlib import Path

import jwt
import pytest

from auth.accounts import Accounts
from auth.keys import KeyRing
from auth.passwords import Passwords
from auth.sessions import Sessions
from auth.vouchers import Vouchers
from gateway.hms import client as hms_client
from gateway.hms.client import HmsClient
from gateway.hms.tokens import HmsTokens
from gateway.policy.file import load_policy
from gateway.policy.live import PolicyInForce
from gateway.redis.store import Store, connect
from gateway.rooms.guest_accounts import GuestBook
from gateway.rooms.invites import RoomInvites
from gateway.rooms.registry import Rooms
from gateway.rooms.relations import Members
from limits.limiter import Limiter
from tests.e2e.checks import assert_problem
from tests.e2e.people import Person, ask, join, mint, new_room, newcomers, peers, usage
from tests.e2e.policies import roomy
from tests.e2e.test_invites import accept, invite
from tests.servers import Installation, wait_until


@pytest.fixture(scope="module")
def cast(house: Installation) -> list[Person]:
    return newcomers(house, "host")


@pytest.fixture
def room(house: Installation) -> tuple[Person, str]:
    """A host and their invited room."""
    [host] = newcomers(house, "host")
    return host, new_room(house, host, access="invited")


def guest_of(house: Installation, code: str, name: str = "Gus") -> Person:
    answer = accept(house, None, code, display_name=name)
    assert answer.status_code == 200, answer.text
    login = answer.json()["login"]
    return Person(login["user"]["id"], login["user"]["username"], login["access_token"])


def test_guest_has_one_room_and_is_limited_and_counted_like_any_user(
    house: Installation, room: tuple[Person, str], cast: list[Person]
) -> None:
    host, room_id = room
    other = new_room(house, cast[0])
    guest = guest_of(house, invite(house, host, room_id, guests=True))
    shown = ask(house, guest, "GET", f"/rooms/{room_id}")
    assert shown.json()["room"]["relation"] == "participant"
    assert "ratelimit" in shown.headers
    minted = mint(house, guest, room_id).json()
    claims = jwt.decode(minted["token"], house.env["HMS_APP_SECRET"], algorithms=["HS256"])
    assert (claims["user_id"], claims["role"], claims["room_id"]) == (guest.id, "guest", room_id)
    assert [one["id"] for one in ask(house, guest, "GET", "/rooms").json()["rooms"]] == [room_id]
    assert_problem(ask(house, guest, "GET", f"/rooms/{other}"), 404, "not_found")
    assert_problem(mint(house, guest, other), 404, "not_found")
    assert usage(house, guest, "tokens.mint") == {
        "ok": 1, "denied": {}, "refused": {"not_found": 1}, "failed": 0, "would_deny": {},
    }  # fmt: skip
    members = ask(house, host, "GET", f"/rooms/{room_id}/members").json()["members"]
    assert [one["display_name"] for one in members if one["user_id"] == guest.id] == ["Gus"]


def test_invite_for_users_requires_a_login(house: Installation, room: tuple[Person, str]) -> None:
    host, room_id = room
    code = invite(house, host, room_id)
    assert_problem(accept(house, None, code), 403, "invite_invalid")
    [listed] = ask(house, host, "GET", f"/rooms/{room_id}/invites").json()["invites"]
    assert listed["uses_left"] == 1


def test_request_with_a_broken_login_does_not_become_a_guest(house: Installation, room: tuple[Person, str]) -> None:
    host, room_id = room
    code = invite(house, host, room_id, guests=True)
    for header in ("Bearer x", "Basic eDp5", "", "Bearer"):
        with house.client() as client:
            answer = client.post(f"/api/invites/{code}/accept", json={}, headers={"Authorization": header})
        assert_problem(answer, 401, "invalid_token")
    assert guest_of(house, code)


def test_guest_refreshes_until_they_expire_and_not_after(house: Installation, room: tuple[Person, str]) -> None:
    host, room_id = room
    login = accept(house, None, invite(house, host, room_id, guests=True)).json()["login"]
    assert login["refresh_expires_in"] == 300
    refreshed = ask(house, None, "POST", "/auth/refresh", {"refresh_token": login["refresh_token"]})
    assert refreshed.status_code == 200
    assert refreshed.json()["refresh_expires_in"] <= 300
    with house.valkey.client() as redis:
        key = f"s:1:{{{login['user']['id']}}}:{login['session_id']}"
        assert 290_000 < int(redis.pttl(key)) <= 300_000  # type: ignore[arg-type]
        until = int(redis.hget(key, "until") or 0)  # type: ignore[arg-type]
        assert abs(until / 1000 - time.time() - 300) < 10
        redis.hset(key, "until", int(time.time() * 1000) - 1)
    body = {"refresh_token": refreshed.json()["refresh_token"]}
    assert_problem(ask(house, None, "POST", "/auth/refresh", body), 400, "invalid_grant")
    late = Person(login["user"]["id"], "", refreshed.json()["access_token"])
    assert_problem(ask(house, late, "GET", f"/rooms/{room_id}"), 401, "invalid_token")


async def sweep(house: Installation) -> int:
    """Sweep expired guests, as each worker does every minute."""
    store, passwords = Store(connect(house.valkey.url), deadline_s=5), Passwords()
    policy, execute = PolicyInForce(load_policy()), store.execute
    tokens = HmsTokens(house.env["HMS_APP_ACCESS_KEY"], house.env["HMS_APP_SECRET"])
    http = hms_client.connect(house.env["HMS_API_URL"])
    hms = HmsClient(http, tokens)
    accounts = Accounts(execute, passwords)
    sessions = Sessions(execute, KeyRing([house.env["GATEWAY_SECRET"]], "refresh"))
    rooms, members = Rooms(execute, hms, Limiter(execute), policy), Members(execute, hms, policy)
    invites = RoomInvites(execute, Vouchers(execute, "room"), rooms, members, accounts, policy)
    try:
        return await GuestBook(execute, accounts, sessions, rooms, members, invites).sweep()
    finally:
        await hms.close()
        await http.aclose()
        await store.close()
        passwords.close()


def test_expired_guest_is_erased_except_for_their_usage(house: Installation, room: tuple[Person, str]) -> None:
    host, room_id = room
    code = invite(house, host, room_id, guests=True, max_uses=2)
    gone, kept = guest_of(house, code, "Gone With The Wind"), guest_of(house, code, "Kept")
    for one in (gone, kept):
        assert join(house, mint(house, one, room_id).json()["token"], f"{room_id}-{one.name}").status_code == 200
    with house.valkey.client() as redis:
        assert 290 < float(redis.zscore("gu:1", gone.id) or 0) - time.time() <= 301  # type: ignore[arg-type]
        redis.zadd("gu:1", {gone.id: 1})
        asyncio.run(sweep(house))
        # The installation's own sweep may have done it already.
        wait_until(lambda: redis.zscore("gu:1", gone.id) is None, "the guest is gone")
    assert_problem(ask(house, gone, "GET", f"/rooms/{room_id}"), 401, "invalid_token")
    assert peers(house, room_id) == {f"{room_id}-{kept.name}"}
    assert mint(house, kept, room_id).status_code == 200
    members = ask(house, host, "GET", f"/rooms/{room_id}/members").json()["members"]
    assert {one["user_id"] for one in members} == {host.id, kept.id}
    with house.valkey.client() as redis:
        left = {key.decode() for key in redis.keys(f"*{gone.id}*")}  # type: ignore[union-attr]
        left_of_row = {b"status", b"ver", b"since", b"voided_s", b"created_ms"}
        assert set(redis.hkeys(f"u:1:{{{gone.id}}}")) == left_of_row  # type: ignore[arg-type]
        assert redis.exists(f"un:1:{gone.name}") == 0
    assert all(re.match(r"(u|uc|rl|dn):1:", key) for key in left), left
    assert any(key.startswith("uc:1:") for key in left)


def test_guest_who_was_given_another_role_does_not_expire(house: Installation, room: tuple[Person, str]) -> None:
    """The guest is a regular user then; a sweep would bypass the last-admin rule and the audit."""
    host, room_id = room
    promoted = guest_of(house, invite(house, host, room_id, guests=True), "Promoted")
    assert house.command("users", "roles", promoted.id, "member").returncode == 0
    with house.valkey.client() as redis:
        assert redis.zscore("gu:1", promoted.id) is None
        assert redis.hget(f"u:1:{{{promoted.id}}}", "roles") == b"member"
        assert redis.hget(f"u:1:{{{promoted.id}}}", "username") == promoted.name.encode()


def test_token_of_a_guest_expires_with_the_guest(house: Installation, room: tuple[Person, str]) -> None:
    """A token of an hour would outlast a guest of five minutes, and 100ms would accept it."""
    host, room_id = room
    gus = guest_of(house, invite(house, host, room_id, guests=True))
    for left_s in (120, 3):
        with house.valkey.client() as redis:
            ends_at = time.time() + left_s
            redis.zadd("gu:1", {gus.id: ends_at})
        minted = mint(house, gus, room_id).json()
        claims = jwt.decode(minted["token"], options={"verify_signature": False})
        assert claims["exp"] <= ends_at
        assert claims["exp"] > ends_at - 5
        assert datetime.fromisoformat(minted["expires_at"]).timestamp() == claims["exp"]
    other = mint(house, host, room_id).json()
    assert datetime.fromisoformat(other["expires_at"]).timestamp() > time.time() + 500


def test_policy_without_guests_admits_none(tmp_path: Path) -> None:
    policy, removed = re.subn(r'\n\[guests\]\nrole = "guest"\nlasts = "12h"[^\n]*\n', "\n", roomy())
    assert removed == 1
    with Installation(tmp_path, policy=policy) as closed:
        [host] = newcomers(closed, "host")
        room = new_room(closed, host)
        refused = ask(closed, host, "POST", f"/rooms/{room}/invites", {"guests": True})
        assert_problem(refused, 400, "invalid_request", field="guests")
        assert_problem(accept(closed, None, invite(closed, host, room)), 403, "invite_invalid")
        assert closed.valkey.client().exists("gu:1") == 0

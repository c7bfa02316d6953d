"""The caller's own sessions: listed recognisably, ended one by one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.e2e.asking import Admin, Person, ask, new_address
from tests.e2e.checks import assert_problem


def sessions_of(person: Person, login: dict[str, Any]) -> list[dict[str, Any]]:
    answer = person.ask("GET", "/api/auth/sessions", token=login["access_token"])
    assert answer.status_code == 200, answer.text
    return list(answer.json()["sessions"])


def log_in_with(person: Person, agent: str | bytes, address: str) -> dict[str, Any]:
    headers = {"User-Agent": agent, "X-Forwarded-For": address}
    with person.installation.client() as client:
        body = {"username": person.name, "password": person.password}
        answer = client.post("/api/auth/login", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_sessions_are_listed_newest_first_with_address_and_client(admin: Admin) -> None:
    person = admin.add()
    logins = [log_in_with(person, f"Browser/{n}", f"192.0.2.{n}") for n in (1, 2, 3)]
    listed = sessions_of(person, logins[1])
    assert [one["id"] for one in listed] == [login["session_id"] for login in reversed(logins)]
    assert [one["current"] for one in listed] == [False, True, False]
    assert [one["address"] for one in listed] == ["192.0.2.3", "192.0.2.2", "192.0.2.1"]
    assert [one["agent"] for one in listed] == ["Browser/3", "Browser/2", "Browser/1"]
    for one in listed:
        created, used, expires = (datetime.fromisoformat(one[f"{what}_at"]) for what in ("created", "used", "expires"))
        assert abs(datetime.now(UTC) - created) < timedelta(minutes=1)
        assert used == created
        assert expires - used == timedelta(days=14)
        assert one.keys() == {"id", "current", "created_at", "used_at", "expires_at", "address", "agent"}


def test_an_ended_session_stops_at_once_and_the_others_continue(admin: Admin) -> None:
    person = admin.add()
    here, there, third = (person.log_in() for _ in range(3))
    path = f"/api/auth/sessions/{there['session_id']}"
    answer = person.ask("DELETE", path, token=here["access_token"])
    assert answer.status_code == 204
    for _ in range(6):  # on any worker
        assert_problem(person.me(there), 401, "invalid_token")
    assert_problem(person.refresh(there), 400, "invalid_grant")
    assert {one["id"] for one in sessions_of(person, here)} == {here["session_id"], third["session_id"]}
    assert_problem(person.ask("DELETE", path, token=here["access_token"]), 404, "not_found")


def test_the_current_session_can_be_ended(admin: Admin) -> None:
    person = admin.add()
    login = person.log_in()
    answer = person.ask("DELETE", f"/api/auth/sessions/{login['session_id']}", token=login["access_token"])
    assert answer.status_code == 204
    assert_problem(person.me(login), 401, "invalid_token")


def test_a_session_of_another_user_is_not_found_like_an_unknown_one(admin: Admin) -> None:
    one, other = admin.add(), admin.add()
    mine, theirs = one.log_in(), other.log_in()
    details = set()
    for sid in (theirs["session_id"], "0" * 20, "nothing", "*", f"{other.id}:{theirs['session_id']}"):
        problem = assert_problem(
            one.ask("DELETE", f"/api/auth/sessions/{sid}", token=mine["access_token"]), 404, "not_found"
        )
        details.add(problem["detail"])
    assert len(details) == 1
    assert other.me(theirs).status_code == 200
    assert [session["id"] for session in sessions_of(one, mine)] == [mine["session_id"]]


def test_a_refresh_counts_as_the_last_use(admin: Admin) -> None:
    person = admin.add()
    login = person.log_in()
    with admin.installation.valkey.client() as client:
        key = f"s:1:{{{person.id}}}:{login['session_id']}"
        for field in ("opened", "at"):
            client.hincrby(key, field, -86_400_000)
    renewed = person.refresh(login).json()
    [listed] = sessions_of(person, renewed)
    lived = datetime.fromisoformat(listed["used_at"]) - datetime.fromisoformat(listed["created_at"])
    assert timedelta(hours=23) < lived < timedelta(hours=25)


@pytest.mark.parametrize("agent", [b"", b"x" * 5000, b"caf\xc3\xa9 \xff\t end", b"<script>alert(1)</script>"])
def test_user_agent_is_reduced_to_readable_text(admin: Admin, agent: bytes) -> None:
    person = admin.add()
    login = log_in_with(person, agent, new_address())
    [listed] = sessions_of(person, login)
    assert len(listed["agent"]) <= 120
    assert listed["agent"].isascii()
    assert listed["agent"].isprintable() or listed["agent"] == ""


def test_the_twenty_first_login_ends_the_oldest_session(admin: Admin) -> None:
    person = admin.add()
    logins = [person.log_in() for _ in range(21)]
    listed = sessions_of(person, logins[-1])
    assert [one["id"] for one in listed] == [login["session_id"] for login in reversed(logins[1:])]
    assert_problem(person.me(logins[0]), 401, "invalid_token")


def test_listing_and_ending_sessions_need_a_login(admin: Admin) -> None:
    for method, path in (("GET", "/api/auth/sessions"), ("DELETE", f"/api/auth/sessions/{'0' * 20}")):
        assert_problem(ask(admin.installation, method, path), 401, "invalid_token")

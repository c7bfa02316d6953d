"""Passwords: changed by their owner or set with a link; other sessions end at once on every worker."""

from __future__ import annotations

import secrets
from typing import Any

import httpx
import pytest

from tests.e2e.asking import Admin, Person, ask, everything_in, new_address
from tests.e2e.checks import assert_problem

NEW, OTHER = "seventeen green umbrellas", "a lighthouse full of maps"


def change(person: Person, token: str, current: str, new: str, **where: str) -> httpx.Response:
    body = {"current_password": current, "new_password": new}
    return ask(person.installation, "POST", "/api/auth/password", token=token, json=body, **where)


def set_up(person: Person, code: str, new: str) -> httpx.Response:
    return person.ask("POST", "/api/auth/password/setup", json={"token": code, "new_password": new})


def link(admin: Admin, person: Person) -> str:
    answer = admin.ask("POST", f"/api/admin/users/{person.id}/password-link")
    assert answer.status_code == 201, answer.text
    assert answer.json().keys() == {"token", "expires_in"}
    assert answer.json()["expires_in"] == 86_400
    return str(answer.json()["token"])


def test_a_changed_password_replaces_the_old_one_and_ends_the_other_sessions(admin: Admin) -> None:
    person = admin.add()
    here, there = person.log_in(), person.log_in()
    answer = change(person, here["access_token"], person.password, NEW)
    assert answer.status_code == 204, answer.text
    assert answer.content == b""
    assert_problem(person.me(there), 401, "invalid_token")
    assert_problem(person.refresh(there), 400, "invalid_grant")
    assert_problem(person.try_to_log_in(person.password), 401, "invalid_credentials")
    assert person.log_in(NEW)["user"]["id"] == person.id


def test_a_stored_hash_that_is_not_utf_8_matches_no_password(admin: Admin) -> None:
    person = admin.add()
    with person.installation.valkey.client() as client:
        client.hset(f"u:1:{{{person.id}}}", "password", b"$argon2id$v=19$m=19456,t=2,p=1$\xff\xfe")
    assert_problem(person.try_to_log_in(person.password), 401, "invalid_credentials")


def test_the_session_that_changed_the_password_continues_with_a_refresh(admin: Admin) -> None:
    person = admin.add()
    login = person.log_in()
    assert change(person, login["access_token"], person.password, NEW).status_code == 204
    assert_problem(person.me(login), 401, "token_expired")
    renewed = person.refresh(login)
    assert renewed.status_code == 200, renewed.text
    assert renewed.json()["session_id"] == login["session_id"]
    assert person.me(renewed.json()).status_code == 200


def test_sessions_that_were_not_deleted_in_time_have_also_ended(admin: Admin) -> None:
    """The gateway is killed between setting the new password and ending the thief's session, which is void anyway."""
    person = admin.add()
    here, thief = person.log_in(), person.log_in()
    with person.installation.valkey.client() as client:
        rows = {key: client.hgetall(key) for key in client.scan_iter(f"s:1:{{{person.id}}}:*")}
        assert change(person, here["access_token"], person.password, NEW).status_code == 204
        client.hset(f"s:1:{{{person.id}}}:{thief['session_id']}", mapping=_row_of(rows, thief))
    assert_problem(person.refresh(thief), 400, "invalid_grant")
    assert_problem(person.me(thief), 401, "invalid_token")
    assert person.refresh(here).status_code == 200


def _row_of(rows: dict[bytes, Any], login: dict[str, Any]) -> Any:
    return next(row for key, row in rows.items() if key.decode().endswith(login["session_id"]))


@pytest.mark.parametrize(
    ("new", "reason"),
    [("short", "at least 15"), ("correct-horse-" * 80, "at most 1024 bytes"), ("aaaaaaaaaaaaaaaaaaaa", "different")],
)
def test_a_weak_new_password_is_refused_with_reasons(admin: Admin, new: str, reason: str) -> None:
    person = admin.add()
    login = person.log_in()
    problem = assert_problem(change(person, login["access_token"], person.password, new), 422, "weak_password")
    assert any(reason in one for one in problem["reasons"]), problem["reasons"]
    assert new not in str(problem)
    assert_problem(set_up(person, link(admin, person), new), 422, "weak_password")
    assert person.me(login).status_code == 200
    assert person.log_in()


def test_a_wrong_current_password_changes_nothing(admin: Admin) -> None:
    person = admin.add()
    login = person.log_in()
    assert_problem(change(person, login["access_token"], NEW, OTHER), 401, "invalid_credentials")
    assert person.me(login).status_code == 200
    assert person.log_in()


def test_guessing_with_a_stolen_token_is_throttled_like_guessing_without(admin: Admin) -> None:
    person = admin.add()
    token = person.log_in()["access_token"]
    thief = new_address()
    for _ in range(5):
        assert_problem(change(person, token, secrets.token_hex(10), OTHER, address=thief), 401, "invalid_credentials")
    # Now even the right password is not verified, and a login from elsewhere is refused by the same bucket.
    assert_problem(change(person, token, person.password, OTHER, address=thief), 429, "too_many_attempts")
    body = {"username": person.name, "password": person.password}
    answer = ask(admin.installation, "POST", "/api/auth/login", address=new_address(), json=body)
    assert_problem(answer, 429, "too_many_attempts")
    assert person.log_in()  # the owner, from an address of an earlier login


def test_a_link_sets_a_password_once_and_ends_every_session(admin: Admin) -> None:
    person = admin.add()
    login = person.log_in()
    code = link(admin, person)
    assert set_up(person, code, NEW).status_code == 204
    assert_problem(person.me(login), 401, "invalid_token")
    assert_problem(person.refresh(login), 400, "invalid_grant")
    assert_problem(set_up(person, code, OTHER), 400, "invalid_grant")
    assert person.log_in(NEW)


def test_a_link_gives_access_to_an_account_without_a_password(admin: Admin) -> None:
    name = f"waiting-{secrets.token_hex(5)}"
    answer = admin.ask("POST", "/api/admin/users", json={"username": name, "roles": ["member"]})
    assert answer.status_code == 201, answer.text
    person = Person(admin.installation, answer.json()["user"]["id"], name, "", new_address())
    for password in ("", "None", NEW):
        assert_problem(person.try_to_log_in(password), 401, "invalid_credentials")
    assert set_up(person, link(admin, person), NEW).status_code == 204
    assert person.log_in(NEW)


def test_any_change_of_the_password_voids_a_link(admin: Admin) -> None:
    person = admin.add()
    first, second = link(admin, person), link(admin, person)
    assert set_up(person, first, NEW).status_code == 204
    assert_problem(set_up(person, second, OTHER), 400, "invalid_grant")
    third = link(admin, person)
    login = person.log_in(NEW)
    assert change(person, login["access_token"], NEW, OTHER).status_code == 204
    assert_problem(set_up(person, third, "yet another long password"), 400, "invalid_grant")
    assert person.log_in(OTHER)


def test_a_weak_password_does_not_use_up_the_link(admin: Admin) -> None:
    person = admin.add()
    code = link(admin, person)
    for _ in range(3):
        assert_problem(set_up(person, code, "short"), 422, "weak_password")
    assert set_up(person, code, NEW).status_code == 204


@pytest.mark.parametrize("code", ["", "a" * 26, "A" * 26, "a" * 64, "\u0430" * 26, "*", "../../etc/passwd"])
def test_invalid_links_get_the_same_refusal(admin: Admin, code: str) -> None:
    person = admin.add()
    problem = assert_problem(set_up(person, code, NEW), 400, "invalid_grant")
    assert problem["detail"] == "The code is invalid, expired or used. Ask for a new one."


def test_a_link_of_a_deleted_user_is_refused_like_any_other(admin: Admin) -> None:
    person = admin.add()
    code = link(admin, person)
    assert admin.ask("DELETE", f"/api/admin/users/{person.id}").status_code == 204
    assert_problem(set_up(person, code, NEW), 400, "invalid_grant")


def test_no_password_and_no_link_can_be_read_in_redis_or_the_log(admin: Admin) -> None:
    person = admin.add()
    code = link(admin, person)
    last = set_up(person, code, NEW + "!")
    assert last.status_code == 204
    with admin.installation.valkey.client() as client:
        said = everything_in(client) + admin.installation.log(last)
    for secret in (person.password, code, NEW):
        assert secret not in said

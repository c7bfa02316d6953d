"""The end of a session or a change of an account takes effect with the next request, on every worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.asking import Admin, Person
from tests.e2e.checks import assert_problem
from tests.e2e.workers import TELLS_WORKERS_APART, on_every_worker

NEW = "seventeen green umbrellas"
Act = Callable[[Admin, Person, dict[str, Any]], int]


def log_out(admin: Admin, person: Person, login: dict[str, Any]) -> int:
    return person.ask("POST", "/api/auth/logout", token=login["access_token"], json={}).status_code


def log_out_by_refresh_token(admin: Admin, person: Person, login: dict[str, Any]) -> int:
    return person.ask("POST", "/api/auth/logout", json={"refresh_token": login["refresh_token"]}).status_code


def log_out_everywhere(admin: Admin, person: Person, login: dict[str, Any]) -> int:
    other = person.log_in()["access_token"]
    return person.ask("POST", "/api/auth/logout", token=other, json={"scope": "all"}).status_code


def end_from_another_session(admin: Admin, person: Person, login: dict[str, Any]) -> int:
    other = person.log_in()["access_token"]
    return person.ask("DELETE", f"/api/auth/sessions/{login['session_id']}", token=other).status_code


def disable(admin: Admin, person: Person, login: dict[str, Any]) -> int:
    return admin.ask("PATCH", f"/api/admin/users/{person.id}", json={"status": "disabled"}).status_code


def change_roles(admin: Admin, person: Person, login: dict[str, Any]) -> int:
    return admin.ask("PATCH", f"/api/admin/users/{person.id}", json={"roles": ["host"]}).status_code


def change_password(admin: Admin, person: Person, login: dict[str, Any]) -> int:
    body = {"current_password": person.password, "new_password": NEW}
    return person.ask("POST", "/api/auth/password", token=login["access_token"], json=body).status_code


def set_password(admin: Admin, person: Person, login: dict[str, Any]) -> int:
    code = admin.ask("POST", f"/api/admin/users/{person.id}/password-link").json()["token"]
    body = {"token": code, "new_password": NEW}
    return person.ask("POST", "/api/auth/password/setup", json=body).status_code


def end_sessions(admin: Admin, person: Person, login: dict[str, Any]) -> int:
    return admin.ask("DELETE", f"/api/admin/users/{person.id}/sessions").status_code


def delete(admin: Admin, person: Person, login: dict[str, Any]) -> int:
    return admin.ask("DELETE", f"/api/admin/users/{person.id}").status_code


def reuse(admin: Admin, person: Person, login: dict[str, Any]) -> int:
    person.refresh(person.refresh(login).json())
    assert_problem(person.refresh(login), 400, "invalid_grant")
    return 200


@TELLS_WORKERS_APART
@pytest.mark.parametrize(
    ("act", "code", "refreshable"),
    [
        (log_out, "invalid_token", False),
        (log_out_by_refresh_token, "invalid_token", False),
        (log_out_everywhere, "invalid_token", False),
        (end_from_another_session, "invalid_token", False),
        (disable, "invalid_token", False),
        (change_roles, "token_expired", True),
        (change_password, "token_expired", True),
        (set_password, "invalid_token", False),
        (end_sessions, "invalid_token", False),
        (delete, "invalid_token", False),
        (reuse, "invalid_token", False),
    ],
)
def test_every_worker_refuses_the_next_request(admin: Admin, act: Act, code: str, refreshable: bool) -> None:
    person = admin.add()
    login = person.log_in()
    with on_every_worker(admin.installation, login["access_token"]) as clients:
        assert act(admin, person, login) in (200, 204)
        for client in clients:
            assert_problem(client.get("/api/auth/me"), 401, code)
    if refreshable:
        renewed = person.refresh(login)
        assert renewed.status_code == 200, renewed.text
        assert person.me(renewed.json()).status_code == 200
    else:
        assert_problem(person.refresh(login), 400, "invalid_grant")

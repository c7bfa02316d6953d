"""Acknowledged changes of accounts survive kill -9 of Redis; changes that the disk does not confirm get 503."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.asking import Admin, Person, ask, everything_in, new_address
from tests.e2e.checks import assert_problem
from tests.e2e.policies import roomy
from tests.servers import Installation, wait_until

PASSWORD, NEW = "seventeen green umbrellas", "a lighthouse full of maps"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder: Path = tmp_path_factory.mktemp("durable")
    made = Installation(folder, workers=2, policy=roomy())
    made.env["GATEWAY_REGISTRATION"] = "open"
    with made as running:
        running.add_users(ada="admin")
        yield running


@pytest.fixture
def unsure(own: Installation) -> Iterator[Installation]:
    """The same with a disk that never confirms.

    With `appendfsync no` the server leaves the sync to the kernel and does not observe it: WAITAOF waits for its
    whole two seconds and answers 0, as with a disk that hangs. (A stopped process would not answer at all, which is
    another failure; with a full disk the server refuses the write itself.)
    """
    with own.valkey.client() as client:
        client.config_set("appendfsync", "no")
        yield own
        client.config_set("appendfsync", "everysec")


def register(own: Installation, name: str, **fields: Any) -> httpx.Response:
    return ask(own, "POST", "/api/auth/register", json={"username": name, "password": PASSWORD} | fields)


def log_in(own: Installation, name: str, password: str = PASSWORD) -> httpx.Response:
    return ask(own, "POST", "/api/auth/login", json={"username": name, "password": password})


def waits(own: Installation) -> int:
    with own.valkey.client() as client:
        return int(client.info("commandstats").get("cmdstat_waitaof", {}).get("calls", 0))


def crash(own: Installation) -> None:
    """Kill Redis and restart it from its files."""
    own.valkey.kill()
    own.valkey.start()
    wait_until(own.has_store, "every worker has reconnected to Redis")


def test_an_acknowledged_account_survives_a_crash_of_redis(own: Installation) -> None:
    before = waits(own)
    answers = [register(own, f"lasting-{number}") for number in range(3)]
    assert waits(own) >= before + 3
    crash(own)
    for number, answer in enumerate(answers):
        login = log_in(own, f"lasting-{number}")
        assert login.status_code == 200, login.text
        assert login.json()["user"]["id"] == answer.json()["user"]["id"]
    listed = Admin(own).ask("GET", "/api/admin/users", params={"name": "lasting-"}).json()["users"]
    assert [user["username"] for user in listed] == ["lasting-0", "lasting-1", "lasting-2"]


def test_changes_of_an_account_survive_a_crash_of_redis(own: Installation) -> None:
    admin = Admin(own)
    promoted, moved, banned, gone = (admin.add() for _ in range(4))
    token = moved.log_in()["access_token"]
    path = "/api/admin/users/"
    body = {"current_password": moved.password, "new_password": NEW}
    for answer in (
        admin.ask("PATCH", f"{path}{promoted.id}", json={"roles": ["operator"]}),
        moved.ask("POST", "/api/auth/password", token=token, json=body),
        admin.ask("PATCH", f"{path}{banned.id}", json={"status": "disabled"}),
        admin.ask("DELETE", f"{path}{gone.id}"),
    ):
        assert answer.status_code in (200, 204), answer.text
    crash(own)
    assert promoted.log_in()["user"]["roles"] == ["operator"]
    assert_problem(moved.try_to_log_in(moved.password), 401, "invalid_credentials")
    assert moved.log_in(NEW)
    for person in (banned, gone):
        assert_problem(person.try_to_log_in(person.password), 401, "invalid_credentials")
    assert register(own, gone.name).status_code == 201


def test_a_registration_that_the_disk_does_not_confirm_gets_503_and_leaves_nothing(unsure: Installation) -> None:
    before = waits(unsure)
    answer = register(unsure, "uncertain")
    assert_problem(answer, 503, "unavailable")
    assert waits(unsure) == before + 1
    with unsure.valkey.client() as client:
        assert "uncertain" not in everything_in(client)
        client.config_set("appendfsync", "everysec")
    assert_problem(log_in(unsure, "uncertain"), 401, "invalid_credentials")
    assert register(unsure, "uncertain").status_code == 201  # a second attempt does not find the name taken
    assert log_in(unsure, "uncertain").status_code == 200


def test_an_invitation_is_not_lost_to_a_disk_that_does_not_confirm(unsure: Installation) -> None:
    done = unsure.command("users", "invite", "--role", "host", "--json")
    code = json.loads(done.stdout)["invite"]
    assert_problem(register(unsure, "invited", invite=code), 503, "unavailable")
    with unsure.valkey.client() as client:
        client.config_set("appendfsync", "everysec")
    assert register(unsure, "invited", invite=code).json()["user"]["roles"] == ["host"]
    assert_problem(register(unsure, "another", invite=code), 403, "invite_invalid")


def test_the_command_line_reports_success_only_after_the_disk_confirms(unsure: Installation) -> None:
    done = unsure.command("users", "add", "hasty", "--role", "member", stdin=f"{PASSWORD}\n")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "did not confirm" in done.stderr
    assert unsure.command("users", "show", "hasty").returncode == 1


@pytest.fixture
def person(own: Installation, unsure: Installation) -> Person:
    """A person whose account is on disk before the disk stops confirming."""
    _confirm(own, "everysec")
    made: Person = Admin(own).add()
    made.address = new_address()
    _confirm(own, "no")
    return made


def _confirm(own: Installation, how: str) -> None:
    with own.valkey.client() as client:
        client.config_set("appendfsync", how)


def test_changes_and_repeated_changes_by_an_administrator_get_503_until_the_disk_confirms(
    unsure: Installation, person: Person
) -> None:
    """Acknowledging the repetition of an unconfirmed change would defeat the confirmation."""
    admin, path = Admin(unsure), f"/api/admin/users/{person.id}"
    for change in ({"roles": ["operator"]}, {"status": "disabled"}):
        for _ in range(2):
            before = waits(unsure)
            answer = admin.ask("PATCH", path, json=change)
            assert "is in force" in assert_problem(answer, 503, "unavailable")["detail"]
            assert waits(unsure) == before + 1
    _confirm(unsure, "everysec")
    answer = admin.ask("PATCH", path, json={"roles": ["operator"], "status": "disabled"})
    assert (answer.json()["user"]["roles"], answer.json()["user"]["status"]) == (["operator"], "disabled")
    assert len(admin.audit(action="user.roles", user=person.id)) == 1
    _confirm(unsure, "no")
    assert_problem(admin.ask("DELETE", path), 503, "unavailable")
    _confirm(unsure, "everysec")
    assert admin.ask("DELETE", path).status_code == 204


def test_unconfirmed_change_of_password_is_in_force_and_audited_and_its_session_continues(
    unsure: Installation, person: Person
) -> None:
    here, thief = person.log_in(), person.log_in()
    body = {"current_password": person.password, "new_password": NEW}
    answer = person.ask("POST", "/api/auth/password", token=here["access_token"], json=body)
    assert "is in force" in assert_problem(answer, 503, "unavailable")["detail"]
    assert_problem(person.try_to_log_in(person.password), 401, "invalid_credentials")
    assert_problem(person.refresh(thief), 400, "invalid_grant")
    assert person.refresh(here).status_code == 200
    assert person.me(person.log_in(NEW)).status_code == 200
    assert len(Admin(unsure).audit(action="password.changed", user=person.id)) == 1


def test_unconfirmed_password_of_a_link_is_in_force_and_audited(unsure: Installation, person: Person) -> None:
    thief = person.log_in()
    link = Admin(unsure).ask("POST", f"/api/admin/users/{person.id}/password-link").json()["token"]
    body = {"token": link, "new_password": NEW}
    assert_problem(ask(unsure, "POST", "/api/auth/password/setup", json=body), 503, "unavailable")
    assert_problem(person.refresh(thief), 400, "invalid_grant")
    assert person.me(person.log_in(NEW)).status_code == 200
    assert len(Admin(unsure).audit(action="password.set", user=person.id)) == 1


def test_unconfirmed_logout_everywhere_is_in_force_and_audited(unsure: Installation, person: Person) -> None:
    here, there = person.log_in(), person.log_in()
    answer = person.ask("POST", "/api/auth/logout", token=here["access_token"], json={"scope": "all"})
    assert_problem(answer, 503, "unavailable")
    for login in (here, there):
        assert person.me(login).status_code == 401
        assert_problem(person.refresh(login), 400, "invalid_grant")
    [entry] = Admin(unsure).audit(action="logout", user=person.id)
    assert entry["details"]["scope"] == "all"

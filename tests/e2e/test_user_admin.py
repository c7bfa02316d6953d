"""Administration of accounts: permissions, and the protection of the last admin."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.e2e.asking import Admin, Person, ask, everything_in
from tests.e2e.checks import assert_problem
from tests.e2e.volley import fire
from tests.servers import HOST, Installation

TRIES = 50
API = 'limits.api = { rate = "100000/min", burst = 10000 }'


def patch(path: str, body: str, token: str) -> bytes:
    head = f"PATCH {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    return f"{head}Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def names(admin: Admin, **query: object) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        page = admin.ask("GET", "/api/admin/users", params={**query, **({"cursor": cursor} if cursor else {})}).json()
        found += [user["username"] for user in page["users"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def test_users_are_found_by_the_beginning_of_their_names_page_by_page(admin: Admin) -> None:
    stem = f"Page{secrets.token_hex(4)}"
    made = [admin.add(name=f"{stem}-{letter}").name for letter in "dbaec"]
    for limit in (1, 2, 5, 500):
        assert names(admin, name=stem.upper(), limit=limit) == sorted(made)
    assert names(admin, name=f"{stem}-a") == [f"{stem}-a"]
    assert names(admin, name=f"{stem}-z") == []
    assert set(made) <= set(names(admin, limit=7))


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 501}, {"cursor": "x"}, {"name": "x" * 65}])
def test_invalid_queries_are_refused(admin: Admin, query: dict[str, object]) -> None:
    assert_problem(admin.ask("GET", "/api/admin/users", params=query), 400, "invalid_request")


def test_an_account_is_shown_by_name_and_by_id_without_its_password(admin: Admin) -> None:
    person = admin.add("host", "operator")
    for who in (person.name, person.name.upper(), person.id):
        answer = admin.ask("GET", f"/api/admin/users/{who}")
        user = answer.json()["user"]
        assert user.keys() == {"id", "username", "display_name", "roles", "status", "created_at", "identity"}
        assert (user["id"], user["roles"], user["status"]) == (person.id, ["host", "operator"], "active")
        assert "argon2" not in answer.text
    assert_problem(admin.ask("GET", "/api/admin/users/nobody-at-all"), 404, "not_found")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"username": "ada", "roles": ["member"]}, 409, "user_exists"),
        ({"username": "newcomer", "roles": ["boss"]}, 400, "invalid_request"),
        ({"username": "newcomer", "roles": []}, 400, "invalid_request"),
        ({"username": "newcomer"}, 400, "invalid_request"),
        ({"username": "n", "roles": ["member"]}, 400, "invalid_request"),
        ({"username": "newcomer", "roles": ["member"], "password": "short"}, 422, "weak_password"),
        ({"username": "newcomer", "roles": ["member"], "display_name": "a\nb"}, 400, "invalid_request"),
        ({"username": "newcomer", "roles": ["member"], "ver": 7}, 400, "invalid_request"),
    ],
)
def test_an_invalid_account_is_refused(admin: Admin, body: dict[str, object], status: int, code: str) -> None:
    assert_problem(admin.ask("POST", "/api/admin/users", json=body), status, code)
    assert_problem(admin.ask("GET", "/api/admin/users/newcomer"), 404, "not_found")


def test_a_change_of_roles_takes_effect_with_the_next_request(admin: Admin) -> None:
    person = admin.add("member")
    login = person.log_in()
    answer = admin.ask("PATCH", f"/api/admin/users/{person.id}", json={"roles": ["operator"], "display_name": "Neo"})
    assert (answer.json()["user"]["roles"], answer.json()["user"]["display_name"]) == (["operator"], "Neo")
    assert_problem(person.me(login), 401, "token_expired")
    renewed = person.refresh(login).json()
    assert person.ask("GET", "/api/admin/usage", token=renewed["access_token"]).status_code == 200


def test_disabled_users_are_refused_until_they_are_enabled_and_log_in_again(admin: Admin) -> None:
    person = admin.add()
    login = person.log_in()
    assert admin.ask("PATCH", f"/api/admin/users/{person.id}", json={"status": "disabled"}).status_code == 200
    assert_problem(person.me(login), 401, "invalid_token")
    assert_problem(person.refresh(login), 400, "invalid_grant")
    assert_problem(person.try_to_log_in(person.password), 401, "invalid_credentials")
    assert admin.ask("PATCH", f"/api/admin/users/{person.id}", json={"status": "active"}).status_code == 200
    assert_problem(person.refresh(login), 400, "invalid_grant")
    assert person.me(person.log_in()).status_code == 200


def test_an_empty_change_changes_nothing(admin: Admin) -> None:
    person = admin.add()
    login = person.log_in()
    assert admin.ask("PATCH", f"/api/admin/users/{person.id}", json={}).status_code == 200
    assert person.me(login).status_code == 200
    for body in ({"status": "deleted"}, {"status": ""}, {"roles": ["boss"]}, {"password": "x"}, {"username": "other"}):
        assert_problem(admin.ask("PATCH", f"/api/admin/users/{person.id}", json=body), 400, "invalid_request")


def test_sessions_of_another_user_are_ended(admin: Admin) -> None:
    person = admin.add()
    logins = [person.log_in() for _ in range(3)]
    answer = admin.ask("DELETE", f"/api/admin/users/{person.id}/sessions")
    assert (answer.status_code, answer.json()) == (200, {"ended": 3})
    for login in logins:
        assert_problem(person.me(login), 401, "invalid_token")
        assert_problem(person.refresh(login), 400, "invalid_grant")
    assert admin.ask("DELETE", f"/api/admin/users/{person.id}/sessions").json() == {"ended": 0}


def test_one_session_of_another_user_is_ended(admin: Admin) -> None:
    person, other = admin.add(), admin.add()
    kept, ended, strange = person.log_in(), person.log_in(), other.log_in()
    path = f"/api/admin/users/{person.name}/sessions"
    found = admin.ask("GET", path).json()["sessions"]
    assert [one["id"] for one in found] == [ended["session_id"], kept["session_id"]]
    assert {(one["address"], one["current"]) for one in found} == {(person.address, False)}
    assert admin.ask("DELETE", f"{path}/{ended['session_id']}").status_code == 204
    assert_problem(person.me(ended), 401, "invalid_token")
    assert_problem(person.refresh(ended), 400, "invalid_grant")
    assert person.me(kept).status_code == 200
    assert [one["id"] for one in admin.ask("GET", path).json()["sessions"]] == [kept["session_id"]]
    for sid in (ended["session_id"], strange["session_id"], "0" * 20, "*"):
        assert_problem(admin.ask("DELETE", f"{path}/{sid}"), 404, "not_found")
    assert_problem(admin.ask("GET", "/api/admin/users/nobody-at-all/sessions"), 404, "not_found")
    assert other.me(strange).status_code == 200
    [entry] = admin.audit(user=person.id, action="user.session_ended")
    assert (entry["by"], entry["details"]) == (admin.id, {"session": ended["session_id"]})


@pytest.mark.parametrize("role", ["member", "host", "operator"])
def test_users_without_users_manage_are_refused(admin: Admin, role: str) -> None:
    person, victim = admin.add(role), admin.add()
    token, session = person.log_in()["access_token"], victim.log_in()["session_id"]
    for method, path, body in (
        ("GET", "", None),
        ("POST", "", {"username": "newcomer", "roles": ["admin"]}),
        ("GET", f"/{victim.id}", None),
        ("PATCH", f"/{person.id}", {"roles": ["admin"]}),
        ("PATCH", f"/{victim.id}", {"status": "disabled"}),
        ("DELETE", f"/{victim.id}", None),
        ("GET", f"/{victim.id}/sessions", None),
        ("DELETE", f"/{victim.id}/sessions", None),
        ("DELETE", f"/{victim.id}/sessions/{session}", None),
        ("POST", f"/{victim.id}/password-link", None),
    ):
        request = {} if body is None else {"json": body}
        problem = assert_problem(
            person.ask(method, f"/api/admin/users{path}", token=token, **request), 403, "forbidden"
        )
        assert problem["missing_permission"] == "users:manage"
    assert victim.log_in()
    assert admin.ask("GET", f"/api/admin/users/{person.id}").json()["user"]["roles"] == [role]


def test_admins_cannot_change_their_own_roles_or_status_or_delete_themselves(admin: Admin) -> None:
    for who in (admin.id, "ada", "ADA"):
        path = f"/api/admin/users/{who}"
        for body in ({"roles": ["admin", "host"]}, {"status": "disabled"}, {"roles": ["admin"], "display_name": "A"}):
            assert_problem(admin.ask("PATCH", path, json=body), 403, "forbidden")
        assert_problem(admin.ask("DELETE", path), 403, "forbidden")
    assert admin.ask("PATCH", f"/api/admin/users/{admin.id}", json={"display_name": "Ada"}).status_code == 200
    assert admin.ask("GET", "/api/auth/me").json()["user"]["roles"] == ["admin"]


def test_managers_cannot_grant_or_act_on_a_power_that_they_do_not_have(admin: Admin) -> None:
    """A custom role that only manages users can create hosts, but not operators, nor a password link for an admin."""
    own = admin.installation
    policy = own.folder / "clerks.toml"
    text = (own.folder / "policy.toml").read_text()
    policy.write_text(text + f'\n[roles.clerk]\npermissions = ["users:manage"]\n{API}\n')
    clerk = admin.add("member")
    done = own.command("users", "roles", clerk.name, "clerk", GATEWAY_POLICY=str(policy))
    assert done.returncode == 0, done.stderr
    other = Installation(own.folder, valkey=own.valkey)
    other.env = own.env | {"GATEWAY_POLICY": str(policy)}
    other.gateway.env, other.gateway.log = other.env, own.folder / "clerks.log"
    operator, member = admin.add("operator"), admin.add("member")
    try:
        other.start_gateway()
        body = {"username": clerk.name, "password": clerk.password}
        token = ask(other, "POST", "/api/auth/login", json=body).json()["access_token"]
        for method, path, request in (
            ("POST", "", {"username": "newcomer", "roles": ["operator"]}),
            ("POST", "", {"username": "newcomer", "roles": ["member", "admin"]}),
            ("PATCH", f"/{member.id}", {"roles": ["operator"]}),
            ("PATCH", f"/{operator.id}", {"roles": ["member"]}),
            ("PATCH", f"/{operator.id}", {"status": "disabled"}),
            ("PATCH", f"/{operator.id}", {"display_name": "Oops"}),
            ("DELETE", f"/{operator.id}", {}),
            ("DELETE", f"/{operator.id}/sessions", {}),
            ("DELETE", f"/{operator.id}/sessions/{'0' * 20}", {}),
            ("POST", f"/{admin.id}/password-link", {}),
        ):
            answer = ask(other, method, f"/api/admin/users{path}", token=token, json=request)
            assert_problem(answer, 403, "forbidden")
        path = f"/api/admin/users/{member.id}"
        assert ask(other, "PATCH", path, token=token, json={"roles": ["host"]}).status_code == 200
    finally:
        other.gateway.stop()
    denied = [entry for entry in admin.audit(action="denied") if entry["by"] == clerk.id]
    assert {entry["subject"] for entry in denied} >= {operator.id, admin.id}


def test_a_deleted_user_leaves_counters_and_no_personal_data(admin: Admin) -> None:
    person = admin.add("host", name=f"Zacharias.{secrets.token_hex(4)}")
    admin.ask("PATCH", f"/api/admin/users/{person.id}", json={"display_name": "Zacharias Zweig"})
    # Unique in the whole run, and spelled as it is stored: without leading zeros.
    address = str(ip_address(f"2001:db8:{secrets.token_hex(2)}:{secrets.token_hex(2)}::77"))
    person.address = address
    login = person.log_in()
    token = login["access_token"]
    room = person.ask("POST", "/api/rooms", token=token, json={}).json()["room"]["id"]
    assert person.ask("POST", f"/api/rooms/{room}/token", token=token, json={}).status_code == 200
    person.try_to_log_in("a wrong password of theirs")
    with admin.installation.valkey.client() as client:
        before = everything_in(client)
        assert person.name in before
        assert address in before
        assert admin.ask("DELETE", f"/api/admin/users/{person.name}").status_code == 204
        after = everything_in(client)
    for text in (person.name, person.name.lower(), "Zweig", address):
        assert text not in after
    assert_problem(person.me(login), 401, "invalid_token")
    assert_problem(person.refresh(login), 400, "invalid_grant")
    assert_problem(person.try_to_log_in(person.password), 401, "invalid_credentials")
    for who in (person.name, person.id):
        assert_problem(admin.ask("GET", f"/api/admin/users/{who}"), 404, "not_found")
        assert_problem(admin.ask("DELETE", f"/api/admin/users/{who}"), 404, "not_found")
    rows, cursor = [], None
    while True:
        report = admin.ask("GET", "/api/admin/usage", params={"limit": 500} | ({"cursor": cursor} if cursor else {}))
        rows += [row for row in report.json()["items"] if row["user_id"] == person.id]
        cursor = report.json()["next_cursor"]
        if cursor is None:
            break
    assert {(row["username"], row["action"], row["ok"]) for row in rows} >= {("", "rooms.create", 1)}


def test_a_new_user_with_a_freed_name_inherits_nothing(admin: Admin) -> None:
    first = admin.add("operator")
    old = first.log_in()
    assert admin.ask("DELETE", f"/api/admin/users/{first.id}").status_code == 204
    second = admin.add("member", name=first.name)
    assert second.id != first.id
    assert_problem(first.try_to_log_in(first.password), 401, "invalid_credentials")
    assert_problem(first.me(old), 401, "invalid_token")
    login = second.log_in()
    assert login["user"]["roles"] == ["member"]
    usage = second.ask("GET", "/api/usage", token=login["access_token"]).json()["usage"]
    assert usage["total"]["login"]["ok"] == 1
    assert names(admin, name=first.name) == [first.name]


async def test_one_of_two_admins_who_demote_each_other_stays_admin(admin: Admin) -> None:
    """Fifty times, on two workers, while no other user may manage users."""
    own = admin.installation
    pair = [admin.add("admin"), admin.add("admin")]
    logins = [person.log_in() for person in pair]
    # The third admin is demoted by the command line, which applies the same rule: other admins are left.
    assert own.command("users", "roles", "ada", "member").returncode == 0
    refused = 0
    _sync(own, "always")  # otherwise the test would mostly wait for the sync once a second, a hundred times
    try:
        for _ in range(TRIES):
            paths = [f"/api/admin/users/{person.id}" for person in reversed(pair)]
            tokens = [login["access_token"] for login in logins]
            requests = [patch(path, '{"roles":["member"]}', token) for path, token in zip(paths, tokens, strict=True)]
            answers = [answer for answer in await fire(own.port, requests) if answer]
            statuses = sorted(answer.status for answer in answers)
            assert statuses[0] == 200, statuses  # at most one of the two is refused ...
            assert statuses[1] in (401, 403, 409, 503), statuses  # ... and at least one is
            refused += statuses[1] in (409, 503)
            pair, logins = _restored(pair, logins)
    finally:
        _sync(own, "everysec")
        _crown(own)
    admin.log_in_again()
    assert refused, "the two never raced, so nothing was tested"


def _restored(pair: list[Person], logins: list[dict[str, object]]) -> tuple[list[Person], list[dict[str, object]]]:
    """Let the remaining admin promote the other one again; both continue with fresh tokens."""
    alive = [at for at in (0, 1) if pair[at].me(logins[at]).status_code == 200]
    assert len(alive) == 1, "not exactly one may still manage users"
    at = alive[0]
    path = f"/api/admin/users/{pair[1 - at].id}"
    answer = pair[at].ask("PATCH", path, token=str(logins[at]["access_token"]), json={"roles": ["admin"]})
    assert answer.status_code == 200, answer.text
    logins[1 - at] = pair[1 - at].log_in()
    return pair, logins


def _sync(own: Installation, how: str) -> None:
    with own.valkey.client() as client:
        client.config_set("appendfsync", how)


def _crown(own: Installation) -> None:
    done = own.command("users", "roles", "ada", "admin")
    assert done.returncode == 0, done.stderr


def test_an_admin_without_a_password_does_not_count_as_another_admin(tmp_path: Path) -> None:
    with Installation(tmp_path) as own:
        own.add_users(ada="admin")
        with own.client_of("ada") as admin:
            assert admin.post("/api/admin/users", json={"username": "later", "roles": ["admin"]}).status_code == 201
        done = own.command("users", "disable", "ada")
        assert (done.returncode, done.stderr) == (
            1,
            "gateway: No other user may manage users. Give another user that role first.\n",
        )
        assert own.log_in("ada")["user"]["roles"] == ["admin"]


def test_the_last_admin_can_be_neither_demoted_nor_disabled_nor_deleted(tmp_path: Path) -> None:
    """Not even by the command line, which may do everything else."""
    arguments = (["roles", "ada", "member"], ["disable", "ada"], ["delete", "ada", "--yes"])
    with Installation(tmp_path) as own, ThreadPoolExecutor(3) as pool:
        own.add_users(ada="admin")
        outcomes = list(pool.map(lambda given: own.command("users", *given), arguments))
        roles = own.log_in("ada")["user"]["roles"]
    for done in outcomes:
        assert done.returncode == 1
        assert done.stderr == "gateway: No other user may manage users. Give another user that role first.\n" or (
            "under way" in done.stderr
        )
    assert roles == ["admin"]

"""Access to objects and powers of other users. OWASP API Security 2023, API1 and API5; CWE-639, CWE-269."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.checks import assert_problem
from tests.servers import Installation

PASSWORD = "plenty of good words, none common"


@pytest.fixture(scope="module")
def people(target: Installation) -> Iterator[dict[str, httpx.Client]]:
    """A client for each role; the manager and the warden have one power each."""
    with target.client_of("ada") as admin, target.client_of("olga") as omni:
        for name, roles in (("manja", ["manager"]), ("willi", ["warden"]), ("vera", ["member"])):
            body = {"username": name, "password": PASSWORD, "roles": roles}
            # ada has every power, so she may create them
            assert admin.post("/api/admin/users", json=body).status_code == 201
            target.passwords[name] = PASSWORD
        found = {name: target.client_of(name) for name in ("hanna", "mira", "otto", "manja", "willi", "vera")}
        yield found | {"ada": admin, "olga": omni}
        for client in found.values():
            client.close()


def operations(client: httpx.Client) -> list[tuple[str, str]]:
    paths = client.get("/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


@pytest.mark.parametrize("name", ["hanna", "mira"])
def test_admin_routes_refuse_users_without_a_power(people: dict[str, httpx.Client], name: str) -> None:
    """Every admin route, for another user and for the caller; no answer reveals whether a user exists."""
    client = people[name]
    routes = [(method, path) for method, path in operations(client) if path.startswith("/api/admin/")]
    assert len(routes) >= 15
    for method, path in routes:
        for user in ("ada", name, "nobody-here"):
            address = path.replace("{user}", user).replace("{room_id}", "0" * 24)
            answer = client.request(method, address, json={} if method in ("POST", "PUT", "PATCH") else None)
            document = assert_problem(answer, 403, "forbidden")
            assert document["missing_permission"]
            assert "ada" not in document["detail"]


def test_one_power_does_not_open_the_routes_of_another(people: dict[str, httpx.Client]) -> None:
    with_limits = ("/api/admin/limits", "/api/admin/webhooks/dead/{", "/api/admin/webhooks/out/")
    for name, own in (("manja", ("/api/admin/users", "/api/admin/keys")), ("willi", with_limits), ("otto", ())):
        for method, path in operations(people[name]):
            foreign = path.startswith("/api/admin/") and not path.startswith(own)
            if foreign and (name != "otto" or path.startswith(("/api/admin/users", "/api/admin/keys"))):
                address = path.replace("{user}", "vera").replace("{room_id}", "0" * 24).replace("{letter_id}", "1-0")
                answer = people[name].request(method, address, json={} if method in ("POST", "PUT", "PATCH") else None)
                assert_problem(answer, 403, "forbidden")


@pytest.mark.parametrize("name", ["mira", "manja", "willi"])
def test_another_users_room_is_not_found(target: Installation, people: dict[str, httpx.Client], name: str) -> None:
    """Each route answers for an invited room as for one that never existed. (Operators may read any room.)"""
    room = people["hanna"].post("/api/rooms", json={"access": "invited"}).json()["room"]["id"]
    before = people["hanna"].get(f"/api/rooms/{room}/members").json()
    calls = len(target.upstream_calls())
    tried = 0
    for method, path in operations(people[name]):
        if "{room_id}" not in path or path.startswith("/api/admin/"):
            continue
        seen = set()
        for rid in (room, "0" * 24):
            address = re.sub(r"\{(user|invite_id)\}", name, path.replace("{room_id}", rid))
            body = {"relation": "owner"} if "members" in path else {}
            answer = people[name].request(method, address, json=body if method in ("POST", "PUT", "PATCH") else None)
            assert answer.status_code in (403, 404), answer.text
            seen.add(json.dumps(answer.json() | {"instance": "", "request_id": ""}))
        assert len(seen) == 1, seen
        tried += 1
    assert tried >= 6
    assert people["hanna"].get(f"/api/rooms/{room}/members").json() == before
    assert len(target.upstream_calls()) == calls


def test_another_users_session_cannot_be_ended(target: Installation, people: dict[str, httpx.Client]) -> None:
    """Not even by an admin: the route is for the caller's own sessions. Another user's id counts as unknown."""
    victim = target.log_in("vera")
    for name in ("mira", "otto", "ada"):
        for sid in (victim["session_id"], "0" * 20, f"{victim['session_id']}}}", f"x:{victim['session_id']}"):
            assert_problem(people[name].delete(f"/api/auth/sessions/{sid}"), 404, "not_found")
    with target.client(victim["access_token"]) as client:
        assert client.get("/api/auth/me").status_code == 200


def test_users_cannot_promote_themselves(people: dict[str, httpx.Client]) -> None:
    for name in ("manja", "ada", "olga"):
        before = people[name].get("/api/auth/me").json()
        for change in ({"roles": ["omni"]}, {"roles": ["admin", "host"]}, {"status": "active", "roles": ["omni"]}):
            for user in (name, name.upper(), before["user"]["id"]):
                answer = people[name].patch(f"/api/admin/users/{user}", json=change)
                assert_problem(answer, 403, "forbidden")
        assert people[name].get("/api/auth/me").json() == before


@pytest.mark.parametrize("roles", [["operator"], ["admin"], ["warden"], ["omni"], ["member", "warden"]])
def test_users_cannot_grant_a_power_that_they_do_not_have(people: dict[str, httpx.Client], roles: list[str]) -> None:
    """CWE-269 by a detour: create or promote another account, and use that."""
    manager = people["manja"]
    body = {"username": "puppet", "password": PASSWORD, "roles": roles}
    assert_problem(manager.post("/api/admin/users", json=body), 403, "forbidden")
    assert_problem(manager.get("/api/admin/users/puppet"), 404, "not_found")
    assert_problem(manager.patch("/api/admin/users/vera", json={"roles": roles}), 403, "forbidden")
    assert manager.get("/api/admin/users/vera").json()["user"]["roles"] == ["member"]


@pytest.mark.parametrize("victim", ["otto", "willi", "olga", "ada"])
def test_manager_cannot_take_over_or_disable_a_user_with_more_power(
    people: dict[str, httpx.Client], victim: str
) -> None:
    """Not by a password link, nor by a change of roles, status, sessions or account; neither by name nor by id."""
    manager = people["manja"]
    uid = people[victim].get("/api/auth/me").json()["user"]["id"]
    for user in (victim, uid):
        stem = f"/api/admin/users/{user}"
        assert_problem(manager.post(f"{stem}/password-link"), 403, "forbidden")
        assert_problem(manager.patch(stem, json={"roles": ["member"]}), 403, "forbidden")
        assert_problem(manager.patch(stem, json={"status": "disabled"}), 403, "forbidden")
        assert_problem(manager.delete(f"{stem}/sessions"), 403, "forbidden")
        assert_problem(manager.delete(stem), 403, "forbidden")
    assert people[victim].get("/api/auth/me").status_code == 200


@pytest.mark.parametrize("victim", ["ada", "olga", "manja"])
def test_limits_of_users_with_more_power_cannot_be_changed(people: dict[str, httpx.Client], victim: str) -> None:
    """A block by a user who only manages limits would lock every admin out of the installation."""
    for name in ("willi", "otto"):
        stem = f"/api/admin/limits/{victim}"
        for body in (
            {"block": True, "lasts_s": 600, "reason": "mutiny"},
            {"name": "api", "rate": "1/d", "burst": 1, "lasts_s": 600, "reason": "mutiny"},
        ):
            assert_problem(people[name].put(f"{stem}/override", json=body), 403, "forbidden")
        assert_problem(people[name].post(f"{stem}/reset", json={}), 403, "forbidden")
        assert_problem(people[name].delete(f"{stem}/override", params={"name": "api"}), 403, "forbidden")
    assert people[victim].get("/api/auth/me").status_code == 200


def test_users_cannot_change_their_own_limits(people: dict[str, httpx.Client]) -> None:
    more = {"name": "api", "rate": "1000000/s", "burst": 1_000_000, "lasts_s": 600, "reason": "me first"}
    for name in ("willi", "otto", "ada", "olga"):
        uid = people[name].get("/api/auth/me").json()["user"]["id"]
        for user in (name, name.upper(), uid):
            assert_problem(people[name].put(f"/api/admin/limits/{user}/override", json=more), 403, "forbidden")
            assert_problem(people[name].post(f"/api/admin/limits/{user}/reset", json={}), 403, "forbidden")
    for name in ("vera", "mira"):  # but they may change those of others
        assert people["willi"].put(f"/api/admin/limits/{name}/override", json=more).status_code == 200
        assert people["willi"].delete(f"/api/admin/limits/{name}/override", params={"name": "api"}).status_code == 204


@pytest.mark.parametrize("spelling", ["{}", "U{}", " {}", "{} ", "\uff55{}", "{}\u3164", "{}\ufe0f"])
def test_name_that_is_another_users_id_is_refused(people: dict[str, httpx.Client], spelling: str) -> None:
    """CWE-706: routes accept a user's id or name. A user named like another user's id would get the roles or the
    password link that were meant for the other, or would be disabled in their place."""
    uid = people["vera"].get("/api/auth/me").json()["user"]["id"]
    name = spelling.format(uid[1:] if spelling[0] in "U\uff55" else uid)
    body = {"username": name, "password": PASSWORD, "roles": ["member"]}
    assert_problem(people["ada"].post("/api/admin/users", json=body), 400, "invalid_request", field="username")
    assert people["ada"].get(f"/api/admin/users/{uid}").json()["user"]["username"] == "vera"


def test_users_cannot_delete_or_disable_themselves(people: dict[str, httpx.Client]) -> None:
    assert_problem(people["ada"].delete("/api/admin/users/ada"), 403, "forbidden")
    assert_problem(people["ada"].patch("/api/admin/users/ada", json={"status": "disabled"}), 403, "forbidden")
    assert people["ada"].get("/api/auth/me").status_code == 200


def test_operator_gets_no_join_token(people: dict[str, httpx.Client]) -> None:
    """Permission to read every room is not permission to join it."""
    room = people["hanna"].post("/api/rooms", json={}).json()["room"]["id"]
    for name in ("otto", "ada", "willi"):
        answer = people[name].post(f"/api/rooms/{room}/token", json={"role": "guest"})
        assert answer.status_code in (403, 404), answer.text


def test_password_link_does_not_outlive_a_promotion(target: Installation, people: dict[str, httpx.Client]) -> None:
    """OWASP API5:2023: a manager made a link for a member, who is an admin by the time it is used."""
    for roles, status in ((["admin"], "active"), (["member"], "disabled")):
        name = f"rising-{secrets.token_hex(4)}"
        body = {"username": name, "password": PASSWORD, "roles": ["member"]}
        assert people["ada"].post("/api/admin/users", json=body).status_code == 201
        link = people["manja"].post(f"/api/admin/users/{name}/password-link")
        assert link.status_code == 201
        change = {"roles": roles, "status": status}
        assert people["ada"].patch(f"/api/admin/users/{name}", json=change).status_code == 200
        with target.client() as client:
            body = {"token": link.json()["token"], "new_password": "plenty of good words, none common"}
            assert_problem(client.post("/api/auth/password/setup", json=body), 400, "invalid_grant")


def test_users_cannot_make_a_password_link_for_themselves(people: dict[str, httpx.Client]) -> None:
    """The thief of an access token could otherwise avoid giving the current password."""
    assert_problem(people["ada"].post("/api/admin/users/ada/password-link"), 403, "forbidden")


def test_reason_of_an_override_cannot_control_the_terminal_that_shows_it(people: dict[str, httpx.Client]) -> None:
    """CVE-2021-42574."""
    for reason in ("abc\u202edef", "abc\u2066def", "a\x1b[2J"):
        body = {"name": "api", "rate": "10/min", "burst": 5, "lasts_s": 60, "reason": reason}
        assert_problem(people["ada"].put("/api/admin/limits/vera/override", json=body), 400, "invalid_request")

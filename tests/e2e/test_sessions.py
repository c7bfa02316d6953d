"""Sessions on two workers: the end of a session takes effect with the next request on every worker."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.checks import assert_problem
from tests.e2e.workers import TELLS_WORKERS_APART, on_every_worker
from tests.servers import Installation

CONNECTIONS = 40


@pytest.fixture(scope="module", autouse=True)
def _users(installation: Installation) -> None:
    installation.add_users(sara="member", saul="member", sofia="host", simon="host")


def me(installation: Installation, token: str) -> httpx.Response:
    """Send a request on a fresh connection, as another machine would."""
    with installation.client(token) as client:
        return client.get("/api/auth/me")


def refresh(installation: Installation, token: str) -> httpx.Response:
    with installation.client() as client:
        return client.post("/api/auth/refresh", json={"refresh_token": token})


@TELLS_WORKERS_APART
def test_logout_takes_effect_with_the_next_request_on_every_worker(installation: Installation) -> None:
    """The connections are open before the logout: each worker has seen the token and could have cached it."""
    login = installation.log_in("sara")
    with on_every_worker(installation, login["access_token"]) as clients:
        with installation.client(login["access_token"]) as client:
            assert client.post("/api/auth/logout", json={}).status_code == 204
        for client in clients:
            assert_problem(client.get("/api/auth/me"), 401, "invalid_token")
    assert_problem(refresh(installation, login["refresh_token"]), 400, "invalid_grant")


def test_logout_is_idempotent_and_accepts_either_token(installation: Installation) -> None:
    for body in ({}, {"refresh_token": ""}):
        login = installation.log_in("sara")
        given = body and {"refresh_token": login["refresh_token"]}
        with installation.client(None if given else login["access_token"]) as client:
            for _ in range(3):
                answer = client.post("/api/auth/logout", json=given)
                assert answer.status_code == 204, answer.text
                assert answer.content == b""
        assert_problem(me(installation, login["access_token"]), 401, "invalid_token")


def test_logout_ends_exactly_the_selected_sessions(installation: Installation) -> None:
    one, two, three = (installation.log_in("saul") for _ in range(3))
    with installation.client(one["access_token"]) as client:
        assert client.post("/api/auth/logout", json={}).status_code == 204
    assert me(installation, two["access_token"]).status_code == 200
    with installation.client(two["access_token"]) as client:
        assert client.post("/api/auth/logout", json={"scope": "others"}).status_code == 204
    assert me(installation, two["access_token"]).status_code == 200
    assert_problem(me(installation, three["access_token"]), 401, "invalid_token")
    four = installation.log_in("saul")
    with installation.client(four["access_token"]) as client:
        assert client.post("/api/auth/logout", json={"scope": "all"}).status_code == 204
    for login in (two, four):
        assert_problem(me(installation, login["access_token"]), 401, "invalid_token")
        assert_problem(refresh(installation, login["refresh_token"]), 400, "invalid_grant")


def test_ended_session_cannot_end_others(installation: Installation) -> None:
    ended, alive = installation.log_in("saul"), installation.log_in("saul")
    with installation.client(ended["access_token"]) as client:
        assert client.post("/api/auth/logout", json={}).status_code == 204
        client.post("/api/auth/logout", json={"scope": "all"})
        assert_problem(client.post("/api/auth/logout", json={"scope": "others"}), 401, "invalid_token")
    assert me(installation, alive["access_token"]).status_code == 200


def test_void_token_of_a_live_session_ends_no_other_session(installation: Installation) -> None:
    """docs/security.md: a changed password voids a stolen access token from the next request on, even for a logout."""
    installation.add_users(vito="member")
    stolen = installation.log_in("vito")
    with installation.client(stolen["access_token"]) as client:
        body = {"current_password": installation.passwords["vito"], "new_password": "a lighthouse full of maps"}
        assert client.post("/api/auth/password", json=body).status_code == 204
    installation.passwords["vito"] = "a lighthouse full of maps"
    owner = refresh(installation, stolen["refresh_token"]).json()  # the session that changed it continues
    elsewhere = installation.log_in("vito")
    with installation.client(stolen["access_token"]) as thief:
        for scope in ("all", "others"):
            assert_problem(thief.post("/api/auth/logout", json={"scope": scope}), 401, "token_expired")
    for login in (owner, elsewhere):
        assert me(installation, login["access_token"]).status_code == 200


def test_refresh_rotates_and_reuse_ends_the_session(installation: Installation) -> None:
    """RFC 9700 section 4.14.2: a reused old refresh token means that one of the two was stolen."""
    login = installation.log_in("sofia")
    first = login["refresh_token"]
    second = refresh(installation, first).json()["refresh_token"]
    assert second != first
    # A second tab, or a retry after a lost reply: the same successor.
    assert refresh(installation, first).json()["refresh_token"] == second
    third = refresh(installation, second).json()
    assert third["refresh_token"] not in (first, second)
    assert third["session_id"] == login["session_id"]
    assert me(installation, third["access_token"]).status_code == 200

    assert_problem(refresh(installation, first), 400, "invalid_grant")
    assert_problem(refresh(installation, third["refresh_token"]), 400, "invalid_grant")
    assert_problem(me(installation, third["access_token"]), 401, "invalid_token")


@pytest.mark.parametrize("change", ["head", "mac", "counter", "sid"])
def test_forged_refresh_token_is_refused_and_ends_no_session(installation: Installation, change: str) -> None:
    login = installation.log_in("sofia")
    head, uid, sid, counter, mac = login["refresh_token"].split(".")
    match change:
        case "head":
            head = "v2"
        case "mac":
            mac = ("0" if mac[0] != "0" else "1") + mac[1:]
        case "counter":
            counter = "2"
        case "sid":
            sid = installation.log_in("simon")["session_id"]
    assert_problem(refresh(installation, ".".join((head, uid, sid, counter, mac))), 400, "invalid_grant")
    assert refresh(installation, login["refresh_token"]).status_code == 200


def test_role_change_takes_effect_at_once(installation: Installation) -> None:
    login = installation.log_in("simon")
    with installation.client(login["access_token"]) as client:
        assert client.post("/api/rooms", json={}).status_code == 201
        done = installation.command("users", "roles", "simon", "member", "--json")
        assert done.returncode == 0, done.stderr
        for _ in range(CONNECTIONS):
            assert_problem(me(installation, login["access_token"]), 401, "token_expired")
        assert_problem(client.post("/api/rooms", json={}), 401, "token_expired")
    renewed = refresh(installation, login["refresh_token"]).json()
    assert renewed["user"]["roles"] == ["member"]
    with installation.client(renewed["access_token"]) as client:
        assert_problem(client.post("/api/rooms", json={}), 403, "forbidden")
        assert client.get("/api/auth/me").json()["permissions"] == ["rooms:join", "usage:read-own"]


def test_disabled_user_is_refused_at_once(installation: Installation) -> None:
    login = installation.log_in("saul")
    done = installation.command("users", "disable", "saul")
    assert done.returncode == 0, done.stderr
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: me(installation, login["access_token"]), range(CONNECTIONS)))
    assert {answer.status_code for answer in answers} == {401}
    assert_problem(refresh(installation, login["refresh_token"]), 400, "invalid_grant")
    body = {"username": "saul", "password": installation.passwords["saul"]}
    with installation.client() as client:
        assert_problem(client.post("/api/auth/login", json=body), 401, "invalid_credentials")
    assert installation.command("users", "enable", "saul").returncode == 0
    assert_problem(me(installation, login["access_token"]), 401, "invalid_token")
    assert me(installation, installation.log_in("saul")["access_token"]).status_code == 200

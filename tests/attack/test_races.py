"""Races between two requests, one of which should have prevented the other. CWE-362, CWE-367; OWASP ASVS 5, 15.4.2."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.e2e.checks import assert_problem
from tests.e2e.volley import Answer, fire, post
from tests.servers import Installation

PASSWORD = "plenty of good words, none common"


@pytest.fixture
def racer(target: Installation, request: pytest.FixtureRequest) -> str:
    """The name of a member who belongs to this test."""
    name = f"racer-{abs(hash(request.node.name)) % 10**8}"
    with target.client_of("ada") as admin:
        body = {"username": name, "password": PASSWORD, "roles": ["member"]}
        assert admin.post("/api/admin/users", json=body).status_code == 201
    target.passwords[name] = PASSWORD
    return name


def survivors(target: Installation, answers: list[Answer | None]) -> list[str]:
    """Return the logins among some answers that still work."""
    alive = []
    for answer in answers:
        if answer is None or answer.status != 200:
            continue
        login = answer.json()
        with target.client(login["access_token"]) as client:
            if client.get("/api/auth/me").status_code == 200:
                alive.append("access")
            body = {"refresh_token": login["refresh_token"]}
            if client.post("/api/auth/refresh", json=body).status_code == 200:
                alive.append("refresh")
    return alive


async def test_no_login_or_refresh_with_the_old_password_survives_a_change(target: Installation, racer: str) -> None:
    """Some get 200 because they came first; none of their tokens works afterwards."""
    keeper, other = target.log_in(racer), target.log_in(racer)
    change = {"current_password": PASSWORD, "new_password": "another set of words, rarely seen"}
    again = post("/api/auth/refresh", {"refresh_token": other["refresh_token"]})
    login = post("/api/auth/login", {"username": racer, "password": PASSWORD})
    requests = [login, again, post("/api/auth/password", change, token=keeper["access_token"]), login, again, login]
    answers = await fire(target.port, requests)
    changed = answers[2]
    assert changed
    assert changed.status == 204, changed.body
    assert survivors(target, answers) == []
    with target.client() as client:  # the session that changed it continues
        assert client.post("/api/auth/refresh", json={"refresh_token": keeper["refresh_token"]}).status_code == 200


async def test_one_of_several_racing_password_changes_wins(target: Installation, racer: str) -> None:
    login = target.log_in(racer)
    new = [f"quite another phrase, number {n} of many" for n in range(6)]
    requests = [
        post("/api/auth/password", {"current_password": PASSWORD, "new_password": one}, token=login["access_token"])
        for one in new
    ]
    answers = await fire(target.port, requests)
    statuses = Counter(answer.status for answer in answers if answer)
    assert statuses[204] == 1
    assert set(statuses) <= {204, 401}
    winner = next(one for one, answer in zip(new, answers, strict=True) if answer and answer.status == 204)
    with target.client() as client:
        for one in [PASSWORD, *new]:
            body = {"username": racer, "password": one}
            assert (client.post("/api/auth/login", json=body).status_code == 200) == (one == winner)


async def test_no_login_survives_disabling_or_revives_afterwards(target: Installation, racer: str) -> None:
    known = target.log_in(racer)
    with target.client_of("ada") as admin:
        token = admin.headers["Authorization"].removeprefix("Bearer ")
        disable = post(f"/api/admin/users/{racer}", {"status": "disabled"}, token=token).replace(b"POST", b"PATCH", 1)
        login = post("/api/auth/login", {"username": racer, "password": PASSWORD})
        again = post("/api/auth/refresh", {"refresh_token": known["refresh_token"]})
        answers = await fire(target.port, [login, again, disable, login, again])
        disabled = answers.pop(2)
        assert disabled
        assert disabled.status == 200
        assert survivors(target, answers) == []
        assert admin.patch(f"/api/admin/users/{racer}", json={"status": "active"}).status_code == 200
    assert survivors(target, answers) == []  # enabling restores no old session


async def test_password_link_works_once_however_many_requests_race(target: Installation, racer: str) -> None:
    with target.client_of("ada") as admin:
        code = admin.post(f"/api/admin/users/{racer}/password-link").json()["token"]
        unused = admin.post(f"/api/admin/users/{racer}/password-link").json()["token"]
    requests = [
        post("/api/auth/password/setup", {"token": code, "new_password": f"quite another phrase, number {n}"})
        for n in range(8)
    ]
    answers = await fire(target.port, requests)
    statuses = [answer.status for answer in answers if answer]
    assert Counter(statuses) == {204: 1, 400: 7}
    with target.client() as client:
        winner = f"quite another phrase, number {statuses.index(204)}"
        login = client.post("/api/auth/login", json={"username": racer, "password": winner})
        assert login.status_code == 200
        # An earlier link is void once the password has changed.
        body = {"token": unused, "new_password": "quite another phrase, once more"}
        assert_problem(client.post("/api/auth/password/setup", json=body), 400, "invalid_grant")


async def test_link_does_not_undo_an_earlier_change_by_the_owner(target: Installation, racer: str) -> None:
    """The finder of a link races the owner's password change: one of them wins, never both."""
    with target.client_of("ada") as admin:
        code = admin.post(f"/api/admin/users/{racer}/password-link").json()["token"]
    login = target.log_in(racer)
    mine, theirs = "quite another phrase, chosen by me", "quite another phrase, chosen by them"
    change = post(
        "/api/auth/password", {"current_password": PASSWORD, "new_password": mine}, token=login["access_token"]
    )
    setup = post("/api/auth/password/setup", {"token": code, "new_password": theirs})
    answers = await fire(target.port, [change, setup])
    assert sorted(answer.status for answer in answers if answer) in ([204, 400], [204, 401], [204, 409])


async def test_invite_is_used_exactly_as_often_as_it_allows(target: Installation) -> None:
    code = target.command("users", "invite", "--role", "member", "--uses", "3").stdout.strip()
    requests = [
        post("/api/auth/register", {"username": f"crowd-{n}", "password": PASSWORD, "invite": code}) for n in range(9)
    ]
    answers = await fire(target.port, requests)
    assert Counter(answer.status for answer in answers if answer) == {201: 3, 403: 6}


async def test_name_is_given_once_and_losers_keep_their_invites(target: Installation) -> None:
    """In each spelling of the name (CWE-178), at the same moment."""
    code = target.command("users", "invite", "--role", "member", "--uses", "8").stdout.strip()
    names = ["Straße-9", "STRASSE-9", "strasse-9", "\uff53trasse-9", "stra\u017f\u017fe-9", "Stra\u1e9ee-9"]
    requests = [post("/api/auth/register", {"username": n, "password": PASSWORD, "invite": code}) for n in names]
    answers = await fire(target.port, requests)
    assert Counter(answer.status for answer in answers if answer) == {201: 1, 409: len(names) - 1}
    with target.valkey.client() as client:
        left = {int(client.hget(key, "uses") or 0) for key in client.scan_iter("vo:1:account:*")}
    assert 7 in left

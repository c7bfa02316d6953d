"""A request that is begun while its sender may, and whose last byte comes when he no longer may (CWE-367).

Whoever holds one such request open would otherwise keep what was taken from him: RFC 9700 section 4.14 and OWASP ASVS
5, 7.4.1 want a session that was ended to be of no use from then on.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.attack.wire import Answer, receive
from tests.e2e.people import Person, ask, mint, new_room, newcomers, places, usage
from tests.e2e.policies import narrow
from tests.servers import HOST, Installation

PASSWORD = "plenty of good words, none common"


class HeldBack:
    """A request of which all but the last byte has been sent."""

    def __init__(self, target: Installation, token: str, method: str, path: str, body: Any, *fields: str) -> None:
        content = json.dumps(body).encode()
        self._last = content[-1:]
        lines = [f"{method} /api{path} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {token}", *fields]
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}", "Connection: close", "", ""]
        self._link = socket.create_connection((HOST, target.port), timeout=15)
        self._link.sendall("\r\n".join(lines).encode() + content[:-1])
        for _ in range(2 * target.workers):  # each worker has most likely answered something that came later
            with target.client(token) as client:
                client.get("/api/auth/me")
        time.sleep(0.2)

    def finish(self) -> Answer:
        with self._link:
            self._link.sendall(self._last)
            return receive(self._link)


def code_of(answer: Answer) -> str:
    return str(json.loads(answer.body)["code"])


def test_mint_that_was_begun_before_a_ban_is_not_answered_after_it(target: Installation) -> None:
    owner, mallory = newcomers(target, "host", "member")
    room = new_room(target, owner)
    assert mint(target, mallory, room).status_code == 200
    minting = HeldBack(target, mallory.token, "POST", f"/rooms/{room}/token", {})
    assert ask(target, owner, "DELETE", f"/rooms/{room}/members/{mallory.id}").status_code == 204
    answer = minting.finish()
    assert (answer.status, code_of(answer)) == (404, "not_found")


def disabled(client: httpx.Client, who: str) -> httpx.Response:
    return client.patch(f"/api/admin/users/{who}", json={"status": "disabled"})


def demoted(client: httpx.Client, who: str) -> httpx.Response:
    return client.patch(f"/api/admin/users/{who}", json={"roles": ["member"]})


def thrown_out(client: httpx.Client, who: str) -> httpx.Response:
    return client.delete(f"/api/admin/users/{who}/sessions")


def deleted(client: httpx.Client, who: str) -> httpx.Response:
    return client.delete(f"/api/admin/users/{who}")


@contextmanager
def held_back_by_an_admin(
    target: Installation, method: str, path: str, body: Any, end: Callable[[httpx.Client, str], httpx.Response]
) -> Iterator[Answer]:
    """Give the answer to a request of an admin whose power ends before its last byte."""
    [eve] = newcomers(target, "admin")
    request = HeldBack(target, eve.token, method, path, body)
    with target.client_of("ada") as admin:
        assert end(admin, eve.id).status_code in (200, 204)
        yield request.finish()


ENDS = [disabled, demoted, thrown_out, deleted]


@pytest.mark.parametrize("end", ENDS)
def test_admin_whose_power_has_ended_leaves_no_back_door(
    target: Installation, end: Callable[[httpx.Client, str], httpx.Response]
) -> None:
    body = {"username": f"backdoor-{end.__name__}", "roles": ["admin"], "password": PASSWORD}
    with held_back_by_an_admin(target, "POST", "/admin/users", body, end) as answer:
        assert (answer.status, code_of(answer)) in ((401, "invalid_token"), (401, "token_expired"))
    with target.client_of("ada") as admin:
        assert admin.get(f"/api/admin/users/{body['username']}").status_code == 404


@pytest.mark.parametrize("end", ENDS)
def test_admin_whose_power_has_ended_takes_nobody_along(
    target: Installation, end: Callable[[httpx.Client, str], httpx.Response]
) -> None:
    [victim] = newcomers(target, "member")
    with held_back_by_an_admin(target, "DELETE", f"/admin/users/{victim.id}", {}, end) as answer:
        assert answer.status == 401
    assert ask(target, victim, "GET", "/auth/me").status_code == 200


def test_room_of_somebody_who_has_logged_out_is_not_created(target: Installation) -> None:
    [host] = newcomers(target, "host")
    creating = HeldBack(target, host.token, "POST", "/rooms", {"name": "late"})
    before = target.upstream_calls()
    assert ask(target, host, "POST", "/auth/logout", {"scope": "all"}).status_code == 204
    assert creating.finish().status == 401
    assert target.upstream_calls() == before


def test_body_that_is_refused_is_still_counted_as_refused(target: Installation) -> None:
    """It is read before anything is asked, and judged where it was judged before."""
    [host] = newcomers(target, "host")
    answer = ask(target, host, "POST", "/rooms", ["no object"])
    assert answer.status_code == 400
    assert usage(target, host, "rooms.create")["refused"] == {"invalid_request": 1}


@pytest.fixture(scope="module")
def cramped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("cramped"), workers=2, policy=narrow()) as running:
        yield running


def keyed(target: Installation, who: Person, key: str, body: Any) -> httpx.Response:
    return ask(target, who, "POST", "/rooms", body, Idempotency_Key=key)


@pytest.mark.parametrize("body", [{"access": "open"}, {"access": "nonsense"}, {"access": "invited"}])
def test_place_of_a_key_is_not_given_back_by_a_second_request_under_it(cramped: Installation, body: Any) -> None:
    """Three rooms at once: a repeat, a mistake and a mismatch under the same key let nobody have a fourth."""
    [host] = newcomers(cramped, "host")
    for number in range(3):
        second = HeldBack(cramped, host.token, "POST", "/rooms", body, f"Idempotency-Key: k-{number}")
        assert keyed(cramped, host, f"k-{number}", {"access": "open"}).status_code == 201
        assert second.finish().status in (201, 400, 422)
        assert places(cramped, host) == number + 1
    for answer in (keyed(cramped, host, "k-3", {}), ask(cramped, host, "POST", "/rooms", {})):
        assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    assert places(cramped, host) == 3


def test_create_for_which_there_is_no_place_costs_nothing_with_a_key_or_without(cramped: Installation) -> None:
    [host] = newcomers(cramped, "host")
    for _ in range(3):
        new_room(cramped, host)

    def left() -> int:
        limits = ask(cramped, host, "GET", "/usage").json()["limits"]
        return int(next(limit["remaining"] for limit in limits if limit["name"] == "rooms.create"))

    before = left()
    for number in range(3):
        assert keyed(cramped, host, f"k-{number}", {}).status_code == 429
        assert ask(cramped, host, "POST", "/rooms", {}).status_code == 429
    assert left() >= before
    tally = usage(cramped, host, "rooms.create")
    assert (tally["ok"], tally["denied"], tally["refused"]) == (3, {"rooms.active": 6}, {})
    # Refused for want of a place is not used up: the key works once there is one.
    room = ask(cramped, host, "GET", "/rooms").json()["rooms"][0]["id"]
    assert ask(cramped, host, "POST", f"/rooms/{room}/end", {"lock": True}).status_code == 202
    assert keyed(cramped, host, "k-0", {}).status_code == 201

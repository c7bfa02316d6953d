"""A request that begins while it is permitted, and whose last byte arrives when it is not (CWE-367).

A user who holds such a request open could otherwise keep a permission that was revoked: RFC 9700 section 4.14 and OWASP
ASVS 5, 7.4.1 require that an ended session is of no further use.
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
    """A request that has been sent except for its last byte."""

    def __init__(self, target: Installation, token: str, method: str, path: str, body: Any, *fields: str) -> None:
        content = json.dumps(body).encode()
        self._last = content[-1:]
        lines = [f"{method} /api{path} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {token}", *fields]
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}", "Connection: close", "", ""]
        self._link = socket.create_connection((HOST, target.port), timeout=15)
        self._link.sendall("\r\n".join(lines).encode() + content[:-1])
        for _ in range(2 * target.workers):  # each worker has most likely answered a later request
            with target.client(token) as client:
                client.get("/api/auth/me")
        time.sleep(0.2)

    def finish(self) -> Answer:
        with self._link:
            self._link.sendall(self._last)
            return receive(self._link)


def code_of(answer: Answer) -> str:
    return str(json.loads(answer.body)["code"])


def test_mint_that_began_before_a_ban_is_refused_after_it(target: Installation) -> None:
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
    """Return the answer to a request of an admin whose power ends before its last byte."""
    [eve] = newcomers(target, "admin")
    request = HeldBack(target, eve.token, method, path, body)
    with target.client_of("ada") as admin:
        assert end(admin, eve.id).status_code in (200, 204)
        yield request.finish()


ENDS = [disabled, demoted, thrown_out, deleted]


@pytest.mark.parametrize("end", ENDS)
def test_admin_whose_power_has_ended_cannot_create_a_back_door(
    target: Installation, end: Callable[[httpx.Client, str], httpx.Response]
) -> None:
    body = {"username": f"backdoor-{end.__name__}", "roles": ["admin"], "password": PASSWORD}
    with held_back_by_an_admin(target, "POST", "/admin/users", body, end) as answer:
        assert (answer.status, code_of(answer)) in ((401, "invalid_token"), (401, "token_expired"))
    with target.client_of("ada") as admin:
        assert admin.get(f"/api/admin/users/{body['username']}").status_code == 404


@pytest.mark.parametrize("end", ENDS)
def test_admin_whose_power_has_ended_cannot_delete_others(
    target: Installation, end: Callable[[httpx.Client, str], httpx.Response]
) -> None:
    [victim] = newcomers(target, "member")
    with held_back_by_an_admin(target, "DELETE", f"/admin/users/{victim.id}", {}, end) as answer:
        assert answer.status == 401
    assert ask(target, victim, "GET", "/auth/me").status_code == 200


def test_user_who_has_logged_out_creates_no_room(target: Installation) -> None:
    [host] = newcomers(target, "host")
    creating = HeldBack(target, host.token, "POST", "/rooms", {"name": "late"})
    before = target.upstream_calls()
    assert ask(target, host, "POST", "/auth/logout", {"scope": "all"}).status_code == 204
    assert creating.finish().status == 401
    assert target.upstream_calls() == before


def test_refused_body_is_counted_as_refused(target: Installation) -> None:
    """The body is read before Redis is asked, but refused after authentication."""
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
def test_second_request_with_a_key_does_not_free_the_place_of_the_first(cramped: Installation, body: Any) -> None:
    """Three rooms at once: a repeat, an error and a mismatch under the same key never allow a fourth."""
    [host] = newcomers(cramped, "host")
    for number in range(3):
        second = HeldBack(cramped, host.token, "POST", "/rooms", body, f"Idempotency-Key: k-{number}")
        assert keyed(cramped, host, f"k-{number}", {"access": "open"}).status_code == 201
        assert second.finish().status in (201, 400, 422)
        assert places(cramped, host) == number + 1
    for answer in (keyed(cramped, host, "k-3", {}), ask(cramped, host, "POST", "/rooms", {})):
        assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    assert places(cramped, host) == 3


def test_create_without_a_free_place_costs_nothing_with_and_without_a_key(cramped: Installation) -> None:
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
    # A request refused because no place is free does not use up its key, which works once there is one.
    room = ask(cramped, host, "GET", "/rooms").json()["rooms"][0]["id"]
    assert ask(cramped, host, "POST", f"/rooms/{room}/end", {"lock": True}).status_code == 202
    assert keyed(cramped, host, "k-0", {}).status_code == 201

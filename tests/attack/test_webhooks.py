"""Webhooks: a sender without the secret costs nothing, and one with it can do no harm. OWASP API2, API4."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from gateway.metering.keys import DEAD_LETTERS
from tests.e2e.checks import assert_problem
from tests.servers import HOST, Installation, wait_until

PATH = "/hooks/100ms"
HEADER = "X-Gateway-Webhook-Secret"
MOST = 256 * 1024


@pytest.fixture(scope="module")
def hook(target: Installation) -> Iterator[httpx.Client]:
    """A client that sends the secret."""
    with target.client() as client:
        client.headers[HEADER] = secrets_of(target)[0]
        yield client


def secrets_of(target: Installation) -> list[str]:
    return target.env["HMS_WEBHOOK_SECRET"].split(",")


def status_after(target: Installation, head: str) -> int:
    """Return the status that is answered to a head whose body never comes, at once."""
    with socket.create_connection((HOST, target.port), timeout=3) as connection:
        connection.sendall(head.encode())
        return int(connection.recv(65_536).split(b" ", 2)[1])


def test_each_secret_of_the_list_is_accepted_with_exactly_200(target: Installation) -> None:
    for secret in secrets_of(target):
        with target.client() as client:
            answer = client.post(PATH, content=b'{"type": "x"}', headers={HEADER: secret})
        assert (answer.status_code, answer.json()) == (200, {"success": True})


def test_without_the_secret_everything_is_refused_alike(target: Installation) -> None:
    first, second = secrets_of(target)
    wrong: list[list[tuple[str, str]]] = [
        [],
        [(HEADER, "")],
        [(HEADER, first[:-1])],
        [(HEADER, f"{first}x")],
        [(HEADER, f"{first},{second}")],
        [(HEADER, first), (HEADER, second)],
        [(HEADER, first), (HEADER, "")],
        [("Authorization", f"Bearer {first}")],
        [(f"{HEADER}-2", first)],
    ]
    with target.client() as client:
        answers = [client.post(PATH, content=b"{}", headers=headers) for headers in wrong]
        logged_in = client.post(PATH, content=b"{}", headers={"Authorization": "Bearer x"})
    for answer in [*answers, logged_in]:
        problem = assert_problem(answer, 401, "invalid_credentials")
        assert first[:8] not in json.dumps(problem)
    log = target.log(answers[-1])
    assert not any(secret in log for secret in secrets_of(target))


def test_a_wrong_secret_is_refused_before_the_body_has_come(target: Installation) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n{HEADER}: wrong\r\n\r\n"
    assert status_after(target, head) == 401


def test_a_body_over_256_kib_is_refused_however_it_is_sent(target: Installation, hook: httpx.Client) -> None:
    assert_problem(hook.post(PATH, content=b"x" * (MOST + 1)), 413, "payload_too_large")
    chunked = hook.post(PATH, content=iter([b"x" * 65_536] * 4 + [b"x"]))
    assert_problem(chunked, 413, "payload_too_large")
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n{HEADER}: {secrets_of(target)[0]}\r\n\r\n"
    )
    assert status_after(target, head) == 413
    assert hook.post(PATH, content=b"x" * MOST).status_code == 200


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_any_content_type_is_accepted(hook: httpx.Client, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    assert hook.post(PATH, content=b'{"type": "x"}', headers=headers).status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_refused(hook: httpx.Client, method: str) -> None:
    assert_problem(hook.request(method, PATH), 405, "method_not_allowed")


def test_events_that_cannot_be_understood_are_stored_and_delay_no_other(
    target: Installation, hook: httpx.Client
) -> None:
    bombs = [
        b"",
        b"[" * MOST,
        b'{"a":' * 40_000,
        b'{"type": "peer.join.success", "data": {"joined_at": 1e400}}',
        b'{"type": "peer.join.success", "data": {"joined_at": NaN}}',
        b'{"type": "peer.leave.success", "data": ' + b"9" * 100_000 + b"}",
        b'{"type": "' + b"t" * 200_000 + b'"}',
        b"\x00\xff" * 1000,
        b'{"type": "\\u0000"}',
    ]
    with target.valkey.client() as redis:
        wait_until(lambda: redis.xlen("wh:1") == 0, "the events of other tests are processed")
        before = redis.xlen(DEAD_LETTERS)
        for bomb in bombs:
            assert hook.post(PATH, content=bomb).status_code == 200
        wait_until(lambda: redis.xlen("wh:1") == 0, "all events are processed")
        assert redis.xlen(DEAD_LETTERS) - before == 7  # type: ignore[operator]
        assert all(len(name) < 60 for name in redis.hkeys("wm:1"))  # type: ignore[union-attr]
    with target.client_of("otto") as operator:
        page = operator.get("/api/admin/webhooks/dead", params={"limit": 100}).json()
    assert max(len(letter["body"]) for letter in page["items"]) <= 4001


def test_dead_letters_are_for_those_who_may_read_usage_and_replayed_by_those_who_manage_limits(
    target: Installation, hook: httpx.Client
) -> None:
    secret = {"meeting_url": "https://x/?auth_token=eyJhbGciOiJIUzI1NiJ9.e30.SIGNATURE"}
    hook.post(PATH, content=json.dumps({"type": "peer.join.success", "data": [secret]}))
    with target.client_of("mira") as member, target.client_of("otto") as operator:
        wait_until(
            lambda: "SIGN" not in (found := operator.get("/api/admin/webhooks/dead").text) and "hidden" in found, ""
        )
        letter = operator.get("/api/admin/webhooks/dead").json()["items"][0]["id"]
        replay = f"/api/admin/webhooks/dead/{letter}/replay"
        for path in ("/api/admin/webhooks", "/api/admin/webhooks/dead"):
            assert_problem(member.get(path), 403, "forbidden")
        assert_problem(member.post(replay), 403, "forbidden")
        assert operator.post(replay).status_code == 204
        assert_problem(operator.post(replay), 404, "not_found")
        for other in ("0-0", "x", "-", "%2B", "1-1-1"):
            assert_problem(operator.post(f"/api/admin/webhooks/dead/{other}/replay"), 404, "not_found")
        entries = operator.get("/api/admin/audit", params={"action": "webhooks.replayed"}).json()["items"]
        assert entries[0]["details"] == {"letter": letter}

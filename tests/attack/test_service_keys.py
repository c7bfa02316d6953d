"""Stolen, forged and overreaching service keys.

OWASP API Security 2023, API1, API2 and API5; CWE-522 (weakly protected credentials), CWE-441 (confused deputy).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from auth.key_texts import new_id, new_text
from tests.attack.conftest import DELEGATES
from tests.attack.test_held_back import HeldBack
from tests.e2e.asking import everything_in
from tests.e2e.checks import assert_problem
from tests.e2e.people import Person, ask, new_room, newcomers
from tests.e2e.service_keys import Key, new_key
from tests.servers import Installation, wait_until

ALL = [
    "rooms:create", "rooms:join", "rooms:read-any", "rooms:end-any", "usage:read-own", "usage:read-any",
    "limits:manage", "users:manage", "audit:read",
]  # fmt: skip


@pytest.fixture(scope="module")
def people(target: Installation) -> dict[str, Person]:
    roles = ("omni", "manager", "warden", "admin", "host", "member", "guest")
    assert "[roles.omni]" in DELEGATES
    return dict(zip(roles, newcomers(target, *roles), strict=True))


@pytest.fixture(scope="module")
def mighty(target: Installation, people: dict[str, Person]) -> Key:
    """A key with every scope."""
    return new_key(target, people["omni"], "act:user", "tokens:introspect", *ALL)


@contextmanager
def credentials(target: Installation, *values: str, **fields: str) -> Iterator[httpx.Client]:
    with target.client() as client:
        headers = [(b"Authorization", value.encode("latin-1")) for value in values]
        headers += [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in fields.items()]
        client.headers = httpx.Headers(headers)
        yield client


# --- forged and stolen ---


def test_forged_keys_are_refused_alike(target: Installation, mighty: Key) -> None:
    def without_ids(document: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in document.items() if name not in ("request_id", "instance")}

    forged = [new_text(new_id()), new_text(mighty.id)]
    answers = []
    for text in forged:
        with target.client(text) as client:
            answers.append(without_ids(assert_problem(client.get("/api/admin/usage"), 401, "invalid_token")))
    assert answers[0] == answers[1], "nobody learns which ids exist"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-1] + ("a" if text[-1] != "a" else "b"),
        lambda text: text.upper(),
        lambda text: f"{text}.a.b",
        lambda text: f'"{text}"',
        lambda text: text[:16],
        lambda text: text[:17],
        lambda text: "gwk_" + "a" * 4000,
        lambda text: text.replace("gwk_", "gwk_\xe9"),
        lambda text: f"{text},{text}",
    ],
)
def test_key_that_is_not_exactly_itself_is_refused(target: Installation, mighty: Key, spoil: Any) -> None:
    for scheme in ("Bearer", "bearer"):
        with credentials(target, f"{scheme} {spoil(mighty.text)}") as client:
            assert_problem(client.get("/api/admin/usage/top"), 401, "invalid_token")


def test_key_is_read_from_the_authorization_field_alone(target: Installation, mighty: Key) -> None:
    with target.client() as client:
        for name in ("access_token", "token", "key", "api_key"):
            answer = client.get("/api/admin/usage/top", params={name: mighty.text})
            assert_problem(answer, 401, "invalid_token")
        for name in ("X-API-Key", "Cookie", "X-Service-Key", "Proxy-Authorization"):
            assert_problem(client.get("/api/admin/usage/top", headers={name: mighty.text}), 401, "invalid_token")
    for values in (
        [f"Basic {mighty.text}"],
        [f"Token {mighty.text}"],
        [mighty.text],
        [f"Bearer  {mighty.text}"],
        [f"Bearer {mighty.text}", f"Bearer {mighty.text}"],
    ):
        with credentials(target, *values) as client:
            assert_problem(client.get("/api/admin/usage/top"), 401, "invalid_token")


def test_guessing_fills_neither_the_trail_nor_redis(target: Installation, people: dict[str, Person]) -> None:
    admin = people["omni"]

    def unknown() -> list[dict[str, Any]]:
        items = ask(target, admin, "GET", "/admin/audit?action=key.refused&limit=500").json()["items"]
        return [one for one in items if one["details"]["why"] == "unknown"]

    for _ in range(40):
        with target.client(new_text(new_id())) as client:
            assert client.get("/api/admin/usage/top").status_code == 401
    wait_until(lambda: bool(unknown()), "the trail says that somebody guesses")
    assert len(unknown()) <= 2 * target.workers, "once a minute per worker"
    with target.valkey.client() as redis:
        assert len(list(redis.scan_iter("sk:1:*", count=1000))) < 40


def test_no_key_is_in_logs_redis_or_answers(target: Installation, people: dict[str, Person]) -> None:
    admin = people["omni"]
    key = new_key(target, admin, "act:user", *ALL)
    secret = key.text[17:]
    for path in (f"/rooms/{key.text}", f"/admin/users/{key.text}", f"/admin/limits/{key.text}"):  # by mistake
        assert key.ask("GET", path).status_code == 404
    assert key.ask("GET", f"/admin/usage?user={key.text}").status_code == 200, "it names the key"
    answers = [
        key.ask("GET", "/admin/usage"),
        key.ask("GET", "/rooms", acting=key.text),
        key.ask("GET", f"/admin/usage?user={key.id}"),
        key.ask("POST", "/rooms", {"name": key.text}),
        ask(target, admin, "GET", "/admin/keys"),
        ask(target, admin, "GET", f"/admin/keys/{key.id}"),
        ask(target, admin, "GET", "/admin/audit?limit=500"),
    ]
    with target.client(new_text(key.id)) as client:
        answers.append(client.get("/api/admin/usage"))
    for answer in answers:
        assert secret not in answer.text, answer.url
    shown = target.command("keys", "show", key.text, "--json")
    assert shown.returncode == 0
    lost = target.command("keys", "show", new_text(new_id()))
    assert lost.returncode == 1
    assert len(lost.stderr) < 80, "the text of a key is not repeated"
    last = answers[-1].headers["x-request-id"]
    wait_until(lambda: last in target.gateway.output(), "the lines are written")
    printed = target.gateway.output() + target.emulator.output() + shown.stdout + shown.stderr + lost.stderr
    assert secret not in printed
    with target.valkey.client() as redis:
        assert secret not in everything_in(redis)


def test_request_that_began_before_a_revocation_is_refused_after_it(
    target: Installation, people: dict[str, Person]
) -> None:
    key = new_key(target, people["omni"], "users:manage")
    body = {"username": f"backdoor-{secrets.token_hex(4)}", "roles": ["member"]}
    creating = HeldBack(target, key.text, "POST", "/admin/users", body)
    assert ask(target, people["omni"], "DELETE", f"/admin/keys/{key.id}").status_code == 204
    assert creating.finish().status == 401
    assert ask(target, people["omni"], "GET", f"/admin/users/{body['username']}").status_code == 404


def test_live_view_of_a_revoked_key_ends(target: Installation, people: dict[str, Person]) -> None:
    key = new_key(target, people["omni"], "usage:read-any")
    with target.client(key.text) as client, client.stream("GET", "/api/admin/live") as answer:
        assert answer.status_code == 200
        chunks = answer.iter_text()
        next(chunks)
        assert ask(target, people["omni"], "DELETE", f"/admin/keys/{key.id}").status_code == 204
        assert "session_ended" in "".join(chunks)
    assert_problem(key.ask("GET", "/admin/live"), 401, "invalid_token")
    powerless = new_key(target, people["omni"], "audit:read", "act:user")
    assert_problem(powerless.ask("GET", "/admin/live"), 403, "forbidden")
    assert_problem(powerless.ask("GET", "/admin/live", acting=people["admin"]), 403, "forbidden")


# --- beyond its scopes ---


ACCOUNT_ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/auth/me", None),
    ("GET", "/auth/sessions", None),
    ("DELETE", f"/auth/sessions/{'0' * 20}", None),
    ("POST", "/auth/password", {"current_password": "x", "new_password": "seventeen green umbrellas"}),
    ("POST", "/auth/logout", {"scope": "all"}),
    ("GET", "/admin/keys", None),
    ("POST", "/admin/keys", {"name": "child", "scopes": ["audit:read"]}),
]


@pytest.mark.parametrize(("method", "path", "body"), ACCOUNT_ROUTES)
def test_no_key_reaches_accounts_sessions_or_keys(
    target: Installation, people: dict[str, Person], mighty: Key, method: str, path: str, body: Any
) -> None:
    for acting in (None, people["omni"], people["host"]):
        assert_problem(mighty.ask(method, path, body, acting=acting), 403, "forbidden")
    assert ask(target, people["host"], "GET", "/auth/me").status_code == 200, "their session goes on"


def test_key_cannot_revoke_or_rotate_itself_or_others(
    target: Installation, people: dict[str, Person], mighty: Key
) -> None:
    for acting in (None, people["omni"]):
        assert_problem(mighty.ask("DELETE", f"/admin/keys/{mighty.id}", acting=acting), 403, "forbidden")
        assert_problem(mighty.ask("POST", f"/admin/keys/{mighty.id}/rotate", {}, acting=acting), 403, "forbidden")


def test_key_cannot_lift_its_own_limits_also_not_for_an_operator(
    target: Installation, people: dict[str, Person], mighty: Key
) -> None:
    body = {"name": "api", "rate": "1000/s", "burst": 1000, "lasts_s": 600, "reason": "more"}
    for acting in (None, people["omni"]):
        for method, path, sent in (
            ("PUT", "override", body),
            ("POST", "reset", {}),
            ("DELETE", "override?name=*", None),
        ):
            answer = mighty.ask(method, f"/admin/limits/{mighty.id}/{path}", sent, acting=acting)
            assert_problem(answer, 403, "forbidden")


def test_key_of_one_power_creates_nobody_with_others(target: Installation, people: dict[str, Person]) -> None:
    key = new_key(target, people["omni"], "users:manage")
    body = {"username": f"eve-{secrets.token_hex(4)}", "roles": ["omni"]}
    assert_problem(key.ask("POST", "/admin/users", body), 403, "forbidden")
    omni = people["omni"]
    assert_problem(key.ask("POST", f"/admin/users/{omni.id}/password-link", {}), 403, "forbidden")
    assert_problem(key.ask("PATCH", f"/admin/users/{omni.id}", {"status": "disabled"}), 403, "forbidden")
    assert_problem(key.ask("GET", f"/admin/users/{key.id}"), 404, "not_found")


def test_nobody_makes_or_takes_over_a_key_with_powers_they_lack(
    target: Installation, people: dict[str, Person], mighty: Key
) -> None:
    manager = people["manager"]
    answer = ask(target, manager, "POST", "/admin/keys", {"name": "more", "scopes": ["users:manage", "audit:read"]})
    assert "audit:read" in assert_problem(answer, 403, "forbidden")["detail"]
    for method, path, body in (
        ("POST", f"/admin/keys/{mighty.id}/rotate", {}),
        ("DELETE", f"/admin/keys/{mighty.id}", None),
    ):
        assert_problem(ask(target, manager, method, path, body), 403, "forbidden")
    block = {"block": True, "lasts_s": 60, "reason": "no"}
    assert_problem(ask(target, people["warden"], "PUT", f"/admin/limits/{mighty.id}/override", block), 403, "forbidden")
    assert mighty.ask("GET", "/admin/usage/top").status_code == 200
    for powerless in (people["host"], people["warden"]):
        assert_problem(ask(target, powerless, "GET", "/admin/keys"), 403, "forbidden")


def test_only_who_may_act_on_all_users_makes_or_takes_over_a_key_that_acts_for_them(
    target: Installation, people: dict[str, Person]
) -> None:
    """Otherwise a manager of members would enter and end, as an operator, rooms in which they have no part."""
    manager, omni = people["manager"], people["omni"]
    body = {"name": f"reach-{secrets.token_hex(3)}", "scopes": ["act:user", "rooms:create", "rooms:join"]}
    refused = assert_problem(ask(target, manager, "POST", "/admin/keys", body), 403, "forbidden")
    assert "rooms:end-any" in refused["detail"]
    key = new_key(target, omni, *body["scopes"])
    for method, path, sent in (("POST", f"/admin/keys/{key.id}/rotate", {}), ("DELETE", f"/admin/keys/{key.id}", None)):
        assert_problem(ask(target, manager, method, path, sent), 403, "forbidden")
    assert key.ask("GET", "/rooms", acting=omni).status_code == 200


def test_nobody_takes_a_name_that_looks_like_a_key(
    target: Installation, people: dict[str, Person], mighty: Key
) -> None:
    body = {"username": mighty.id, "roles": ["member"]}
    assert_problem(ask(target, people["omni"], "POST", "/admin/users", body), 400, "invalid_request", field="username")


# --- acting for users ---


NOBODIES = ["", "u", "U" + "A" * 20, "u" + "a" * 20, "mira", "cli", "gwk_abcdefghijkl", "u" + "a" * 5000, "*", "\xe9"]


@pytest.mark.parametrize("wrong", NOBODIES)
def test_act_as_nobody_is_a_wrong_field(target: Installation, mighty: Key, wrong: str) -> None:
    with credentials(target, f"Bearer {mighty.text}", X_Act_As=wrong) as client:
        answer = client.get("/api/rooms")
        assert_problem(answer, 400, "invalid_request", field="X-Act-As")


def test_act_as_two_users_is_a_wrong_field(target: Installation, people: dict[str, Person], mighty: Key) -> None:
    ids = [people["host"].id, people["member"].id]
    for values in (ids, [ids[0], ids[0]], [f"{ids[0]}, {ids[1]}"], [f"{ids[0]},"]):
        fields = [("Authorization", f"Bearer {mighty.text}"), *(("X-Act-As", value) for value in values)]
        with target.client() as client:
            client.headers = httpx.Headers(fields)
            assert_problem(client.get("/api/rooms"), 400, "invalid_request", field="X-Act-As")


def test_act_as_takes_the_scope_and_a_key(target: Installation, people: dict[str, Person]) -> None:
    host = people["host"]
    key = new_key(target, people["omni"], *ALL)
    refused = assert_problem(key.ask("GET", "/rooms", acting=host), 403, "forbidden")
    assert refused["missing_permission"] == "act:user"
    for role in ("omni", "host"):
        answer = ask(target, people[role], "GET", "/rooms", X_Act_As=people["member"].id)
        assert assert_problem(answer, 403, "forbidden")["missing_permission"] == "act:user"
        # Also for oneself: a client that sends the field expects it to count.
        assert ask(target, people[role], "GET", "/rooms", X_Act_As=people[role].id).status_code == 403


def test_act_as_a_disabled_or_deleted_user_is_refused(
    target: Installation, people: dict[str, Person], mighty: Key
) -> None:
    gone, away = newcomers(target, "host", "host")
    room = new_room(target, gone)
    for one in (gone, away):
        assert mighty.ask("GET", "/rooms", acting=one).status_code == 200
    assert ask(target, people["omni"], "PATCH", f"/admin/users/{gone.id}", {"status": "disabled"}).status_code == 200
    assert ask(target, people["omni"], "DELETE", f"/admin/users/{away.id}").status_code == 204
    for _ in range(4):  # both workers
        assert_problem(mighty.ask("POST", f"/rooms/{room}/token", {}, acting=gone), 403, "forbidden")
        assert_problem(mighty.ask("GET", "/rooms", acting=away), 400, "invalid_request", field="X-Act-As")


def test_act_as_a_mighty_user_gives_no_power_that_the_key_lacks(
    target: Installation, people: dict[str, Person]
) -> None:
    omni, host = people["omni"], people["host"]
    key = new_key(target, omni, "act:user", "rooms:join")
    room = new_room(target, host, access="invited")
    for method, path, body in (
        ("GET", "/admin/users", None),
        ("GET", "/admin/audit", None),
        ("GET", "/admin/usage", None),
        ("GET", f"/admin/limits/{host.id}", None),
        ("POST", "/admin/users", {"username": "eve", "roles": ["member"]}),
        ("POST", "/rooms", {}),
    ):
        assert_problem(key.ask(method, path, body, acting=omni), 403, "forbidden")
    # The user reads and ends any room; the key may not, so to both together the room does not exist.
    for method, path, body in (("GET", "", None), ("GET", "/members", None), ("POST", "/token", {})):
        assert_problem(key.ask(method, f"/rooms/{room}{path}", body, acting=omni), 404, "not_found")
    listed = key.ask("GET", "/rooms", acting=omni).json()["rooms"]
    assert room not in [one["id"] for one in listed]
    # And a key that may read all rooms reads none that its user may not.
    wide = new_key(target, omni, "act:user", "rooms:read-any", "rooms:end-any", "rooms:join", "rooms:create")
    assert_problem(wide.ask("GET", f"/rooms/{room}", acting=people["member"]), 404, "not_found")
    assert_problem(wide.ask("POST", f"/rooms/{room}/end", {}, acting=people["member"]), 404, "not_found")


def test_key_for_mints_takes_nothing_over_from_its_user(target: Installation, people: dict[str, Person]) -> None:
    host, member = people["host"], people["member"]
    key = new_key(target, people["omni"], "act:user", "rooms:join")
    room = new_room(target, host)
    for method, path, body in (
        ("PUT", f"/rooms/{room}/members/{member.id}", {"relation": "owner"}),
        ("DELETE", f"/rooms/{room}/members/{member.id}", None),
        ("POST", f"/rooms/{room}/invites", {}),
        ("PATCH", f"/rooms/{room}", {"enabled": False}),
        ("POST", f"/rooms/{room}/end", {"lock": True}),
    ):
        answer = key.ask(method, path, body, acting=host)
        assert assert_problem(answer, 403, "forbidden")["missing_permission"] == "rooms:create"
    minted = key.ask("POST", f"/rooms/{room}/token", {"role": "host", "userId": member.id}, acting=host)
    assert minted.json()["user_id"] == host.id


def test_act_as_a_guest_stays_in_the_room_of_the_guest(
    target: Installation, people: dict[str, Person], mighty: Key
) -> None:
    host, guest = people["host"], people["guest"]
    room = new_room(target, host)
    assert_problem(mighty.ask("POST", f"/rooms/{room}/token", {}, acting=guest), 404, "not_found")
    assert_problem(mighty.ask("POST", "/rooms", {}, acting=guest), 403, "forbidden")

"""A backend with a service key does things for its users, from the room to the entry in the audit trail."""

from __future__ import annotations

import json
import secrets
from typing import Any

import jwt
import pytest

from tests.e2e.checks import assert_problem
from tests.e2e.people import Person, ask, newcomers, usage
from tests.e2e.service_keys import Key, new_key
from tests.servers import Installation, wait_until


@pytest.fixture(scope="module")
def people(installation: Installation) -> list[Person]:
    return newcomers(installation, "admin", "host", "member")


@pytest.fixture(scope="module")
def backend(installation: Installation, people: list[Person]) -> Key:
    return new_key(installation, people[0], "act:user", "rooms:create", "rooms:join", "usage:read-own")


def entries(installation: Installation, admin: Person, key: Key, action: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def look() -> bool:
        items = ask(installation, admin, "GET", f"/admin/audit?action={action}").json()["items"]
        found[:] = [one for one in items if one["details"].get("key") == key.id]
        return bool(found)

    wait_until(look, f"{action} is in the trail")
    return found


def test_backend_creates_a_room_and_mints_for_its_user(
    installation: Installation, people: list[Person], backend: Key
) -> None:
    ada, hanna, mira = people
    key = secrets.token_hex(8)
    created = backend.ask("POST", "/rooms", {"name": "Lesson"}, acting=hanna, Idempotency_Key=key)
    assert created.status_code == 201, created.text
    room = created.json()["room"]
    assert (room["owner_id"], room["name"]) == (hanna.id, "Lesson")
    assert room["id"] in [one["id"] for one in ask(installation, hanna, "GET", "/rooms").json()["rooms"]]

    again = backend.ask("POST", "/rooms", {"name": "Lesson"}, acting=hanna, Idempotency_Key=key)
    assert (again.json()["room"]["id"], again.headers["Idempotency-Replayed"]) == (room["id"], "true")
    # The same key of the user themselves, or of another backend, is another one.
    own = ask(installation, hanna, "POST", "/rooms", {"name": "Other"}, Idempotency_Key=key)
    assert own.status_code == 201
    other = new_key(installation, ada, "act:user", "rooms:create")
    theirs = other.ask("POST", "/rooms", {"name": "Third"}, acting=hanna, Idempotency_Key=key)
    assert len({room["id"], own.json()["room"]["id"], theirs.json()["room"]["id"]}) == 3

    minted = backend.ask("POST", f"/rooms/{room['id']}/token", {"role": "host"}, acting=hanna).json()
    claims = jwt.decode(minted["token"], options={"verify_signature": False})
    assert (claims["user_id"], claims["room_id"], claims["role"]) == (hanna.id, room["id"], "host")
    denied = backend.ask("POST", f"/rooms/{room['id']}/token", {"role": "host"}, acting=mira)
    assert_problem(denied, 403, "role_not_allowed")
    assert usage(installation, hanna, "tokens.mint")["ok"] == 1
    assert usage(installation, hanna, "rooms.create") == {
        "ok": 3, "denied": {}, "refused": {"replayed": 1}, "failed": 0, "would_deny": {},
    }  # fmt: skip

    for action in ("room.created", "token.minted"):
        entry = entries(installation, ada, backend, action)[0]
        assert (entry["by"], entry["subject"]) == (hanna.id, hanna.id)
    line = next(
        json.loads(one)
        for one in installation.gateway.output().splitlines()
        if created.headers["x-request-id"] in one and '"message":"request"' in one
    )
    assert (line["user"], line["key"]) == (hanna.id, backend.id)


def test_reports_count_the_key_by_its_name_and_the_user_as_ever(
    installation: Installation, people: list[Person]
) -> None:
    ada, _, mira = people
    key = new_key(installation, ada, "act:user", "rooms:join", "usage:read-any")
    assert key.ask("GET", "/rooms", acting=mira).status_code == 200
    assert key.ask("GET", "/admin/usage/top").status_code == 200
    report = ask(installation, ada, "GET", f"/admin/usage?user={key.name}&group_by=user").json()["items"]
    assert [(one["username"], one["action"], one["ok"]) for one in report] == [
        (key.name, "act-as", 1),
        (key.name, "api", 1),
    ]
    assert ask(installation, ada, "GET", f"/admin/usage/users/{key.id}").json()["username"] == key.name
    csv = ask(installation, ada, "GET", "/admin/usage?format=csv&group_by=user&action=act-as").text
    assert f"{key.id},{key.name},act-as,1," in csv
    wait_until(
        lambda: key.name in installation.command("usage", "top", "--counter", "act-as.ok", "--json").stdout,
        "the top list names the key",
    )


def test_operators_limit_and_block_a_key_like_a_user(installation: Installation, people: list[Person]) -> None:
    ada, _, mira = people
    key = new_key(installation, ada, "act:user", "rooms:join")
    body = {"name": "api", "rate": "1/h", "burst": 1, "lasts_s": 600, "reason": "loop"}
    assert ask(installation, ada, "PUT", f"/admin/limits/{key.id}/override", body).status_code == 200
    assert key.ask("GET", "/rooms", acting=mira).status_code == 200
    denied = assert_problem(key.ask("GET", "/rooms", acting=mira), 429, "rate_limited")
    assert denied["violated-policies"] == ["api"]
    assert "service key" in denied["detail"]
    shown = ask(installation, ada, "GET", f"/admin/limits/{key.id}").json()
    assert (shown["user"]["username"], shown["limits"][0]["remaining"]) == (key.name, 0)
    assert ask(installation, ada, "POST", f"/admin/limits/{key.id}/reset", {}).json() == {"used": {"api": 1}}
    assert key.ask("GET", "/rooms", acting=mira).status_code == 200
    block = {"block": True, "lasts_s": 600, "reason": "leak?"}
    assert ask(installation, ada, "PUT", f"/admin/limits/{key.id}/override", block).status_code == 200
    blocked = assert_problem(key.ask("GET", "/rooms", acting=mira), 429, "rate_limited")
    assert "blocked this service key" in blocked["detail"]
    unknown = body | {"name": "tokens.mint"}
    assert_problem(ask(installation, ada, "PUT", "/admin/limits/gwk_abcdefghijkl/override", unknown), 404, "not_found")

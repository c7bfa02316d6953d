"""Service keys of a running installation: made, used within their scopes, rotated and revoked."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from tests.e2e.checks import assert_problem
from tests.e2e.commands import assert_done, assert_failed, parsed
from tests.e2e.people import Person, ask, newcomers
from tests.e2e.service_keys import Key, new_key
from tests.e2e.workers import TELLS_WORKERS_APART, on_every_worker
from tests.servers import Installation, wait_until

KEY = re.compile(r"gwk_[a-z2-7]{12}_[0-9A-Za-z]{38}")
FIELDS = {
    "id", "name", "scopes", "cidrs", "status", "created_at", "created_by", "expires_at", "used_at", "old_until"
}  # fmt: skip


@pytest.fixture(scope="module")
def ada(installation: Installation) -> Person:
    return newcomers(installation, "admin")[0]


def keys_in(answer: httpx.Response) -> dict[str, dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return {one["name"]: one for one in answer.json()["keys"]}


def test_key_of_the_command_line_reads_usage_by_its_scope_and_nothing_else(installation: Installation) -> None:
    env = installation.env
    text = assert_done(installation.command("keys", "add", "reports", "--scope", "usage:read-any"), env).strip()
    assert KEY.fullmatch(text)
    key = Key(installation, text[:16], "reports", text)
    assert key.ask("GET", "/admin/usage").status_code == 200
    assert key.ask("GET", "/admin/usage?format=csv").headers["content-type"].startswith("text/csv")
    denied = assert_problem(key.ask("GET", "/admin/audit"), 403, "forbidden")
    assert denied["missing_permission"] == "audit:read"
    assert "RateLimit" in key.ask("GET", "/admin/usage/top").headers

    wait_until(
        lambda: parsed(installation.command("keys", "show", "reports", "--json"), env)["used_at"], "used_at is kept"
    )
    shown = parsed(installation.command("keys", "show", key.id, "--json"), env)
    assert shown.keys() == FIELDS
    assert (shown["scopes"], shown["status"], shown["created_by"]) == (["usage:read-any"], "active", "cli")
    listed = assert_done(installation.command("keys", "list"), env)
    assert "reports" in listed
    assert key.text not in listed

    rotated = parsed(installation.command("keys", "rotate", "reports", "--json"), env)["key"]
    assert_problem(key.ask("GET", "/admin/usage"), 401, "invalid_token")
    assert Key(installation, key.id, "reports", rotated).ask("GET", "/admin/usage").status_code == 200
    assert assert_done(installation.command("keys", "revoke", "reports", "--yes"), env) == "reports is revoked.\n"
    assert_problem(Key(installation, key.id, "reports", rotated).ask("GET", "/admin/usage"), 401, "invalid_token")
    assert "reports" not in assert_done(installation.command("keys", "list"), env)
    assert "reports" in assert_done(installation.command("keys", "list", "--revoked"), env)


def test_commands_say_in_one_line_what_is_wrong(installation: Installation) -> None:
    env = installation.env
    assert_failed(
        installation.command("keys", "add", "x", "--scope", "rooms:fly"), env, "scopes", "'rooms:fly'", "act:user"
    )
    assert_failed(installation.command("keys", "add", "a b", "--scope", "audit:read"), env, "name", "hyphens")
    wrong = installation.command("keys", "add", "x", "--scope", "audit:read", "--cidr", "10.0.0.1/8")
    assert_failed(wrong, env, "cidrs", "10.0.0.1/8", "host bits")
    assert_failed(installation.command("keys", "revoke", "nothing", "--yes"), env, "no active service key", "'nothing'")
    assert_failed(installation.command("keys", "rotate", "gwk_abcdefghijkl"), env, "no service key")


def test_admin_makes_lists_rotates_and_revokes_keys(installation: Installation, ada: Person) -> None:
    key = new_key(installation, ada, "usage:read-any", expires_in_s=3600, cidrs=["127.0.0.0/8"])
    assert KEY.fullmatch(key.text)
    listed = keys_in(ask(installation, ada, "GET", "/admin/keys"))[key.name]
    assert listed.keys() == FIELDS
    assert listed["created_by"] == ada.id
    assert listed["cidrs"] == ["127.0.0.0/8"]
    assert listed["expires_at"] > listed["created_at"]
    assert ask(installation, ada, "GET", f"/admin/keys/{key.id}").json()["service_key"]["name"] == key.name
    assert key.ask("GET", "/admin/usage/top").status_code == 200

    rotated = ask(installation, ada, "POST", f"/admin/keys/{key.name}/rotate", {"overlap_s": 600}).json()
    assert rotated["service_key"]["old_until"]
    for text in (key.text, rotated["key"]):
        assert Key(installation, key.id, key.name, text).ask("GET", "/admin/usage/top").status_code == 200
    again = ask(installation, ada, "POST", f"/admin/keys/{key.id}/rotate", {}).json()
    assert again["service_key"]["old_until"] is None
    for text in (key.text, rotated["key"]):
        assert_problem(Key(installation, key.id, key.name, text).ask("GET", "/admin/usage/top"), 401, "invalid_token")

    assert ask(installation, ada, "DELETE", f"/admin/keys/{key.name}").status_code == 204
    assert key.name not in keys_in(ask(installation, ada, "GET", "/admin/keys"))
    assert keys_in(ask(installation, ada, "GET", "/admin/keys?revoked=true"))[key.name]["status"] == "revoked"
    assert_problem(ask(installation, ada, "GET", f"/admin/keys/{key.name}"), 404, "not_found")
    assert_problem(ask(installation, ada, "POST", f"/admin/keys/{key.id}/rotate", {}), 404, "not_found")


def test_wrong_bodies_name_field_and_rule(installation: Installation, ada: Person) -> None:
    good: dict[str, Any] = {"name": "fine", "scopes": ["audit:read"]}
    for wrong, name in (
        ({"scopes": []}, "scopes"),
        ({"scopes": ["rooms:fly"]}, "scopes"),
        ({"name": "a b"}, "name"),
        ({"expires_in_s": 5}, "expires_in_s"),
        ({"cidrs": ["nonsense"]}, "cidrs"),
    ):
        assert_problem(ask(installation, ada, "POST", "/admin/keys", good | wrong), 400, "invalid_request", field=name)


@TELLS_WORKERS_APART
def test_every_worker_refuses_the_next_request_of_a_revoked_key(installation: Installation, ada: Person) -> None:
    key = new_key(installation, ada, "usage:read-any")
    with on_every_worker(installation, key.text, "/api/admin/usage/top") as clients:
        assert ask(installation, ada, "DELETE", f"/admin/keys/{key.id}").status_code == 204
        for client in clients:
            assert_problem(client.get("/api/admin/usage/top"), 401, "invalid_token")


def test_key_of_another_network_is_refused_and_audited(installation: Installation, ada: Person) -> None:
    key = new_key(installation, ada, "usage:read-any", cidrs=["198.51.100.0/24"])
    refused = key.ask("GET", "/admin/usage/top")
    assert_problem(refused, 401, "invalid_token")

    def entry() -> dict[str, Any] | None:
        items = ask(installation, ada, "GET", f"/admin/audit?action=key.refused&user={key.id}").json()["items"]
        return next((one for one in items if one["request_id"] == refused.headers["x-request-id"]), None)

    wait_until(lambda: entry() is not None, "the refusal is in the trail")
    found = entry()
    assert found is not None
    assert (found["subject"], found["details"]["why"]) == (key.id, "address")


def test_key_sees_its_own_limits_and_counters(installation: Installation, ada: Person) -> None:
    key = new_key(installation, ada, "usage:read-own", "usage:read-any")
    assert key.ask("GET", "/admin/usage/top").status_code == 200
    assert key.ask("GET", "/admin/audit").status_code == 403
    own = key.ask("GET", "/usage").json()
    assert own["user_id"] == key.id
    assert [one["name"] for one in own["limits"]] == ["api"]
    assert own["usage"]["today"]["api"]["ok"] == 1
    assert own["usage"]["today"]["api"]["refused"] == {"forbidden": 1}

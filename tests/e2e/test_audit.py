"""The audit trail of a running installation has an entry for each relevant request, and never a secret."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.e2e.asking import Admin, Person, everything_in, new_address
from tests.e2e.checks import assert_problem
from tests.servers import wait_until

CODE = "z" * 26  # not hexadecimal digits, as the MACs of addresses are
FIELDS = {"id", "at", "action", "by", "by_name", "subject", "subject_name", "request_id", "details"}


def entry_of(admin: Admin, answer: httpx.Response, action: str) -> dict[str, Any]:
    """Return the only entry of a request. Entries leave with the next flush, so it appears a moment later."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        found[:] = [one for one in admin.audit() if one["request_id"] == answer.headers["x-request-id"]]
        return bool(found)

    wait_until(look, f"{action} is in the trail", within_s=5)
    assert [one["action"] for one in found] == [action]
    assert found[0].keys() == FIELDS
    assert abs(datetime.now(UTC) - datetime.fromisoformat(found[0]["at"])) < timedelta(minutes=1)
    return found[0]


def whom(entry: dict[str, Any]) -> tuple[str, str]:
    return entry["by"], entry["subject"]


def test_login_failure_throttle_and_logout_are_audited(admin: Admin) -> None:
    person = admin.add()
    body = {"username": person.name, "password": person.password}
    answer = person.ask("POST", "/api/auth/login", json=body)
    login = answer.json()
    entry = entry_of(admin, answer, "login")
    assert whom(entry) == (person.id, person.id)
    assert entry["details"]["session"] == login["session_id"]
    assert person.address not in str(entry)
    source = entry["details"]["source"]

    failed = entry_of(admin, person.try_to_log_in("wrong"), "login.failed")
    assert whom(failed) == ("", person.id)
    assert failed["details"]["source"] == source
    stranger = Person(admin.installation, "", f"nobody-{secrets.token_hex(4)}", "", new_address())
    unknown = entry_of(admin, stranger.try_to_log_in("wrong"), "login.failed")
    assert whom(unknown) == ("", "")
    assert unknown["details"]["source"] != source
    for _ in range(4):
        stranger.try_to_log_in("wrong")
    throttled = entry_of(admin, stranger.try_to_log_in("wrong"), "throttled")
    assert throttled["details"]["limit"] == "account"
    assert stranger.name not in str(throttled)

    out = entry_of(admin, person.ask("POST", "/api/auth/logout", token=login["access_token"], json={}), "logout")
    assert whom(out) == (person.id, person.id)
    assert (out["details"]["session"], out["details"]["scope"]) == (login["session_id"], "current")


def test_reuse_of_a_refresh_token_is_audited(admin: Admin) -> None:
    """RFC 9700 section 4.14.2: the token has been stolen."""
    person = admin.add()
    login = person.log_in()
    second = person.refresh(login).json()
    person.refresh(second)
    answer = person.refresh(login)
    assert_problem(answer, 400, "invalid_grant")
    entry = entry_of(admin, answer, "refresh.reused")
    assert whom(entry) == ("", person.id)
    assert entry["details"]["session"] == login["session_id"]


def test_the_entry_of_a_registration_names_the_inviter(admin: Admin) -> None:
    done = admin.installation.command("users", "invite", "--role", "member")
    assert done.returncode == 0, done.stderr
    stranger = Person(admin.installation, "", f"new-{secrets.token_hex(4)}", "a lighthouse full of maps", new_address())
    body = {"username": stranger.name, "password": stranger.password, "invite": done.stdout.strip()}
    answer = stranger.ask("POST", "/api/auth/register", json=body)
    entry = entry_of(admin, answer, "account.registered")
    assert whom(entry) == (answer.json()["user"]["id"],) * 2
    assert entry["details"]["invited_by"] == "cli"
    invite = entry["details"]["invite"]
    [invited] = [one for one in admin.audit(action="user.invited") if one["details"]["invite"] == invite]
    assert invited["by"] == "cli"
    assert len(invite) == 12
    assert body["invite"] not in str(admin.audit())


@pytest.mark.parametrize(
    ("kind", "path", "body"),
    [
        ("password", "/api/auth/password/setup", {"token": CODE, "new_password": "a lighthouse full of maps"}),
        (
            "account",
            "/api/auth/register",
            {"username": "nobody.new", "password": "a lighthouse full of maps", "invite": CODE},
        ),
        ("room", f"/api/invites/{CODE}/accept", {}),
    ],
)
def test_attempts_with_invalid_codes_are_audited_once_a_minute(
    admin: Admin, kind: str, path: str, body: dict[str, Any]
) -> None:
    stranger = Person(admin.installation, "", "", "", new_address())
    entry = entry_of(admin, stranger.ask("POST", path, json=body), "code.refused")
    assert whom(entry) == ("", "")
    assert entry["details"].keys() == {"kind", "source"}
    assert entry["details"]["kind"] == kind
    assert "zzzz" not in str(entry)
    for _ in range(4):
        assert stranger.ask("POST", path, json=body).status_code in (400, 403)
    source = entry["details"]["source"]
    seen = [one for one in admin.audit(action="code.refused") if one["details"]["source"] == source]
    assert 1 <= len(seen) <= 2  # each of the two workers counts separately


def test_reading_usage_and_limits_of_others_is_audited_also_from_the_command_line(admin: Admin) -> None:
    person = admin.add()
    entry = entry_of(admin, admin.ask("GET", f"/api/admin/limits/{person.id}"), "usage.read")
    assert (*whom(entry), entry["details"]["report"]) == (admin.id, person.id, "limits")
    for command in (["limits", "show", person.name], ["usage", "show", "--user", person.name], ["usage", "top"]):
        done = admin.installation.command(*command)
        assert done.returncode == 0, done.stderr
    noted = {
        (one["subject"], one["details"]["report"]) for one in admin.audit(action="usage.read") if one["by"] == "cli"
    }
    assert {(person.id, "limits"), (person.id, "users"), ("", "top")} <= noted


def test_successful_and_failed_password_changes_are_audited(admin: Admin) -> None:
    person = admin.add()
    token = person.log_in()["access_token"]
    for current, action in (("wrong", "password.refused"), (person.password, "password.changed")):
        body = {"current_password": current, "new_password": "seventeen green umbrellas"}
        answer = person.ask("POST", "/api/auth/password", token=token, json=body)
        assert whom(entry_of(admin, answer, action)) == (person.id, person.id)
    answer = admin.ask("POST", f"/api/admin/users/{person.id}/password-link")
    assert whom(entry_of(admin, answer, "user.password_link")) == (admin.id, person.id)
    body = {"token": answer.json()["token"], "new_password": "a lighthouse full of maps"}
    answer = person.ask("POST", "/api/auth/password/setup", json=body)
    assert whom(entry_of(admin, answer, "password.set")) == (person.id, person.id)


def test_administration_is_audited(admin: Admin) -> None:
    name = f"made-{secrets.token_hex(4)}"
    made = admin.ask("POST", "/api/admin/users", json={"username": name, "roles": ["member"]})
    uid = made.json()["user"]["id"]
    path = f"/api/admin/users/{uid}"
    assert whom(entry_of(admin, made, "user.created")) == (admin.id, uid)
    changed = entry_of(admin, admin.ask("PATCH", path, json={"roles": ["host"]}), "user.roles")
    assert whom(changed) == (admin.id, uid)
    assert changed["details"] == {"was": "member", "now": "host"}
    for body, action in (
        ({"status": "disabled"}, "user.disabled"),
        ({"status": "active"}, "user.enabled"),
        ({"display_name": "Somebody"}, "user.renamed"),
    ):
        assert whom(entry_of(admin, admin.ask("PATCH", path, json=body), action)) == (admin.id, uid)
    override = {"name": "tokens.mint", "rate": "5/min", "burst": 5, "lasts_s": 600, "reason": "a test"}
    answer = admin.ask("PUT", f"/api/admin/limits/{uid}/override", json=override)
    assert whom(entry_of(admin, answer, "limits.override")) == (admin.id, uid)
    for method, where, action in (
        ("POST", f"/api/admin/limits/{uid}/reset", "limits.reset"),
        ("DELETE", f"{path}/sessions", "user.sessions_ended"),
        ("DELETE", path, "user.deleted"),
    ):
        assert whom(entry_of(admin, admin.ask(method, where), action)) == (admin.id, uid)
    assert name not in str(admin.audit(user=uid))


def test_rooms_tokens_and_denials_are_audited(admin: Admin) -> None:
    host, member = admin.add("host"), admin.add("member")
    token = host.log_in()["access_token"]
    made = host.ask("POST", "/api/rooms", token=token, json={})
    room = made.json()["room"]["id"]
    assert entry_of(admin, made, "room.created")["details"] == {"room": room}
    minted = host.ask("POST", f"/api/rooms/{room}/token", token=token, json={"role": "host"})
    details = entry_of(admin, minted, "token.minted")["details"]
    assert (details["room"], details["role"]) == (room, "host")
    assert datetime.fromtimestamp(details["exp"], UTC) == datetime.fromisoformat(minted.json()["expires_at"])
    assert len(details["jti"]) >= 16
    theirs = member.log_in()["access_token"]
    denied = entry_of(admin, member.ask("POST", "/api/rooms", token=theirs, json={}), "denied")
    assert whom(denied) == (member.id, member.id)
    assert denied["details"] == {"code": "forbidden", "attempted": "rooms.create"}
    answer = member.ask("POST", f"/api/rooms/{room}/token", token=theirs, json={"role": "host"})
    denied = entry_of(admin, answer, "denied")
    assert denied["details"] == {"code": "role_not_allowed", "attempted": "tokens.mint", "room": room}


def test_denied_administration_is_audited_with_its_subject(admin: Admin) -> None:
    other = admin.add("admin")
    token = other.log_in()["access_token"]
    answer = other.ask("PATCH", f"/api/admin/users/{other.id}", token=token, json={"roles": ["admin", "host"]})
    assert_problem(answer, 403, "forbidden")
    denied = entry_of(admin, answer, "denied")
    assert whom(denied) == (other.id, other.id)
    assert denied["details"] == {"code": "forbidden", "attempted": "users.manage", "why": "own"}
    operator = admin.add("operator")
    body = {"block": True, "lasts_s": 60, "reason": "a test"}
    path = f"/api/admin/limits/{admin.id}/override"
    answer = operator.ask("PUT", path, token=operator.log_in()["access_token"], json=body)
    assert_problem(answer, 403, "forbidden")
    denied = entry_of(admin, answer, "denied")
    assert whom(denied) == (operator.id, admin.id)
    assert (denied["details"]["code"], denied["details"]["attempted"]) == ("forbidden", "limits.manage")
    assert admin.ask("DELETE", f"/api/admin/users/{other.id}").status_code == 204  # other tests count the admins


def test_entries_name_their_users_while_these_have_accounts(admin: Admin) -> None:
    person, reader = admin.add(), admin.add("operator")
    token = reader.log_in()["access_token"]

    def names() -> list[tuple[str, str]]:
        query = {"user": person.id, "action": "user"}
        entries = reader.ask("GET", "/api/admin/audit", token=token, params=query).json()["items"]
        return [(one["by_name"], one["subject_name"]) for one in entries]

    assert names() == [("ada", person.name)]
    done = admin.installation.command("users", "roles", person.name, "host")
    assert done.returncode == 0, done.stderr
    assert names() == [("", person.name), ("ada", person.name)]
    assert admin.ask("DELETE", f"/api/admin/users/{person.id}").status_code == 204
    assert names() == [("ada", ""), ("", ""), ("ada", "")]


def test_reading_the_usage_of_others_is_audited_once_a_minute_per_reader_and_report(admin: Admin) -> None:
    reader, somebody = admin.add("operator"), admin.add()
    token = reader.log_in()["access_token"]
    for _ in range(5):
        for path in ("", f"?user={somebody.name}", "/top", f"/rooms/{'0' * 24}"):
            assert reader.ask("GET", f"/api/admin/usage{path}", token=token).status_code == 200
    wait_until(lambda: len(read_by(admin, reader)) >= 4, "four reports were noted", within_s=5)
    seen = [(entry["details"]["report"], entry["subject"]) for entry in read_by(admin, reader)]
    assert set(seen) == {("users", ""), ("users", somebody.id), ("top", ""), ("room", "")}
    assert len(seen) <= 4 * admin.installation.workers
    member = somebody.log_in()["access_token"]
    assert somebody.ask("GET", "/api/usage", token=member).status_code == 200
    assert read_by(admin, somebody) == []  # reading one's own usage is not audited


def read_by(admin: Admin, reader: Person) -> list[dict[str, Any]]:
    return [entry for entry in admin.audit(action="usage.read") if entry["by"] == reader.id]


def test_filters_and_pages_of_the_trail(admin: Admin) -> None:
    person = admin.add()
    start = datetime.now(UTC) - timedelta(seconds=1)
    for _ in range(7):
        person.log_in()
    wait_until(lambda: len(admin.audit(user=person.id, action="login")) == 7, "seven logins are noted", within_s=5)
    assert admin.audit(user=person.name, action="login") == admin.audit(user=person.id, action="login")
    assert len(admin.audit(user=person.id, **{"from": start.isoformat()})) >= 7
    assert admin.audit(user=person.id, to=(start - timedelta(seconds=60)).isoformat()) == []
    seen: list[str] = []
    cursor = None
    while True:
        query = {"user": person.id, "limit": 3} | ({"cursor": cursor} if cursor else {})
        page = admin.ask("GET", "/api/admin/audit", params=query).json()
        seen += [entry["id"] for entry in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [entry["id"] for entry in admin.audit(user=person.id)]
    assert len(set(seen)) == len(seen) == 8  # including the creation of the account
    assert admin.audit(user="u" + "a" * 20) == []


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ({"limit": 0}, "must be an integer >= 1"),
        ({"limit": 501}, "must be an integer <= 500"),
        ({"action": "Log in"}, "must be a string matching regex"),
        ({"action": "tokens.minted"}, "there is no action 'tokens.minted'; did you mean token.minted"),
        ({"from": "2026-11-22T12:00:00"}, "must have a time zone, e.g. 2026-11-22T12:00:00Z"),
        ({"to": "noon"}, "must be a date and time with a time zone, e.g. 2026-11-22T12:00:00Z"),
        ({"from": "2026-11-22"}, "must be a date and time with a time zone, e.g. 2026-11-22T12:00:00Z"),
        ({"from": "2026-11-22T12:00:01Z", "to": "2026-11-22T12:00:00Z"}, "must not be after `to`"),
        ({"cursor": "x"}, ""),
        ({"user": "nobody-of-that-name"}, "no such user; search for a deleted user by id"),
    ],
)
def test_invalid_queries_are_refused(admin: Admin, query: dict[str, object], rule: str) -> None:
    answer = admin.ask("GET", "/api/admin/audit", params=query)
    [error] = assert_problem(answer, 400, "invalid_request", field=next(iter(query)))["errors"]
    assert error["rule"].startswith(rule)


def test_reading_the_trail_needs_its_permission(admin: Admin) -> None:
    for role, status in (("member", 403), ("host", 403), ("operator", 200)):
        person = admin.add(role)
        answer = person.ask("GET", "/api/admin/audit", token=person.log_in()["access_token"])
        assert answer.status_code == status


def test_a_flood_of_denials_does_not_flush_the_trail(admin: Admin) -> None:
    person = admin.add()
    token = person.log_in()["access_token"]
    with person.installation.client(token) as client:
        for _ in range(300):
            assert client.post("/api/rooms", json={}).status_code == 403
    denied = [entry for entry in admin.audit(action="denied") if entry["by"] == person.id]
    assert 1 <= len(denied) <= admin.installation.workers


def test_trail_redis_and_log_contain_no_secret(admin: Admin) -> None:
    """OWASP Logging Cheat Sheet, "Data to exclude"; CWE-532."""
    person = admin.add()
    login = person.log_in()
    renewed = person.refresh(login).json()
    typo = secrets.token_urlsafe(18)
    person.try_to_log_in(typo)
    last = person.ask("POST", "/api/auth/logout", token=renewed["access_token"], json={"scope": "all"})
    with admin.installation.valkey.client() as client:
        said = everything_in(client) + admin.installation.log(last)
    tokens = [one[name] for one in (login, renewed) for name in ("access_token", "refresh_token")]
    for secret in (person.password, typo, *tokens):
        assert secret not in said
        assert secret[-20:] not in said


def test_a_login_to_a_blocked_account_is_audited_and_leaves_no_session(admin: Admin) -> None:
    person = admin.add()
    body = {"block": True, "lasts_s": 60, "reason": "a test"}
    assert admin.ask("PUT", f"/api/admin/limits/{person.id}/override", json=body).status_code == 200
    answer = person.try_to_log_in(person.password)
    assert_problem(answer, 429, "rate_limited")
    assert whom(entry_of(admin, answer, "login.blocked")) == ("", person.id)
    with admin.installation.valkey.client() as client:
        assert list(client.scan_iter(f"s:1:{{{person.id}}}:*")) == []


def test_denials_among_the_members_of_a_room_are_audited(admin: Admin) -> None:
    owner, cohost, other = admin.add("host"), admin.add("host"), admin.add("host")
    token = owner.log_in()["access_token"]
    room = owner.ask("POST", "/api/rooms", token=token, json={}).json()["room"]["id"]
    for person in (cohost, other):
        path = f"/api/rooms/{room}/members/{person.id}"
        assert owner.ask("PUT", path, token=token, json={"relation": "cohost"}).status_code == 200
    answer = cohost.ask("DELETE", f"/api/rooms/{room}/members/{other.id}", token=cohost.log_in()["access_token"])
    assert_problem(answer, 403, "forbidden")
    entry = entry_of(admin, answer, "denied")
    assert whom(entry) == (cohost.id, cohost.id)
    assert entry["details"] == {"code": "forbidden", "attempted": "members.change", "room": room}

"""Fields that callers must not set are refused by name and never sent to 100ms.

OWASP API Security 2023, API3 (broken object property level authorization); CWE-915.
"""

from __future__ import annotations

from typing import Any

import jwt
import pytest

from tests.e2e.checks import assert_problem
from tests.e2e.people import calls_since
from tests.servers import Installation


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("webhook", {"url": "https://evil.example", "headers": {}}),
        ("recording_info", {"enabled": True, "upload_info": {"type": "s3", "location": "evil"}}),
        ("template_id", "f" * 24),
        ("size", 20_000),
        ("large_room", True),
        ("enabled", False),
        ("owner_id", "u" + "a" * 20),
        ("owner", "u" + "a" * 20),
        ("user_id", "u" + "a" * 20),
        ("id", "f" * 24),
        ("region", "in"),
        ("max_duration_seconds", 43_200),
        ("polls", ["x"]),
        ("created_at", "2020-01-01T00:00:00Z"),
        ("success", True),
        ("Name", "case"),
        ("__proto__", {"enabled": False}),
    ],
)
def test_foreign_room_field_is_refused_by_name(target: Installation, field: str, value: Any) -> None:
    before = target.upstream_calls()
    with target.client_of("hanna") as client:
        answer = client.post("/api/rooms", json={"name": "Mine", field: value})
    assert_problem(answer, 400, "invalid_request", field=field)
    assert target.upstream_calls() == before


@pytest.mark.parametrize(
    "field", ["user_id", "room_id", "access_key", "type", "version", "exp", "ttl", "roles", "metadata", "jti"]
)
def test_callers_cannot_choose_claims(target: Installation, field: str) -> None:
    with target.client_of("hanna") as client:
        room = client.post("/api/rooms", json={}).json()["room"]["id"]
        answer = client.post(f"/api/rooms/{room}/token", json={field: "x"})
    assert_problem(answer, 400, "invalid_request", field=field)


# Fields that callers may never set, and the few bodies that legitimately have one of them.
SENSITIVE = (
    "id", "uid", "roles", "status", "ver", "owner_id", "enabled", "template_id", "webhook", "size", "recording_info",
    "is_admin",
)  # fmt: skip
MEANT = {
    ("POST", "/api/admin/users"): {"roles"},
    ("PATCH", "/api/admin/users/{user}"): {"roles", "status"},
    ("PATCH", "/api/rooms/{room_id}"): {"enabled"},
}


def test_no_body_accepts_a_field_that_callers_must_not_set(target: Installation) -> None:
    """Every body of the application's own description, sent by a user with every permission."""
    with target.client_of("olga") as client:
        document = client.get("/openapi.json").json()
        room = client.post("/api/rooms", json={}).json()["room"]["id"]
        tried = 0
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                # The one stores any body of 100ms; the other is for service keys only.
                if "requestBody" not in operation or path in ("/hooks/100ms", "/api/auth/introspect"):
                    continue
                address = path.replace("{room_id}", room).replace("{user}", "mira").replace("{code}", "a" * 26)
                address = address.replace("{provider}", "people").replace("{key}", "0" * 12)
                assert "{" not in address
                for field in set(SENSITIVE) - MEANT.get((method.upper(), path), set()):
                    for value in ("x", ["admin"], True):
                        answer = client.request(method, address, json={field: value})
                        assert_problem(answer, 400, "invalid_request", field=field)
                        tried += 1
    assert tried >= 15 * 11 * 3


def test_display_name_at_registration_grants_no_roles(target: Installation) -> None:
    """A user who registers with an invite gets its roles and a generated id, whatever their texts contain."""
    code = target.command("users", "invite", "--role", "member").stdout.strip()
    body = {"username": "mallory", "password": "plenty of good words, none common", "invite": code}
    with target.client() as client:
        answer = client.post("/api/auth/register", json=body | {"display_name": "x roles admin status active"})
    assert answer.status_code == 201, answer.text
    assert answer.json()["user"]["roles"] == ["member"]


def test_query_and_header_fields_change_no_room(target: Installation) -> None:
    with target.client_of("hanna") as client:
        me = client.get("/api/auth/me").json()["user"]["id"]
        query = client.post("/api/rooms?owner_id=evil&template_id=evil&size=1", json={"name": "Mine"})
        assert query.status_code == 400
        answer = client.post(
            "/api/rooms",
            json={"name": "Mine"},
            headers={"X-User-Id": "evil", "X-HTTP-Method-Override": "DELETE", "X-Emulate": "status=500"},
        )
    assert answer.status_code == 201
    assert answer.json()["room"]["owner_id"] == me


def test_user_id_in_the_body_never_reaches_the_token(target: Installation) -> None:
    """The seed's client sends `userId`; a caller who could choose it could impersonate any user."""
    login = target.log_in("hanna")
    other = target.log_in("mira")["user"]["id"]
    with target.client(login["access_token"]) as client:
        room = client.post("/api/rooms", json={}).json()["room"]["id"]
        minted = client.post(f"/api/rooms/{room}/token", json={"userId": other}).json()
    claims = jwt.decode(minted["token"], target.env["HMS_APP_SECRET"], algorithms=["HS256"])
    assert (claims["user_id"], claims["room_id"]) == (login["user"]["id"], room)
    assert minted["user_id"] == login["user"]["id"]


def test_only_the_listed_fields_reach_100ms(target: Installation) -> None:
    """Every request that causes a call, with every field that its body may have: create, change, end, ban."""
    mira = target.log_in("mira")["user"]["id"]
    before = target.upstream_calls()
    with target.client_of("hanna") as client:
        body = {"name": "Mine", "description": "all mine", "access": "invited", "template": "default"}
        room = client.post("/api/rooms", json=body).json()["room"]["id"]
        there = f"/api/rooms/{room}"
        body = {"name": "Still mine", "description": "no more", "access": "open"}
        for enabled in (False, True):
            assert client.patch(there, json=body | {"enabled": enabled}).status_code == 200
        assert client.post(f"{there}/end", json={"lock": True, "reason": "over"}).status_code == 202
        assert client.put(f"{there}/members/{mira}", json={"relation": "banned"}).status_code == 200
    [create, *later] = calls_since(target, before)
    assert (create["method"], create["path"]) == ("POST", "/v2/rooms")
    sent = create["body"]
    assert sent.keys() == {"name", "description", "template_id", "region", "size", "max_duration_seconds"}
    assert (sent["template_id"], sent["description"]) == (target.env["HMS_TEMPLATE_ID"], "all mine")
    assert (sent["region"], sent["size"], sent["max_duration_seconds"]) == ("auto", 100, 43_200)
    assert [(call["method"], call["path"], call["query"], call["body"]) for call in later] == [
        ("POST", f"/v2/rooms/{room}", "", {"enabled": False}),
        ("POST", f"/v2/rooms/{room}", "", {"description": "no more"}),
        ("POST", f"/v2/rooms/{room}", "", {"enabled": True}),
        ("POST", f"/v2/rooms/{room}", "", {"enabled": True}),  # repeated, in case of a lock meanwhile
        ("POST", f"/v2/active-rooms/{room}/end-room", "", {"reason": "over", "lock": True}),
        ("POST", f"/v2/rooms/{room}", "", {"enabled": False}),
        ("GET", f"/v2/active-rooms/{room}/peers", f"user_id={mira}", None),
    ]


def test_name_of_a_room_cannot_take_over_another_upstream(target: Installation) -> None:
    """100ms overwrites the room when a create uses an existing name, so the name sent is never the user's."""
    with target.client_of("hanna") as client:
        victim = client.post("/api/rooms", json={"name": "Victim"}).json()["room"]["id"]
        upstream = target.upstream_calls()[-1]["body"]["name"]
        taken = client.post("/api/rooms", json={"name": upstream}).json()["room"]["id"]
    assert taken != victim
    assert target.upstream_calls()[-1]["body"]["name"] != upstream

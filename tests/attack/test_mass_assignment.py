"""Fields that are not the caller's to set: refused by name, and nothing of the kind goes upstream.

OWASP API Security 2023, API3 (broken object property level authorization); CWE-915.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.checks import assert_problem
from tests.servers import Installation

FORWARDED = {"name", "description", "template_id", "region", "size", "max_duration_seconds"}


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
def test_room_field_of_others_is_refused_by_name(target: Installation, field: str, value: Any) -> None:
    before = target.upstream_calls()
    with target.client_of("hanna") as client:
        answer = client.post("/api/rooms", json={"name": "Mine", field: value})
    assert_problem(answer, 400, "invalid_request", field=field)
    assert target.upstream_calls() == before


@pytest.mark.parametrize(
    "field", ["user_id", "room_id", "access_key", "type", "version", "exp", "ttl", "roles", "metadata", "jti"]
)
def test_claims_are_not_the_callers_to_choose(target: Installation, field: str) -> None:
    with target.client_of("hanna") as client:
        room = client.post("/api/rooms", json={}).json()["room"]["id"]
        answer = client.post(f"/api/rooms/{room}/token", json={field: "x"})
    assert_problem(answer, 400, "invalid_request", field=field)


def test_query_and_header_fields_change_no_room(target: Installation) -> None:
    with target.client_of("hanna") as client:
        me = client.get("/api/auth/me").json()["user"]["id"]
        answer = client.post(
            "/api/rooms?owner_id=evil&template_id=evil&size=1",
            json={"name": "Mine"},
            headers={"X-User-Id": "evil", "X-HTTP-Method-Override": "DELETE", "X-Emulate": "status=500"},
        )
    assert answer.status_code == 201
    assert answer.json()["room"]["owner_id"] == me


def test_user_id_of_the_body_is_never_the_tokens(target: Installation) -> None:
    """The seed's client sends `userId`; whoever could choose it would be anybody in the room."""
    login = target.log_in("hanna")
    other = target.log_in("mira")["user"]["id"]
    with target.client(login["access_token"]) as client:
        room = client.post("/api/rooms", json={}).json()["room"]["id"]
        minted = client.post(f"/api/rooms/{room}/token", json={"userId": other}).json()
    assert minted["user_id"] == login["user"]["id"]


def test_only_the_agreed_fields_ever_reached_100ms(target: Installation) -> None:
    with target.client_of("hanna") as client:
        body = {"name": "Mine", "description": "all mine", "access": "invited", "template": "default"}
        assert client.post("/api/rooms", json=body).status_code == 201
    creates = [call["body"] for call in target.upstream_calls() if call["method"] == "POST"]
    assert creates
    for sent in creates:
        assert sent.keys() == FORWARDED
        assert sent["template_id"] == target.env["HMS_TEMPLATE_ID"]
        assert (sent["region"], sent["size"], sent["max_duration_seconds"]) == ("auto", 100, 43_200)
    assert {call["method"] for call in target.upstream_calls()} <= {"GET", "POST"}


def test_name_of_a_room_cannot_take_over_another_upstream(target: Installation) -> None:
    """100ms answers a create under an existing name by rewriting that room: the name sent is never the user's."""
    with target.client_of("hanna") as client:
        victim = client.post("/api/rooms", json={"name": "Victim"}).json()["room"]["id"]
        upstream = target.upstream_calls()[-1]["body"]["name"]
        taken = client.post("/api/rooms", json={"name": upstream}).json()["room"]["id"]
    assert taken != victim
    assert target.upstream_calls()[-1]["body"]["name"] != upstream

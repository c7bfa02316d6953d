"""A token of one kind is not accepted as another. RFC 8725 section 3.12, RFC 9700 section 2.2; OWASP ASVS 5, 9.2.2."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import httpx
import jwt
import pytest

from gateway.hms.tokens import HmsTokens
from tests.attack.forge import Forge, assert_refused
from tests.e2e.checks import assert_problem
from tests.servers import NO_TLS, Installation

KINDS = ("access", "refresh", "join", "management", "account invite", "room invite", "password link", "cursor", "uuid")
# Fields and parameters that accept a token, and the kind they accept. A new one must be added here, or a test fails.
TAKES = {
    ("POST", "/api/auth/refresh", "refresh_token"): "refresh",
    ("POST", "/api/auth/logout", "refresh_token"): "refresh",
    ("POST", "/api/auth/exchange", "token"): "one of an identity provider",
    ("POST", "/api/auth/exchange", "subject_token"): "the same",
    ("POST", "/api/auth/logout/{provider}", "logout_token"): "one of an identity provider",
    ("POST", "/api/auth/register", "invite"): "account invite",
    ("POST", "/api/auth/password/setup", "token"): "password link",
    ("POST", "/api/invites/{code}/accept", "code"): "room invite",
    ("POST", "/api/auth/introspect", "token"): "access",
}
TOKEN_NAME = re.compile(r"token(?!_type)|invite$|^code$|jwt|secret|assertion|grant(?!_type)")
VALUES = {
    "room_id": "0" * 24,
    "user": "mira",
    "sid": "0" * 20,
    "invite_id": "0" * 32,
    "letter_id": "1-0",
    "name": "billing",
    "key": "billing",
}


@pytest.fixture(scope="module")
def document(target: Installation) -> dict[str, Any]:
    with target.client() as client:
        return dict(client.get("/openapi.json").json())


@pytest.fixture(scope="module")
def tokens(target: Installation, forge: Forge) -> dict[str, str]:
    """A valid token of every kind."""
    hms = HmsTokens(target.env["HMS_APP_ACCESS_KEY"], target.env["HMS_APP_SECRET"])
    with target.client(forge.genuine) as client:
        room = client.post("/api/rooms", json={}).json()["room"]["id"]
        client.post("/api/rooms", json={})
        join = client.post(f"/api/rooms/{room}/token", json={}).json()["token"]
        invite = client.post(f"/api/rooms/{room}/invites", json={"guests": True, "max_uses": 50}).json()["code"]
        cursor = client.get("/api/rooms", params={"limit": 1}).json()["next_cursor"]
    link = json.loads(target.command("users", "password-link", "mira", "--json").stdout)["token"]
    account = json.loads(target.command("users", "invite", "--role", "member", "--uses", "50", "--json").stdout)
    words = ("keys", "add", f"reader-{forge.algorithm}", "--scope", "tokens:introspect", "--json")
    service_key = json.loads(target.command(*words).stdout)["key"]
    return {
        "access": forge.genuine,
        "refresh": forge.login["refresh_token"],
        "join": join,
        "management": hms.management_token(),
        "account invite": account["invite"],
        "room invite": invite,
        "password link": link,
        "cursor": cursor,
        "uuid": str(uuid.uuid4()),
        "service key": service_key,  # of no use in the header of users' routes: tests/attack/test_service_keys
    }


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(m.upper(), path, one) for path, methods in document["paths"].items() for m, one in methods.items()]


def properties_of(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    """Return the properties of an operation's body."""
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    name = body.get("$ref", "").rpartition("/")[2]
    return dict((document["components"]["schemas"][name] if name else body).get("properties", {}))


def parameters_of(document: dict[str, Any], operation: dict[str, Any]) -> list[str]:
    """Return the names of an operation's parameters, which may be kept among the components."""
    kept = document["components"].get("parameters", {})
    found = operation.get("parameters", ())
    return [(kept[one["$ref"].rpartition("/")[2]] if "$ref" in one else one)["name"] for one in found]


def test_list_of_token_inputs_matches_the_application(document: dict[str, Any]) -> None:
    found = set()
    for method, path, operation in operations(document):
        for name in [*properties_of(document, operation), *parameters_of(document, operation)]:
            if TOKEN_NAME.search(name) and name != "token_type_hint":  # not a token: RFC 7662's name of a kind
                found.add((method, path, name))
    assert found == set(TAKES)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "access"])
def test_header_accepts_only_login_tokens(
    target: Installation, document: dict[str, Any], tokens: dict[str, str], kind: str
) -> None:
    """On every route that needs a login, according to the application's own description."""
    closed = [one for one in operations(document) if "security" in one[2] and {"webhook": []} not in one[2]["security"]]
    assert len(closed) >= 25
    with target.client(tokens[kind]) as client:
        for method, path, _ in closed:
            if path == "/api/invites/{code}/accept":
                continue  # guests need no login; for a bad token there see below
            address = re.sub(r"\{(\w+)\}", lambda match: VALUES[match[1]], path)
            answer = client.request(method, address, json={} if method in ("POST", "PUT", "PATCH") else None)
            assert_problem(answer, 401, "invalid_token")


@pytest.mark.parametrize(
    ("place", "kind"), [(place, kind) for place, own in TAKES.items() for kind in KINDS if kind != own], ids=str
)
def test_body_field_accepts_only_its_own_kind(
    target: Installation, tokens: dict[str, str], place: tuple[str, str, str], kind: str
) -> None:
    method, path, field = place
    body: dict[str, str] = {} if "{code}" in path else {field: tokens[kind]}
    if path.endswith("/introspect"):
        with target.client(tokens["service key"]) as client:
            assert client.post(path, json=body).json() == {"active": False}
        return
    if path.endswith("/setup"):
        body["new_password"] = "plenty of good words, none common"
    if path.endswith("/register"):
        body |= {"username": "intruder", "password": "plenty of good words, none common"}
    with target.client() as client:
        answer = client.request(method, path.replace("{code}", tokens[kind]).format(provider="people"), json=body)
    assert answer.status_code in (400, 403), answer.text
    assert answer.json()["code"] in ("invalid_grant", "invite_invalid", "invalid_request", "registration_closed")
    assert tokens[kind] not in answer.text.replace(answer.json()["instance"], "")


@pytest.mark.parametrize("kind", KINDS)
def test_list_accepts_only_its_own_cursors(
    target: Installation, document: dict[str, Any], tokens: dict[str, str], kind: str
) -> None:
    lists = [
        path
        for method, path, operation in operations(document)
        if method == "GET" and "cursor" in parameters_of(document, operation)
    ]
    assert len(lists) >= 4
    with target.client_of("olga") as client:
        room = client.post("/api/rooms", json={}).json()["room"]["id"]
        for path in lists:
            answer = client.get(path.replace("{room_id}", room), params={"cursor": tokens[kind]})
            if (kind, path) == ("cursor", "/api/rooms"):
                assert answer.status_code == 200
            else:
                assert_problem(answer, 400, "invalid_request", field="cursor")


def test_bad_token_does_not_make_a_guest(target: Installation, tokens: dict[str, str]) -> None:
    """CWE-287: a failed login must not count as no login."""
    for kind in KINDS:
        if kind != "access":
            with target.client(tokens[kind]) as client:
                answer = client.post(f"/api/invites/{tokens['room invite']}/accept", json={})
            assert_problem(answer, 401, "invalid_token")


def test_100ms_accepts_no_token_of_the_gateway(target: Installation, tokens: dict[str, str]) -> None:
    for kind, token in tokens.items():
        headers = {"Authorization": f"Bearer {token}"}
        for path, wanted in (("/v2/rooms", "management"), ("/init?peer_id=p", "join")):
            if kind != wanted:
                answer = httpx.get(f"{target.emulator_url}{path}", headers=headers, verify=NO_TLS, trust_env=False)
                assert answer.status_code == 401, (kind, path)


def test_100ms_token_with_our_claims_is_refused(target: Installation, forge: Forge) -> None:
    both = forge.claims | {"access_key": target.env["HMS_APP_ACCESS_KEY"], "type": "app", "version": 2}
    assert_refused(target, jwt.encode(both, target.env["HMS_APP_SECRET"], headers={"kid": forge.kid}))
    assert_refused(target, forge.sign(forge.header | {"typ": "JWT"}, both))

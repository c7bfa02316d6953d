"""Refused input: each answer with its status, document and header fields."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

import httpx
import jwt
import pytest

from auth.keys import KeyRing
from tests.e2e.checks import assert_problem
from tests.servers import Installation

JSON = {"Content-Type": "application/json"}
NOWHERE = "0" * 24


@pytest.fixture(scope="module")
def hanna(installation: Installation) -> Any:
    with installation.client_of("hanna") as client:
        yield client


@pytest.fixture(scope="module")
def room_id(hanna: httpx.Client) -> str:
    return str(hanna.post("/api/rooms", json={}).json()["room"]["id"])


@pytest.fixture(scope="module")
def invited_room_id(hanna: httpx.Client) -> str:
    return str(hanna.post("/api/rooms", json={"access": "invited"}).json()["room"]["id"])


# --- 401 ----------------------------------------------------------------------------------------------------------


def test_request_without_a_token_is_challenged_to_log_in(installation: Installation) -> None:
    with installation.client() as client:
        answer = client.post("/api/rooms", json={})
    assert_problem(answer, 401, "invalid_token")
    # RFC 6750 section 3.1: no error code where no token was given
    assert answer.headers["www-authenticate"] == 'Bearer realm="hms-gateway"'


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", "..", "x" * 5000, "%00", "e30.e30.e30"])
def test_malformed_token_is_refused(installation: Installation, token: str) -> None:
    with installation.client(token) as client:
        answer = client.post("/api/rooms", json={})
    assert_problem(answer, 401, "invalid_token")
    assert answer.headers["www-authenticate"] == 'Bearer realm="hms-gateway", error="invalid_token"'


def test_expired_token_has_its_own_code_so_that_clients_refresh(installation: Installation) -> None:
    key = KeyRing([installation.env["GATEWAY_SECRET"]], "login-token").signing
    claims = jwt.decode(installation.token_of("hanna"), options={"verify_signature": False})
    claims |= {"iat": int(time.time()) - 700, "nbf": int(time.time()) - 700, "exp": int(time.time()) - 100}
    token = jwt.encode(claims, key.secret, headers={"kid": key.kid, "typ": "at+jwt"})
    with installation.client(token) as client:
        answer = client.get("/api/auth/me")
    assert_problem(answer, 401, "token_expired")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_another_gateways_token_is_refused(installation: Installation) -> None:
    key = KeyRing([secrets.token_urlsafe(48)], "login-token").signing
    claims = jwt.decode(installation.token_of("hanna"), options={"verify_signature": False})
    with installation.client(jwt.encode(claims, key.secret, headers={"kid": key.kid, "typ": "at+jwt"})) as client:
        assert_problem(client.get("/api/auth/me"), 401, "invalid_token")


@pytest.mark.parametrize(
    "body", [{"username": "hanna", "password": "wrong"}, {"username": "nobody", "password": "wrong"}]
)
def test_wrong_login_is_refused(installation: Installation, body: dict[str, str]) -> None:
    with installation.client() as client:
        assert_problem(client.post("/api/auth/login", json=body), 401, "invalid_credentials")


def test_nonsense_refresh_token_is_an_invalid_grant(installation: Installation) -> None:
    with installation.client() as client:
        assert_problem(client.post("/api/auth/refresh", json={"refresh_token": "v1.x"}), 400, "invalid_grant")


# --- 403 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "method", "path", "missing"),
    [
        ("mira", "POST", "/api/rooms", "rooms:create"),
        ("otto", "POST", "/api/rooms", "rooms:create"),
        ("otto", "POST", "/api/rooms/{room_id}/token", "rooms:join"),
        ("mira", "GET", "/api/admin/usage", "usage:read-any"),
        ("hanna", "GET", "/api/admin/usage", "usage:read-any"),
    ],
)
def test_missing_permission_is_named(
    installation: Installation, room_id: str, name: str, method: str, path: str, missing: str
) -> None:
    with installation.client_of(name) as client:
        answer = client.request(method, path.format(room_id=room_id), json={} if method == "POST" else None)
    document = assert_problem(answer, 403, "forbidden")
    assert document["missing_permission"] == missing
    assert missing in document["detail"]


def test_refused_role_comes_with_the_allowed_ones(installation: Installation, room_id: str) -> None:
    with installation.client_of("mira") as client:
        answer = client.post(f"/api/rooms/{room_id}/token", json={"role": "host"})
    assert assert_problem(answer, 403, "role_not_allowed")["allowed_roles"] == ["guest"]


def test_role_missing_from_the_template_is_unknown(hanna: httpx.Client, room_id: str) -> None:
    for role in ("director", "Guest", "guest ", ""):
        assert_problem(hanna.post(f"/api/rooms/{room_id}/token", json={"role": role}), 422, "unknown_role")


def test_template_missing_from_the_policy_is_refused(hanna: httpx.Client) -> None:
    for template in ("secret", "", "Default", "default "):
        refused = assert_problem(hanna.post("/api/rooms", json={"template": template}), 403, "template_not_allowed")
        assert refused["detail"] == "template: the policy has no template of that name. Allowed: default."
        assert refused["allowed_templates"] == ["default"]
    assert hanna.post("/api/rooms", json={"template": None}).json()["room"]["template"] == "default"


# --- 404 and 405 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_invited_room_is_not_found_without_a_relation(
    installation: Installation, invited_room_id: str, method: str
) -> None:
    """An invited room and one that does not exist get the same answer, so there is no oracle."""
    details = set()
    with installation.client_of("hugo") as client:
        for room_id in (invited_room_id, NOWHERE, "f" * 24, "nonsense", "0" * 23, "0" * 25, NOWHERE.replace("0", "F")):
            path = f"/api/rooms/{room_id}" + ("/token" if method == "POST" else "")
            answer = client.request(method, path, json={} if method == "POST" else None)
            details.add(assert_problem(answer, 404, "not_found")["detail"])
    assert len(details) == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/", 405, "method_not_allowed"),
        ("GET", "/api", 404, "not_found"),
        ("GET", "/api/room", 404, "not_found"),
        ("POST", "/api/v2/rooms", 404, "not_found"),
        ("GET", "/.env", 404, "not_found"),
        ("GET", "/api/rooms/x/y/z", 404, "not_found"),
        ("DELETE", "/api/rooms", 405, "method_not_allowed"),
        ("PUT", "/api/auth/login", 405, "method_not_allowed"),
        ("GET", "/api/auth/login", 405, "method_not_allowed"),
        ("POST", "/api/usage", 405, "method_not_allowed"),
        ("PATCH", "/api/rooms", 405, "method_not_allowed"),
        ("GET", f"/api/rooms/{NOWHERE}/token", 405, "method_not_allowed"),
    ],
)
def test_unknown_route_or_method_is_refused(
    installation: Installation, hanna: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    with installation.client() as stranger:
        for client in (stranger, hanna):
            answer = client.request(method, path)
            assert_problem(answer, status, code)
            assert ("allow" in answer.headers) == (status == 405)


# --- 400, 413, 415 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/api/rooms", {"nmae": "x"}, "nmae"),
        ("/api/rooms", {"name": 7}, "name"),
        ("/api/rooms", {"name": ["x"]}, "name"),
        ("/api/rooms", {"name": "x" * 101}, "name"),
        ("/api/rooms", {"name": "two\nlines"}, "name"),
        ("/api/rooms", {"name": "nul\x00"}, "name"),
        ("/api/rooms", {"description": {"a": 1}}, "description"),
        ("/api/rooms", {"description": "x" * 501}, "description"),
        ("/api/rooms", {"access": "public"}, "access"),
        ("/api/rooms", {"access": 1}, "access"),
        ("/api/rooms", {"template": True}, "template"),
        ("/api/rooms/{room_id}/token", {"role": 1}, "role"),
        ("/api/rooms/{room_id}/token", {"role": "x" * 65}, "role"),
        ("/api/rooms/{room_id}/token", {"userId": 7}, "userId"),
        ("/api/rooms/{room_id}/token", {"user_id": "somebody"}, "user_id"),
        ("/api/auth/login", {}, "username"),
        ("/api/auth/login", {"username": "hanna"}, "password"),
        ("/api/auth/login", {"username": None, "password": "x"}, "username"),
        ("/api/auth/login", {"username": "x" * 257, "password": "x"}, "username"),
        ("/api/auth/login", {"username": "x", "password": "y" * 4097}, "password"),
        ("/api/auth/login", {"username": "x", "password": "y", "otp": "1"}, "otp"),
        ("/api/auth/refresh", {}, "refresh_token"),
        ("/api/auth/refresh", {"refresh_token": 1}, "refresh_token"),
        ("/api/auth/logout", {"scope": "everybody"}, "scope"),
    ],
    ids=str,
)
def test_wrong_field_is_named(hanna: httpx.Client, room_id: str, path: str, body: dict[str, Any], field: str) -> None:
    assert_problem(hanna.post(path.format(room_id=room_id), json=body), 400, "invalid_request", field=field)


@pytest.mark.parametrize(
    ("method", "path", "body", "field", "rule"),
    [
        ("POST", "/api/rooms", {"name": 7}, "name", "must be a string or null, not an integer"),
        ("POST", "/api/rooms", {"name": "x" * 101}, "name", "must be a string of length <= 100"),
        ("POST", "/api/rooms", {"description": {}}, "description", "must be a string or null, not an object"),
        ("PATCH", "/api/rooms/{room_id}", {"enabled": "no"}, "enabled", "must be true or false or null, not a string"),
        ("POST", "/api/rooms/{room_id}/invites", {"max_uses": 0}, "max_uses", "must be an integer >= 1"),
        ("POST", "/api/rooms/{room_id}/invites", {"max_uses": 1.5}, "max_uses", "must be an integer, not a number"),
        ("POST", "/api/auth/login", {"username": ["x"], "password": "y"}, "username", "must be a string, not an array"),
        ("GET", "/api/rooms?limit=0", None, "limit", "must be an integer >= 1"),
        ("GET", "/api/rooms?limit=ten", None, "limit", "must be an integer"),
    ],
)
def test_rules_use_the_terms_of_json(
    hanna: httpx.Client, room_id: str, method: str, path: str, body: Any, field: str, rule: str
) -> None:
    document = assert_problem(hanna.request(method, path.format(room_id=room_id), json=body), 400, "invalid_request")
    assert document["errors"] == [{"field": field, "rule": rule}]
    assert document["detail"] == f"{field}: {rule}"


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"nonsense",
        b"[]",
        b"null",
        b'"text"',
        b"1",
        b'{"name": "x"} trailing',
        b"{'name': 'x'}",
        b'{"name": NaN}',
        "{}".encode("utf-16"),
    ],
    ids=lambda content: repr(content[:12]),
)
@pytest.mark.parametrize("path", ["/api/rooms", "/api/auth/login"])
def test_body_that_is_not_a_json_object_is_refused(hanna: httpx.Client, path: str, content: bytes) -> None:
    assert_problem(hanna.post(path, content=content, headers=JSON), 400, "invalid_request")


def test_lone_surrogate_is_refused(hanna: httpx.Client) -> None:
    """RFC 8259 section 8.2: its interpretation is unpredictable."""
    for path, field in (("/api/rooms", "name"), ("/api/auth/login", "username")):
        content = json.dumps({field: "\ud800"}).encode()
        assert_problem(hanna.post(path, content=content, headers=JSON), 400, "invalid_request")


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"cursor": "x" * 300}, "cursor"),
    ],
    ids=str,
)
def test_wrong_query_parameter_is_named(hanna: httpx.Client, params: dict[str, str], field: str) -> None:
    assert_problem(hanna.get("/api/rooms", params=params), 400, "invalid_request", field=field)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"from": "yesterday"}, "from"),
        ({"to": "2026-13-01"}, "to"),
        ({"from": "2026-01-02", "to": "2026-01-01"}, "from"),
        ({"from": "2020-01-01", "to": "2026-01-01"}, "from"),
        ({"action": "nonsense"}, "action"),
        ({"limit": "501"}, "limit"),
        ({"cursor": "nonsense"}, "cursor"),
    ],
    ids=str,
)
def test_wrong_report_parameter_is_named(installation: Installation, params: dict[str, str], field: str) -> None:
    with installation.client_of("otto") as operator:
        assert_problem(operator.get("/api/admin/usage", params=params), 400, "invalid_request", field=field)


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("/api/rooms", "limits=5", "limits"),
        ("/api/rooms", "limit=5&nonsense", "nonsense"),
        ("/api/rooms", "limit=1&limit=2", "limit"),
        ("/api/rooms", "limit=1&limit=1", "limit"),
        ("/api/rooms", "Limit=5", "Limit"),
        ("/api/rooms", "limit[]=5", "limit[]"),
        ("/api/rooms", "access_token=x", "access_token"),
        ("/api/rooms", "x" * 500 + "=1", "x" * 64),
        ("/api/auth/me", "user=hugo", "user"),
        ("/api/usage", "%66rom=2026-01-01", "from"),
        ("/health/live", "verbose", "verbose"),
        ("/openapi.json", "v=1", "v"),
    ],
)
def test_unknown_and_repeated_query_parameters_are_named(
    hanna: httpx.Client, path: str, query: str, field: str
) -> None:
    assert_problem(hanna.get(f"{path}?{query}"), 400, "invalid_request", field=field)


@pytest.mark.parametrize("query", ["?", "?limit=5", "?%6cimit=5", "?limit=5&", "?&limit=5"])
def test_query_parameters_of_a_route_are_accepted(hanna: httpx.Client, query: str) -> None:
    assert hanna.get(f"/api/rooms{query}").status_code == 200


@pytest.mark.parametrize("value", [{}, [], 2, 0, "yes", "true", None], ids=repr)
def test_a_json_boolean_is_only_true_or_false(hanna: httpx.Client, room_id: str, value: Any) -> None:
    answer = hanna.post(f"/api/rooms/{room_id}/invites", json={"guests": value})
    assert_problem(answer, 400, "invalid_request", field="guests")


@pytest.mark.parametrize("value", ["5", 5.0, 1e2, True, "five"], ids=repr)
def test_a_json_integer_must_be_written_as_one(hanna: httpx.Client, room_id: str, value: Any) -> None:
    answer = hanna.post(f"/api/rooms/{room_id}/invites", json={"max_uses": value})
    assert_problem(answer, 400, "invalid_request", field="max_uses")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/rooms?limit=5.0", "limit"),
        ("/api/rooms?limit=1e1", "limit"),
        ("/api/rooms?limit=%205", "limit"),
        ("/api/rooms?limit=null", "limit"),
        ("/api/rooms?limit=", "limit"),
        ("/api/admin/usage?to=null", "to"),
        ("/api/admin/usage?to=20261122", "to"),
        ("/api/admin/usage?from=1700000000", "from"),
        ("/api/admin/audit?from=1700000000", "from"),
        ("/api/admin/audit?to=null", "to"),
    ],
)
def test_query_values_must_have_the_documented_form(installation: Installation, path: str, field: str) -> None:
    with installation.client_of("otto") as operator:
        assert_problem(operator.get(path), 400, "invalid_request", field=field)


@pytest.mark.parametrize(
    "request_",
    [
        {"json": {"webhook": 1}},
        {"json": {"name": 7}},
        {"json": {"name": "two\nlines"}},
        {"content": b"{", "headers": JSON},
        {"content": b"name=x", "headers": {"Content-Type": "text/plain"}},
        {"json": {}, "headers": {"Idempotency-Key": "with space"}},
        {"json": {}, "params": {"nonsense": "1"}},
    ],
    ids=str,
)
def test_a_create_with_invalid_input_is_not_charged_to_the_limit_of_creates(
    installation: Installation, hanna: httpx.Client, request_: dict[str, Any]
) -> None:
    def left() -> int:
        limits = hanna.get("/api/usage").json()["limits"]
        return next(int(limit["remaining"]) for limit in limits if limit["name"] == "rooms.create")

    before = left()
    answer = hanna.post("/api/rooms", **request_)
    status, code = (415, "unsupported_media_type") if "name=x" in str(request_) else (400, "invalid_request")
    assert_problem(answer, status, code)
    assert left() >= before
    assert '"api";' in answer.headers["ratelimit"]
    assert "rooms.create" not in answer.headers["ratelimit"]


def test_refused_query_is_counted_as_refused(hanna: httpx.Client) -> None:
    def refused() -> int:
        return int(hanna.get("/api/usage").json()["usage"]["total"]["api"]["refused"]["invalid_request"])

    hanna.get("/api/rooms?nonsense=1")
    before = refused()
    hanna.get("/api/rooms?nonsense=1")
    assert refused() == before + 1


def test_report_about_an_unknown_user_is_not_found(installation: Installation) -> None:
    with installation.client_of("otto") as operator:
        assert_problem(operator.get("/api/admin/usage", params={"user": "nobody"}), 404, "not_found")


def test_cursor_of_one_list_is_refused_by_another(installation: Installation, hanna: httpx.Client) -> None:
    for _ in range(2):
        assert hanna.post("/api/rooms", json={}).status_code == 201
    cursor = hanna.get("/api/rooms", params={"limit": 1}).json()["next_cursor"]
    assert hanna.get("/api/rooms", params={"limit": 1, "cursor": cursor}).status_code == 200
    with installation.client_of("otto") as operator:
        answer = operator.get("/api/admin/usage", params={"cursor": cursor})
    assert_problem(answer, 400, "invalid_request", field="cursor")
    assert_problem(hanna.get("/api/rooms", params={"cursor": f"{cursor}x"}), 400, "invalid_request", field="cursor")


@pytest.mark.parametrize("path", ["/api/rooms", "/api/rooms/{room_id}/token", "/api/auth/login"])
def test_oversized_body_is_refused_with_and_without_its_length(hanna: httpx.Client, room_id: str, path: str) -> None:
    path = path.format(room_id=room_id)
    content = json.dumps({"name": "x" * 17_000}).encode()
    assert_problem(hanna.post(path, content=content, headers=JSON), 413, "payload_too_large")
    chunked = hanna.post(path, content=(content[at : at + 4096] for at in range(0, len(content), 4096)), headers=JSON)
    assert_problem(chunked, 413, "payload_too_large")


@pytest.mark.parametrize("path", ["/api/rooms", "/api/rooms/{room_id}/token", "/api/auth/login"])
@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp", "json"],
)
def test_other_media_types_are_refused(hanna: httpx.Client, room_id: str, path: str, content_type: str) -> None:
    answer = hanna.post(path.format(room_id=room_id), content=b"{}", headers={"Content-Type": content_type})
    assert_problem(answer, 415, "unsupported_media_type")


def test_body_without_a_type_is_refused(hanna: httpx.Client) -> None:
    assert_problem(hanna.post("/api/rooms", content=b"{}"), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        'application/json;Charset="UTF\\-8";',
        "Application/JSON",
        'application/json ;x="a; charset=latin1"',
    ],
)
def test_every_spelling_of_the_json_media_type_is_accepted(hanna: httpx.Client, content_type: str) -> None:
    answer = hanna.post("/api/rooms", content=b"{}", headers={"Content-Type": content_type})
    assert answer.status_code == 201


def test_request_id_is_the_gateways_own(hanna: httpx.Client) -> None:
    """An id chosen by the caller could forge log lines."""
    seen = set()
    for _ in range(3):
        answer = hanna.get("/api/auth/me", headers={"X-Request-Id": "mine"})
        assert answer.status_code == 200
        seen.add(answer.headers["x-request-id"])
    assert len(seen) == 3
    assert "mine" not in seen


def test_refused_create_is_not_sent_to_100ms(installation: Installation, hanna: httpx.Client) -> None:
    before = len(installation.upstream_calls())
    hanna.post("/api/rooms", json={"name": 7})
    hanna.get(f"/api/rooms/{NOWHERE}")
    hanna.post(f"/api/rooms/{NOWHERE}/token", json={})
    assert len(installation.upstream_calls()) == before

"""The OpenAPI document is valid, complete and described in words."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
import schemathesis
from jsonschema_rs import ValidationError  # schemathesis uses it too

from docs.problem_codes import WHAT_TO_DO
from gateway.apidoc import openapi
from gateway.apidoc.components import HEADERS
from gateway.apidoc.openapi import describe
from gateway.http.problem_codes import STATUS
from gateway.routes import account, invites, join_tokens, keys, limits, login, members, rooms, users
from gateway.routes.table import DOCS, ROUTES

DOCUMENT = describe(ROUTES)
OPERATIONS = [(f"{method} {path}", one) for path, item in DOCUMENT["paths"].items() for method, one in item.items()]
SCHEMAS = DOCUMENT["components"]["schemas"]
SENTENCE = re.compile(r"[A-Z0-9`].*\.", re.DOTALL)


def operation(name: str) -> dict[str, Any]:
    found: dict[str, Any] = dict(OPERATIONS)[name]
    return found


def seen(place: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference within the document."""
    found: Any = DOCUMENT
    for part in place["$ref"].split("/")[1:] if "$ref" in place else ():
        found = found[part]
    return found if "$ref" in place else place


def test_document_is_valid_openapi_3_1() -> None:
    schemathesis.openapi.from_dict(DOCUMENT).validate()
    for breakage in ({"paths": {"/x": {"get": {"responses": []}}}}, {"info": {}}, {"components": {"headers": []}}):
        with pytest.raises(ValidationError):
            schemathesis.openapi.from_dict(DOCUMENT | breakage).validate()


def test_every_reference_exists_and_every_component_is_used() -> None:
    text = json.dumps(DOCUMENT)
    used = set(re.findall(r'"\$ref": "#/components/([^"]+)"', text))
    assert used == {
        f"{kind}/{name}"
        for kind, parts in DOCUMENT["components"].items()
        for name in parts
        if kind != "securitySchemes"
    }


def test_document_has_every_route_except_its_own() -> None:
    def named(handlers: list[Any]) -> set[str]:
        return {
            f"{str(method).lower()} {re.sub(r':[a-z]+}', '}', path)}"
            for handler in handlers
            for path in handler.paths
            for method in handler.http_methods
        }

    assert set(dict(OPERATIONS)) == named(ROUTES)
    assert named(DOCS) == {f"get {path}" for path in ("/openapi.json", "/docs", "/docs/docs.css", "/docs/docs.js")}


def test_no_field_or_parameter_has_the_name_of_a_dependency() -> None:
    """Litestar reports a wrong value of a field as an internal error if a dependency has the field's name."""
    names = {name for schema in DOCUMENT["components"]["schemas"].values() for name in schema.get("properties", ())}
    names |= {one["name"] for _, operation in OPERATIONS for one in operation.get("parameters", ()) if "name" in one}
    assert "limit" in names
    assert "services" not in names


@pytest.mark.parametrize(("name", "one"), OPERATIONS)
def test_every_operation_and_parameter_is_described(name: str, one: dict[str, Any]) -> None:
    assert re.match(r"[A-Z][a-z]+ .*[^.\s]$", one["summary"]), one["summary"]
    assert one["x-who"]
    for parameter in map(seen, one.get("parameters", ())):
        assert SENTENCE.fullmatch(parameter["description"]), parameter


def test_every_field_of_every_schema_is_described() -> None:
    fields = {f"{name}.{field}": rules for name, one in SCHEMAS.items() for field, rules in one["properties"].items()}
    assert len(fields) > 180
    assert [name for name, rules in fields.items() if not SENTENCE.fullmatch(rules.get("description", ""))] == []


def test_every_instant_has_its_format() -> None:
    for name, one in SCHEMAS.items():
        for field, rules in one["properties"].items():
            if field.endswith("_at") or field in ("at", "until", "blocked_until"):
                formats = {kind.get("format") for kind in rules.get("anyOf", [rules]) if kind["type"] != "null"}
                assert formats == {"date-time"}, f"{name}.{field}"


def test_every_tag_is_used_and_described() -> None:
    used = {tag for _, one in OPERATIONS for tag in one["tags"]}
    assert {tag["name"] for tag in DOCUMENT["tags"] if SENTENCE.fullmatch(tag["description"])} == used
    paths = list(DOCUMENT["paths"])
    assert [stem for stem in openapi._TAGS if not any(path.startswith(stem) for path in paths)] == []


def test_every_example_is_a_valid_body() -> None:
    modules = (account, invites, join_tokens, keys, limits, login, members, rooms, users)
    bodies = [one["requestBody"]["content"]["application/json"] for _, one in OPERATIONS if "requestBody" in one]
    examples = {body["schema"]["$ref"].rpartition("/")[2]: body["example"] for body in bodies if "example" in body}
    assert {"Login", "Register", "CreateRoom", "ChangeRoom", "EndRoom", "MintToken"} <= set(examples)
    assert {"SetMember", "MakeInvite", "CreateUser", "SetOverride"} <= set(examples)
    for name, example in examples.items():
        kind = next(vars(module)[name] for module in modules if name in vars(module))
        msgspec.json.decode(msgspec.json.encode(example), type=kind)


def test_bodies_have_limits_defaults_and_no_other_fields() -> None:
    invite = SCHEMAS["MakeInvite"]
    assert invite["additionalProperties"] is False
    assert invite["required"] == []
    uses = invite["properties"]["max_uses"]
    assert (uses["minimum"], uses["maximum"], uses["default"]) == (1, 10_000, 1)
    assert SCHEMAS["CreateUser"]["properties"]["roles"]["items"]["maxLength"] == 32
    assert operation("post /api/rooms/{room_id}/invites")["requestBody"]["required"] is False
    assert operation("post /api/auth/login")["requestBody"]["required"] is True


def test_responses_require_the_fields_that_are_always_present() -> None:
    assert SCHEMAS["RoomCreated"]["required"] == ["room", "success"]
    assert SCHEMAS["Counts"]["required"] == ["ok", "denied", "refused", "failed", "would_deny"]
    assert "relation" in SCHEMAS["Room"]["properties"]
    assert "relation" not in SCHEMAS["Room"]["required"]
    assert SCHEMAS["Room"]["properties"]["created_at"]["format"] == "date-time"


def test_create_room_documents_callers_parameters_and_refusals() -> None:
    one = operation("post /api/rooms")
    assert one["security"] == [{"login": ["rooms:create"]}]
    assert one["x-who"] == "users with the permission `rooms:create`"
    (key,) = one["parameters"]
    assert (key["name"], key["in"], key["required"]) == ("Idempotency-Key", "header", False)
    assert key["schema"] == {"type": "string", "pattern": "^[!-~]{1,128}$"}
    created = one["responses"]["201"]
    assert set(created["headers"]) == {"X-Request-Id", "RateLimit", "RateLimit-Policy", "Idempotency-Replayed"}
    limited = seen(one["responses"]["429"])
    assert set(limited["headers"]) == {"X-Request-Id", "RateLimit", "RateLimit-Policy", "Retry-After"}
    conflict = seen(one["responses"]["409"])
    assert set(conflict["headers"]) == {"X-Request-Id", "Retry-After"}
    assert conflict["headers"]["Retry-After"]["required"] is False, "name_taken has none"
    problem, only = limited["content"]["application/problem+json"]["schema"]["allOf"]
    assert problem == {"$ref": "#/components/schemas/Problem"}
    assert only["properties"]["code"]["enum"] == ["rate_limited", "quota_exceeded"]
    assert "WWW-Authenticate" in seen(one["responses"]["401"])["headers"]
    assert "Content Too Large" in seen(one["responses"]["413"])["description"], "on every Python"


def test_parameters_have_their_rules_and_defaults() -> None:
    _, limit, cursor = operation("get /api/rooms")["parameters"]
    assert limit["description"] == "How many items a page has at most."
    assert limit["schema"] == {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}
    assert cursor["schema"] == {"type": "string", "maxLength": 512}
    names = {one["name"]: one for one in operation("get /api/admin/usage")["parameters"]}
    assert names["from"]["schema"] == {"type": "string", "format": "date"}
    room_id = operation("get /api/rooms/{room_id}")["parameters"][0]
    assert room_id == {"$ref": "#/components/parameters/room_id"}
    assert seen(room_id)["in"] == "path"
    assert seen(room_id)["schema"] == {"type": "string", "examples": ["64f0c0ffee64f0c0ffee64f0"]}
    assert seen(room_id)["required"] is True


@pytest.mark.parametrize(
    ("name", "who"),
    [
        ("post /api/auth/login", "anyone"),
        ("post /api/auth/logout", "anyone with a token of the session"),
        ("get /api/auth/me", "all users who are logged in"),
        ("post /api/rooms/{room_id}/token", "users with a relation to the room and the permission `rooms:join`"),
        ("post /api/rooms/{room_id}/end", "owner or cohost of the room; or users with the permission `rooms:end-any`"),
        ("post /api/invites/{code}/accept", "users with the permission `rooms:join`; anyone with an invite for guests"),
    ],
)
def test_callers_of_a_route_are_those_of_the_policy(name: str, who: str) -> None:
    assert operation(name)["x-who"] == who


def test_public_route_requires_no_login() -> None:
    assert "security" not in operation("post /api/auth/login")
    guests = "users with the permission `rooms:join`; anyone with an invite for guests"
    assert operation("post /api/invites/{code}/accept")["x-who"] == guests
    assert operation("post /api/invites/{code}/accept")["security"] == [{}, {"login": ["rooms:join"]}]


def test_every_code_is_explained_once() -> None:
    assert list(WHAT_TO_DO) == list(STATUS)
    assert len(HEADERS) == 6


def test_document_stays_small() -> None:
    assert len(msgspec.json.encode(DOCUMENT)) < 180_000

"""Claims: each is present, has its type and a bounded size. RFC 7519 section 4, RFC 8725 sections 3.8 to 3.10."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.attack.forge import Forge, assert_refused, encode
from tests.e2e.checks import assert_problem
from tests.servers import Installation


# RFC 7519 section 4: each claim is present and has its type; RFC 8725 sections 3.8 and 3.9: issuer and audience.
@pytest.mark.parametrize(
    "change",
    [
        {"iss": "https://evil.example"},
        {"iss": ["hms-gateway"]},
        {"aud": "another"},
        {"aud": ["hms-gateway"]},
        {"aud": None},
        {"sub": 7},
        {"sub": ""},
        {"sub": "u" + "a" * 20},
        {"sub": "*"},
        {"sub": "}:x"},
        {"sid": "0" * 20},
        {"sid": ""},
        {"sid": "*"},
        {"sid": ["a"]},
        {"roles": "admin"},
        {"roles": [1]},
        {"roles": {"admin": 1}},
        {"ver": "1"},
        {"ver": True},
        {"ver": 1.0},
        {"exp": "99999999999"},
        {"exp": 1e12},
        {"exp": True},
        {"exp": None},
        {"nbf": 99_999_999_999},
        {"iat": 99_999_999_999},
        {"iat": "now"},
        {"jti": 1},
        {"auth_time": None},
    ],
    ids=str,
)
def test_claim_out_of_order_is_refused(target: Installation, forge: Forge, change: dict[str, Any]) -> None:
    """The token is signed with the right key, so this is the second line of defence."""
    assert_refused(target, forge.sign(forge.header, forge.claims | change))


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "sid", "roles", "ver", "jti", "iat", "nbf", "exp", "auth_time"])
def test_missing_claim_is_refused(target: Installation, forge: Forge, name: str) -> None:
    assert_refused(target, forge.sign(forge.header, {key: value for key, value in forge.claims.items() if key != name}))


def test_old_version_and_past_expiry_ask_for_a_refresh(target: Installation, forge: Forge) -> None:
    assert_refused(target, forge.sign(forge.header, forge.claims | {"ver": 2}), code="token_expired")
    past = {"exp": int(time.time()) - 11}
    assert_refused(target, forge.sign(forge.header, forge.claims | past), code="token_expired")


@pytest.mark.parametrize("payload", [b"[]", b"null", b'"x"', b"1", b"", b"{", b"\xff", b"[" * 2000, b'{"exp":1e999}'])
def test_payload_without_claims_is_refused(target: Installation, forge: Forge, payload: bytes) -> None:
    assert_refused(target, forge.sign_raw(json.dumps(forge.header).encode(), payload))


# RFC 8259 section 6: NaN and infinities are not JSON, though Python reads them; all comparisons with NaN are false.
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1.0e3", "0x10", "1_000"])
@pytest.mark.parametrize("name", ["exp", "nbf", "iat", "ver", "auth_time"])
def test_nan_and_infinity_are_refused(target: Installation, forge: Forge, name: str, number: str) -> None:
    payload = json.dumps(forge.claims | {name: "@"}).replace('"@"', number).encode()
    signed = forge.sign_raw(json.dumps(forge.header).encode(), payload)
    with target.client(signed) as client:
        assert_problem(client.get("/api/auth/me"), 401, "invalid_token")


# CWE-190, CWE-400 (CVE-2020-10735: digits of integers): huge numbers cause a 401, never an internal error.
@pytest.mark.parametrize(
    ("name", "number", "code"),
    [
        ("ver", "9" * 1500, "token_expired"),
        ("ver", "-1", "token_expired"),
        ("ver", str(2**63), "token_expired"),
        ("ver", "0", "token_expired"),
        ("exp", "-" + "9" * 1500, "token_expired"),
        ("exp", "0", "token_expired"),
        ("nbf", "9" * 1500, "invalid_token"),
        ("iat", "9" * 1500, "invalid_token"),
        ("exp", "9" * 4400, "invalid_token"),
    ],
    ids=lambda value: value[:12],
)
def test_huge_number_is_refused(target: Installation, forge: Forge, name: str, number: str, code: str) -> None:
    payload = json.dumps(forge.claims | {name: "@"}).replace('"@"', number).encode()
    assert_refused(target, forge.sign_raw(json.dumps(forge.header).encode(), payload), code=code)


# RFC 7519 section 4: names of claims are unique, or the last one counts, both for the signer and for the gateway.
def test_repeated_claim_has_one_meaning(target: Installation, forge: Forge) -> None:
    header, claims = json.dumps(forge.header).encode(), json.dumps(forge.claims)
    stranger = f'"sub":"u{"a" * 20}"'
    assert_refused(target, forge.sign_raw(header, f"{claims[:-1]},{stranger}}}".encode()))
    with target.client(forge.sign_raw(header, f"{{{stranger},{claims[1:]}".encode())) as client:
        assert client.get("/api/auth/me").json()["user"]["id"] == forge.login["user"]["id"]


# CWE-674: nesting that exhausts a recursive parser.
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_nesting_is_refused(target: Installation, forge: Forge, opening: str) -> None:
    header = json.dumps(forge.header).encode()
    for depth in (500, 2900 // len(opening)):
        payload = json.dumps(forge.claims | {"deep": "@"}).replace('"@"', opening * depth).encode()
        assert_refused(target, forge.sign_raw(header, payload))
        closed = opening * depth + "1" + ("]" if opening == "[" else "}") * depth
        signed = forge.sign_raw(header, json.dumps(forge.claims | {"roles": "@"}).replace('"@"', closed).encode())
        assert_refused(target, signed)


def test_roles_in_a_token_count_only_with_the_right_signature(target: Installation, forge: Forge) -> None:
    """CWE-565: the roles are in the token, so only the signature protects them; without it nothing is read."""
    raised = forge.claims | {"roles": ["admin", "omni"]}
    head = encode(json.dumps(forge.header).encode())
    body = encode(json.dumps(raised).encode())
    assert_refused(target, f"{head}.{body}.{forge.genuine.split('.')[2]}")


# CWE-74: `sub` and `sid` become parts of Redis keys; even when signed they must not reach another user's keys.
@pytest.mark.parametrize(
    "change",
    [
        {"sub": "a}:1:{b"},
        {"sub": "*"},
        {"sub": "x\r\nFLUSHALL\r\n"},
        {"sub": "\u0000"},
        {"sub": "\ud800"},
        {"sid": "../"},
        {"sid": "\r\n*1\r\n$8\r\nFLUSHALL\r\n"},
        {"sid": "\ud800"},
        {"sub": "\u202e" + "u" * 500},
    ],
    ids=ascii,
)
def test_redis_commands_in_a_claim_do_nothing(target: Installation, forge: Forge, change: dict[str, str]) -> None:
    assert_refused(target, forge.sign(forge.header, forge.claims | change))
    with target.client(forge.genuine) as client:
        assert client.get("/api/auth/me").status_code == 200

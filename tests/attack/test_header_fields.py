"""Header fields that change what a signature means. RFC 7515 section 4.1.11, RFC 7797, RFC 8725 sections 3.6, 3.11."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest

from tests.attack.forge import Forge, assert_refused, encode
from tests.servers import Installation


# RFC 7515 section 4.1.11 (crit; CVE-2026-32597 of PyJWT is of this kind), RFC 7797 (b64), RFC 8725 section 3.6 (zip).
@pytest.mark.parametrize(
    "extra",
    [{"crit": ["exp"]}, {"crit": ["b64"], "b64": False}, {"b64": False}, {"zip": "DEF"}, {"cty": "JWT"}, {"x": 1}],
    ids=str,
)
def test_foreign_header_parameters_are_refused(target: Installation, forge: Forge, extra: dict[str, Any]) -> None:
    assert_refused(target, forge.sign(forge.header | extra))


# RFC 8725 section 3.11: the type states the purpose of the token.
@pytest.mark.parametrize("kind", ["JWT", "AT+JWT", "application/at+jwt", "id+jwt", "", None])
def test_token_of_another_type_is_refused(target: Installation, forge: Forge, kind: object) -> None:
    assert_refused(target, forge.sign(forge.header | {"typ": kind}))


# RFC 7515 section 4: names are unique, or the last one counts; the check and the use must agree on one.
@pytest.mark.parametrize("first", ['"alg":"none"', '"typ":"JWT"', '"kid":"../x"', '"crit":["exp"]'])
def test_repeated_header_parameter_has_one_meaning(target: Installation, forge: Forge, first: str) -> None:
    payload = json.dumps(forge.claims).encode()
    last = forge.sign_raw(f"{json.dumps(forge.header)[:-1]},{first}}}".encode(), payload)
    assert_refused(target, last)
    token = forge.sign_raw(f"{{{first},{json.dumps(forge.header)[1:]}".encode(), payload)
    if "crit" in first:
        assert_refused(target, token)
    else:
        head, body, _ = token.split(".")
        assert_refused(target, f"{head}.{body}.{encode(b'unsigned')}")


# RFC 8725 section 3.6 (CVE-2024-21319, a bomb in a compressed token): nothing is inflated, whatever the header says.
def test_compressed_payload_is_not_inflated(target: Installation, forge: Forge) -> None:
    bomb = zlib.compress(b" " * 2_000_000 + json.dumps(forge.claims).encode())
    assert_refused(target, forge.sign_raw(json.dumps(forge.header | {"zip": "DEF"}).encode(), bomb))
    assert_refused(target, forge.sign_raw(json.dumps(forge.header).encode(), bomb))


# RFC 8725 section 3.11: `typ` has one value here.
@pytest.mark.parametrize("name", ["alg", "kid", "typ"])
def test_header_without_a_required_parameter_is_refused(target: Installation, forge: Forge, name: str) -> None:
    assert_refused(target, forge.sign({key: value for key, value in forge.header.items() if key != name}))


@pytest.mark.parametrize("header", [b"[]", b"null", b'"HS256"', b"", b"{", b"\xff", b"[" * 2500, b'{"a":' * 500])
def test_header_that_is_not_an_object_is_refused(target: Installation, forge: Forge, header: bytes) -> None:
    assert_refused(target, forge.sign_raw(header, json.dumps(forge.claims).encode()))

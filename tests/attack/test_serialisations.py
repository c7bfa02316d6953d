"""Only the compact form of a JWS is a login token. RFC 7515 section 7, RFC 7516, RFC 8725 sections 2.4 and 3.12."""

from __future__ import annotations

import json
import time

import pytest

from tests.attack.forge import Forge, assert_refused, encode
from tests.servers import Installation


# RFC 7516: five parts are a JWE; RFC 7515 section 7.2: the JSON serialisations (CVE-2022-3102 of jwcrypto confused the
# two kinds).
def test_other_serialisations_are_refused(target: Installation, forge: Forge) -> None:
    head, payload, signature = forge.genuine.split(".")
    jwe_head = encode(b'{"alg":"dir","enc":"A128GCM"}')
    assert_refused(target, f"{jwe_head}..{encode(b'iv')}.{payload}.{signature}")
    assert_refused(target, f"{head}.{payload}.{signature}.{payload}.{signature}")
    flat = {"protected": head, "payload": payload, "signature": signature}
    for document in (flat, {"payload": payload, "signatures": [{"protected": head, "signature": signature}]}):
        assert_refused(target, json.dumps(document, separators=(",", ":")))
        assert_refused(target, encode(json.dumps(document).encode()))


# RFC 7516 section 3.1 and RFC 7519 section 11.2: an encrypted or nested token, if read, would bring its own rules
# (CVE-2023-51774, json-jwt: a JWE where a JWS was expected).
@pytest.mark.parametrize("algorithm", ["dir", "A128KW", "A256GCMKW", "RSA-OAEP", "ECDH-ES", "PBES2-HS256+A128KW"])
def test_encrypted_token_is_refused(target: Installation, forge: Forge, algorithm: str) -> None:
    head = {"alg": algorithm, "enc": "A256GCM", "kid": forge.kid, "typ": "at+jwt", "p2c": 2_000_000_000}
    parts = [json.dumps(head).encode(), b"key", b"iv", json.dumps(forge.claims).encode(), b"tag"]
    begun = time.monotonic()
    assert_refused(target, ".".join(encode(part) for part in parts))
    assert (
        time.monotonic() - begun < 2
    )  # CVE-2022-36083 and similar: a token must not set the rounds of a key derivation


def test_nested_token_is_refused(target: Installation, forge: Forge) -> None:
    """RFC 7519 section 5.2: a token inside a token, signed with the right key."""
    header = json.dumps(forge.header).encode()
    assert_refused(target, forge.sign_raw(header, forge.genuine.encode()))
    assert_refused(target, forge.sign_raw(json.dumps(forge.header | {"cty": "JWT"}).encode(), forge.genuine.encode()))
    assert_refused(target, forge.sign_raw(header, json.dumps(forge.genuine).encode()))


def test_detached_payload_is_refused(target: Installation, forge: Forge) -> None:
    """RFC 7515 appendix F."""
    head, _, signature = forge.genuine.split(".")
    assert_refused(target, f"{head}..{signature}")

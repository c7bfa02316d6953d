"""A key is used with its own algorithm and issuer only. RFC 8725 sections 2.1, 3.1 and 3.8."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from auth.signing_keys import SigningKey, read_file
from auth.tokens import ISSUER
from tests.attack.forge import Forge, assert_refused, encode
from tests.servers import Installation


@pytest.fixture(scope="module")
def keys(target: Installation) -> tuple[SigningKey, ...]:
    return read_file(Path(target.env["GATEWAY_SIGNING_KEY"]))


def public_forms(key: SigningKey) -> list[bytes]:
    """Return the forms in which a public key is published or written: what an attacker can take for a secret."""
    pem = key.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = key.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return [pem, pem.strip(), der, json.dumps(key.jwk).encode(), key.jwk["x"].encode(), key.kid.encode()]


def test_published_key_is_not_a_secret(target: Installation, forge: Forge, keys: tuple[SigningKey, ...]) -> None:
    """CVE-2015-9235 (jsonwebtoken), CVE-2022-29217 (PyJWT), CVE-2016-10555 (jwt-simple): HMAC with the public key."""
    for key in keys:
        for secret in public_forms(key):
            for kid in (key.kid, forge.secret.kid):
                assert_refused(target, forge.sign({"alg": "HS256", "kid": kid, "typ": "at+jwt"}, key=secret))


def test_kid_of_another_key_is_refused(target: Installation, forge: Forge, keys: tuple[SigningKey, ...]) -> None:
    """With the algorithm of the signature, and with that of the key that `kid` names."""
    for kid, algorithm in ((keys[0].kid, "ES256"), (keys[1].kid, "EdDSA"), (forge.secret.kid, "HS256")):
        if kid != forge.kid:
            for alg in (algorithm, forge.algorithm):
                assert_refused(target, forge.sign({"alg": alg, "kid": kid, "typ": "at+jwt"}))


def test_issuer_belongs_to_the_key(target: Installation, forge: Forge) -> None:
    """RFC 8725 section 3.8: a key of one issuer vouches for no other, although both are this gateway."""
    other = {ISSUER: target.url, target.url: ISSUER}[forge.claims["iss"]]
    for issuer in (other, f"{target.url}/", target.url.upper(), f"{target.url}.evil.example"):
        assert_refused(target, forge.sign(forge.header, forge.claims | {"iss": issuer}))


# CVE-2022-21449 ("psychic signatures"): an ECDSA signature of zeros must not be valid for every message.
@pytest.mark.parametrize("signature", [b"\x00" * 64, b"\x00" * 63 + b"\x01", b"\xff" * 64, b"\x00" * 32, b"\x00"])
def test_signature_of_no_key_is_refused(
    target: Installation, forge: Forge, keys: tuple[SigningKey, ...], signature: bytes
) -> None:
    for key in keys:
        header = json.dumps({"alg": key.algorithm, "kid": key.kid, "typ": "at+jwt"}).encode()
        assert_refused(target, f"{encode(header)}.{encode(json.dumps(forge.claims).encode())}.{encode(signature)}")

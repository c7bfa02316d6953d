"""Key sets of providers: what is used, what is left out, and what makes a whole set unusable."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc import jws as jose
from joserfc.jwk import KeySet as JoseKeys

from auth.key_sets import ALGORITHMS, MOST_KEYS, BadKeySet, KeySet, read_key_set
from tests.identity_provider import IdentityProvider, Key, encode, new_key

RSA, EC, ED = Key.new("RS256", "rsa"), Key.new("ES256", "ec"), Key.new("EdDSA", "ed")


def key_set(*keys: dict[str, Any]) -> KeySet:
    return read_key_set(json.dumps({"keys": list(keys)}).encode())


def of_number(number: int) -> str:
    return encode(number.to_bytes((number.bit_length() + 7) // 8))


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_every_algorithm_verifies_what_another_implementation_accepts_and_nothing_else(algorithm: str) -> None:
    key = Key.new(algorithm)
    token = IdentityProvider("https://a.test", key).token()
    signed, _, signature = token.rpartition(".")
    public = key_set(key.jwk).find("key-1")
    assert public is not None
    raw = key.sign(signed)
    assert public.verifies(algorithm, signed.encode(), raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # RFC 9864 prefers other names to EdDSA
        assert jose.deserialize_compact(token, JoseKeys.import_key_set({"keys": [key.jwk]}), algorithms=[algorithm])
    for wrong in (b"", raw[:-1], raw + b"\0", bytes(len(raw)), raw[:-1] + bytes([raw[-1] ^ 1])):
        assert not public.verifies(algorithm, signed.encode(), wrong)
    assert not public.verifies(algorithm, signed.encode() + b" ", raw)
    for other in ALGORITHMS - {algorithm}:
        assert not public.verifies(other, signed.encode(), raw)
    assert signature


def test_without_an_alg_the_type_and_the_curve_decide() -> None:
    keys = key_set(*({name: value for name, value in key.jwk.items() if name != "alg"} for key in (RSA, EC, ED)))
    assert {kid: key.algorithms for kid, key in keys.keys.items()} == {
        "rsa": {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, "ec": {"ES256"}, "ed": {"EdDSA"}
    }  # fmt: skip


def weak_rsa(bits: int = 2048, e: int = 65537) -> dict[str, Any]:
    numbers = rsa.generate_private_key(e if e == 3 else 65537, bits).public_key().public_numbers()
    return {"kty": "RSA", "kid": "weak", "n": of_number(numbers.n), "e": of_number(e)}


# A modulus of Infineon's flawed generator, made as it did: each prime is k * M + 65537**a mod M, with M a primorial.
def roca() -> dict[str, Any]:
    primorial = 1
    for number in range(2, 702):
        if all(number % one for one in range(2, int(number**0.5) + 1)):
            primorial *= number
    p, q = (prime_near(pow(65537, exponent, primorial), primorial, 1 << 1024) for exponent in (5, 7))
    return {"kty": "RSA", "kid": "weak", "n": of_number(p * q), "e": of_number(65537)}


def prime_near(remainder: int, step: int, least: int) -> int:
    number = least - least % step + remainder + step
    while pow(2, number - 1, number) != 1:
        number += step
    return number


LEFT_OUT: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "for encryption": (lambda: RSA.jwk | {"use": "enc"}, "is not for signatures"),
    "for signing only": (lambda: RSA.jwk | {"key_ops": ["sign"]}, "is not for verifying"),
    "operations that are no list": (lambda: RSA.jwk | {"key_ops": "verify"}, "is not for verifying"),
    "an algorithm for encryption": (lambda: RSA.jwk | {"alg": "RSA-OAEP"}, "is for another algorithm"),
    "HMAC on a public key": (lambda: RSA.jwk | {"alg": "HS256"}, "is for another algorithm"),
    "none": (lambda: RSA.jwk | {"alg": "none"}, "is for another algorithm"),
    "an algorithm that is no text": (lambda: RSA.jwk | {"alg": ["RS256"]}, "is for another algorithm"),
    "the algorithm of another curve": (lambda: EC.jwk | {"alg": "ES384"}, "is for another algorithm"),
    "an unknown type": (lambda: {"kty": "XYZ", "kid": "weak"}, "is of an unknown type"),
    "a type that is no text": (lambda: {"kty": ["RSA"], "kid": "weak"}, "is of an unknown type"),
    "secp256k1": (lambda: EC.jwk | {"crv": "secp256k1"}, "is of an unknown curve"),
    "X25519": (lambda: ED.jwk | {"crv": "X25519"}, "is of an unknown curve"),
    "Ed448": (lambda: ED.jwk | {"crv": "Ed448", "x": encode(bytes(57))}, "is of an unknown curve"),
    "a short Ed25519 key": (lambda: ED.jwk | {"x": encode(bytes(31))}, "is damaged"),
    "a point that is not on the curve": (lambda: EC.jwk | {"y": EC.jwk["x"]}, "is damaged"),
    "the point at infinity": (lambda: EC.jwk | {"x": encode(bytes(32)), "y": encode(bytes(32))}, "is damaged"),
    "a coordinate with a zero too many": (lambda: EC.jwk | {"x": encode(bytes(1) + bytes(32))}, "is damaged"),
    "a padded coordinate": (lambda: EC.jwk | {"x": EC.jwk["x"] + "="}, "is damaged"),
    "an Ed25519 key of small order": (lambda: ED.jwk | {"x": encode(bytes([1]) + bytes(31))}, "is weak"),
    "no modulus": (lambda: {"kty": "RSA", "kid": "weak", "e": "AQAB"}, "is damaged"),
    "a modulus that is no text": (lambda: {"kty": "RSA", "kid": "weak", "n": 5, "e": "AQAB"}, "is damaged"),
    "1024 bits": (lambda: weak_rsa(1024), "has 1024 bits; 2048 are the least"),
    "16384 bits": (lambda: RSA.jwk | {"n": of_number((1 << 16_384) - 1)}, "has more than 8192 bits"),
    "exponent 1": (lambda: RSA.jwk | {"e": of_number(1)}, "is damaged"),
    "exponent 3": (lambda: weak_rsa(e=3), "is weak"),
    "an even exponent": (lambda: RSA.jwk | {"e": of_number(65538)}, "is damaged"),
    "a huge exponent": (lambda: RSA.jwk | {"e": of_number((1 << 33) + 1)}, "is"),
    "an even modulus": (lambda: RSA.jwk | {"n": of_number((1 << 2048) - 2)}, "is weak"),
    "ROCA (CVE-2017-15361)": (roca, "is weak"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_key_of_no_use_is_left_out_and_the_others_serve(name: str) -> None:
    make, why = LEFT_OUT[name]
    jwk = make() | {"kid": "weak"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = key_set(Key().jwk | {"kid": "good"}, jwk)
    assert set(found.keys) == {"good"}
    assert found.left_out[0].startswith(f"weak: {why}")
    with pytest.raises(BadKeySet, match="no usable key"):
        key_set(jwk)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not JSON"),
        (b"<html>502</html>", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"keys":[],"keys":[]}', "not JSON"),
        (b"{}", "no list of keys"),
        (b'{"keys":{}}', "no list of keys"),
        (b'{"keys":[1]}', "no list of keys"),
        (b'{"keys":[]}', "no usable key"),
        (json.dumps({"keys": [RSA.jwk] * (MOST_KEYS + 1)}).encode(), "more than 100 keys"),
        (json.dumps({"keys": [RSA.jwk, EC.jwk | {"kid": "rsa"}]}).encode(), "two keys have the id 'rsa'"),
        (json.dumps({"keys": [RSA.jwk, RSA.jwk | {"use": "enc"}]}).encode(), "two keys have the id 'rsa'"),
        (json.dumps({"keys": [RSA.jwk, {"kty": "oct", "kid": "s", "k": "AAAA"}]}).encode(), "'s' must be secret"),
        (json.dumps({"keys": [RSA.jwk | {"d": "AQAB"}]}).encode(), "'rsa' must be secret"),
        (json.dumps({"keys": [EC.jwk | {"d": "AQAB", "use": "enc"}]}).encode(), "'ec' must be secret"),
        (json.dumps({"keys": [RSA.jwk | {"kid": 5}]}).encode(), "id is not a text"),
        (json.dumps({"keys": [RSA.jwk | {"kid": "x" * 300}]}).encode(), "id is not a text"),
    ],
)
def test_a_set_that_is_ambiguous_or_holds_a_secret_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(BadKeySet, match=why):
        read_key_set(content)


def test_only_a_sole_key_may_be_without_an_id() -> None:
    anonymous = {name: value for name, value in EC.jwk.items() if name != "kid"}
    alone = key_set(anonymous)
    assert alone.find(None) is alone.find("any") is not None
    beside = key_set(anonymous, RSA.jwk)
    assert beside.find(None) is beside.find("ec") is None
    assert beside.find("rsa") is not None
    assert key_set(EC.jwk).find(None) is key_set(EC.jwk).find("EC") is None


def pem_of(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


@pytest.mark.parametrize("key", [RSA, EC, ED], ids=lambda key: key.algorithm)
def test_a_public_key_in_pem_is_that_of_every_token(key: Key) -> None:
    found = read_key_set(b"\n" + pem_of(key.private)).find("whatever")
    assert found is not None
    assert found.verifies(key.algorithm, b"x", key.sign("x"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (pem_of(RSA.private) + pem_of(EC.private), "several keys"),
        (RSA.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "not a public key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a public key"),
        (pem_of(ec.generate_private_key(ec.SECP256K1())), "neither RSA nor"),
        (pem_of(new_key("RS256", bits=1024)), "the key has 1024 bits"),
        (pem_of(rsa.generate_private_key(3, 2048)), "the key is weak"),
    ],
)
def test_another_pem_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(BadKeySet, match=why):
        read_key_set(content)

"""Access tokens signed with ES256 and EdDSA: only our own signatures verify, and HS256 tokens keep their validity."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from auth.errors import InvalidToken, TokenExpired
from auth.keys import KeyRing
from auth.signing_keys import SigningKey, SigningKeys, make_key, rotated, stopped
from auth.tokens import AUDIENCE, CLIENT, DEFAULT_TTL_S, ISSUER, LEEWAY_S, LoginTokens, Principal

NOW = 1_800_000_000
MADE = datetime(2026, 7, 1, tzinfo=UTC)
URL = "https://gateway.example.com"
WHO = Principal("uabcdefghijklmnopqrst", "0123456789abcdef0123", ("host", "member"), 3)
RING = KeyRing(["s" * 20 + "gateway-secret-of-tests"], "login-token")
# The orders of the groups: FIPS 186-5 (P-256) and RFC 8032 section 5.1 (Ed25519); the prime of P-256.
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
L = 2**252 + 27742317777372353535851937790883648493
KEYS = {"ES256": make_key("es256", MADE), "EdDSA": make_key("ed25519", MADE)}


class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


def verifier(*keys: SigningKey, issuer: str = URL, clock: Callable[[], float] | None = None) -> LoginTokens:
    return LoginTokens(RING, SigningKeys(keys, issuer) if keys else None, now=clock or Clock())


def encode(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


def parts_of(token: str) -> tuple[bytes, bytes]:
    """Return what is signed, and the signature."""
    signed, _, signature = token.rpartition(".")
    return signed.encode(), base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))


def with_signature(token: str, signature: bytes) -> str:
    return f"{token.rpartition('.')[0]}.{encode(signature)}"


def refused(tokens: LoginTokens, token: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        tokens.verify(token)
    assert not isinstance(caught.value, TokenExpired)


@pytest.fixture(params=KEYS)
def key(request: pytest.FixtureRequest) -> SigningKey:
    return KEYS[request.param]


# --- what is issued ---


def test_issued_token_verifies_here_and_with_the_published_key_alone(key: SigningKey) -> None:
    tokens = verifier(key)
    token = tokens.issue(WHO, auth_time=NOW - 5)
    assert tokens.verify(token) == WHO
    claims = jwt.decode(
        token, jwt.PyJWK(key.jwk), [key.algorithm], audience=AUDIENCE, issuer=URL,
        options={"require": ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"], "verify_exp": False,
                 "verify_iat": False, "verify_nbf": False},
    )  # fmt: skip  # the claims that RFC 9068 section 2.2 requires
    assert len(claims.pop("jti")) >= 22
    assert claims == {
        "iss": URL, "aud": AUDIENCE, "sub": WHO.uid, "sid": WHO.sid, "roles": ["host", "member"], "ver": 3,
        "iat": NOW, "nbf": NOW, "exp": NOW + DEFAULT_TTL_S, "auth_time": NOW - 5, "client_id": CLIENT,
    }  # fmt: skip
    assert jwt.get_unverified_header(token) == {"alg": key.algorithm, "kid": key.kid, "typ": "at+jwt"}


def test_token_is_short_enough_for_every_role_of_a_large_policy(key: SigningKey) -> None:
    who = Principal(WHO.uid, WHO.sid, tuple(f"a-role-with-a-long-name-{number}" for number in range(60)), 3)
    tokens = verifier(key)
    assert tokens.verify(tokens.issue(who, auth_time=NOW)) == who


def test_token_expires_like_any_other(key: SigningKey) -> None:
    clock = Clock()
    tokens = verifier(key, clock=clock)
    token = tokens.issue(WHO, auth_time=NOW)
    clock.now = NOW + DEFAULT_TTL_S + LEEWAY_S
    for verifying in (tokens, verifier(key, clock=clock)):
        with pytest.raises(TokenExpired):
            verifying.verify(token)


# --- turning on, rotating, turning off ---


def test_turning_on_and_off_voids_no_token(key: SigningKey) -> None:
    before, on = verifier(), verifier(key)
    old, new = before.issue(WHO, auth_time=NOW), on.issue(WHO, auth_time=NOW)
    assert on.verify(old) == WHO
    off = verifier(*stopped([key], MADE))
    assert off.verify(new) == WHO
    assert jwt.get_unverified_header(off.issue(WHO, auth_time=NOW))["alg"] == "HS256"
    refused(before, new)


def test_rotation_voids_no_token_in_either_direction(key: SigningKey) -> None:
    """Machines change one after the other: each verifies what the others sign, before and after."""
    first = (key, make_key("es256", MADE))
    second = rotated(first, "ed25519", MADE, timedelta(days=1))
    old, new = verifier(*first), verifier(*second)
    for signing in (old, new):
        token = signing.issue(WHO, auth_time=NOW)
        assert old.verify(token) == new.verify(token) == WHO
    assert jwt.get_unverified_header(new.issue(WHO, auth_time=NOW))["kid"] == first[1].kid


def test_key_that_was_removed_verifies_nothing(key: SigningKey) -> None:
    token = verifier(key).issue(WHO, auth_time=NOW)
    refused(verifier(make_key("es256", MADE)), token)
    refused(verifier(), token)


# --- confusion of keys, algorithms and issuers (RFC 8725 sections 2.1, 3.1, 3.8) ---


def sign(header: dict[str, Any], claims: dict[str, Any], key: SigningKey | bytes, algorithm: str) -> str:
    """Sign as an attacker would who has a key, and writes any header."""
    signed = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
    if isinstance(key, bytes):
        return f"{signed}.{encode(hmac.digest(key, signed.encode(), 'sha256'))}"
    signature = jwt.get_algorithm_by_name(algorithm).sign(signed.encode(), key.private)
    return f"{signed}.{encode(signature)}"


def claims_of(tokens: LoginTokens) -> dict[str, Any]:
    return jwt.decode(tokens.issue(WHO, auth_time=NOW), options={"verify_signature": False})


@pytest.mark.parametrize(
    "alg", ["HS256", "ES256", "EdDSA", "Ed25519", "ES256K", "RS256", "none", "", None, 0, ["ES256"]]
)
@pytest.mark.parametrize("kid", ["ES256", "EdDSA", "HS256"])
@pytest.mark.parametrize("by", ["ES256", "EdDSA", "HS256"])
def test_only_the_algorithm_of_the_key_that_kid_names_is_accepted(alg: object, kid: str, by: str) -> None:
    """Every combination of the header's algorithm, the key it names and the key that signed."""
    tokens = verifier(*KEYS.values())
    kids = {name: key.kid for name, key in KEYS.items()} | {"HS256": RING.signing.kid}
    claims = claims_of(tokens) | {"iss": ISSUER if kid == "HS256" else URL}
    key = KEYS.get(by, RING.signing.secret)
    token = sign({"alg": alg, "kid": kids[kid], "typ": "at+jwt"}, claims, key, by)
    if alg == kid == by:
        assert tokens.verify(token) == WHO
    else:
        refused(tokens, token)


def test_issuer_is_that_of_the_key(key: SigningKey) -> None:
    tokens = verifier(key)
    for issuer in (ISSUER, f"{URL}/", URL.upper(), "http://gateway.example.com", "", None, [URL], {"iss": URL}):
        header = {"alg": key.algorithm, "kid": key.kid, "typ": "at+jwt"}
        refused(tokens, sign(header, claims_of(tokens) | {"iss": issuer}, key, key.algorithm))
    refused(verifier(key, issuer="https://staging.example.com"), tokens.issue(WHO, auth_time=NOW))
    header = {"alg": "HS256", "kid": RING.signing.kid, "typ": "at+jwt"}
    refused(tokens, sign(header, claims_of(tokens) | {"iss": URL}, RING.signing.secret, "HS256"))


# --- signatures ---


def test_every_changed_bit_of_a_signature_is_refused(key: SigningKey) -> None:
    tokens = verifier(key)
    token = tokens.issue(WHO, auth_time=NOW)
    _, signature = parts_of(token)
    assert len(signature) == 64
    for bit in range(8 * len(signature)):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        refused(tokens, with_signature(token, bytes(changed)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda one: one[:-1],
        lambda one: one[1:],
        lambda one: one[:32],
        lambda one: one + b"\x00",
        lambda one: b"\x00" + one,
        lambda one: one + one,
        lambda one: one[32:] + one[:32],
        lambda one: one[:32][::-1] + one[32:][::-1],
        lambda one: bytes(64),
        lambda one: bytes(63) + b"\x01",
        lambda one: bytes(31) + b"\x01" + bytes(31) + b"\x01",
        lambda one: b"\x01" + bytes(63),
        lambda one: b"\xff" * 64,
        lambda one: b"\x00",
    ],
)
def test_signature_of_another_form_is_refused(key: SigningKey, spoil: Callable[[bytes], bytes]) -> None:
    tokens = verifier(key)
    token = tokens.issue(WHO, auth_time=NOW)
    refused(tokens, with_signature(token, spoil(parts_of(token)[1])))


def raw(r: int, s: int) -> bytes:
    return (r % 2**256).to_bytes(32, "big") + (s % 2**256).to_bytes(32, "big")


@pytest.mark.parametrize("value", [0, 1, N - 1, N, N + 1, P - 1, P, P + 1, P - N, 2**256 - 1])
def test_ecdsa_values_outside_the_group_are_refused(value: int) -> None:
    """FIPS 186-5 section 6.4.2: r and s lie in [1, n - 1]; CVE-2022-21449 (Java) accepted 0."""
    key = KEYS["ES256"]
    tokens = verifier(key)
    token = tokens.issue(WHO, auth_time=NOW)
    signature = parts_of(token)[1]
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    pairs = [(value, s), (r, value), (value, value), (value, 0), (0, value), (r + N, s), (r, s + N), (N - r, s)]
    for pair in pairs:
        if raw(*pair) != signature:
            refused(tokens, with_signature(token, raw(*pair)))


def test_ecdsa_signature_in_der_is_refused() -> None:
    """RFC 7518 section 3.4: r and s have 32 bytes each; DER is another form of the same signature."""
    key = KEYS["ES256"]
    assert isinstance(key.private, ec.EllipticCurvePrivateKey)
    tokens = verifier(key)
    token = tokens.issue(WHO, auth_time=NOW)
    der = key.private.sign(parts_of(token)[0], ec.ECDSA(hashes.SHA256()))
    assert tokens.verify(with_signature(token, raw(*decode_dss_signature(der)))) == WHO
    refused(tokens, with_signature(token, der))


@pytest.mark.parametrize("digest", [hashes.SHA1(), hashes.SHA384(), hashes.SHA512(), hashes.SHA3_256()])  # noqa: S303
def test_ecdsa_over_another_hash_is_refused(digest: hashes.HashAlgorithm) -> None:
    key = KEYS["ES256"]
    assert isinstance(key.private, ec.EllipticCurvePrivateKey)
    tokens = verifier(key)
    token = tokens.issue(WHO, auth_time=NOW)
    signature = raw(*decode_dss_signature(key.private.sign(parts_of(token)[0], ec.ECDSA(digest))))
    refused(tokens, with_signature(token, signature))


def test_mirrored_ecdsa_signature_says_nothing_else() -> None:
    """Anyone can make (r, n - s) from (r, s), and ES256 accepts both. So nothing here is known by a token's text."""
    tokens = verifier(KEYS["ES256"])
    token = tokens.issue(WHO, auth_time=NOW)
    signature = parts_of(token)[1]
    twin = with_signature(token, signature[:32] + (N - int.from_bytes(signature[32:], "big")).to_bytes(32, "big"))
    assert twin != token
    assert tokens.verify(twin) == tokens.verify(token) == WHO


@pytest.mark.parametrize("times", [1, 2, 4, 8, 15])
def test_ed25519_signature_has_one_form(times: int) -> None:
    """RFC 8032 section 5.1.7: S lies below the order; S + L would be a second form of the same signature."""
    tokens = verifier(KEYS["EdDSA"])
    token = tokens.issue(WHO, auth_time=NOW)
    signature = parts_of(token)[1]
    s = int.from_bytes(signature[32:], "little") + times * L
    assert s < 2**256
    refused(tokens, with_signature(token, signature[:32] + s.to_bytes(32, "little")))


@pytest.mark.parametrize("point", [b"\x01" + bytes(31), bytes(32), bytes.fromhex("ec" + "ff" * 30 + "7f")])
def test_ed25519_signature_with_a_point_of_small_order_is_refused(point: bytes) -> None:
    tokens = verifier(KEYS["EdDSA"])
    token = tokens.issue(WHO, auth_time=NOW)
    signature = parts_of(token)[1]
    for s in (signature[32:], bytes(32), L.to_bytes(32, "little")):
        refused(tokens, with_signature(token, point + s))

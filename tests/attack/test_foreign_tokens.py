"""Attacks with tokens of identity providers. RFC 8725, RFC 7515 to 7519, OpenID Connect Core, Discovery and Logout.

Each has a name and the reason for which it is refused, as the audit trail has it. Those that need a running gateway are
in tests/e2e/test_exchange.py, those on key sets in tests/unit/auth/test_key_sets.py, on signatures test_wycheproof.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from auth.errors import ForeignTokenRefused
from auth.federation import LOGOUT_EVENT, Federation, Identity, Logout, Provider
from auth.key_sets import read_key_set
from auth.provider_keys import FetchFailed
from tests.identity_provider import AUDIENCE, IdentityProvider, Key, encode

RSA, EC, OTHER_EC, ED = Key.new("RS256"), Key.new("ES256"), Key.new("ES256"), Key.new("EdDSA")
NOW = int(time.time())  # for tokens and gateway alike
OURS = IdentityProvider("https://login.example.com", EC, now_s=NOW)
WITH_RSA = IdentityProvider("https://rsa.example.com/", RSA, now_s=NOW)
OTHERS = IdentityProvider(
    "https://other.example.com", OTHER_EC, now_s=NOW
)  # another provider of the policy, with the same kid
EVIL = IdentityProvider("https://login.example.com", Key.new("ES256"), now_s=NOW)  # a stranger who claims to be ours
Attack = Callable[[], str]


def provider(of: IdentityProvider, name: str, **more: Any) -> Provider:
    usual = {"audience": frozenset({AUDIENCE}), "algorithms": frozenset({of.key.algorithm})}
    keys = read_key_set(json.dumps(of.jwks).encode())
    return Provider(name=name, issuer=of.issuer, fixed=keys, **(usual | more))


PROVIDERS = [
    provider(OURS, "ours", roles_claim="groups", roles={"teachers": "host"}, refuses=(("status", "pending"),)),
    provider(WITH_RSA, "rsa"),
    provider(OTHERS, "other", azp=frozenset({"web"})),
]


def federation(providers: list[Provider] = PROVIDERS) -> Federation:
    async def fetch(url: str) -> bytes:
        raise FetchFailed(url)

    return Federation(lambda: providers, fetch, now=lambda: NOW)


def verify(token: str) -> Identity:
    return asyncio.run(federation().verify(token))


def verify_logout(token: str, name: str = "ours") -> Logout:
    return asyncio.run(federation().verify_logout(name, token))


def hmac_signed(secret: bytes, header: dict[str, Any], digest: Any = hashlib.sha256) -> str:
    signed = f"{encode(header)}.{encode(WITH_RSA.claims())}"
    return f"{signed}.{encode(hmac.digest(secret, signed.encode(), digest))}"


def pem(key: Key) -> bytes:
    return key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def unsigned(alg: Any) -> str:
    return f"{encode({'alg': alg, 'kid': 'key-1'})}.{encode(OURS.claims())}."


def resigned(token: str, part: int, content: Any) -> str:
    """Return a token with another part under the signature of the first."""
    parts = token.split(".")
    parts[part] = encode(content)
    return ".".join(parts)


def with_key_in_header(name: str, value: Any) -> str:
    return EVIL.token({name: value})


def claimed(raw: bytes) -> str:
    """Return a genuinely signed token with these bytes as claims."""
    return OURS.signed({"alg": "ES256", "kid": "key-1"}, raw)


USUAL = json.dumps(OURS.claims())[1:-1].encode()
ATTACKS: dict[str, tuple[str, Attack]] = {
    # --- the algorithm (RFC 8725 sections 2.1 and 3.1) ---
    "alg none, without a signature": ("malformed", lambda: unsigned("none")),
    "alg none, with a signature": ("algorithm", lambda: OURS.token({"alg": "none"})),
    "alg nOnE": ("algorithm", lambda: OURS.token({"alg": "nOnE"})),
    "alg missing": ("algorithm", lambda: OURS.token({"alg": None})),
    "alg empty": ("algorithm", lambda: OURS.token({"alg": ""})),
    "alg a list": ("algorithm", lambda: OURS.token({"alg": ["ES256"]})),
    "alg a number": ("algorithm", lambda: OURS.token({"alg": 256})),
    "HS256 with the public key in PEM (CVE-2016-5431)": (
        "algorithm",
        lambda: hmac_signed(pem(RSA), {"alg": "HS256", "kid": "key-1"}),
    ),
    "HS256 with the modulus": (
        "algorithm",
        lambda: hmac_signed(RSA.jwk["n"].encode(), {"alg": "HS256", "kid": "key-1"}),
    ),
    "HS512 with the whole key set": (
        "algorithm",
        lambda: hmac_signed(json.dumps(WITH_RSA.jwks).encode(), {"alg": "HS512", "kid": "key-1"}, hashlib.sha512),
    ),
    "RS256 where the policy has ES256": ("algorithm", lambda: OURS.token({"alg": "RS256"})),
    "PS256 with a key for RS256": ("algorithm", lambda: WITH_RSA.token({"alg": "PS256"})),
    "RS512 with a key for RS256": ("algorithm", lambda: WITH_RSA.token({"alg": "RS512"})),
    "ES256K": ("algorithm", lambda: OURS.token({"alg": "ES256K"})),
    "an algorithm in another case": ("algorithm", lambda: OURS.token({"alg": "es256"})),
    # --- keys that the token brings or names (RFC 8725 sections 3.5 and 3.10) ---
    "jwk in the header": ("header", lambda: with_key_in_header("jwk", EVIL.key.jwk)),
    "jku in the header": ("header", lambda: with_key_in_header("jku", "https://evil.test/keys")),
    "jku of the provider itself": ("header", lambda: OURS.token({"jku": f"{OURS.issuer}/keys"})),
    "x5u in the header": ("header", lambda: with_key_in_header("x5u", "https://evil.test/cert")),
    "x5c in the header": ("header", lambda: with_key_in_header("x5c", ["MIIB"])),
    "kid of nobody": ("unknown_key", lambda: EVIL.token({"kid": "key-2"})),
    "kid missing": ("unknown_key", lambda: OURS.token({"kid": None})),
    "kid empty": ("unknown_key", lambda: OURS.token({"kid": ""})),
    "kid as a path (CVE-2017-17405 and others)": ("unknown_key", lambda: EVIL.token({"kid": "../../../../dev/null"})),
    "kid as SQL": ("unknown_key", lambda: EVIL.token({"kid": "x' UNION SELECT 'secret"})),
    "kid as a command": ("unknown_key", lambda: EVIL.token({"kid": "key-1|/bin/sh"})),
    "kid as a URL": ("unknown_key", lambda: EVIL.token({"kid": "https://evil.test/key"})),
    "kid with a zero byte": ("unknown_key", lambda: OURS.token({"kid": "key-1\0"})),
    "kid in another case": ("unknown_key", lambda: OURS.token({"kid": "KEY-1"})),
    "kid a list": ("header", lambda: OURS.token({"kid": ["key-1"]})),
    "kid an object": ("header", lambda: OURS.token({"kid": {"$ne": ""}})),
    "crit": ("header", lambda: OURS.token({"crit": ["exp"], "exp": 1})),
    "b64 false (RFC 7797)": ("header", lambda: OURS.token({"b64": False, "crit": ["b64"]})),
    "zip": ("header", lambda: OURS.token({"zip": "DEF"})),
    "a token in a token (cty)": ("header", lambda: OURS.token({"cty": "JWT"})),
    "parameters of encryption": ("header", lambda: OURS.token({"enc": "A128GCM", "p2c": 1 << 31})),
    # --- the signature ---
    "a stranger's signature under our kid": ("signature", lambda: EVIL.token()),
    "a signature of zeros (CVE-2022-21449)": ("signature", lambda: f"{OURS.token().rpartition('.')[0]}.{'A' * 86}"),
    "a signature in DER": ("signature", lambda: f"{OURS.token().rpartition('.')[0]}.{encode(b'0' * 70)}"),
    "no signature": ("malformed", lambda: OURS.token().rpartition(".")[0] + "."),
    "other claims under the signature": ("signature", lambda: resigned(OURS.token(), 1, OURS.claims(sub="admin"))),
    "another header under the signature": (
        "signature",
        lambda: resigned(OURS.token(), 0, {"alg": "ES256", "kid": "key-1", "x": 1}),
    ),
    "the signature of another token": (
        "signature",
        lambda: ".".join([*OURS.token(sub="a").split(".")[:2], OURS.token(sub="b").rpartition(".")[2]]),
    ),
    # --- the serialization ---
    "a JSON serialization (RFC 7515 section 7.2)": (
        "malformed",
        lambda: json.dumps(dict(zip(("protected", "payload", "signature"), OURS.token().split("."), strict=True))),
    ),
    "an encrypted token": ("malformed", lambda: OURS.token() + ".AAAA.AAAA"),
    "padding": ("malformed", lambda: OURS.token() + "=="),
    "a claim twice": ("malformed", lambda: claimed(b'{"sub":"admin",' + USUAL + b"}")),
    "a header twice": ("malformed", lambda: OURS.signed(b'{"alg":"none","alg":"ES256","kid":"key-1"}', OURS.claims())),
    "claims that are no object": ("malformed", lambda: claimed(b'["iss"]')),
    "more than 16 KiB": ("malformed", lambda: OURS.token(fill="x" * 17_000)),
    # --- the issuer ---
    "an unknown issuer": ("issuer", lambda: OURS.token(iss="https://evil.test")),
    "no issuer": ("issuer", lambda: OURS.token(iss=None)),
    "an issuer with a slash at the end": ("issuer", lambda: OURS.token(iss=OURS.issuer + "/")),
    "an issuer in another case": ("issuer", lambda: OURS.token(iss=OURS.issuer.upper())),
    "an issuer that begins like ours": ("issuer", lambda: OURS.token(iss=OURS.issuer + ".evil.test")),
    "a list of issuers": ("issuer", lambda: OURS.token(iss=[OURS.issuer])),
    "the keys of one provider for another's issuer": ("signature", lambda: OURS.token(iss=OTHERS.issuer, azp="web")),
    "an access token of the gateway": (
        "issuer",
        lambda: jwt.encode({"iss": "hms-gateway", "sub": "u"}, "x" * 32, algorithm="HS256"),
    ),
    # --- audience and authorized party ---
    "for another app": ("audience", lambda: OURS.token(aud="another-app")),
    "no audience": ("audience", lambda: OURS.token(aud=None)),
    "an empty audience": ("audience", lambda: OURS.token(aud=[])),
    "an audience that begins like ours": ("audience", lambda: OURS.token(aud=AUDIENCE + "-admin")),
    "an audience in another case": ("audience", lambda: OURS.token(aud=AUDIENCE.upper())),
    "an audience that is an object": ("audience", lambda: OURS.token(aud={AUDIENCE: 1})),
    "an audience with a number": ("audience", lambda: OURS.token(aud=[AUDIENCE, 1])),
    "for us and for another app, without azp in the policy": ("audience", lambda: OURS.token(aud=[AUDIENCE, "evil"])),
    "made for another party": ("azp", lambda: OTHERS.token(aud=[AUDIENCE, "evil"], azp="evil")),
    "azp missing": ("azp", lambda: OTHERS.token()),
    "azp a list": ("azp", lambda: OTHERS.token(azp=["web"])),
    # --- times ---
    "expired": ("expired", lambda: OURS.token(iat=NOW - 4000, exp=NOW - 60)),
    "no exp": ("times", lambda: OURS.token(exp=None)),
    "exp as text": ("times", lambda: OURS.token(exp=str(NOW + 60))),
    "exp true": ("times", lambda: OURS.token(exp=True)),
    "exp a fraction": ("times", lambda: OURS.token(exp=NOW + 60.5)),
    "exp in a million years": ("lifetime", lambda: OURS.token(exp=NOW + 10**13)),
    "a life of a week": ("lifetime", lambda: OURS.token(exp=NOW + 7 * 86_400)),
    "exp before iat": ("lifetime", lambda: OURS.token(iat=NOW + 20, exp=NOW + 10)),
    "no iat": ("times", lambda: OURS.token(iat=None)),
    "issued in the future": ("not_yet", lambda: OURS.token(iat=NOW + 600, exp=NOW + 900)),
    "not valid yet": ("not_yet", lambda: OURS.token(nbf=NOW + 600)),
    "nbf as text": ("times", lambda: OURS.token(nbf="0")),
    "a login in the future": ("not_yet", lambda: OURS.token(auth_time=NOW + 600)),
    # --- what the token is for ---
    "a logout token": ("type", lambda: OURS.logout_token()),
    "a logout token without its type": ("purpose", lambda: OURS.logout_token({"typ": None})),
    "a security event": ("purpose", lambda: OURS.token(events={})),
    "typ of a DPoP proof": ("type", lambda: OURS.token({"typ": "dpop+jwt"})),
    "typ that is no text": ("type", lambda: OURS.token({"typ": ["JWT"]})),
    "somebody who acts as a user": ("acting", lambda: OURS.token(act={"sub": "support"})),
    "a session that the preset refuses": ("refused_claim", lambda: OURS.token(status="pending")),
    # --- the subject ---
    "no subject": ("subject", lambda: OURS.token(sub=None)),
    "an empty subject": ("subject", lambda: OURS.token(sub="")),
    "a subject that is a number": ("subject", lambda: OURS.token(sub=1)),
    "a subject of 256 characters": ("subject", lambda: OURS.token(sub="x" * 256)),
    "a subject with a zero byte": ("subject", lambda: OURS.token(sub="admin\0")),
    "a subject with a line break": ("subject", lambda: OURS.token(sub="a\nb")),
    "a subject with half a surrogate": (
        "subject",
        lambda: claimed(USUAL.join([b"{", b"}"]).replace(b"person-1", rb"\ud800")),
    ),
    "a session that is no text": ("subject", lambda: OURS.token(sid={"$gt": ""})),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_token_is_refused_for_its_reason(name: str) -> None:
    reason, forged = ATTACKS[name]
    with pytest.raises(ForeignTokenRefused) as refused:
        verify(forged())
    assert refused.value.reason == reason
    assert str(refused.value) == "The token is not accepted. Log in again at your identity provider."


def test_there_are_at_least_sixty_attacks_and_without_them_the_token_is_genuine() -> None:
    assert len(ATTACKS) >= 60
    for genuine in (OURS, WITH_RSA):
        assert verify(genuine.token()).id.subject == "person-1"
        assert verify(genuine.token({"typ": None, "x5t": "AA", "cat": "cl"}, nbf=NOW, auth_time=NOW)).provider
        assert verify(genuine.token({"typ": "application/at+JWT"}, aud=[AUDIENCE]))
    assert verify(OTHERS.token(aud=[AUDIENCE, "api"], azp="web"))


LOGOUTS: dict[str, tuple[str, Attack]] = {
    "an ID token": ("purpose", lambda: OURS.token()),
    "an ID token with the type of a logout token": ("purpose", lambda: OURS.token({"typ": "logout+jwt"}, jti="1")),
    "typ of an access token": ("type", lambda: OURS.logout_token({"typ": "at+jwt"})),
    "another event": ("purpose", lambda: OURS.logout_token(events={"urn:x": {}})),
    "an event that is no object": ("purpose", lambda: OURS.logout_token(events={LOGOUT_EVENT: True})),
    "events that are a list": ("purpose", lambda: OURS.logout_token(events=[LOGOUT_EVENT])),
    "a nonce": ("nonce", lambda: OURS.logout_token(nonce="1")),
    "neither subject nor session": ("subject", lambda: OURS.logout_token(sub=None)),
    "no id, so that it could be replayed": ("subject", lambda: OURS.logout_token(jti=None)),
    "of another provider": ("issuer", lambda: OTHERS.logout_token()),
    "of a stranger": ("signature", lambda: EVIL.logout_token()),
    "for another app": ("audience", lambda: OURS.logout_token(aud="another-app")),
    "expired": ("expired", lambda: OURS.logout_token(iat=NOW - 300, exp=NOW - 200)),
    "issued an hour ago": ("expired", lambda: OURS.logout_token(iat=NOW - 3600, exp=NOW + 60)),
    "issued an hour ago, without exp": ("expired", lambda: OURS.logout_token(iat=NOW - 3600, exp=None)),
    "issued in the future": ("not_yet", lambda: OURS.logout_token(iat=NOW + 600, exp=NOW + 700)),
    "alg none": ("algorithm", lambda: OURS.logout_token({"alg": "none"})),
}


@pytest.mark.parametrize("name", LOGOUTS)
def test_logout_token_is_refused_for_its_reason(name: str) -> None:
    """OpenID Connect Back-Channel Logout 1.0 sections 2.6 and 4; OWASP ASVS 5, 10.5.5."""
    reason, forged = LOGOUTS[name]
    with pytest.raises(ForeignTokenRefused) as refused:
        verify_logout(forged())
    assert (refused.value.reason, refused.value.provider) == (reason, "ours")


def test_genuine_logout_tokens_of_old_and_new_providers_are_accepted() -> None:
    assert verify_logout(OURS.logout_token(sid="s")).sid == "s"
    assert verify_logout(OURS.logout_token({"typ": None}, sub=None, sid="s", exp=None)).subject == ""
    with pytest.raises(ForeignTokenRefused, match="not accepted"):
        verify_logout(OURS.logout_token(), name="nobody")

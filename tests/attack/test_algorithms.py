"""A token does not choose its own algorithm. RFC 8725 sections 2.1, 3.1, 3.5; OWASP ASVS 5, 9.1.2."""

from __future__ import annotations

import json

import pytest

from auth.keys import KeyRing
from tests.attack.forge import Forge, assert_refused, encode
from tests.servers import Installation


def test_forged_tokens_pass_when_nothing_is_wrong(target: Installation, forge: Forge) -> None:
    """The control experiment: otherwise a refusal could be the forger's mistake."""
    token = forge.sign(forge.header)
    assert token.split(".")[1] != forge.genuine.split(".")[1] or token == forge.genuine
    with target.client(token) as client:
        assert client.get("/api/auth/me").status_code == 200


# RFC 8725 sections 2.1 and 3.1: the key determines the algorithm, not the token. CVE-2015-9235 (jsonwebtoken),
# CVE-2018-1000531 (prime-jwt), CVE-2020-28042 (ServiceStack, empty signature); case variants: Insomnia Security's
# advisory on Auth0's Authentication API, 2020-04-16.
@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", None, 0, [], ["HS256"], {"HS256": 1}])
def test_unsigned_token_is_refused(target: Installation, forge: Forge, algorithm: object) -> None:
    head = encode(json.dumps(forge.header | {"alg": algorithm}).encode())
    payload = encode(json.dumps(forge.claims).encode())
    for signature in ("", encode(b"x"), forge.genuine.split(".")[2]):
        assert_refused(target, f"{head}.{payload}.{signature}")
    assert_refused(target, f"{head}.{payload}")


# RFC 8725 section 3.1: only the algorithm that the key is for, even if the signature is right.
@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512", "hs256", "RS256", "ES256", "ES384", "PS256", "EdDSA"])
@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_another_algorithm_is_refused(target: Installation, forge: Forge, algorithm: str, digest: str) -> None:
    if (algorithm, digest) == (forge.algorithm, "sha256"):
        return  # the control experiment
    assert_refused(target, forge.sign(forge.header | {"alg": algorithm}, digest=digest))


def test_keys_of_other_purposes_sign_no_login_token(target: Installation, forge: Forge) -> None:
    """Neither the secret itself, nor a key derived from it for another use, nor the 100ms secret (RFC 8725, 3.5)."""
    secret = target.env["GATEWAY_SECRET"]
    keys = [secret.encode(), target.env["HMS_APP_SECRET"].encode(), b""]
    keys += [KeyRing([secret], purpose).signing.secret for purpose in ("refresh", "cursor", "throttle")]
    keys.append(KeyRing([target.env["HMS_APP_SECRET"]], "login-token").signing.secret)
    for key in keys:
        assert_refused(target, forge.sign(forge.header, key=key or b"\x00" * 32))

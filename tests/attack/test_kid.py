"""`kid` names one of our keys and nothing else. RFC 8725 section 3.10; OWASP ASVS 5, 9.1.3; CWE-22, CWE-89."""

from __future__ import annotations

import hashlib

import pytest

from auth.keys import KeyRing
from tests.attack.forge import Forge, assert_refused
from tests.e2e.checks import assert_problem
from tests.servers import Installation


# RFC 8725 section 3.10: `kid` must not be trusted as a path, a query or a pointer.
@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null",
        "/dev/null",
        "' OR '1'='1",
        "x' UNION SELECT 'key';--",
        "unknown",
        "",
        "*",
        None,
        0,
        True,
        ["a"],
        {"a": 1},
        "x" * 2000,
        "http://127.0.0.1/key",
    ],
    ids=lambda kid: repr(kid)[:30],
)
@pytest.mark.parametrize("key", [b"", b"\x00", b"key"])
def test_unknown_kid_is_refused(target: Installation, forge: Forge, kid: object, key: bytes) -> None:
    signed = forge.sign(forge.header | {"kid": kid}, key=key or b"\x00" * 32)
    with target.client() as client:
        headers = {"Authorization": b"Bearer " + signed.encode()}
        assert_problem(client.get("/api/auth/me", headers=headers), 401, "invalid_token")


def test_kid_of_a_key_for_another_purpose_is_refused(target: Installation, forge: Forge) -> None:
    """RFC 8725 section 3.5: keys of different purposes are different keys, though they come from one secret."""
    secret = target.env["GATEWAY_SECRET"]
    for purpose in ("refresh", "cursor", "throttle"):
        key = KeyRing([secret], purpose).signing
        assert_refused(target, forge.sign(forge.header | {"kid": key.kid}, key=key.secret))


def test_kid_reveals_nothing_about_the_secret(target: Installation, forge: Forge) -> None:
    """RFC 7517 section 4.5: `kid` is public, so it is neither a part of the secret nor a plain hash of it."""
    secret = target.env["GATEWAY_SECRET"].encode()
    assert len(forge.secret.kid) == 12
    for name in ("md5", "sha1", "sha256", "sha512"):
        assert forge.secret.kid not in hashlib.new(name, secret).hexdigest()

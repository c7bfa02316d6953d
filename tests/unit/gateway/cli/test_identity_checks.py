"""What `gateway doctor` says of identity providers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from auth.federation import Provider
from auth.key_sets import read_key_set
from auth.provider_keys import FetchFailed
from gateway.cli.identity_checks import check_identities
from gateway.policy.file import load_policy
from tests.identity_provider import IdentityProvider, Key

SITE = IdentityProvider("https://login.example.com")
ENCRYPTS = Key(kid="enc").jwk | {"use": "enc"}


async def findings(provider: Provider, document: bytes | None) -> list[tuple[str, str, str]]:
    async def fetch(url: str) -> bytes:
        assert url == "https://login.example.com/keys"
        if document is None:
            raise FetchFailed("no answer within 3 s")
        return document

    policy = replace(load_policy(), identities=(provider,))
    return [(one.check, one.status, one.text) for one in await check_identities(policy, fetch)]


@pytest.mark.parametrize(
    ("document", "status", "text"),
    [
        (json.dumps(SITE.jwks).encode(), "ok", "1 key for ES256"),
        (json.dumps({"keys": [SITE.key.jwk, ENCRYPTS]}).encode(), "ok", "ES256; not used: enc: is not for signatures"),
        (
            json.dumps({"keys": [Key.new("ES384").jwk]}).encode(),
            "FAIL",
            "has keys for ES384, but `algorithms` allows ES256",
        ),
        (b"<html>", "FAIL", "cannot be used: it is not JSON; no one can log in with its tokens"),
        (None, "FAIL", "cannot be used: no answer within 3 s"),
    ],
)
async def test_the_keys_of_a_provider_are_judged(document: bytes | None, status: str, text: str) -> None:
    provider = Provider("app", SITE.issuer, algorithms=frozenset({"ES256"}), jwks=f"{SITE.issuer}/keys")
    [(check, found, said)] = await findings(provider, document)
    assert (check, found) == ("identity app", status)
    assert said.startswith(("https://login.example.com", "the keys of https://login.example.com"))
    assert text in said


async def test_keys_of_a_file_are_not_fetched() -> None:
    fixed = read_key_set(json.dumps(SITE.jwks).encode())
    provider = Provider("app", SITE.issuer, algorithms=frozenset({"ES256"}), fixed=fixed)
    assert [status for _, status, _ in await findings(provider, None)] == ["ok"]

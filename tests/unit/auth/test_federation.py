"""What is taken from a genuine token of a provider. Attacks are in tests/attack/test_foreign_tokens.py."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from auth.errors import ForeignTokenRefused, KeysUnavailable
from auth.federation import LEEWAY_S, MOST_LIFETIME_S, Federation, Identity, Provider, claim_at
from auth.key_sets import read_key_set
from auth.provider_keys import DISCOVERY, FetchFailed
from tests.identity_provider import AUDIENCE, IdentityProvider

NOW = int(time.time())
OURS = IdentityProvider("https://login.example.com", now_s=NOW)
FIXED = read_key_set(json.dumps(OURS.jwks).encode())


async def no_fetch(url: str) -> bytes:
    raise FetchFailed(url)


def verify(token: str, **of_provider: Any) -> Identity:
    usual = {"audience": frozenset({AUDIENCE}), "algorithms": frozenset({"ES256"}), "fixed": FIXED}
    provider = Provider("ours", OURS.issuer, **(usual | of_provider))
    return asyncio.run(Federation(lambda: [provider], no_fetch, now=lambda: NOW).verify(token))


def test_an_identity_is_issuer_and_subject() -> None:
    found = verify(OURS.token(sub="auth0|a:b c", email="ada@example.com", sid="s-1", iat=NOW - 5))
    assert (found.id.provider, found.id.issuer, found.id.subject) == ("ours", OURS.issuer, "auth0|a:b c")
    assert (found.sid, found.issued_s) == ("s-1", NOW - 5)


def test_another_spelling_of_the_issuer_is_the_same_identity() -> None:
    """Google has two."""
    aliases = frozenset({"login.example.com"})
    other = verify(OURS.token(iss="login.example.com"), aliases=aliases)
    assert other.id == verify(OURS.token(), aliases=aliases).id


@pytest.mark.parametrize(
    ("value", "roles"),
    [
        (["teachers", "x", 5, None, "staff", "teachers"], ("host", "operator")),
        ("staff", ("operator",)),
        ("teachers staff", ("member",)),
        ([], ("member",)),
        (None, ("member",)),
        ({"teachers": True}, ("member",)),
        (["Teachers", "host", "admin"], ("member",)),
    ],
)
def test_only_roles_that_the_policy_translates_are_given(value: Any, roles: tuple[str, ...]) -> None:
    mapping = {"teachers": "host", "staff": "operator"}
    token = OURS.token(realm_access={"roles": value})
    found = verify(token, roles_claim="realm_access.roles", roles=mapping, default_role="member")
    assert found.roles == roles
    without = verify(token, roles_claim="realm_access.roles", roles=mapping)
    assert without.roles == (() if roles == ("member",) else roles)


def test_a_claim_is_found_by_its_whole_name_before_its_path() -> None:
    claims = {"https://example.com/roles": 1, "a.b": 2, "a": {"b": 3, "c": {"d": 4}}, "e": [5]}
    for path, value in {
        "https://example.com/roles": 1, "a.b": 2, "a.c.d": 4, "a.c.x": None, "a.b.c": None, "e.0": None, "x": None
    }.items():  # fmt: skip
        assert claim_at(claims, path) == value


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"nickname": "ada", "name": "Ada"}, "ada"),
        ({"nickname": " ", "name": "Ada"}, "Ada"),
        ({"nickname": 5, "name": "Ada"}, "Ada"),
        ({}, ""),
    ],
)
def test_the_first_claim_with_a_name_is_taken(claims: dict[str, Any], name: str) -> None:
    assert verify(OURS.token(**claims), name_claims=("nickname", "name")).name == name


def test_clocks_may_differ_and_a_life_may_last_a_day() -> None:
    assert verify(OURS.token(iat=NOW - 100, exp=NOW - LEEWAY_S + 5))
    assert verify(OURS.token(iat=NOW + LEEWAY_S - 5, exp=NOW + LEEWAY_S))
    assert verify(OURS.token(iat=NOW, exp=NOW + MOST_LIFETIME_S))


def test_clerk_has_no_audience_but_a_party() -> None:
    by_azp = {"audience": frozenset[str](), "azp": frozenset({"https://app.example.com"})}
    assert verify(OURS.token(aud=None, azp="https://app.example.com"), **by_azp)
    with pytest.raises(ForeignTokenRefused) as refused:
        verify(OURS.token(aud=None, azp="https://evil.test"), **by_azp)
    assert refused.value.reason == "azp"


async def test_two_providers_with_one_subject_are_two_people() -> None:
    other = IdentityProvider("https://other.example.com", now_s=NOW)
    options = {"audience": frozenset({AUDIENCE}), "algorithms": frozenset({"ES256"})}
    providers = [
        Provider(name, one.issuer, fixed=read_key_set(json.dumps(one.jwks).encode()), **options)
        for name, one in (("a", OURS), ("b", other))
    ]
    federation = Federation(lambda: providers, no_fetch, now=lambda: NOW)
    first, second = [await federation.verify(one.token(sub="42")) for one in (OURS, other)]
    assert first.id.claim != second.id.claim


async def test_keys_are_prepared_for_new_providers_and_forgotten_with_old_ones() -> None:
    documents = {
        f"{OURS.issuer}{DISCOVERY}": {"issuer": OURS.issuer, "jwks_uri": f"{OURS.issuer}/keys"},
        f"{OURS.issuer}/keys": OURS.jwks,
    }
    asked = []

    async def fetch(url: str) -> bytes:
        asked.append(url)
        return json.dumps(documents[url]).encode()

    provider = Provider("ours", OURS.issuer, frozenset({AUDIENCE}), algorithms=frozenset({"ES256"}))
    providers = [provider]
    federation = Federation(lambda: providers, fetch, now=lambda: NOW)
    federation.prepare()
    assert await federation.verify(OURS.token())
    federation.prepare()
    assert await federation.verify(OURS.token())
    assert asked == list(documents), "one fetch of each document"
    providers.clear()
    federation.prepare()
    with pytest.raises(ForeignTokenRefused):
        await federation.verify(OURS.token())
    providers.append(provider)
    federation.prepare()
    assert await federation.verify(OURS.token())
    assert len(asked) == 4
    await federation.close()


async def test_a_token_that_would_be_refused_anyway_fetches_no_keys() -> None:
    asked = []

    async def fetch(url: str) -> bytes:
        asked.append(url)
        raise FetchFailed("down")

    provider = Provider("ours", OURS.issuer, frozenset({AUDIENCE}), algorithms=frozenset({"ES256"}))
    federation = Federation(lambda: [provider], fetch, now=lambda: NOW)
    for wrong in ({"aud": "x"}, {"exp": NOW - 99, "iat": NOW - 200}, {"sub": None}):
        with pytest.raises(ForeignTokenRefused):
            await federation.verify(OURS.token(**wrong))
    assert asked == []
    with pytest.raises(KeysUnavailable):
        await federation.verify(OURS.token())
    assert len(asked) == 1

"""[identity.NAME]: what a table may say, and tokens in the shape in which each provider of a preset issues them.

The shapes are those of the providers' documentation; the keys are ours, as the providers' do not sign for tests.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from auth.errors import ForeignTokenRefused
from auth.federation import Federation, Identity, Provider
from auth.provider_keys import FetchFailed
from gateway.policy.file import built_in_text, parse_policy
from gateway.policy.presets import PRESETS
from gateway.policy.tables import PolicyError
from tests.identity_provider import IdentityProvider, Key

NOW = int(time.time())
RSA, EC = Key.new("RS256", "abc123"), Key.new("ES256", "abc123")
GUID, SUB = "aaaabbbb-0000-cccc-1111-dddd2222eeee", "3b0f2c1e-0d4b-4c51-9d3c-5a2e6f7a8b9c"
EMAIL = {"email": "ada@example.com", "email_verified": True}

# For each preset: its table, the key, the header and the claims of a token, and what is read from it.
RECORDED: dict[str, dict[str, Any]] = {
    "firebase": {
        "table": 'audience = "school-4711"\nroles_claim = "role"\nroles.teacher = "host"',
        "header": {"alg": "RS256", "kid": "abc123", "typ": "JWT"},
        "claims": {
            "iss": "https://securetoken.google.com/school-4711", "aud": "school-4711", "auth_time": NOW - 60,
            "user_id": "Xq1", "sub": "Xq1", "iat": NOW, "exp": NOW + 3600, "name": "Ada", "role": "teacher", **EMAIL,
            "firebase": {"identities": {"email": ["ada@example.com"]}, "sign_in_provider": "password"},
        },
        "sub": "Xq1", "name": "Ada", "roles": ("host",),
        "refused": {"firebase": {"identities": {}, "sign_in_provider": "anonymous"}},
    },
    "auth0": {
        "table": 'issuer = "https://school.eu.auth0.com/"\naudience = "kX9"\nroles_claim = "https://school.test/roles"\n'
        'roles.teacher = "host"',
        "header": {"alg": "RS256", "typ": "JWT", "kid": "abc123"},
        "claims": {
            "https://school.test/roles": ["teacher"], "nickname": "ada", "name": "ada@example.com", **EMAIL,
            "iss": "https://school.eu.auth0.com/", "aud": "kX9", "iat": NOW, "exp": NOW + 36_000,
            "sub": "auth0|5f7c8ec7c33c6c004bbafe82", "sid": "s-1", "nonce": "n",
        },
        "sub": "auth0|5f7c8ec7c33c6c004bbafe82", "name": "ada", "roles": ("host",), "sid": "s-1",
        "refused": {"sub": "kX9@clients", "gty": "client-credentials"},
    },
    "clerk": {
        "table": 'issuer = "https://clerk.school.test"\nazp = ["https://school.test"]\nroles.admin = "host"',
        "header": {"alg": "RS256", "cat": "cl_B7d4PD111AAA", "kid": "abc123", "typ": "JWT"},
        "claims": {
            "azp": "https://school.test", "exp": NOW + 60, "fva": [7, -1], "iat": NOW, "nbf": NOW - 10,
            "iss": "https://clerk.school.test", "jti": "1a2b", "sid": "sess_123", "sub": "user_123", "v": 2,
            "o": {"id": "org_123", "slg": "school", "rol": "admin", "per": "read", "fpm": "3"}, "sts": "active",
        },
        "sub": "user_123", "name": "", "roles": ("host",), "sid": "sess_123", "refused": {"sts": "pending"},
    },
    "supabase": {
        "table": 'issuer = "https://abcdefghijklmnopqrst.supabase.co/auth/v1"\naudience = "authenticated"\n'
        'roles.teacher = "host"',
        "key": EC,
        "header": {"alg": "ES256", "kid": "abc123", "typ": "JWT"},
        "claims": {
            "aal": "aal1", "amr": [{"method": "password", "timestamp": NOW}], "aud": "authenticated", "phone": "",
            "app_metadata": {"provider": "email", "providers": ["email"], "roles": ["teacher"]}, "exp": NOW + 3600,
            "email": "ada@example.com", "iat": NOW, "iss": "https://abcdefghijklmnopqrst.supabase.co/auth/v1",
            "role": "authenticated", "session_id": "s-1", "sub": SUB, "user_metadata": {"name": "Ada"},
            "is_anonymous": False,
        },
        "sub": SUB, "name": "Ada", "roles": ("host",), "sid": "s-1", "refused": {"is_anonymous": True},
    },
    "keycloak": {
        "table": 'issuer = "https://sso.school.test/realms/school"\naudience = "video"\nroles.teacher = "host"',
        "header": {"alg": "RS256", "typ": "JWT", "kid": "abc123"},
        "claims": {
            "exp": NOW + 300, "iat": NOW, "auth_time": NOW - 5, "jti": SUB, "aud": "video", "typ": "ID", "azp": "video",
            "iss": "https://sso.school.test/realms/school", "sub": SUB, "sid": "s-1", "acr": "1", **EMAIL,
            "realm_access": {"roles": ["teacher", "offline_access"]}, "preferred_username": "ada", "name": "Ada L",
        },
        "sub": SUB, "name": "ada", "roles": ("host",), "sid": "s-1", "refused": {"typ": "Refresh"},
    },
    "cognito": {
        "table": 'issuer = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_aBcDeF123"\n'
        'audience = "1h57kf5cpq17m0eml12EXAMPLE"\nroles.teachers = "host"',
        "header": {"kid": "abc123", "alg": "RS256"},
        "claims": {
            "sub": SUB, "cognito:groups": ["teachers"], "cognito:username": "ada", "origin_jti": SUB, "event_id": SUB,
            "iss": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_aBcDeF123", "jti": SUB, **EMAIL,
            "aud": "1h57kf5cpq17m0eml12EXAMPLE", "token_use": "id", "auth_time": NOW, "iat": NOW, "exp": NOW + 3600,
        },
        "sub": SUB, "name": "ada", "roles": ("host",), "refused": {"token_use": "access"},
    },
    "entra": {
        "table": f'issuer = "https://login.microsoftonline.com/{GUID}/v2.0"\naudience = "{SUB}"\n'
        'roles.Teacher = "host"',
        "header": {"typ": "JWT", "alg": "RS256", "kid": "abc123"},
        "claims": {
            "aud": SUB, "iss": f"https://login.microsoftonline.com/{GUID}/v2.0", "iat": NOW, "nbf": NOW, "uti": "u",
            "exp": NOW + 3900, "name": "Ada Lovelace", "oid": GUID, "preferred_username": "ada@school.test", "rh": "0.",
            "roles": ["Teacher"], "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ", "tid": GUID, "ver": "2.0",
            "sid": "s-1",
        },
        "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ", "name": "Ada Lovelace", "roles": ("host",), "sid": "s-1",
        "refused": {"idtyp": "app"},
    },
    "google": {
        "table": 'audience = "1234.apps.googleusercontent.com"\ndefault_role = "member"',
        "header": {"alg": "RS256", "kid": "abc123", "typ": "JWT"},
        "claims": {
            "iss": "https://accounts.google.com", "azp": "1234.apps.googleusercontent.com", "nbf": NOW - 300, **EMAIL,
            "aud": "1234.apps.googleusercontent.com", "sub": "110169484474386276334", "name": "Ada L", "jti": "j",
            "iat": NOW, "exp": NOW + 3600, "given_name": "Ada", "picture": "https://lh3.googleusercontent.com/a",
        },
        "sub": "110169484474386276334", "name": "Ada L", "roles": ("member",),
        "refused": {"iss": "http://accounts.google.com"},
    },
}  # fmt: skip


def provider(text: str, folder: Path = Path()) -> Provider:
    (found,) = parse_policy(built_in_text() + f"\n[identity.app]\n{text}\n", "policy.toml", folder).identities
    return found


def verify(one: Provider, token: str) -> Identity:
    async def fetch(url: str) -> bytes:
        raise FetchFailed(url)

    return asyncio.run(Federation(lambda: [one], fetch, now=lambda: NOW).verify(token))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_token_as_the_provider_issues_it_is_read(preset: str, tmp_path: Path) -> None:
    recorded = RECORDED[preset]
    signer = IdentityProvider("", recorded.get("key", RSA))
    (tmp_path / "keys.json").write_text(json.dumps(signer.jwks))
    one = provider(f'preset = "{preset}"\njwks_file = "keys.json"\n{recorded["table"]}', tmp_path)
    found = verify(one, signer.signed(recorded["header"], recorded["claims"]))
    assert (found.id.subject, found.name, found.roles) == (recorded["sub"], recorded["name"], recorded["roles"])
    assert found.sid == recorded.get("sid", "")
    with pytest.raises(ForeignTokenRefused) as refused:
        verify(one, signer.signed(recorded["header"], recorded["claims"] | recorded["refused"]))
    assert refused.value.reason in ("refused_claim", "issuer")


def test_google_is_one_provider_under_two_names() -> None:
    one = provider('preset = "google"\naudience = "a"')
    assert (one.issuer, one.aliases) == ("https://accounts.google.com", {"accounts.google.com"})


def test_the_place_of_the_keys_is_that_of_discovery_unless_it_is_known_or_given() -> None:
    assert provider('preset = "firebase"\naudience = "a"').jwks == ""
    supabase = 'preset = "supabase"\naudience = "a"\nissuer = "https://p.supabase.co/auth/v1"\n'
    assert provider(supabase).jwks == "https://p.supabase.co/auth/v1/.well-known/jwks.json"
    assert provider(supabase + 'jwks = "https://p.test/keys"').jwks == "https://p.test/keys"


ANY = 'issuer = "https://a.test"\n'
GOOD = f'{ANY}audience = "a"\n'
REFUSED = {
    "issuer: is missing; it looks like https://...": 'audience = "a"',
    "issuer: is missing; it looks like https://HOST/realms/REALM": 'preset = "keycloak"\naudience = "a"',
    "issuer: is missing; it looks like https://securetoken": 'preset = "firebase"',
    "issuer: must be an https:// address": 'issuer = "http://a.test"\naudience = "a"',
    "issuer: must be an https:// address; http:// is": 'issuer = "https://a.test/?x=1"\naudience = "a"',
    "issuer: is none of a provider": 'issuer = "https://a.test/|x"\naudience = "a"',
    "issuer: is none of auth0": 'preset = "auth0"\nissuer = "https://t.auth0.com"\naudience = "a"',
    "issuer: is none of entra": 'preset = "entra"\nissuer = "https://login.microsoftonline.com/common/v2.0"\naudience="a"',
    "issuer: is none of google": 'preset = "google"\nissuer = "https://accounts.google.co"\naudience = "a"',
    "issuer: is none of cognito": 'preset = "cognito"\nissuer = "https://cognito-idp.eu.amazonaws.com/us_x"\naudience="a"',
    "issuer: is none of keycloak": 'preset = "keycloak"\nissuer = "https://a.test/auth"\naudience = "a"',
    "issuer: is none of supabase": 'preset = "supabase"\nissuer = "https://a.test/auth"\naudience = "a"',
    "issuer: is none of clerk": 'preset = "clerk"\nissuer = "https://a.test/x"\nazp = ["x"]',
    "preset: must be one of: firebase, auth0": f'preset = "okta"\n{GOOD}',
    "audience: is missing; it names your app": ANY,
    "audience: must be a string or a list of strings": f"{ANY}audience = 5",
    "audience: must hold strings of 1 to 200": f'{ANY}audience = ["a", ""]',
    "azp: is missing; it lists the origins of your app": 'preset = "clerk"\nissuer = "https://clerk.a.test"',
    "azp: must be a list of strings": f'{GOOD}azp = "a"',
    "azp: must hold strings of 1 to 200": f'{GOOD}azp = [""]',
    "algorithms: 'HS256' is none of ES256": f'{GOOD}algorithms = ["RS256", "HS256"]',
    "algorithms: 'none' is none of": f'{GOOD}algorithms = ["none"]',
    "jwks: must be an https:// address": f'{GOOD}jwks = "http://a.test/keys"',
    "jwks_file: is given beside jwks": f'{GOOD}jwks = "https://a.test/keys"\njwks_file = "x"',
    "jwks_file: cannot be read: No such file": f'{GOOD}jwks_file = "missing.json"',
    "jwks_file: cannot be used: it is not JSON": f'{GOOD}jwks_file = "bad.json"',
    "jwks_file: is larger than 256 KiB": f'{GOOD}jwks_file = "large.json"',
    "roles_claim: is missing": f'{GOOD}roles.x = "host"',
    "roles_claim: names what people write about themselves": f'{GOOD}roles_claim="user_metadata.r"\nroles.x = "host"',
    "roles: is missing; it translates": f'{GOOD}roles_claim = "groups"',
    "roles.x: must be one of: member, host": f'{GOOD}roles_claim = "groups"\nroles.x = "boss"',
    "roles.y: must be one of: member, host": f'{GOOD}roles_claim = "groups"\nroles.y = ["host"]',
    "default_role: must be one of: member": f'{GOOD}default_role = "boss"',
    "default_role: admin has audit:read": f'{GOOD}default_role = "admin"',
    "create_accounts: must be true or false": f'{GOOD}create_accounts = "yes"',
    "secret: unknown key": f'{GOOD}secret = "x"',
}


@pytest.mark.parametrize("refusal", REFUSED)
def test_a_wrong_table_is_refused_with_key_and_reason(refusal: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("<html>")
    (tmp_path / "large.json").write_text(" " * (256 * 1024 + 1))
    with pytest.raises(PolicyError) as refused:
        provider(REFUSED[refusal], tmp_path)
    assert str(refused.value).startswith(f"policy.toml: identity.app.{refusal}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("tables", "refusal"),
    [
        (f"[identity.A]\n{GOOD}", "identity.A: a provider's name is 1 to 32 of a-z 0-9 _ -"),
        (f"[identity.a]\n{GOOD}[identity.b]\n{GOOD}", "identity.b.issuer: is also that of a; list both"),
        (
            "".join(f'[identity.a{n}]\nissuer = "https://a{n}.test"\naudience = "a"\n' for n in range(17)),
            "identity: there may be 16 providers",
        ),
    ],
)
def test_names_issuers_and_their_number_are_bounded(tables: str, refusal: str) -> None:
    with pytest.raises(PolicyError) as refused:
        parse_policy(f"{built_in_text()}\n{tables}", "policy.toml")
    assert str(refused.value).startswith(f"policy.toml: {refusal}")


def test_a_role_that_is_mapped_may_have_powers_but_the_default_role_may_not() -> None:
    one = provider(f'{GOOD}roles_claim = "groups"\nroles.staff = "admin"\ndefault_role = "member"')
    assert (one.roles, one.default_role) == ({"staff": "admin"}, "member")

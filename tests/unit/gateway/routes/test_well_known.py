"""What the metadata of RFC 8414 names depends on the policy."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import msgspec

from auth.signing_keys import SigningKeys, make_key
from gateway.policy.file import load_policy
from gateway.routes import well_known

URL = "https://gateway.example.com"


async def metadata(**policy: Any) -> dict[str, Any]:
    signing = SigningKeys((make_key("es256", datetime.now(UTC)),), URL)
    now = replace(load_policy(None), **policy)
    services: Any = SimpleNamespace(tokens=SimpleNamespace(signing=signing), policy=SimpleNamespace(now=now))
    answer = await well_known.issuer.fn(services)
    return dict(msgspec.to_builtins(answer.content))


async def test_without_identity_providers_no_token_endpoint_is_named() -> None:
    """RFC 8414 section 2: without `grant_types_supported`, authorization codes would be the default."""
    assert await metadata() == {
        "issuer": URL,
        "jwks_uri": f"{URL}/.well-known/jwks.json",
        "response_types_supported": [],
        "grant_types_supported": [],
        "introspection_endpoint": f"{URL}/api/auth/introspect",
        "introspection_endpoint_auth_methods_supported": ["Bearer"],
    }


async def test_with_identity_providers_it_names_the_exchange() -> None:
    found = await metadata(identities=(object(),))
    assert found["token_endpoint"] == f"{URL}/api/auth/exchange"
    assert found["grant_types_supported"] == ["urn:ietf:params:oauth:grant-type:token-exchange"]
    assert found["token_endpoint_auth_methods_supported"] == ["none"]

"""GET /.well-known/...: what other services need to verify our access tokens (docs/tokens.md)."""

from typing import Annotated, Literal

import msgspec
from litestar import Response, get
from msgspec import UNSET, Meta, UnsetType

from auth.signing_keys import SigningKeys
from gateway.http.access import public
from gateway.http.problems import Problem
from gateway.routes.schemas import EXCHANGE_GRANT
from gateway.routes.services import Injected, Services

# A new key is published long before it signs, and one that leaked must be forgotten soon.
_HEADERS = {"Cache-Control": "public, max-age=300"}


class PublicKey(msgspec.Struct):
    """A public key as a JSON Web Key (RFC 7517)."""

    kid: Annotated[str, Meta(description="Names the key in the header of a token: its thumbprint (RFC 7638).")]
    kty: Annotated[Literal["EC", "OKP"], Meta(description="Type of the key.")]
    crv: Annotated[Literal["P-256", "Ed25519"], Meta(description="Curve of the key.")]
    alg: Annotated[Literal["ES256", "EdDSA"], Meta(description="The only algorithm it is used with.")]
    use: Annotated[Literal["sig"], Meta(description="Always `sig`: it signs.")]
    x: Annotated[str, Meta(description="Coordinate of the point, base64url.")]
    y: Annotated[str | UnsetType, Meta(description="The other coordinate, only of `EC`.")] = UNSET


class PublicKeys(msgspec.Struct):
    """A JSON Web Key Set (RFC 7517)."""

    keys: Annotated[list[PublicKey], Meta(description="The key that signs, the next one, and earlier ones.")]


class Issuer(msgspec.Struct):
    """Metadata of an authorization server (RFC 8414)."""

    issuer: Annotated[str, Meta(description="`iss` of the access tokens: the public address of the gateway.")]
    jwks_uri: Annotated[str, Meta(description="Where the public keys are.")]
    response_types_supported: Annotated[
        list[str], Meta(description="Always empty: there is no authorization endpoint.")
    ]
    grant_types_supported: Annotated[
        list[str], Meta(description="Token exchange (RFC 8693), if the policy has identity providers.")
    ]
    introspection_endpoint: Annotated[str, Meta(description="Where services ask about a token (RFC 7662).")]
    introspection_endpoint_auth_methods_supported: Annotated[
        list[str], Meta(description="`Bearer`: with a service key in the `Authorization` header.")
    ]
    token_endpoint: Annotated[
        str | UnsetType, Meta(description="Where tokens of identity providers are exchanged, if the policy has any.")
    ] = UNSET
    token_endpoint_auth_methods_supported: Annotated[
        list[str] | UnsetType, Meta(description="`none`: apps have no secrets of their own.")
    ] = UNSET


@get("/.well-known/jwks.json", opt=public(refuses=("not_found",)))
async def public_keys(services: Injected) -> Response[PublicKeys]:
    """Return the public keys that verify access tokens; there are none without `GATEWAY_SIGNING_KEY`."""
    signing = _signing(services)
    keys = PublicKeys([msgspec.convert(key.jwk, PublicKey) for key in signing.keys])
    return Response(keys, headers=_HEADERS)


@get("/.well-known/oauth-authorization-server", opt=public(refuses=("not_found",)))
async def issuer(services: Injected) -> Response[Issuer]:
    """Return who issues access tokens and where their keys are; there is nothing without `GATEWAY_SIGNING_KEY`."""
    own = _signing(services).issuer
    found = Issuer(
        issuer=own,
        jwks_uri=f"{own}/.well-known/jwks.json",
        response_types_supported=[],
        grant_types_supported=[],
        introspection_endpoint=f"{own}/api/auth/introspect",
        introspection_endpoint_auth_methods_supported=["Bearer"],
    )
    if services.policy.now.identities:
        found.grant_types_supported = [EXCHANGE_GRANT]
        found.token_endpoint = f"{own}/api/auth/exchange"
        found.token_endpoint_auth_methods_supported = ["none"]
    return Response(found, headers=_HEADERS)


def _signing(services: Services) -> SigningKeys:
    if services.tokens.signing is None:
        raise Problem(404, "not_found", "Access tokens are not signed with a key that others know.")
    return services.tokens.signing

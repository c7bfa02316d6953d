"""POST /api/auth/introspect (RFC 7662): whether an access token is valid now, for services with a service key."""

import asyncio
from typing import Annotated

import msgspec
from litestar import post
from litestar.params import JSONBody
from msgspec import UNSET, Meta, UnsetType

from auth.errors import InvalidToken, UnknownUser
from auth.tokens import CLIENT
from gateway.http.access import needs
from gateway.routes import schemas as shapes
from gateway.routes.services import Injected

_BEARER = "Bearer"  # RFC 6750
_CLAIMS = ("sub", "sid", "roles", "iss", "aud", "jti", "iat", "nbf", "exp", "auth_time")


class Introspect(shapes.Secret, forbid_unknown_fields=True):
    token: Annotated[str, Meta(description="The token that somebody sent you.")]
    token_type_hint: Annotated[str | None, Meta(description="Not used: only access tokens can be active.")] = None


class Introspection(msgspec.Struct):
    """What is true of a token now. Of a token that is not active nothing else is said."""

    active: Annotated[bool, Meta(description="Whether the gateway would accept it as an access token now.")]
    token_type: Annotated[str | UnsetType, Meta(description="Always `Bearer`.")] = UNSET
    scope: Annotated[
        str | UnsetType, Meta(description="Permissions that the user's roles grant now, with a space between them.")
    ] = UNSET
    sub: Annotated[str | UnsetType, Meta(description="Id of the user.")] = UNSET
    username: Annotated[str | UnsetType, Meta(description="Name of the user, which may change.")] = UNSET
    roles: Annotated[list[str] | UnsetType, Meta(description="Gateway roles of the user.")] = UNSET
    sid: Annotated[str | UnsetType, Meta(description="Id of the session.")] = UNSET
    iss: Annotated[str | UnsetType, Meta(description="Who issued the token.")] = UNSET
    aud: Annotated[str | UnsetType, Meta(description="Always `hms-gateway`.")] = UNSET
    client_id: Annotated[str | UnsetType, Meta(description="Always `hms-gateway`.")] = UNSET
    jti: Annotated[str | UnsetType, Meta(description="Id of the token.")] = UNSET
    iat: Annotated[int | UnsetType, Meta(description="When it was issued, in epoch seconds.")] = UNSET
    nbf: Annotated[int | UnsetType, Meta(description="From when it is valid, in epoch seconds.")] = UNSET
    exp: Annotated[int | UnsetType, Meta(description="When it expires, in epoch seconds.")] = UNSET
    auth_time: Annotated[int | UnsetType, Meta(description="When the user logged in, in epoch seconds.")] = UNSET


@post("/api/auth/introspect", opt=needs("tokens.introspect", form=True), status_code=200)
async def introspect(data: JSONBody[Introspect], services: Injected) -> Introspection:
    """Tell whether an access token is valid now, with the user's rights now.

    For whatever is wrong with it, an ended session or a disabled user included, the answer is only `active: false`.
    """
    try:
        caller, claims = services.tokens.read(data.token)
        (is_live,), user = await asyncio.gather(services.sessions.hold([caller]), services.accounts.get(caller.uid))
    except (InvalidToken, UnknownUser):
        return Introspection(active=False)
    if not is_live:
        return Introspection(active=False)
    scope = " ".join(sorted(services.policy.now.permissions(caller.roles)))
    known = {name: claims[name] for name in _CLAIMS}
    return Introspection(True, _BEARER, scope, username=user.username, client_id=CLIENT, **known)

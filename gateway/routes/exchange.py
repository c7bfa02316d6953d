"""POST /api/auth/exchange: log in with a token of an identity provider; POST /api/auth/logout/{provider}."""

from typing import Annotated

import msgspec
from litestar import Response, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from auth.jws import MOST_TOKEN_BYTES
from gateway.accounts.logins import Client
from gateway.http.access import public
from gateway.http.context import Call, agent_of, context_of
from gateway.routes import schemas as shapes
from gateway.routes.services import CookieMode, Injected
from gateway.text import FieldError

# RFC 8693 sections 2.1 and 3; a JWT of a provider may be called any of these three.
GRANT_TYPE = shapes.EXCHANGE_GRANT
_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:"  # noqa: S105  the beginning of a name
ACCESS_TOKEN = _TOKEN_TYPE + "access_token"
SUBJECT_TYPES = tuple(_TOKEN_TYPE + kind for kind in ("id_token", "access_token", "jwt"))

_Token = Annotated[str, Meta(max_length=MOST_TOKEN_BYTES)]


class ExchangeToken(shapes.Secret, forbid_unknown_fields=True):
    token: (
        Annotated[
            _Token,
            Meta(description="Token of an identity provider in the policy; required without the fields of RFC 8693."),
        ]
        | None
    ) = None
    grant_type: Annotated[str | None, Meta(description=f"RFC 8693: `{GRANT_TYPE}`.")] = None
    subject_token: Annotated[_Token | None, Meta(description="RFC 8693: the token.")] = None
    subject_token_type: Annotated[
        str | None, Meta(description=f"RFC 8693: `{_TOKEN_TYPE}` and `id_token`, `access_token` or `jwt`.")
    ] = None
    requested_token_type: Annotated[str | None, Meta(description=f"RFC 8693: `{ACCESS_TOKEN}`, or nothing.")] = None

    def __post_init__(self) -> None:
        if self.token is not None:
            if any((self.grant_type, self.subject_token, self.subject_token_type, self.requested_token_type)):
                raise FieldError("token", "must not be given beside the fields of RFC 8693")
            return
        if self.grant_type is None and self.subject_token is None:
            raise FieldError("token", "is required")
        for name, value, allowed in (
            ("grant_type", self.grant_type, (GRANT_TYPE,)),
            ("subject_token_type", self.subject_token_type, SUBJECT_TYPES),
            ("requested_token_type", self.requested_token_type, (None, ACCESS_TOKEN)),
        ):
            if value not in allowed:
                raise FieldError(name, f"must be one of: {', '.join(filter(None, allowed))}")
        if self.subject_token is None:
            raise FieldError("subject_token", "is required")

    @property
    def subject(self) -> str:
        return self.token or self.subject_token or ""


class Exchanged(shapes.LoggedIn):
    """A login with a token of an identity provider."""

    issued_token_type: Annotated[str, Meta(description=f"Always `{ACCESS_TOKEN}` (RFC 8693).")]


class EndExternal(shapes.Secret, forbid_unknown_fields=True):
    logout_token: Annotated[_Token, Meta(description="Logout token of the provider.")]


@post(
    "/api/auth/exchange",
    opt=public(throttled=True, refuses=("invalid_grant", "origin_refused", "busy"), form=True),
    status_code=200,
)
async def exchange(
    data: JSONBody[ExchangeToken], request: Call, services: Injected, mode: CookieMode = None
) -> Response[Exchanged]:
    """Exchange a token of an identity provider for an access token and a refresh token.

    The policy names the providers. The session is the gateway's own: it outlives the provider's token, and ends by a
    logout here or, if the provider reports it, there.
    """
    by_cookie = services.cookies.asked(mode, request.scope["headers"])
    origin = services.throttle.origin(context_of(request.scope).client)
    user, grant = await services.exchange.log_in(data.subject, Client(origin, agent_of(request.scope)))
    login, fields = services.logged_in(grant, user, by_cookie=by_cookie)
    answer = Exchanged(**msgspec.structs.asdict(login), issued_token_type=ACCESS_TOKEN)
    return Response(answer, headers=fields)


@post("/api/auth/logout/{provider:str}", opt=public(form=True, refuses=("invalid_grant",)), status_code=200)
async def end_external(
    data: JSONBody[EndExternal],
    provider: FromPath[Annotated[str, Meta(description="Name of an identity provider in the policy.")]],
    request: Call,
    services: Injected,
) -> None:
    """End the sessions that a logout token of an identity provider is about (OpenID Connect Back-Channel Logout 1.0).

    For the provider. Tokens that it issued before open no session any more.
    """
    origin = services.throttle.origin(context_of(request.scope).client)
    await services.exchange.log_out(provider, data.logout_token, origin)

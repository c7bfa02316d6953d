"""POST /api/auth/login, refresh, logout; GET /api/auth/me."""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, get, post
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import JSONBody
from redis.exceptions import RedisError

from auth.accounts import Accounts
from auth.errors import InvalidCredentials, InvalidGrant, InvalidToken, TokenExpired, UnknownUser
from auth.sessions import Sessions
from auth.tokens import LoginTokens
from gateway.audit import NOBODY, Audit
from gateway.http.admission import Admitted, agent_of, bearer_of, client_of
from gateway.http.login_throttle import Throttle
from gateway.http.problems import RateLimited
from gateway.policy.live import PolicyInForce
from gateway.redis.store import StoreError
from gateway.routes import schemas as shapes
from gateway.routes.schemas import LoggedIn
from limits.limiter import Limiter

log = logging.getLogger("gateway")


class Login(msgspec.Struct, forbid_unknown_fields=True):
    username: Annotated[str, msgspec.Meta(max_length=256)]
    password: Annotated[str, msgspec.Meta(max_length=4096)]

    def __repr__(self) -> str:
        return "Login(...)"


class Refresh(msgspec.Struct, forbid_unknown_fields=True):
    refresh_token: Annotated[str, msgspec.Meta(max_length=4096)]

    def __repr__(self) -> str:
        return "Refresh(...)"


class Logout(msgspec.Struct, forbid_unknown_fields=True):
    refresh_token: Annotated[str, msgspec.Meta(max_length=4096)] | None = None
    scope: Literal["current", "others", "all"] = "current"

    def __repr__(self) -> str:
        return "Logout(...)"


class Me(msgspec.Struct):
    user: shapes.User
    permissions: list[str]


@post(
    "/api/auth/login",
    opt={"public": True, "throttled": True, "refuses": ("invalid_credentials", "too_many_attempts", "busy")},
    status_code=200,
)
async def login(  # noqa: PLR0913  one argument per part the route joins
    data: JSONBody[Login],
    request: Request[Any, Any, State],
    throttle: NamedDependency[Throttle],
    accounts: NamedDependency[Accounts],
    sessions: NamedDependency[Sessions],
    tokens: NamedDependency[LoginTokens],
    limiter: NamedDependency[Limiter],
    audit: NamedDependency[Audit],
) -> Response[LoggedIn]:
    """Exchange a user name and a password for an access token and a refresh token."""
    address = client_of(request.scope)
    source = throttle.source(address)
    try:
        async with throttle.login(address, data.username):
            user = await accounts.authenticate(data.username, data.password)
        decision = await limiter.take(user.id, (), metric="login")
        if not decision.allowed:  # an operator's block
            audit.note("login.blocked", by=NOBODY, subject=user.id, address=address, source=source)
            raise RateLimited(decision)
        grant = await sessions.open(user, address=address, agent=agent_of(request.scope))
    except InvalidCredentials as error:
        audit.note("login.failed", by=NOBODY, subject=error.uid or NOBODY, address=address, source=source)
        raise
    audit.note("login", by=user.id, subject=user.id, address=address, source=source, session=grant.principal.sid)
    # After the answer: a hash of older parameters is renewed while the password is at hand.
    renewal = BackgroundTask(_renew_hash, accounts, user.id, data.password)
    return Response(LoggedIn.of(grant, user, tokens), background=renewal)


@post(
    "/api/auth/refresh",
    opt={"public": True, "throttled": True, "refuses": ("invalid_grant", "too_many_attempts")},
    status_code=200,
)
async def refresh(  # noqa: PLR0913  one argument per part the route joins
    data: JSONBody[Refresh],
    request: Request[Any, Any, State],
    throttle: NamedDependency[Throttle],
    accounts: NamedDependency[Accounts],
    sessions: NamedDependency[Sessions],
    tokens: NamedDependency[LoginTokens],
    audit: NamedDependency[Audit],
) -> LoggedIn:
    """Exchange a refresh token for the next pair of tokens, with the roles of this moment."""
    uid, sid = sessions.owner_of(data.refresh_token)
    await throttle.refresh_allowed(sid, client_of(request.scope))
    try:
        grant = await sessions.refresh(data.refresh_token)
    except InvalidGrant as error:
        if error.reused_by:
            address = client_of(request.scope)
            source = throttle.source(address)
            audit.note("refresh.reused", by=NOBODY, subject=uid, address=address, source=source, session=sid)
        raise
    if grant.rotated:
        await throttle.refreshed(sid)
    try:
        user = await accounts.get(uid)
    except UnknownUser:  # deleted just now
        raise InvalidGrant from None
    return LoggedIn.of(grant, user, tokens)


@post(
    "/api/auth/logout",
    opt={"public": True, "throttled": True, "refuses": ("invalid_grant", "invalid_token", "token_expired")},
    status_code=204,
)
async def logout(
    data: JSONBody[Logout],
    request: Request[Any, Any, State],
    accounts: NamedDependency[Accounts],
    sessions: NamedDependency[Sessions],
    tokens: NamedDependency[LoginTokens],
    audit: NamedDependency[Audit],
) -> None:
    """End this session, the user's others, or all of them; at once, on every worker.

    Either token names the session. Ending what has ended is no error; an expired access token is refused all the same.
    """
    principal = None
    if data.refresh_token is not None:
        uid, sid = sessions.owner_of(data.refresh_token)
    else:
        principal = tokens.verify(bearer_of(request.scope))
        uid, sid = principal.uid, principal.sid
    ended = False
    try:
        if data.scope == "current":
            ended = await sessions.end(uid, sid)
        elif await sessions.is_live(uid, sid):
            # A token of an ended session may end nothing but itself, nor may one that is void.
            if principal is not None and not await sessions.is_current(principal):
                raise TokenExpired("The account has changed since this token was issued. Refresh it.")
            ended = True
            if data.scope == "all":
                await accounts.void_tokens(uid)
            await sessions.end_all(uid, but=sid if data.scope == "others" else None)
        elif data.scope == "others":
            raise InvalidToken("The session has ended. Log in again.")
    finally:  # over they are from the first write on, whether the disk has confirmed it or not
        if ended:
            audit.note("logout", by=uid, subject=uid, session=sid, scope=data.scope)


@get("/api/auth/me", opt={"action": "account.read"})
async def me(
    request: Request[Any, Admitted, State], accounts: NamedDependency[Accounts], policy: NamedDependency[PolicyInForce]
) -> Me:
    """Tell the caller who he is and what he may do."""
    user = await accounts.get(request.user.uid)
    return Me(shapes.User.of(user), sorted(policy.now.permissions(user.roles)))


async def _renew_hash(accounts: Accounts, uid: str, password: str) -> None:
    try:
        await accounts.renew_hash(uid, password)
    except (StoreError, RedisError):
        log.warning("a password hash was not renewed: the store is away; the next login tries again")

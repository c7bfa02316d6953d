"""POST /api/auth/login, refresh, logout; GET /api/auth/me."""

from __future__ import annotations

import logging
from typing import Annotated, Literal

import msgspec
from litestar import Response, get, post
from litestar.background_tasks import BackgroundTask
from litestar.di import NamedDependency
from litestar.params import JSONBody
from redis.exceptions import RedisError

from auth.accounts import Accounts
from auth.errors import InvalidCredentials, InvalidGrant, InvalidToken, TokenExpired, UnknownUser
from gateway.audit import NOBODY
from gateway.http.access import needs, public
from gateway.http.admission import bearer_of
from gateway.http.context import Call, agent_of, context_of
from gateway.http.problems import RateLimited
from gateway.redis.store import StoreError
from gateway.routes import schemas as shapes
from gateway.routes.schemas import LoggedIn
from gateway.routes.services import Services

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
    opt=public(throttled=True, refuses=("invalid_credentials", "too_many_attempts", "busy")),
    status_code=200,
)
async def login(
    data: JSONBody[Login],
    request: Call,
    services: NamedDependency[Services],
) -> Response[LoggedIn]:
    """Exchange a user name and a password for an access token and a refresh token."""
    address = context_of(request.scope).client
    source = services.throttle.source(address)
    try:
        async with services.throttle.login(address, data.username):
            user = await services.accounts.authenticate(data.username, data.password)
        decision = await services.limiter.take(user.id, (), metric="login")
        if not decision.allowed:  # an operator's block
            services.audit.note("login.blocked", by=NOBODY, subject=user.id, address=address, source=source)
            raise RateLimited(decision)
        grant = await services.sessions.open(user, address=address, agent=agent_of(request.scope))
    except InvalidCredentials as error:
        services.audit.note("login.failed", by=NOBODY, subject=error.uid or NOBODY, address=address, source=source)
        raise
    services.audit.note(
        "login", by=user.id, subject=user.id, address=address, source=source, session=grant.principal.sid
    )
    # After the answer: a hash of older parameters is renewed while the password is at hand.
    renewal = BackgroundTask(_renew_hash, services.accounts, user.id, data.password)
    return Response(LoggedIn.of(grant, user, services.tokens), background=renewal)


@post(
    "/api/auth/refresh",
    opt=public(throttled=True, refuses=("invalid_grant", "too_many_attempts")),
    status_code=200,
)
async def refresh(
    data: JSONBody[Refresh],
    request: Call,
    services: NamedDependency[Services],
) -> LoggedIn:
    """Exchange a refresh token for the next pair of tokens, with the roles of this moment."""
    uid, sid = services.sessions.owner_of(data.refresh_token)
    await services.throttle.refresh_allowed(sid, context_of(request.scope).client)
    try:
        grant = await services.sessions.refresh(data.refresh_token)
    except InvalidGrant as error:
        if error.reused_by:
            address = context_of(request.scope).client
            source = services.throttle.source(address)
            services.audit.note("refresh.reused", by=NOBODY, subject=uid, address=address, source=source, session=sid)
        raise
    if grant.rotated:
        await services.throttle.refreshed(sid)
    try:
        user = await services.accounts.get(uid)
    except UnknownUser:  # deleted just now
        raise InvalidGrant from None
    return LoggedIn.of(grant, user, services.tokens)


@post(
    "/api/auth/logout",
    opt=public(throttled=True, refuses=("invalid_grant", "invalid_token", "token_expired")),
    status_code=204,
)
async def logout(
    data: JSONBody[Logout],
    request: Call,
    services: NamedDependency[Services],
) -> None:
    """End this session, the user's others, or all of them; at once, on every worker.

    Either token names the session. Ending what has ended is no error; an expired access token is refused all the same.
    """
    principal = None
    if data.refresh_token is not None:
        uid, sid = services.sessions.owner_of(data.refresh_token)
    else:
        principal = services.tokens.verify(bearer_of(request.scope))
        uid, sid = principal.uid, principal.sid
    ended = False
    try:
        if data.scope == "current":
            ended = await services.sessions.end(uid, sid)
        elif await services.sessions.is_live(uid, sid):
            # A token of an ended session may end nothing but itself, nor may one that is void.
            if principal is not None and not await services.sessions.is_current(principal):
                raise TokenExpired("The account has changed since this token was issued. Refresh it.")
            ended = True
            if data.scope == "all":
                await services.accounts.void_tokens(uid)
            await services.sessions.end_all(uid, but=sid if data.scope == "others" else None)
        elif data.scope == "others":
            raise InvalidToken("The session has ended. Log in again.")
    finally:  # over they are from the first write on, whether the disk has confirmed it or not
        if ended:
            services.audit.note("logout", by=uid, subject=uid, session=sid, scope=data.scope)


@get("/api/auth/me", opt=needs("account.read"))
async def me(request: Call, services: NamedDependency[Services]) -> Me:
    """Tell the caller who he is and what he may do."""
    user = await services.accounts.get(request.user.uid)
    return Me(shapes.User.of(user), sorted(services.policy.now.permissions(user.roles)))


async def _renew_hash(accounts: Accounts, uid: str, password: str) -> None:
    try:
        await accounts.renew_hash(uid, password)
    except (StoreError, RedisError):
        log.warning("a password hash was not renewed: the store is away; the next login tries again")

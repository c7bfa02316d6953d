"""POST /api/auth/login, refresh, logout; GET /api/auth/me."""

import logging
from typing import Annotated, Literal

import msgspec
from litestar import Response, get, post
from litestar.background_tasks import BackgroundTask
from litestar.params import JSONBody
from msgspec import Meta
from redis.exceptions import RedisError

from auth.accounts import Accounts
from auth.errors import InvalidCredentials, InvalidGrant, InvalidToken, TokenExpired, UnknownUser
from auth.sessions import Grant
from auth.tokens import Principal
from auth.users import Credentials
from gateway.accounts.logins import Client
from gateway.audit import NO_USER
from gateway.http.access import needs, public
from gateway.http.callers import login_token_of
from gateway.http.context import Call, agent_of, context_of
from gateway.http.cookies import CLEARED, RefreshCookies, cleared_if_void
from gateway.redis.store import StoreError
from gateway.routes import schemas as shapes
from gateway.routes.services import CookieMode, Injected, Services
from gateway.text import FieldError

log = logging.getLogger("gateway")


class Login(shapes.Secret, forbid_unknown_fields=True):
    username: Annotated[shapes.Username, Meta(max_length=256)]
    password: shapes.Password


class Refresh(shapes.Secret, forbid_unknown_fields=True):
    refresh_token: Annotated[
        Annotated[str, Meta(max_length=4096)] | None,
        Meta(description="From the last login or refresh; required, except in cookie mode."),
    ] = None


class Logout(shapes.Secret, forbid_unknown_fields=True):
    refresh_token: Annotated[
        Annotated[str, Meta(max_length=4096)] | None,
        Meta(
            description="Names the session instead of the access token; accepted even if that has expired. "
            "In cookie mode the cookie names it."
        ),
    ] = None
    scope: Annotated[
        Literal["current", "others", "all"],
        Meta(description="`current`: this session; `others`: all other sessions of the user; `all`: all of them."),
    ] = "current"


class Me(msgspec.Struct):
    user: Annotated[shapes.User, Meta(description="The caller.")]
    permissions: Annotated[list[str], Meta(description="All permissions that the user's roles grant.")]


@post(
    "/api/auth/login",
    opt=public(throttled=True, refuses=("invalid_credentials", "too_many_attempts", "busy", "origin_refused")),
    status_code=200,
)
async def login(
    data: JSONBody[Login], request: Call, services: Injected, mode: CookieMode = None
) -> Response[shapes.LoggedIn]:
    """Exchange a user name and a password for an access token and a refresh token."""
    by_cookie = services.cookies.asked(mode, request.scope["headers"])
    address = context_of(request.scope).client
    origin = services.throttle.origin(address)
    try:
        async with services.throttle.login(address, data.username) as attempt:
            user = await services.accounts.verify(attempt.credentials, data.password)
            grant = await services.logins.open(user, Client(origin, agent_of(request.scope)), attempt.succeeded())
    except InvalidCredentials as error:
        services.audit.note("login.failed", by=NO_USER, subject=error.uid or NO_USER, origin=origin)
        raise
    # After the answer: a hash with older parameters is renewed while the password is available.
    renewal = BackgroundTask(_renew_hash, services.accounts, attempt.credentials, data.password)
    answer, fields = services.logged_in(grant, user, by_cookie=by_cookie)
    return Response(answer, headers=fields, background=renewal)


@post(
    "/api/auth/refresh",
    opt=public(throttled=True, refuses=("invalid_grant", "too_many_attempts", "origin_refused")),
    status_code=200,
)
async def refresh(
    data: JSONBody[Refresh], request: Call, services: Injected, mode: CookieMode = None
) -> Response[shapes.LoggedIn]:
    """Exchange a refresh token for the next pair of tokens, with the user's current roles."""
    by_cookie = services.cookies.asked(mode, request.scope["headers"])
    with cleared_if_void(by_cookie):
        token = _given_token(data.refresh_token, request, by_cookie=by_cookie)
        if token is None:
            raise InvalidGrant if by_cookie else FieldError("refresh_token", "is required")
        grant = await _refresh(token, context_of(request.scope).client, services)
        try:
            user = await services.accounts.get(grant.principal.uid)
        except UnknownUser:  # deleted a moment ago
            raise InvalidGrant from None
    answer, fields = services.logged_in(grant, user, by_cookie=by_cookie)
    return Response(answer, headers=fields)


@post(
    "/api/auth/logout",
    opt=public(
        throttled=True, refuses=("invalid_grant", "invalid_token", "token_expired", "forbidden", "origin_refused")
    ),
    status_code=204,
)
async def logout(data: JSONBody[Logout], request: Call, services: Injected, mode: CookieMode = None) -> Response[None]:
    """End this session, the user's other sessions, or all of them; at once, on every worker.

    Either token names the session. Ending a session that has ended is no error, but an expired access token is refused.
    """
    by_cookie = services.cookies.asked(mode, request.scope["headers"])
    principal = None
    with cleared_if_void(by_cookie):
        token = _given_token(data.refresh_token, request, by_cookie=by_cookie)
        if token is not None:
            uid, sid = services.sessions.owner_of(token)
        elif by_cookie and data.scope != "others" and b"authorization" not in dict(request.scope["headers"]):
            return Response(None, headers=CLEARED)  # logged out already
        else:
            principal = services.tokens.verify(login_token_of(request.scope))
            uid, sid = principal.uid, principal.sid
    if data.scope != "current":
        await _end_several(services, data.scope, uid, sid, principal)
    elif await services.sessions.end(uid, sid):
        services.audit.note("logout", by=uid, subject=uid, session=sid, scope=data.scope)
    return Response(None, headers=CLEARED if by_cookie and data.scope != "others" else {})


@get("/api/auth/me", opt=needs("account.read"))
async def me(request: Call, services: Injected) -> Me:
    """Return the caller's account and permissions."""
    user = await services.accounts.get(request.user.uid)
    return Me(shapes.User.of(user), sorted(services.policy.now.permissions(user.roles)))


def _given_token(of_body: str | None, request: Call, *, by_cookie: bool) -> str | None:
    """Return the refresh token of a request, None without one. Raises: FieldError; InvalidGrant, of two cookies"""
    if not by_cookie:
        return of_body
    if of_body is not None:  # two tokens might name two sessions
        raise FieldError("refresh_token", "must not be given in cookie mode, in which the cookie holds it")
    return RefreshCookies.token(request.scope["headers"])


async def _refresh(token: str, address: str, services: Services) -> Grant:
    """Rotate a refresh token, throttled by session; audit the reuse of an old one. Raises: InvalidGrant"""
    uid, sid = services.sessions.owner_of(token)
    await services.throttle.refresh_allowed(sid, address)
    try:
        grant = await services.sessions.refresh(token)
    except InvalidGrant as error:
        if error.reused_by:
            origin = services.throttle.origin(address)
            services.audit.note("refresh.reused", by=NO_USER, subject=uid, origin=origin, session=sid)
        raise
    if grant.rotated:
        await services.throttle.refreshed(sid)
    return grant


async def _end_several(services: Services, scope: str, uid: str, sid: str, principal: Principal | None) -> None:
    """End all sessions of a user, or all but this one. A void token, or one of an ended session, ends none."""
    if not await services.sessions.is_live(uid, sid):
        if scope == "others":
            raise InvalidToken("The session has ended. Log in again.")
        return
    if principal is not None and not await services.sessions.is_current(principal):
        raise TokenExpired("The account has changed since this token was issued. Refresh it.")
    try:
        if scope == "all":
            await services.accounts.void_tokens(uid)
        await services.sessions.end_all(uid, but=sid if scope == "others" else None)
    finally:  # they end with the first write, even if the disk has not confirmed it
        services.audit.note("logout", by=uid, subject=uid, session=sid, scope=scope)


async def _renew_hash(accounts: Accounts, credentials: Credentials, password: str) -> None:
    try:
        await accounts.renew_hash(credentials, password)
    except (StoreError, RedisError):
        log.warning("a password hash was not renewed: Redis is unavailable; the next login tries again")

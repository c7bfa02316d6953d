"""POST /api/auth/login, refresh, logout; GET /api/auth/me."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import JSONBody

from auth.accounts import Accounts, User
from auth.errors import InvalidToken
from auth.sessions import Grant, Sessions
from auth.tokens import LoginTokens
from gateway.admission import Admitted, bearer_of, client_of
from gateway.policy import Policy
from gateway.problems import RateLimited
from gateway.throttle import Throttle
from limits.limiter import Limiter


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


@post("/api/auth/login", opt={"public": True, "throttled": True}, status_code=200)
async def login(  # noqa: PLR0913  one argument per part the route joins
    data: JSONBody[Login],
    request: Request[Any, Any, State],
    throttle: NamedDependency[Throttle],
    accounts: NamedDependency[Accounts],
    sessions: NamedDependency[Sessions],
    tokens: NamedDependency[LoginTokens],
    limiter: NamedDependency[Limiter],
) -> dict[str, Any]:
    """Exchange a user name and a password for an access token and a refresh token."""
    async with throttle.login(client_of(request.scope), data.username):
        user = await accounts.authenticate(data.username, data.password)
    decision = await limiter.take(user.id, (), metric="login")
    if not decision.allowed:  # an operator's block
        raise RateLimited(decision)
    grant = await sessions.open(user)
    return _tokens(grant, user, tokens)


@post("/api/auth/refresh", opt={"public": True, "throttled": True}, status_code=200)
async def refresh(
    data: JSONBody[Refresh],
    throttle: NamedDependency[Throttle],
    accounts: NamedDependency[Accounts],
    sessions: NamedDependency[Sessions],
    tokens: NamedDependency[LoginTokens],
) -> dict[str, Any]:
    """Exchange a refresh token for the next pair of tokens, with the roles of this moment."""
    _, sid = sessions.owner_of(data.refresh_token)
    await throttle.refresh_allowed(sid)
    grant = await sessions.refresh(data.refresh_token)
    if grant.rotated:
        await throttle.refreshed(sid)
    return _tokens(grant, await accounts.get(grant.principal.uid), tokens)


@post("/api/auth/logout", opt={"public": True, "throttled": True}, status_code=204)
async def logout(
    data: JSONBody[Logout],
    request: Request[Any, Any, State],
    sessions: NamedDependency[Sessions],
    tokens: NamedDependency[LoginTokens],
) -> None:
    """End this session, the user's others, or all of them; at once, on every worker.

    Either token names the session. Ending what has ended is no error; an expired access token is refused all the same.
    """
    if data.refresh_token is not None:
        uid, sid = sessions.owner_of(data.refresh_token)
    else:
        principal = tokens.verify(bearer_of(request.scope))
        uid, sid = principal.uid, principal.sid
    if data.scope == "current":
        await sessions.end(uid, sid)
    elif await sessions.is_live(uid, sid):
        # A token of an ended session may end nothing but itself.
        await sessions.end_all(uid, but=sid if data.scope == "others" else None)
    elif data.scope == "others":
        raise InvalidToken("The session has ended. Log in again.")


@get("/api/auth/me", opt={"action": "account.read"})
async def me(
    request: Request[Any, Admitted, State], accounts: NamedDependency[Accounts], policy: NamedDependency[Policy]
) -> dict[str, Any]:
    """Tell the caller who he is and what he may do."""
    user = await accounts.get(request.user.uid)
    return {"user": _user(user), "permissions": sorted(policy.permissions(user.roles))}


def _tokens(grant: Grant, user: User, tokens: LoginTokens) -> dict[str, Any]:
    return {
        "access_token": tokens.issue(grant.principal, auth_time=grant.auth_time),
        "token_type": "Bearer",
        "expires_in": tokens.ttl_s,
        "refresh_token": grant.refresh_token,
        "refresh_expires_in": grant.refresh_expires_s,
        "session_id": grant.principal.sid,
        "user": _user(user),
    }


def _user(user: User) -> dict[str, Any]:
    return {"id": user.id, "username": user.username, "display_name": user.display_name, "roles": list(user.roles)}

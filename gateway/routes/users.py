"""/api/admin/users: accounts, for users who may manage them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from litestar import delete, get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from auth.users import User
from gateway.accounts.admin import PASSWORD_LINK_S, Changes, NewAccount
from gateway.http.access import needs
from gateway.http.context import Call
from gateway.http.cursors import PageCursor, PageSize
from gateway.routes import schemas as shapes
from gateway.routes.services import Injected, UserInPath
from gateway.text import plain_text

_CHANGES = ("not_found", "last_admin", "busy")
_Roles = Annotated[
    list[Annotated[str, Meta(max_length=32)]],
    Meta(min_length=1, max_length=16, description="Gateway roles, as the policy defines them.", examples=[["host"]]),
]
_Status = Annotated[Literal["active", "disabled"], Meta(description="A user who is disabled cannot log in.")]


class Identity(msgspec.Struct, forbid_unknown_fields=True):
    """Who a person is at an identity provider."""

    provider: Annotated[str, Meta(max_length=32, description="Name of the provider in the policy.")]
    subject: Annotated[str, Meta(max_length=255, description="The `sub` of its tokens.")]


class CreateUser(shapes.Secret, forbid_unknown_fields=True):
    username: shapes.NewUsername
    roles: _Roles
    password: Annotated[
        Annotated[str, Meta(max_length=4096)] | None,
        Meta(description="Without it the user cannot log in until they have used a password link."),
    ] = None
    display_name: shapes.NewDisplayName | None = None
    identity: Annotated[Identity | None, Meta(description="Who logs in as this user with tokens of a provider.")] = None


class ChangeUser(msgspec.Struct, forbid_unknown_fields=True):
    roles: _Roles | None = None
    status: _Status | None = None
    display_name: shapes.NewDisplayName | None = None


class Account(shapes.User):
    """An account, as its operators see it."""

    status: Annotated[str, Meta(description="`active` or `disabled`.")]
    created_at: shapes.CreatedAt
    identity: Annotated[Identity | None, Meta(description="Who they are at an identity provider, if at any.")]

    @classmethod
    def of(cls, user: User) -> Account:
        created_at = shapes.iso(user.created_ms / 1000)
        identity = Identity(user.identity.provider, user.identity.subject) if user.identity else None
        return cls(user.id, user.username, user.display_name, list(user.roles), user.status, created_at, identity)


class OneAccount(msgspec.Struct):
    user: Annotated[Account, Meta(description="The account.")]


class AccountList(msgspec.Struct):
    users: Annotated[list[Account], Meta(description="By name.")]
    next_cursor: shapes.NextCursor | None


class PasswordLink(shapes.Secret):
    """A code to set a password with, once."""

    token: Annotated[str, Meta(description="For `POST /api/auth/password/setup`. It is shown only once.")]
    expires_in: Annotated[int, Meta(description="Seconds until it expires.")]


class Ended(msgspec.Struct):
    ended: Annotated[int, Meta(description="How many sessions ended.")]


@get("/api/admin/users", opt=needs("users.manage"))
async def list_users(
    services: Injected,
    name: Annotated[
        str, QueryParameter(max_length=64, description="Only names that begin with this text, in any case.")
    ] = "",
    limit: PageSize = 100,
    cursor: PageCursor = None,
) -> AccountList:
    """List accounts, sorted by name."""
    after = "\n".join(services.cursors.open("users", cursor)) if cursor else ""
    found, following = await services.report_accounts.search(name, after=after, size=limit)
    next_cursor = services.cursors.seal("users", following) if following is not None else None
    return AccountList([Account.of(user) for user in found], next_cursor)


@post("/api/admin/users", opt=needs("users.manage", refuses=("user_exists", "weak_password", "busy")), status_code=201)
async def create_user(data: JSONBody[CreateUser], request: Call, services: Injected) -> OneAccount:
    """Create an account."""
    display_name = plain_text("display_name", data.display_name)
    actor = services.actor(request.user)
    identity = (data.identity.provider, data.identity.subject) if data.identity else None
    new = NewAccount(data.username, data.password, data.roles, display_name, identity)
    user = await services.user_admin.create(actor, new)
    return OneAccount(Account.of(user))


@get("/api/admin/users/{user:str}", opt=needs("users.manage", refuses=("not_found",)))
async def read_user(user: UserInPath, services: Injected) -> OneAccount:
    """Return one account."""
    return OneAccount(Account.of(await services.accounts.lookup(user)))


@patch("/api/admin/users/{user:str}", opt=needs("users.manage", refuses=_CHANGES))
async def change_user(user: UserInPath, data: JSONBody[ChangeUser], request: Call, services: Injected) -> OneAccount:
    """Change roles, status or display name; what is omitted stays. Takes effect with the user's next request."""
    display_name = None if data.display_name is None else plain_text("display_name", data.display_name)
    changes = Changes(None if data.roles is None else tuple(data.roles), data.status, display_name)
    return OneAccount(Account.of(await services.user_admin.change(services.actor(request.user), user, changes)))


@delete("/api/admin/users/{user:str}", opt=needs("users.manage", refuses=_CHANGES), status_code=204)
async def delete_user(user: UserInPath, request: Call, services: Injected) -> None:
    """Delete an account with its name, password, roles and sessions. Its usage counters stay, under its id only."""
    await services.user_admin.delete(services.actor(request.user), user)


@delete("/api/admin/users/{user:str}/sessions", opt=needs("users.manage", refuses=("not_found",)), status_code=200)
async def end_sessions(user: UserInPath, request: Call, services: Injected) -> Ended:
    """End all sessions of a user."""
    return Ended(await services.user_admin.end_sessions(services.actor(request.user), user))


@get("/api/admin/users/{user:str}/sessions", opt=needs("users.manage", refuses=("not_found",)))
async def list_user_sessions(user: UserInPath, request: Call, services: Injected) -> shapes.SessionList:
    """List where a user is logged in, newest first."""
    one = await services.accounts.lookup(user)
    return shapes.SessionList.of(await services.sessions.current(one.id), request.user.sid)


@delete(
    "/api/admin/users/{user:str}/sessions/{sid:str}", opt=needs("users.manage", refuses=("not_found",)), status_code=204
)
async def end_user_session(
    user: UserInPath, sid: FromPath[shapes.SessionId], request: Call, services: Injected
) -> None:
    """End one session of a user at once."""
    await services.user_admin.end_session(services.actor(request.user), user, sid)


@post("/api/admin/users/{user:str}/password-link", opt=needs("users.manage", refuses=("not_found",)), status_code=201)
async def make_password_link(user: UserInPath, request: Call, services: Injected) -> PasswordLink:
    """Create a code with which a user sets their password, once."""
    return PasswordLink(await services.user_admin.password_link(services.actor(request.user), user), PASSWORD_LINK_S)

"""/api/admin/users: accounts, for whoever may manage users."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from litestar import delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from auth.users import User
from gateway.accounts.actor import Actor
from gateway.accounts.admin import PASSWORD_LINK_S, Changes
from gateway.http.access import needs
from gateway.http.context import Call
from gateway.routes.schemas import iso
from gateway.routes.services import Services
from gateway.text import plain_text

_CHANGES = ("not_found", "last_admin", "busy")
_ROLES = Annotated[list[Annotated[str, msgspec.Meta(max_length=32)]], msgspec.Meta(min_length=1, max_length=16)]
_NAME = Annotated[str, msgspec.Meta(max_length=100)]


class CreateUser(msgspec.Struct, forbid_unknown_fields=True):
    username: Annotated[str, msgspec.Meta(max_length=256)]
    roles: _ROLES
    password: Annotated[str, msgspec.Meta(max_length=4096)] | None = None
    display_name: _NAME | None = None

    def __repr__(self) -> str:
        return "CreateUser(...)"


class ChangeUser(msgspec.Struct, forbid_unknown_fields=True):
    roles: _ROLES | None = None
    status: Literal["active", "disabled"] | None = None
    display_name: _NAME | None = None


class Account(msgspec.Struct):
    id: str
    username: str
    display_name: str
    roles: list[str]
    status: str
    created_at: str

    @classmethod
    def of(cls, user: User) -> Account:
        created_at = iso(user.created_ms / 1000)
        return cls(user.id, user.username, user.display_name, list(user.roles), user.status, created_at)


class OneAccount(msgspec.Struct):
    user: Account


class AccountList(msgspec.Struct):
    users: list[Account]
    next_cursor: str | None


class PasswordLink(msgspec.Struct):
    """A code for POST /api/auth/password/setup. It works once, for `expires_in` seconds."""

    token: str
    expires_in: int

    def __repr__(self) -> str:
        return "PasswordLink(...)"


class Ended(msgspec.Struct):
    ended: int


@get("/api/admin/users", opt=needs("users.manage"))
async def list_users(
    services: NamedDependency[Services],
    name: Annotated[str, QueryParameter(max_length=64, description="beginning of a user name, in any case")] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=500)] = 100,
    cursor: Annotated[str | None, QueryParameter(max_length=512)] = None,
) -> AccountList:
    """List accounts by name; with `name` those whose names begin so."""
    after = ""
    if cursor:
        after = "\n".join(services.cursors.open("users", cursor))
    found, following = await services.report_accounts.search(name, after=after, size=limit)
    next_cursor = services.cursors.seal("users", following) if following is not None else None
    return AccountList([Account.of(user) for user in found], next_cursor)


@post("/api/admin/users", opt=needs("users.manage", refuses=("user_exists", "weak_password", "busy")), status_code=201)
async def create_user(
    data: JSONBody[CreateUser],
    request: Call,
    services: NamedDependency[Services],
) -> OneAccount:
    """Create an account. Without a password nobody can log in until a password link has been used."""
    display_name = plain_text("display_name", data.display_name)
    actor = Actor.of(request.user, services.policy.now)
    user = await services.user_admin.create(
        actor, data.username, data.password, roles=data.roles, display_name=display_name
    )
    return OneAccount(Account.of(user))


@get("/api/admin/users/{user:str}", opt=needs("users.manage", refuses=("not_found",)))
async def read_user(user: FromPath[str], services: NamedDependency[Services]) -> OneAccount:
    """Show one account, by id or by name."""
    return OneAccount(Account.of(await services.accounts.lookup(user)))


@patch("/api/admin/users/{user:str}", opt=needs("users.manage", refuses=_CHANGES))
async def change_user(
    user: FromPath[str],
    data: JSONBody[ChangeUser],
    request: Call,
    services: NamedDependency[Services],
) -> OneAccount:
    """Change roles, status or display name; what is left out stays. Live with the user's next request."""
    display_name = None if data.display_name is None else plain_text("display_name", data.display_name)
    changes = Changes(None if data.roles is None else tuple(data.roles), data.status, display_name)
    return OneAccount(
        Account.of(await services.user_admin.change(Actor.of(request.user, services.policy.now), user, changes))
    )


@delete("/api/admin/users/{user:str}", opt=needs("users.manage", refuses=_CHANGES), status_code=204)
async def delete_user(
    user: FromPath[str],
    request: Call,
    services: NamedDependency[Services],
) -> None:
    """Delete an account: name, password, roles, sessions. Its counters stay, under an id that nobody has any more."""
    await services.user_admin.delete(Actor.of(request.user, services.policy.now), user)


@delete("/api/admin/users/{user:str}/sessions", opt=needs("users.manage", refuses=("not_found",)), status_code=200)
async def end_sessions(
    user: FromPath[str],
    request: Call,
    services: NamedDependency[Services],
) -> Ended:
    """Log a user out everywhere."""
    return Ended(await services.user_admin.end_sessions(Actor.of(request.user, services.policy.now), user))


@post("/api/admin/users/{user:str}/password-link", opt=needs("users.manage", refuses=("not_found",)), status_code=201)
async def make_password_link(
    user: FromPath[str],
    request: Call,
    services: NamedDependency[Services],
) -> PasswordLink:
    """Make a code with which the user sets his password, once."""
    return PasswordLink(
        await services.user_admin.password_link(Actor.of(request.user, services.policy.now), user), PASSWORD_LINK_S
    )

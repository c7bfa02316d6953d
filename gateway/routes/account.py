"""One's own account: POST /api/auth/register, /api/auth/password and /password/setup; /api/auth/sessions."""

from typing import Annotated

import msgspec
from litestar import delete, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from gateway.accounts.registration import Newcomer
from gateway.http.access import needs, public
from gateway.http.context import Call, context_of
from gateway.http.problems import Problem
from gateway.routes import schemas as shapes
from gateway.routes.services import Injected
from gateway.text import plain_text

_Code = Annotated[
    str, Meta(max_length=64, description="Code from an operator.", examples=["k5tqhcm2xr7wza3dnvpb6yfe4u"])
]


class Register(shapes.Secret, forbid_unknown_fields=True):
    username: shapes.NewUsername
    password: shapes.NewPassword
    display_name: shapes.NewDisplayName | None = None
    invite: (
        Annotated[_Code, Meta(description="Code of an operator's invitation, which also names the roles.")] | None
    ) = None

    def __post_init__(self) -> None:
        self.display_name = plain_text("display_name", self.display_name)


class ChangePassword(shapes.Secret, forbid_unknown_fields=True):
    current_password: Annotated[shapes.Password, Meta(description="Required because the token might have been stolen.")]
    new_password: shapes.NewPassword


class SetPassword(shapes.Secret, forbid_unknown_fields=True):
    token: _Code
    new_password: shapes.NewPassword


class Registered(msgspec.Struct):
    user: Annotated[shapes.User, Meta(description="The new user.")]


@post(
    "/api/auth/register",
    opt=public(
        throttled=True,
        refuses=("registration_closed", "invite_invalid", "user_exists", "weak_password", "too_many_attempts", "busy"),
    ),
    status_code=201,
)
async def register(data: JSONBody[Register], request: Call, services: Injected) -> Registered:
    """Register an account, if the operator allows it. An invitation names its roles."""
    address = context_of(request.scope).client
    user = await services.registration.register(
        Newcomer(data.username, data.password, data.display_name or "", data.invite),
        throttled=services.throttle.registration(address),
        origin=services.throttle.origin(address),
    )
    return Registered(shapes.User.of(user))


@post(
    "/api/auth/password",
    opt=needs("account.manage", refuses=("invalid_credentials", "weak_password", "too_many_attempts", "busy")),
    status_code=204,
)
async def change_password(data: JSONBody[ChangePassword], request: Call, services: Injected) -> None:
    """Change the caller's password. Every other session ends; this one continues after its next refresh."""
    address = context_of(request.scope).client
    user = await services.accounts.get(request.user.uid)
    await services.password_change.by_owner(
        request.user,
        data.current_password,
        data.new_password,
        throttled=services.throttle.login(address, user.username),
        origin=services.throttle.origin(address),
    )


@post(
    "/api/auth/password/setup",
    opt=public(throttled=True, refuses=("invalid_grant", "weak_password", "busy")),
    status_code=204,
)
async def set_password(data: JSONBody[SetPassword], request: Call, services: Injected) -> None:
    """Set a password with a code from an operator, which works once. Every session of the user ends."""
    origin = services.throttle.origin(context_of(request.scope).client)
    await services.password_change.by_link(data.token, data.new_password, origin=origin)


@get("/api/auth/sessions", opt=needs("account.read"))
async def list_sessions(request: Call, services: Injected) -> shapes.SessionList:
    """List the caller's sessions, newest first."""
    return shapes.SessionList.of(await services.sessions.current(request.user.uid), request.user.sid)


@delete("/api/auth/sessions/{sid:str}", opt=needs("account.manage", refuses=("not_found",)), status_code=204)
async def end_session(sid: FromPath[shapes.SessionId], request: Call, services: Injected) -> None:
    """End one of the caller's sessions at once."""
    if not await services.sessions.end(request.user.uid, sid):
        raise Problem(404, "not_found", "You have no such session.")
    services.audit.note("session.ended", by=request.user.uid, subject=request.user.uid, session=sid)

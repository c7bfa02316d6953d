"""One's own account: POST /api/auth/register, /api/auth/password and /password/setup; /api/auth/sessions."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from auth.errors import InvalidCredentials, InvalidGrant, InvalidVoucher, UnknownUser
from auth.vouchers import short_ref_of
from gateway.audit import NOBODY
from gateway.http.access import needs, public
from gateway.http.context import Call, context_of
from gateway.http.problems import Problem
from gateway.redis.durable import NotDurable
from gateway.routes import schemas as shapes
from gateway.routes.schemas import iso
from gateway.routes.services import Services
from gateway.text import plain_text

PASSWORD = Annotated[str, msgspec.Meta(max_length=4096)]
_DEAD_LINK = "The code is invalid, expired or used. Ask for a new one."
CODE = Annotated[str, msgspec.Meta(max_length=64)]


class Register(msgspec.Struct, forbid_unknown_fields=True):
    username: Annotated[str, msgspec.Meta(max_length=256)]
    password: PASSWORD
    display_name: Annotated[str, msgspec.Meta(max_length=100)] | None = None
    invite: CODE | None = None

    def __repr__(self) -> str:
        return "Register(...)"


class ChangePassword(msgspec.Struct, forbid_unknown_fields=True):
    current_password: PASSWORD
    new_password: PASSWORD

    def __repr__(self) -> str:
        return "ChangePassword(...)"


class SetPassword(msgspec.Struct, forbid_unknown_fields=True):
    token: CODE
    new_password: PASSWORD

    def __repr__(self) -> str:
        return "SetPassword(...)"


class Registered(msgspec.Struct):
    user: shapes.User


class Session(msgspec.Struct):
    """A place where the caller is logged in. `current` is the one this request came from."""

    id: str
    current: bool
    created_at: str
    used_at: str
    expires_at: str
    address: str
    agent: str


class SessionList(msgspec.Struct):
    sessions: list[Session]


@post(
    "/api/auth/register",
    opt=public(
        throttled=True,
        refuses=(
            "registration_closed",
            "invite_invalid",
            "user_exists",
            "weak_password",
            "too_many_attempts",
            "busy",
        ),
    ),
    status_code=201,
)
async def register(
    data: JSONBody[Register],
    request: Call,
    services: NamedDependency[Services],
) -> Registered:
    """Create an account of one's own, where the operator allows that; with an invitation, in the roles it names."""
    registration = services.policy.now.registration
    if registration.mode == "closed" or (registration.mode == "invite" and data.invite is None):
        wanted = (
            "needs an invitation" if registration.mode == "invite" else "is closed; ask the operator for an account"
        )
        raise Problem(403, "registration_closed", f"Registration {wanted}.")
    display_name = plain_text("display_name", data.display_name)
    address = context_of(request.scope).client
    async with services.throttle.registration(address):
        roles, by = registration.roles, NOBODY
        if data.invite is not None:
            try:
                said = await services.account_invites.spend(data.invite)
            except InvalidVoucher:
                services.throttle.note_wrong_code("account", address)
                raise
            roles, by = tuple(said["roles"].split()), said["by"]
        try:
            user = await services.accounts.add(data.username, data.password, roles=roles, display_name=display_name)
        except BaseException:
            if data.invite is not None:
                await services.account_invites.give_back(data.invite)
            raise
    source = services.throttle.source(address)
    invite = short_ref_of(data.invite) if data.invite else ""
    services.audit.note(
        "account.registered",
        by=user.id,
        subject=user.id,
        address=address,
        source=source,
        invited_by=by,
        invite=invite,
    )
    return Registered(shapes.User.of(user))


@post(
    "/api/auth/password",
    opt=needs("account.manage", refuses=("invalid_credentials", "weak_password", "too_many_attempts", "busy")),
    status_code=204,
)
async def change_password(
    data: JSONBody[ChangePassword],
    request: Call,
    services: NamedDependency[Services],
) -> None:
    """Change one's password. Every other session ends; this one goes on with the next refresh."""
    uid: str = request.user.uid
    address = context_of(request.scope).client
    source = services.throttle.source(address)
    unconfirmed: NotDurable | None = None
    try:
        # Guessing a password with a stolen token is throttled like guessing it without.
        async with services.throttle.login(address, (await services.accounts.get(uid)).username):
            user = await services.accounts.change_password(uid, data.current_password, data.new_password)
    except InvalidCredentials:
        services.audit.note("password.refused", by=uid, subject=uid, address=address, source=source)
        raise
    except NotDurable as error:  # it is in force, so that the rest of it has to be done as well
        unconfirmed, user = error, await services.accounts.get(uid)
    services.audit.note("password.changed", by=uid, subject=uid, address=address, source=source)
    await services.sessions.keep(user, request.user.sid)
    await services.sessions.end_all(uid, but=request.user.sid)
    if unconfirmed is not None:
        raise unconfirmed


@post(
    "/api/auth/password/setup",
    opt=public(throttled=True, refuses=("invalid_grant", "weak_password", "busy")),
    status_code=204,
)
async def set_password(
    data: JSONBody[SetPassword],
    request: Call,
    services: NamedDependency[Services],
) -> None:
    """Set a password with the code an operator gave; it works once. Every session of the user ends."""
    address = context_of(request.scope).client
    try:
        said = (await services.password_links.look(data.token)).payload
        if (await services.accounts.get(said["uid"])).mark != said["mark"]:
            raise InvalidGrant(_DEAD_LINK)
        await services.accounts.check_password(said["uid"], data.new_password)  # a weak one must not use the code up
        uid = (await services.password_links.spend(data.token))["uid"]
    except (InvalidVoucher, InvalidGrant, UnknownUser):
        services.throttle.note_wrong_code("password", address)
        raise InvalidGrant(_DEAD_LINK) from None
    unconfirmed: NotDurable | None = None
    try:
        await services.accounts.set_password(uid, data.new_password, mark=said["mark"])
    except (InvalidCredentials, UnknownUser):
        raise InvalidGrant(_DEAD_LINK) from None
    except NotDurable as error:
        unconfirmed = error
    except BaseException:
        await services.password_links.give_back(data.token)
        raise
    services.audit.note("password.set", by=uid, subject=uid, address=address, source=services.throttle.source(address))
    await services.sessions.end_all(uid)
    if unconfirmed is not None:
        raise unconfirmed


@get("/api/auth/sessions", opt=needs("account.read"))
async def list_sessions(request: Call, services: NamedDependency[Services]) -> SessionList:
    """List where the caller is logged in, the newest first."""
    return SessionList(
        [
            Session(
                id=one.id,
                current=one.id == request.user.sid,
                created_at=iso(one.opened_ms / 1000),
                used_at=iso(one.used_ms / 1000),
                expires_at=iso(one.expires_ms / 1000),
                address=one.address,
                agent=one.agent,
            )
            for one in await services.sessions.current(request.user.uid)
        ]
    )


@delete("/api/auth/sessions/{sid:str}", opt=needs("account.manage", refuses=("not_found",)), status_code=204)
async def end_session(
    sid: FromPath[str],
    request: Call,
    services: NamedDependency[Services],
) -> None:
    """End one session of the caller's own, at once."""
    if not await services.sessions.end(request.user.uid, sid):
        raise Problem(404, "not_found", "You have no such session.")
    services.audit.note("session.ended", by=request.user.uid, subject=request.user.uid, session=sid)

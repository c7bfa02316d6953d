"""/api/rooms/{id}/invites, and POST /api/invites/{code}/accept."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from litestar import Response, delete, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from auth.errors import InvalidVoucher
from gateway.http.access import needs
from gateway.http.context import Call, agent_of, context_of
from gateway.http.problems import Problem
from gateway.rooms.invites import MOST_LASTS_S, MOST_USES, Invite
from gateway.routes import schemas as shapes
from gateway.routes.services import CookieMode, Injected, RoomInPath, Services
from gateway.text import plain_text

_InviteId = Annotated[str, Meta(description="Id of the invite, from `GET /api/rooms/{room_id}/invites`.")]
_Code = Annotated[str, Meta(description="Code of the invite.")]
_Guests = Annotated[bool, Meta(description="Whether it can be accepted without an account.", examples=[True])]


class MakeInvite(msgspec.Struct, forbid_unknown_fields=True):
    relation: Annotated[
        Literal["cohost", "participant", "viewer"],
        Meta(description="The relation of users who accept it.", examples=["viewer"]),
    ] = "participant"
    max_uses: Annotated[int, Meta(ge=1, le=MOST_USES, description="How many users may accept it.", examples=[20])] = 1
    expires_in_s: Annotated[
        int, Meta(ge=60, le=MOST_LASTS_S, description="Seconds until it expires.", examples=[3600])
    ] = 86_400
    guests: _Guests = False


class AcceptInvite(msgspec.Struct, forbid_unknown_fields=True):
    display_name: shapes.NewDisplayName | None = None

    def __post_init__(self) -> None:
        self.display_name = plain_text("display_name", self.display_name) or None


class RoomInvite(msgspec.Struct):
    """An invite without its code."""

    id: Annotated[str, Meta(description="For revoking the invite; it cannot be used to accept it.")]
    relation: shapes.Relation
    uses_left: Annotated[int, Meta(description="How many users may still accept it.")]
    expires_at: shapes.ExpiresAt
    guests: _Guests
    by: shapes.By

    @classmethod
    def of(cls, one: Invite) -> RoomInvite:
        return cls(one.ref, one.relation, one.uses_left, shapes.iso(one.expires_ms / 1000), one.guests, one.by)


class InviteMade(shapes.Secret):
    code: Annotated[str, Meta(description="For `POST /api/invites/{code}/accept`. It is shown only once.")]
    invite: Annotated[RoomInvite, Meta(description="The new invite.")]


class InviteList(msgspec.Struct):
    invites: Annotated[list[RoomInvite], Meta(description="Invites that can still be accepted.")]


class InviteAccepted(shapes.Secret):
    room: Annotated[shapes.Room, Meta(description="The room.")]
    relation: Annotated[shapes.Relation, Meta(description="The caller's relation to the room from now on.")]
    login: Annotated[
        shapes.LoggedIn | None, Meta(description="Tokens of a new guest; null if the caller was logged in.")
    ] = None


@post("/api/rooms/{room_id:str}/invites", opt=needs("invites.manage", refuses=("forbidden",)), status_code=201)
async def make_invite(room_id: RoomInPath, data: JSONBody[MakeInvite], request: Call, services: Injected) -> InviteMade:
    """Create an invite: a code that gives those who accept it a relation to a room. Only owners can invite cohosts."""
    found, _ = request.auth.room()
    by = services.caller(request)
    code, invite = await services.invites.make(
        found.room, by, data.relation, lasts_s=data.expires_in_s, uses=data.max_uses, guests=data.guests
    )
    services.audit.note(
        "invite.made", by=by.uid, room=room_id, relation=data.relation, invite=invite.ref[:12], uses=data.max_uses
    )
    return InviteMade(code, RoomInvite.of(invite))


@get("/api/rooms/{room_id:str}/invites", opt=needs("members.read"))
async def list_invites(room_id: RoomInPath, request: Call, services: Injected) -> InviteList:
    """List the invites of a room that can still be accepted."""
    found, _ = request.auth.room()
    return InviteList([RoomInvite.of(one) for one in await services.invites.all(found.room)])


@delete("/api/rooms/{room_id:str}/invites/{invite_id:str}", opt=needs("rooms.end"), status_code=204)
async def revoke_invite(room_id: RoomInPath, invite_id: FromPath[_InviteId], request: Call, services: Injected) -> None:
    """Revoke an invite. Users who have accepted it keep their relation."""
    found, _ = request.auth.room()
    if not await services.invites.revoke(found.room, invite_id):
        raise Problem(404, "not_found", "The room has no such invite.")
    services.audit.note("invite.revoked", by=request.user.uid, room=room_id, invite=invite_id[:12])


@post(
    "/api/invites/{code:str}/accept",
    opt=needs("invites.accept", guests=True, refuses=("invite_invalid", "too_many_attempts", "origin_refused")),
    status_code=200,
)
async def accept_invite(
    code: FromPath[_Code], data: JSONBody[AcceptInvite], request: Call, services: Injected, mode: CookieMode = None
) -> Response[InviteAccepted]:
    """Accept an invite to a room. Without a login, an invite for guests creates a user for a few hours."""
    if context_of(request.scope).admitted is None:
        by_cookie = services.cookies.asked(mode, request.scope["headers"])
        return await _accept_as_guest(code, data.display_name or "", request, services, by_cookie=by_cookie)
    user = await services.accounts.get(request.user.uid)
    room, relation = await services.invites.accept(code, user)
    services.audit.note("invite.accepted", by=user.id, subject=user.id, room=room.id, relation=relation)
    return Response(InviteAccepted(shapes.Room.of(room), relation))


async def _accept_as_guest(
    code: str, display_name: str, request: Call, services: Services, *, by_cookie: bool
) -> Response[InviteAccepted]:
    address, agent = context_of(request.scope).client, agent_of(request.scope)
    try:
        async with services.throttle.registration(address):
            room, relation, guest, grant = await services.guests.accept(
                code, display_name, address=address, agent=agent
            )
    except InvalidVoucher:
        services.audit.refused_code("room", services.throttle.origin(address))
        raise
    origin = services.throttle.origin(address)
    services.audit.note("guest.accepted", by=guest.id, subject=guest.id, origin=origin, room=room.id)
    login, fields = services.logged_in(grant, guest, by_cookie=by_cookie)
    return Response(InviteAccepted(shapes.Room.of(room), relation, login), headers=fields)

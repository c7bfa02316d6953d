"""POST /api/rooms/{id}/token: a token to join a room."""

import time
from typing import Annotated

import msgspec
from litestar import post
from litestar.params import JSONBody
from msgspec import Meta

from gateway.http.access import needs
from gateway.http.context import Call
from gateway.http.problems import Problem
from gateway.policy.decide import decide_role
from gateway.routes import schemas as shapes
from gateway.routes.services import Injected, RoomInPath


class MintToken(msgspec.Struct, forbid_unknown_fields=True):
    role: Annotated[
        Annotated[str, Meta(max_length=64)] | None,
        Meta(description="Role at 100ms. By default the least powerful that the caller may have.", examples=["guest"]),
    ] = None
    # The seed's client sends it. It is ignored: a token always names the logged-in user.
    user_id: Annotated[
        Annotated[str, Meta(max_length=256)] | None,
        Meta(description="Ignored; accepted for clients of the old guide's backend."),
    ] = msgspec.field(default=None, name="userId")


class Minted(shapes.Secret):
    """A token to join a room at 100ms."""

    token: Annotated[str, Meta(description="Token to join the room, for the 100ms SDK.")]
    room_id: shapes.RoomId
    role: Annotated[str, Meta(description="Role at 100ms that the token grants.")]
    user_id: Annotated[str, Meta(description="The caller's id, as 100ms will see it.")]
    expires_at: shapes.ExpiresAt
    success: shapes.Success = True


@post(
    "/api/rooms/{room_id:str}/token",
    opt=needs("tokens.mint", refuses=("role_not_allowed", "room_disabled", "room_full", "unknown_role")),
    status_code=200,
)
async def mint_token(room_id: RoomInPath, data: JSONBody[MintToken], request: Call, services: Injected) -> Minted:
    """Mint a 100ms join token for the logged-in user, in a role that the policy allows them in this room."""
    found, relation = request.auth.room()
    uid: str = request.user.uid
    now, template = services.policy.now, found.room.template
    template_id = now.template_ids.get(template)
    existing = services.hms.template_roles(template_id) if template_id else None
    verdict = decide_role(now, template, relation or "", data.role, existing)
    if verdict.code:
        status = 422 if verdict.code == "unknown_role" else 403
        raise Problem(status, verdict.code, verdict.reason, allowed_roles=list(verdict.allowed))
    ttl_s = now.rooms.token_ttl_s
    if not now.joins_open_rooms(request.user.roles) and (ends_at := await services.guests.ends_at(uid)) is not None:
        ttl_s = max(1, min(ttl_s, int(ends_at - time.time())))  # a guest's token expires with the guest
    left_s = await services.budgets.check_mint(request.auth.decision, found.room.owner_id)
    if left_s is not None:
        ttl_s = max(1, min(ttl_s, left_s))
    minted = services.hms_tokens.join_token(room_id=room_id, user_id=uid, role=verdict.role, ttl_s=ttl_s)
    await services.rooms.enlist(found, uid)
    jti, exp = minted.jti, minted.expires_at
    services.audit.note("token.minted", by=uid, subject=uid, room=room_id, role=verdict.role, jti=jti, exp=exp)
    return Minted(minted.token, room_id, verdict.role, uid, shapes.iso(minted.expires_at))

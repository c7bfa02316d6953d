"""POST /api/rooms; GET /api/rooms and /api/rooms/{id}; POST /api/rooms/{id}/token."""

from __future__ import annotations

import logging
import unicodedata
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from gateway.admission import Admitted
from gateway.cursors import Cursors
from gateway.hms.client import HmsClient
from gateway.hms.tokens import HmsTokens
from gateway.policy import Policy, decide_role
from gateway.problems import Problem, invalid
from gateway.rooms import NewRoom, Room, Rooms
from gateway.shapes import iso

log = logging.getLogger("gateway.audit")

DEFAULT_NAME = "Untitled room"


class CreateRoom(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(max_length=100)] | None = None
    description: Annotated[str, msgspec.Meta(max_length=500)] | None = None
    access: Literal["open", "invited"] | None = None
    template: Annotated[str, msgspec.Meta(max_length=64)] | None = None


class MintToken(msgspec.Struct, forbid_unknown_fields=True):
    role: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    # The seed's client sends it. The token always names the user who is logged in, so it is read and forgotten.
    user_id: Annotated[str, msgspec.Meta(max_length=256)] | None = msgspec.field(default=None, name="userId")


@post("/api/rooms", opt={"action": "rooms.create"}, status_code=201)
async def create_room(
    data: JSONBody[CreateRoom],
    request: Request[Any, Admitted, State],
    rooms: NamedDependency[Rooms],
    policy: NamedDependency[Policy],
) -> dict[str, Any]:
    """Create a room at 100ms; the caller owns it."""
    template = data.template or "default"
    if template not in policy.templates:
        raise Problem(403, "template_not_allowed", "There is no template of that name.")
    new = NewRoom(
        name=_text("name", data.name) or DEFAULT_NAME,
        description=_text("description", data.description),
        access=data.access or policy.rooms.access,
        template=template,
    )
    lease = request.auth.decision.leases[0].lease.holder
    room = await rooms.create(request.user.uid, new, lease=lease)
    log.info("room created", extra={"fields": {"user": request.user.uid, "room": room.id}})
    return {"success": True, "room": _room(room)}


@get("/api/rooms", opt={"action": "rooms.list"})
async def list_rooms(
    request: Request[Any, Admitted, State],
    rooms: NamedDependency[Rooms],
    policy: NamedDependency[Policy],
    cursors: NamedDependency[Cursors],
    limit: Annotated[int, QueryParameter(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, QueryParameter(max_length=256)] = None,
) -> dict[str, Any]:
    """List the caller's rooms, newest first; with rooms:read-any, everybody's."""
    reads_any = "rooms:read-any" in policy.permissions(request.user.roles)
    uid = None if reads_any else request.user.uid
    before = None
    if cursor:
        try:
            created_ms, room_id = cursors.open("rooms", cursor)
        except ValueError as error:
            raise invalid("cursor", str(error)) from error
        before = (int(created_ms), room_id)
    found, following = await rooms.page(uid, before=before, size=limit)
    next_cursor = cursors.seal("rooms", *following) if following else None
    return {"rooms": [_room(room) for room in found], "next_cursor": next_cursor}


@get("/api/rooms/{room_id:str}", opt={"action": "rooms.read", "fetch": "room"})
async def read_room(room_id: FromPath[str], request: Request[Any, Admitted, State]) -> dict[str, Any]:
    """Return one room and the caller's relation to it."""
    found, relation = request.auth.room()
    return {"room": _room(found.room) | {"relation": relation}}


@post("/api/rooms/{room_id:str}/token", opt={"action": "tokens.mint", "fetch": "room"}, status_code=200)
async def mint_token(  # noqa: PLR0913  one argument per part the route joins
    room_id: FromPath[str],
    data: JSONBody[MintToken],
    request: Request[Any, Admitted, State],
    rooms: NamedDependency[Rooms],
    policy: NamedDependency[Policy],
    hms: NamedDependency[HmsClient],
    hms_tokens: NamedDependency[HmsTokens],
    template_ids: NamedDependency[dict[str, str]],
) -> dict[str, Any]:
    """Mint a 100ms join token for the logged-in user, in a role that the policy allows him in this room."""
    found, relation = request.auth.room()
    uid: str = request.user.uid
    template = found.room.template
    template_id = template_ids.get(template)
    existing = hms.template_roles(template_id) if template_id else None
    verdict = decide_role(policy, template, relation or "", data.role, existing)
    if verdict.code:
        status = 422 if verdict.code == "unknown_role" else 403
        raise Problem(status, verdict.code, verdict.reason, allowed_roles=list(verdict.allowed))
    minted = hms_tokens.join_token(room_id=room_id, user_id=uid, role=verdict.role, ttl_s=policy.rooms.token_ttl_s)
    await rooms.enlist(found, uid)
    fields = {"user": uid, "room": room_id, "role": verdict.role, "jti": minted.jti, "exp": minted.expires_at}
    log.info("token minted", extra={"fields": fields})
    return {
        "success": True,
        "token": minted.token,
        "room_id": room_id,
        "role": verdict.role,
        "user_id": uid,
        "expires_at": iso(minted.expires_at),
    }


def _room(room: Room) -> dict[str, Any]:
    return {
        "id": room.id,
        "name": room.name,
        "description": room.description,
        "access": room.access,
        "template": room.template,
        "owner_id": room.owner_id,
        "enabled": room.enabled,
        "created_at": iso(room.created_ms / 1000),
    }


def _text(field: str, value: str | None) -> str:
    """Return a user's text without surrounding space; refuse what cannot be shown or sent on (control, surrogates)."""
    text = unicodedata.normalize("NFC", value or "").strip()
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text):
        raise invalid(field, "must not have control characters or line breaks")
    return text

"""POST and GET /api/rooms; GET and PATCH /api/rooms/{id}; POST /api/rooms/{id}/end."""

from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
from litestar import Response, get, patch, post
from litestar.params import HeaderParameter, JSONBody, QueryParameter
from msgspec import Meta

from auth.accounts import Accounts
from auth.errors import UnknownUser
from gateway.http.access import needs
from gateway.http.context import Call
from gateway.http.cursors import PageCursor
from gateway.http.problems import Problem
from gateway.policy.decide import effective_relation
from gateway.rooms.idempotency import KEY, InFlight
from gateway.rooms.locks import TooManyRooms
from gateway.rooms.room import ChangeRoom, CreateRoom
from gateway.routes import schemas as shapes
from gateway.routes.services import Injected, RoomInPath
from gateway.text import FieldError, plain_text

_READ_ANY = "rooms:read-any"
_UPSTREAM = ("upstream_error", "upstream_timeout", "upstream_busy")

_TheRoom = Annotated[shapes.Room, Meta(description="The current state of the room.")]

_Reason = Annotated[
    Annotated[str, Meta(max_length=200)] | None,
    Meta(description="Shown to everyone who is removed; kept in the audit trail.", examples=["the meeting is over"]),
]


class EndRoom(msgspec.Struct, forbid_unknown_fields=True):
    lock: Annotated[bool, Meta(description="Also disable the room, so that no one can join again.")] = False
    reason: _Reason = None

    def __post_init__(self) -> None:
        self.reason = plain_text("reason", self.reason) or None


class RemoveUser(msgspec.Struct, forbid_unknown_fields=True):
    user: Annotated[shapes.UserRef, Meta(max_length=256)]
    reason: _Reason = None

    def __post_init__(self) -> None:
        self.reason = plain_text("reason", self.reason) or None


class Removed(msgspec.Struct):
    removed: Annotated[int, Meta(description="How many peers of the user were removed; 0: they were not there.")]


class RoomCreated(msgspec.Struct):
    room: _TheRoom
    success: shapes.Success = True


class RoomList(msgspec.Struct):
    rooms: Annotated[list[shapes.Room], Meta(description="The newest first.")]
    next_cursor: shapes.NextCursor | None


class OneRoom(msgspec.Struct):
    room: _TheRoom


class Ending(msgspec.Struct):
    ended: Annotated[bool, Meta(description="Whether anyone was in the room; they are being removed.")]
    locked: Annotated[bool, Meta(description="Whether the room is disabled, so that no one can join.")]


def _check_key(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Check the Idempotency-Key of a request, if it has one. Raises: FieldError"""
    keys = [value.decode("latin-1") for name, value in headers if name == b"idempotency-key"]
    if len(keys) > 1:
        raise FieldError("Idempotency-Key", "must be given once")
    if keys and not KEY.fullmatch(keys[0]):
        raise FieldError("Idempotency-Key", "must be 1 to 128 visible ASCII characters")


@post(
    "/api/rooms",
    opt=needs(
        "rooms.create",
        check=_check_key,
        repeatable=True,
        refuses=(
            "template_not_allowed",
            "name_taken",
            "idempotency_conflict",
            "idempotency_mismatch",
            "not_found",
            *_UPSTREAM,
        ),
    ),
    status_code=201,
)
async def create_room(
    data: JSONBody[CreateRoom],
    request: Call,
    services: Injected,
    key: Annotated[
        str | None,
        HeaderParameter(
            name="Idempotency-Key",
            pattern=f"^{KEY.pattern}$",
            description="A repeated request with the same key within 24 hours returns the same room.",
        ),
    ] = None,
) -> Response[RoomCreated]:
    """Create a room at 100ms. The caller owns it."""
    try:
        if request.auth.made:
            created = await services.creation.replay(request.user, request.auth.made)
        else:
            created = await services.creation.create(request.user, key, data)
    except (InFlight, TooManyRooms) as error:  # neither uses up what limits creates
        request.auth.count_as(error.outcome, refund=True)
        raise
    if not created.is_charged:
        request.auth.count_as("refused.replayed")
    headers = {"Idempotency-Replayed": "true"} if created.is_replayed else {}
    return Response(RoomCreated(shapes.Room.of(created.room)), headers=headers)


@get("/api/rooms", opt=needs("rooms.list"))
async def list_rooms(
    request: Call,
    services: Injected,
    owner: Annotated[
        str | None,
        QueryParameter(
            max_length=256,
            description="Only rooms that this user owns: id or name. Needs `rooms:read-any`; "
            "a page before the last may be empty.",
        ),
    ] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="How many items a page has at most.")] = 20,
    cursor: PageCursor = None,
) -> RoomList:
    """List the caller's rooms, newest first. Callers with `rooms:read-any` see all rooms, or those of an owner."""
    policy, roles = services.policy.of(request.user), request.user.roles
    reads_any = _READ_ANY in policy.permissions(roles)
    if owner is not None and not reads_any:
        raise Problem(403, "forbidden", "You may list only your own rooms.", missing_permission=_READ_ANY)
    before = None
    if cursor:
        created_ms, room_id = services.cursors.open("rooms", cursor)
        before = (int(created_ms), room_id)
    if owner is not None:
        uid = await _owner(services.report_accounts, owner)
        found, following = await services.rooms.owned(uid, before=before, size=limit)
    else:
        whose, joins_open = None if reads_any else request.user.uid, policy.joins_open_rooms(roles)
        found, following = await services.rooms.page(whose, before=before, size=limit, open_rooms=joins_open)
    rooms = [shapes.Room.of(room) for room in found]
    if reads_any:
        await _name_owners(services.report_accounts, rooms)
    return RoomList(rooms, services.cursors.seal("rooms", *following) if following else None)


async def _owner(accounts: Accounts, owner: str) -> str:
    """Return the id of an owner, who may have been deleted. Raises: FieldError"""
    try:
        return await accounts.id_of(owner)
    except UnknownUser as error:
        raise FieldError("owner", "no such user; a deleted one is found by id") from error


async def _name_owners(accounts: Accounts, rooms: Sequence[shapes.Room]) -> None:
    users = await accounts.several(list({room.owner_id for room in rooms}))
    for room in rooms:
        room.owner = users[room.owner_id].username if room.owner_id in users else ""


@get("/api/rooms/{room_id:str}", opt=needs("rooms.read"))
async def read_room(room_id: RoomInPath, request: Call) -> OneRoom:
    """Return one room and the caller's relation to it."""
    found, relation = request.auth.room()
    return OneRoom(msgspec.structs.replace(shapes.Room.of(found.room), relation=relation))


@patch("/api/rooms/{room_id:str}", opt=needs("rooms.update", refuses=("name_taken", "room_disabled", *_UPSTREAM)))
async def change_room(room_id: RoomInPath, data: JSONBody[ChangeRoom], request: Call, services: Injected) -> OneRoom:
    """Change the name, description or access of a room, or whether it can be joined. What is omitted stays.

    When an open room becomes invited, everyone without a relation to it is removed from the session. Callers with
    `rooms:end-any` may change `enabled` of any room. An owner cannot enable a room that they have disabled.
    """
    found, _ = request.auth.room()
    changed = await services.control.change(found.room, data, by=services.caller(request))
    relation = effective_relation(services.policy.of(request.user), request.user.roles, found.facts)
    return OneRoom(msgspec.structs.replace(shapes.Room.of(changed), relation=relation))


@post("/api/rooms/{room_id:str}/end", opt=needs("rooms.end", refuses=_UPSTREAM), status_code=202)
async def end_room(room_id: RoomInPath, data: JSONBody[EndRoom], request: Call, services: Injected) -> Ending:
    """Remove everyone from the session; with `lock` no one can join again. Owners cannot undo an operator's lock."""
    found, _ = request.auth.room()
    ended = await services.control.end(found.room, lock=data.lock, reason=data.reason, by=services.caller(request))
    return Ending(ended, data.lock or not found.room.enabled)


@post("/api/rooms/{room_id:str}/remove", opt=needs("rooms.end", refuses=("not_found", *_UPSTREAM)), status_code=200)
async def remove_user(room_id: RoomInPath, data: JSONBody[RemoveUser], request: Call, services: Injected) -> Removed:
    """Remove a user from the session. They may join again; a ban (`DELETE …/members/{user}`) keeps them out."""
    found, _ = request.auth.room()
    uid = await services.accounts.id_of(data.user)
    by = services.caller(request)
    return Removed(await services.control.remove(found.room, uid, reason=data.reason, by=by))

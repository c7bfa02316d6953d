"""POST and GET /api/rooms; GET and PATCH /api/rooms/{id}; POST /api/rooms/{id}/end."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter

from gateway.hms.client import HmsError
from gateway.http.access import needs
from gateway.http.context import Call
from gateway.http.problems import Problem
from gateway.policy.decide import decide, effective_relation
from gateway.policy.live import PolicyInForce
from gateway.redis.store import StoreError
from gateway.rooms.idempotency import KEY, Attempt, Idempotency, InFlight
from gateway.rooms.locks import TooManyRooms
from gateway.rooms.names import UNTITLED
from gateway.rooms.registry import Rooms, upstream_name
from gateway.rooms.room import NewRoom, Room, RoomChanges
from gateway.routes import schemas as shapes
from gateway.routes.services import Services
from gateway.text import FieldError, plain_text

_NAME = Annotated[str, msgspec.Meta(max_length=100)]
_DESCRIPTION = Annotated[str, msgspec.Meta(max_length=500)]
_ACCESS = Literal["open", "invited"]
_REPEATED = ("idempotency_conflict", "idempotency_mismatch")
_UPSTREAM = ("upstream_error", "upstream_timeout", "upstream_busy")


class CreateRoom(msgspec.Struct, forbid_unknown_fields=True):
    name: _NAME | None = None
    description: _DESCRIPTION | None = None
    access: _ACCESS | None = None
    template: Annotated[str, msgspec.Meta(max_length=64)] | None = None

    def __post_init__(self) -> None:
        self.name = plain_text("name", self.name) or None
        self.description = plain_text("description", self.description) or None


class ChangeRoom(msgspec.Struct, forbid_unknown_fields=True):
    name: _NAME | None = None
    description: _DESCRIPTION | None = None
    access: _ACCESS | None = None
    enabled: bool | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            self.name = plain_text("name", self.name) or UNTITLED
        if self.description is not None:
            self.description = plain_text("description", self.description)


class EndRoom(msgspec.Struct, forbid_unknown_fields=True):
    lock: bool = False
    reason: Annotated[str, msgspec.Meta(max_length=200)] | None = None

    def __post_init__(self) -> None:
        self.reason = plain_text("reason", self.reason) or None


class RoomCreated(msgspec.Struct):
    """`success` is what a client written for the old guide's backend looks at."""

    room: shapes.Room
    success: Literal[True] = True


class RoomList(msgspec.Struct):
    rooms: list[shapes.Room]
    next_cursor: str | None


class OneRoom(msgspec.Struct):
    room: shapes.Room


class Ending(msgspec.Struct):
    """`ended`: somebody was in the room and is being thrown out. `locked`: nobody can join any more."""

    ended: bool
    locked: bool


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
    services: NamedDependency[Services],
    key: Annotated[
        str | None,
        HeaderParameter(
            name="Idempotency-Key", description="the same key within 24 h, the same room: 1 to 128 visible characters"
        ),
    ] = None,
) -> Response[RoomCreated]:
    """Create a room at 100ms; the caller owns it."""
    defaults = services.policy.now.rooms
    template, known = "default" if data.template is None else data.template, sorted(services.policy.now.templates)
    if template not in known:
        detail = f"template: there is none of that name. Allowed: {', '.join(known)}."
        raise Problem(403, "template_not_allowed", detail, allowed_templates=known)
    name = data.name or UNTITLED
    new = NewRoom(name, data.description or "", data.access or defaults.access, template)
    uid, upstream = request.user.uid, upstream_name(name)
    attempt = None
    if key is not None:
        try:
            attempt = await services.idempotency.begin(
                uid, "rooms.create", key, msgspec.json.encode(data), name=upstream
            )
        except InFlight:  # nor does asking whether the first is through use up what creates are rationed by
            request.auth.count_as("refused.idempotency_conflict", refund=True)
            raise
        if attempt.room_id:
            return await _again(request, services.rooms, services.policy, attempt.room_id)
    try:
        if attempt is not None:
            room, is_new = await _create_once(services.rooms, services.idempotency, uid, new, attempt)
        else:
            room, is_new = await _create(services.rooms, uid, new, upstream)
    except TooManyRooms as error:  # nothing was charged where a limit denies, and this is one
        request.auth.count_as(f"denied.{error.decision.worst.name}", refund=True)
        raise
    services.audit.note("room.created", by=uid, subject=uid, room=room.id)
    if not is_new:  # an attempt that died registered it, and nobody was told
        return await _again(request, services.rooms, services.policy, room.id, charged=room.enabled)
    return Response(RoomCreated(shapes.Room.of(room)))


async def _create(rooms: Rooms, uid: str, new: NewRoom, upstream: str) -> tuple[Room, bool]:
    holder = secrets.token_hex(8)
    await rooms.locks.take_place(uid, holder)
    try:
        return await rooms.create(uid, new, lease=holder, upstream=upstream)
    except StoreError:
        raise  # it is not known what was written: a room may have the place
    except BaseException:
        await rooms.locks.give_place_back(uid, holder)
        raise


async def _create_once(
    rooms: Rooms, idempotency: Idempotency, uid: str, new: NewRoom, attempt: Attempt
) -> tuple[Room, bool]:
    """Create the room of an Idempotency-Key. Its place is the key's: only whoever is at it takes it or gives it back.

    Raises: as `Rooms.create`, and TooManyRooms
    """
    try:
        took = await rooms.locks.take_place(uid, attempt.holder)
    except TooManyRooms:
        await idempotency.leave(attempt)
        raise
    try:
        room, is_new = await rooms.create(uid, new, lease=attempt.holder, upstream=attempt.name)
    except StoreError:
        raise  # nobody knows what was written: a room may have the place, and for some seconds nobody else tries
    except BaseException:
        if took:  # first: whoever tries next must find it free, not lose it
            await rooms.locks.give_place_back(uid, attempt.holder)
        await idempotency.leave(attempt)
        raise
    if room.lease != attempt.holder or not room.enabled:  # registered by an attempt that died, and locked since
        await rooms.locks.give_place_back(uid, attempt.holder)
    await idempotency.finish(attempt, room.id)
    return room, is_new


async def _again(
    request: Call, rooms: Rooms, policy: PolicyInForce, room_id: str, *, charged: bool = False
) -> Response[RoomCreated]:
    """Answer a repeated create with the room it made, as it is by now; unless `charged`, charge it for nothing."""
    found = await rooms.find(room_id, request.user.uid)
    if found is None or not decide(policy.now, request.user.roles, "rooms.read", found.facts).allowed:
        raise Problem(404, "not_found", "There is no such room any more, or you have no relation to it.")
    if not charged:
        request.auth.count_as("refused.replayed")
    return Response(RoomCreated(shapes.Room.of(found.room)), headers={"Idempotency-Replayed": "true"})


@get("/api/rooms", opt=needs("rooms.list"))
async def list_rooms(
    request: Call,
    services: NamedDependency[Services],
    limit: Annotated[int, QueryParameter(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, QueryParameter(max_length=256)] = None,
) -> RoomList:
    """List the caller's rooms, newest first; with rooms:read-any, everybody's."""
    reads_any = "rooms:read-any" in services.policy.now.permissions(request.user.roles)
    uid = None if reads_any else request.user.uid
    before = None
    if cursor:
        created_ms, room_id = services.cursors.open("rooms", cursor)
        before = (int(created_ms), room_id)
    joins_open = services.policy.now.joins_open_rooms(request.user.roles)
    found, following = await services.rooms.page(uid, before=before, size=limit, open_rooms=joins_open)
    next_cursor = services.cursors.seal("rooms", *following) if following else None
    return RoomList([shapes.Room.of(room) for room in found], next_cursor)


@get("/api/rooms/{room_id:str}", opt=needs("rooms.read"))
async def read_room(room_id: FromPath[str], request: Call) -> OneRoom:
    """Return one room and the caller's relation to it."""
    found, relation = request.auth.room()
    return OneRoom(msgspec.structs.replace(shapes.Room.of(found.room), relation=relation))


@patch(
    "/api/rooms/{room_id:str}",
    opt=needs("rooms.update", refuses=("name_taken", "room_disabled", *_UPSTREAM)),
)
async def change_room(
    room_id: FromPath[str],
    data: JSONBody[ChangeRoom],
    request: Call,
    services: NamedDependency[Services],
) -> OneRoom:
    """Change name, description, access, or whether the room can be joined; what is left out stays.

    Who joined a room because it was open is thrown out when it no longer is, and whoever has a relation stays.
    Whoever has rooms:end-any may change `enabled` of any room; what he has disabled, no owner enables.
    """
    found, in_charge = request.auth.room()
    room, uid = found.room, request.user.uid
    if in_charge is None and _given(data) != ["enabled"]:
        detail = "Whoever is neither owner nor cohost of this room may change nothing of it but `enabled`."
        raise Problem(403, "forbidden", detail)
    is_operator = _ends_any(request, services.policy)
    if data.enabled and room.held and not is_operator:
        raise Problem(403, "forbidden", "An operator has locked this room; only an operator unlocks it.")
    said: dict[str, Any] = {"by": uid, "room": room_id, "fields": " ".join(_given(data))}
    try:
        changes = RoomChanges(data.name, data.description, data.access, data.enabled)
        await services.rooms.update(room, changes, held=is_operator)
    except HmsError:
        services.audit.note("room.changed", **said, code="upstream")  # a lock of ours stands all the same
        raise
    services.audit.note("room.changed", **said)
    changed = await services.rooms.get(room_id) or room
    if data.access == "invited":  # also if it was already: whom 100ms did not throw out then, goes now
        await services.members.remove_strangers(changed, reason="this room is for invited people now")
    relation = effective_relation(services.policy.now, request.user.roles, found.facts)
    return OneRoom(msgspec.structs.replace(shapes.Room.of(changed), relation=relation))


@post(
    "/api/rooms/{room_id:str}/end",
    opt=needs("rooms.end", refuses=_UPSTREAM),
    status_code=202,
)
async def end_room(
    room_id: FromPath[str],
    data: JSONBody[EndRoom],
    request: Call,
    services: NamedDependency[Services],
) -> Ending:
    """Throw everybody out; with `lock` nobody can join any more. A room that an operator locks, no owner unlocks."""
    found, _ = request.auth.room()
    reason = data.reason or "the room was ended"
    held = _ends_any(request, services.policy)
    services.audit.note("room.ended", by=request.user.uid, room=room_id, lock=int(data.lock), reason=reason)
    ended = await services.rooms.locks.end(found.room, lock=data.lock, held=held, reason=reason)
    return Ending(ended, data.lock or not found.room.enabled)


def _ends_any(request: Call, policy: PolicyInForce) -> bool:
    """Tell whether the caller is an operator, whatever relation somebody gave him: his lock is no owner's to undo."""
    return "rooms:end-any" in policy.now.permissions(request.user.roles)


def _given(data: ChangeRoom) -> list[str]:
    return [name for name in data.__struct_fields__ if getattr(data, name) is not None]

"""POST and GET /api/rooms; GET and PATCH /api/rooms/{id}; POST /api/rooms/{id}/end."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, get, patch, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter

from gateway.audit import Audit
from gateway.hms.client import HmsError
from gateway.http.admission import Admitted
from gateway.http.cursors import Cursors
from gateway.http.problems import Problem, invalid
from gateway.policy.decide import decide, effective_relation
from gateway.policy.live import PolicyInForce
from gateway.redis.store import StoreError
from gateway.rooms.idempotency import KEY, Attempt, Idempotency, InFlight
from gateway.rooms.locks import TooManyRooms
from gateway.rooms.names import UNTITLED
from gateway.rooms.registry import Rooms, upstream_name
from gateway.rooms.relations import Members
from gateway.rooms.room import NewRoom, Room, RoomChanges
from gateway.routes import schemas as shapes
from gateway.text import plain_text

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


class ChangeRoom(msgspec.Struct, forbid_unknown_fields=True):
    name: _NAME | None = None
    description: _DESCRIPTION | None = None
    access: _ACCESS | None = None
    enabled: bool | None = None


class EndRoom(msgspec.Struct, forbid_unknown_fields=True):
    lock: bool = False
    reason: Annotated[str, msgspec.Meta(max_length=200)] | None = None


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


@post(
    "/api/rooms",
    opt={
        "action": "rooms.create",
        "refuses": (
            "template_not_allowed",
            "name_taken",
            "idempotency_conflict",
            "idempotency_mismatch",
            "not_found",
            *_UPSTREAM,
        ),
    },
    status_code=201,
)
async def create_room(  # noqa: PLR0913  one argument per part the route joins
    data: JSONBody[CreateRoom],
    request: Request[Any, Admitted, State],
    rooms: NamedDependency[Rooms],
    idempotency: NamedDependency[Idempotency],
    policy: NamedDependency[PolicyInForce],
    audit: NamedDependency[Audit],
    key: Annotated[
        str | None,
        HeaderParameter(
            name="Idempotency-Key", description="the same key within 24 h, the same room: 1 to 128 visible characters"
        ),
    ] = None,
) -> Response[RoomCreated]:
    """Create a room at 100ms; the caller owns it."""
    defaults = policy.now.rooms
    template, known = "default" if data.template is None else data.template, sorted(policy.now.templates)
    if template not in known:
        detail = f"template: there is none of that name. Allowed: {', '.join(known)}."
        raise Problem(403, "template_not_allowed", detail, allowed_templates=known)
    name = plain_text("name", data.name) or UNTITLED
    new = NewRoom(name, plain_text("description", data.description), data.access or defaults.access, template)
    uid, upstream = request.user.uid, upstream_name(name)
    attempt = None
    if key is not None:
        if len(request.headers.getall("idempotency-key")) > 1:
            raise invalid("Idempotency-Key", "must be given once")
        if not KEY.fullmatch(key):
            raise invalid("Idempotency-Key", "must be 1 to 128 visible ASCII characters")
        try:
            attempt = await idempotency.begin(uid, "rooms.create", key, msgspec.json.encode(data), name=upstream)
        except InFlight:  # nor does asking whether the first is through use up what creates are rationed by
            request.auth.outcome, request.auth.refund = "refused.idempotency_conflict", True
            raise
        if attempt.room_id:
            return await _again(request, rooms, policy, attempt.room_id)
    try:
        if attempt is not None:
            room, is_new = await _create_once(rooms, idempotency, uid, new, attempt)
        else:
            [place] = request.auth.decision.leases
            room, is_new = await rooms.create(uid, new, lease=place.lease.holder, upstream=upstream)
    except TooManyRooms as error:  # as where it is admission that finds no place
        request.auth.outcome, request.auth.refund = f"denied.{error.decision.worst.name}", True
        raise
    audit.note("room.created", by=uid, subject=uid, room=room.id)
    if not is_new:  # an attempt that died registered it, and nobody was told
        return await _again(request, rooms, policy, room.id, charged=room.enabled)
    return Response(RoomCreated(shapes.Room.of(room)))


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
    request: Request[Any, Admitted, State], rooms: Rooms, policy: PolicyInForce, room_id: str, *, charged: bool = False
) -> Response[RoomCreated]:
    """Answer a repeated create with the room it made, as it is by now; unless `charged`, charge it for nothing."""
    found = await rooms.find(room_id, request.user.uid)
    if found is None or not decide(policy.now, request.user.roles, "rooms.read", found.facts).allowed:
        raise Problem(404, "not_found", "There is no such room any more, or you have no relation to it.")
    if not charged:
        request.auth.outcome = "refused.replayed"
    return Response(RoomCreated(shapes.Room.of(found.room)), headers={"Idempotency-Replayed": "true"})


@get("/api/rooms", opt={"action": "rooms.list"})
async def list_rooms(
    request: Request[Any, Admitted, State],
    rooms: NamedDependency[Rooms],
    policy: NamedDependency[PolicyInForce],
    cursors: NamedDependency[Cursors],
    limit: Annotated[int, QueryParameter(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, QueryParameter(max_length=256)] = None,
) -> RoomList:
    """List the caller's rooms, newest first; with rooms:read-any, everybody's."""
    reads_any = "rooms:read-any" in policy.now.permissions(request.user.roles)
    uid = None if reads_any else request.user.uid
    before = None
    if cursor:
        created_ms, room_id = cursors.open("rooms", cursor)
        before = (int(created_ms), room_id)
    joins_open = policy.now.joins_open_rooms(request.user.roles)
    found, following = await rooms.page(uid, before=before, size=limit, open_rooms=joins_open)
    next_cursor = cursors.seal("rooms", *following) if following else None
    return RoomList([shapes.Room.of(room) for room in found], next_cursor)


@get("/api/rooms/{room_id:str}", opt={"action": "rooms.read", "fetch": "room"})
async def read_room(room_id: FromPath[str], request: Request[Any, Admitted, State]) -> OneRoom:
    """Return one room and the caller's relation to it."""
    found, relation = request.auth.room()
    return OneRoom(msgspec.structs.replace(shapes.Room.of(found.room), relation=relation))


@patch(
    "/api/rooms/{room_id:str}",
    opt={"action": "rooms.update", "fetch": "room", "refuses": ("name_taken", "room_disabled", *_UPSTREAM)},
)
async def change_room(  # noqa: PLR0913  one argument per part the route joins
    room_id: FromPath[str],
    data: JSONBody[ChangeRoom],
    request: Request[Any, Admitted, State],
    rooms: NamedDependency[Rooms],
    members: NamedDependency[Members],
    policy: NamedDependency[PolicyInForce],
    audit: NamedDependency[Audit],
) -> OneRoom:
    """Change name, description, access, or whether the room can be joined; what is left out stays.

    Who joined a room because it was open is thrown out when it no longer is, and whoever has a relation stays.
    Whoever has rooms:end-any may change `enabled` of any room; what he has disabled, no owner enables.
    """
    found, in_charge = request.auth.room()
    room, uid = found.room, request.user.uid
    name = None if data.name is None else plain_text("name", data.name) or UNTITLED
    description = None if data.description is None else plain_text("description", data.description)
    if in_charge is None and _given(data) != ["enabled"]:
        detail = "Whoever is neither owner nor cohost of this room may change nothing of it but `enabled`."
        raise Problem(403, "forbidden", detail)
    is_operator = _ends_any(request, policy)
    if data.enabled and room.held and not is_operator:
        raise Problem(403, "forbidden", "An operator has locked this room; only an operator unlocks it.")
    said = {"by": uid, "room": room_id, "fields": " ".join(_given(data))}
    try:
        await rooms.update(room, RoomChanges(name, description, data.access, data.enabled), held=is_operator)
    except HmsError:
        audit.note("room.changed", **said, code="upstream")  # a lock of ours stands all the same
        raise
    audit.note("room.changed", **said)
    changed = await rooms.get(room_id) or room
    if data.access == "invited":  # also if it was already: whom 100ms did not throw out then, goes now
        await members.remove_strangers(changed, reason="this room is for invited people now")
    relation = effective_relation(policy.now, request.user.roles, found.facts)
    return OneRoom(msgspec.structs.replace(shapes.Room.of(changed), relation=relation))


@post(
    "/api/rooms/{room_id:str}/end",
    opt={"action": "rooms.end", "fetch": "room", "refuses": _UPSTREAM},
    status_code=202,
)
async def end_room(
    room_id: FromPath[str],
    data: JSONBody[EndRoom],
    request: Request[Any, Admitted, State],
    rooms: NamedDependency[Rooms],
    policy: NamedDependency[PolicyInForce],
    audit: NamedDependency[Audit],
) -> Ending:
    """Throw everybody out; with `lock` nobody can join any more. A room that an operator locks, no owner unlocks."""
    found, _ = request.auth.room()
    reason = plain_text("reason", data.reason) or "the room was ended"
    held = _ends_any(request, policy)
    audit.note("room.ended", by=request.user.uid, room=room_id, lock=int(data.lock), reason=reason)
    ended = await rooms.locks.end(found.room, lock=data.lock, held=held, reason=reason)
    return Ending(ended, data.lock or not found.room.enabled)


def _ends_any(request: Request[Any, Admitted, State], policy: PolicyInForce) -> bool:
    """Tell whether the caller is an operator, whatever relation somebody gave him: his lock is no owner's to undo."""
    return "rooms:end-any" in policy.now.permissions(request.user.roles)


def _given(data: ChangeRoom) -> list[str]:
    return [name for name in data.__struct_fields__ if getattr(data, name) is not None]

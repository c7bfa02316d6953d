"""Rooms: create or update by name, get, list, update and enable (100ms docs, api-reference/Rooms)."""

import re
import uuid
from typing import Any

import msgspec
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import UNSET, UnsetType

from gateway.emulator.errors import bad_body
from gateway.emulator.records import RecordingInfo, Room, Webhook
from gateway.emulator.state import Workspace
from gateway.emulator.wire import ZERO_TIME, Call, Reply, choice, created_within, new_id, page, pick, read_body, sent

REGIONS = ("eu", "in", "us", "auto")
_NAME = re.compile(r"[a-zA-Z0-9.\-:_]+")
_SIZE_MOST, _LARGE_SIZE_MOST = 2_500, 20_000
_DURATION_LEAST_S, _DURATION_MOST_S = 120, 43_200


class _Settings(msgspec.Struct, kw_only=True):
    """The fields of both bodies. Unknown fields are ignored."""

    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    region: str | UnsetType = UNSET
    recording_info: RecordingInfo | UnsetType = UNSET
    large_room: bool | UnsetType = UNSET
    size: int | UnsetType = UNSET
    max_duration_seconds: int | UnsetType = UNSET
    polls: tuple[str, ...] | UnsetType = UNSET
    webhook: Webhook | UnsetType = UNSET
    template: Any = UNSET


class _Creation(_Settings, kw_only=True):
    template_id: str | UnsetType = UNSET


class _Update(_Settings, kw_only=True):
    enabled: bool | UnsetType = UNSET


@post("/rooms", status_code=200)
async def create_room(
    request: Call, workspace: NamedDependency[Workspace], default_template_id: NamedDependency[str]
) -> Reply:
    """Create a room, or update the room that has this name in any case."""
    changes = sent(await read_body(request, _Creation))
    _check_values(changes, workspace)
    # No await from here to put_room, so that two creates with one name make one room.
    room = workspace.room_named(changes["name"]) if "name" in changes else None
    if room is None:
        template_id = changes.get("template_id", default_template_id)
        settings = workspace.templates[template_id].body.get("settings") or {}
        room = Room(
            id=new_id(),
            name=str(uuid.uuid4()),
            template_id=template_id,
            region=settings.get("region") or "auto",
            created_at=workspace.now(),
        )
    else:
        changes["updated_at"] = workspace.now()
    room = _put(workspace, room, changes)
    await workspace.save()
    return _created(room, workspace)


@get("/rooms/{room_id:str}")
async def get_room(room_id: FromPath[str], workspace: NamedDependency[Workspace]) -> Reply:
    """Return one room by id. The list finds a room by name."""
    return _fetched(workspace.find_room(room_id), workspace)


@get("/rooms")
async def list_rooms(request: Call, workspace: NamedDependency[Workspace]) -> Reply:
    """List rooms, newest first. Without `enabled`, only enabled rooms."""
    query = request.query_params
    enabled = choice(query, "enabled") is not False
    name, template_id = query.get("name", "").lower(), query.get("template_id", "")
    within = created_within(query)

    def wanted(room: Room) -> bool:
        return (
            room.enabled == enabled
            and (not name or room.name.lower() == name)
            and (not template_id or room.template_id == template_id)
            and within(room.created_at)
        )

    # In order of creation, not of `created_at`, whose fractions differ in length.
    return page(reversed(workspace.rooms.values()), query, wanted, render=lambda room: _listed(room, workspace))


@post("/rooms/{room_id:str}", status_code=200)
async def update_room(request: Call, room_id: FromPath[str], workspace: NamedDependency[Workspace]) -> Reply:
    """Change the fields that are sent, including `enabled`.

    A new name that another room has updates that other room and returns its id (api-reference/Rooms/update-a-room).
    """
    changes = sent(await read_body(request, _Update))
    room = workspace.find_room(room_id)
    _check_values(changes, workspace)
    if "name" in changes:
        room = workspace.room_named(changes["name"]) or room
    only_toggled = changes.keys() == {"enabled"}
    room = _put(workspace, room, changes | {"updated_at": workspace.now()})
    await workspace.save()
    return _toggled(room, workspace) if only_toggled else _updated(room, workspace)


ROUTES = (create_room, get_room, list_rooms, update_room)


def _put(workspace: Workspace, room: Room, changes: dict[str, Any]) -> Room:
    changed = msgspec.structs.replace(room, **changes)
    # Checked against the changed room, because an earlier call may have set large_room.
    most = _LARGE_SIZE_MOST if changed.large_room else _SIZE_MOST
    if changed.size > most:
        raise bad_body(f"room size greater than {most}")
    workspace.put_room(changed)
    return changed


def _check_values(changes: dict[str, Any], workspace: Workspace) -> None:
    if "template" in changes:
        raise bad_body("template is not supported, use template_id")
    if "name" in changes and not _NAME.fullmatch(changes["name"]):
        raise bad_body("room name may contain only a-z, A-Z, 0-9 and . - : _")
    if "region" in changes and changes["region"] not in REGIONS:
        raise bad_body(f"region must be one of {', '.join(REGIONS)}")
    if "template_id" in changes and changes["template_id"] not in workspace.templates:
        raise bad_body("template not found")
    if changes.get("size", 0) < 0:
        raise bad_body("room size less than 0")
    duration_s = changes.get("max_duration_seconds", _DURATION_LEAST_S)
    if duration_s < _DURATION_LEAST_S:
        raise bad_body(f"max_duration_seconds less than {_DURATION_LEAST_S}")
    if duration_s > _DURATION_MOST_S:
        raise bad_body(f"max_duration_seconds greater than {_DURATION_MOST_S}")


# The replies differ by endpoint, as documented. A client that expects a field of another endpoint must fail on the
# developer's machine.


def _common(room: Room, workspace: Workspace) -> Reply:
    return pick(room, "id", "name", "enabled", "description", "template_id", "region", "created_at") | {
        "customer_id": workspace.customer_id,
        "template": workspace.templates[room.template_id].name,
        "updated_at": room.updated_at or room.created_at,
        "recording_source_template": room.recording_info is None,
    }


def _created(room: Room, workspace: Workspace) -> Reply:
    reply = _fetched(room, workspace) | {"app_id": workspace.app_id}
    if room.recording_info is not None:
        del reply["recording_source_template"]
    if room.large_room:
        reply |= pick(room, "large_room", "size") | {"customer": workspace.customer_id, **_duration(room)}
    return reply


def _fetched(room: Room, workspace: Workspace) -> Reply:
    return _common(room, workspace) | _recording(room)


def _listed(room: Room, workspace: Workspace) -> Reply:
    return _common(room, workspace) | {
        "updated_at": room.updated_at or ZERO_TIME,
        "recording": _recording(room).get("recording_info", {"enabled": False}),
        "key": f"{workspace.customer_id}:{room.name}",
        **pick(room, "large_room", "size"),
        **_duration(room),
    }


def _updated(room: Room, workspace: Workspace) -> Reply:
    reply = _common(room, workspace) | {"customer": workspace.customer_id, "enabled_source_template": False}
    reply |= pick(room, "polls", "recording_info", "webhook") | _duration(room)  # with its credentials, as 100ms does
    return {name: value for name, value in reply.items() if value is not None}


def _toggled(room: Room, workspace: Workspace) -> Reply:
    return _common(room, workspace) | {
        "template_id": "",
        "template": "",
        "customer": workspace.customer_id,
        "recording": None,
        "enabled_source_template": False,
        "large_room": room.large_room,
    }


def _duration(room: Room) -> Reply:
    return {"max_duration_seconds": room.max_duration_seconds or 0}


def _recording(room: Room) -> Reply:
    info = room.recording_info
    if info is None:
        return {}
    if info.upload_info is not None:
        bare = msgspec.structs.replace(info.upload_info, credentials=None)
        info = msgspec.structs.replace(info, upload_info=bare)
    return {"recording_info": info}

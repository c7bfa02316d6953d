"""Room codes and their exchange for app tokens (100ms docs, api-reference/room-codes; web-sdks, sdk/index.ts)."""

import secrets
import string
import uuid
from typing import Annotated

import msgspec
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from gateway.emulator.errors import ApiError, bad_body, find
from gateway.emulator.records import Room, RoomCode
from gateway.emulator.state import Workspace
from gateway.emulator.tokens import AppClaims, Verifier
from gateway.emulator.wire import Call, Reply, choice, page, read_body

_MOST_PER_ROOM = 100  # room-codes/room-code-overview
_TOKEN_TTL_S = 24 * 3600


class _Toggle(msgspec.Struct, forbid_unknown_fields=True):
    code: str
    enabled: bool


class _Exchange(msgspec.Struct):
    code: str
    user_id: Annotated[str, msgspec.Meta(min_length=1)] | None = None


@post("/room-codes/room/{room_id:str}", status_code=200)
async def create_codes(room_id: FromPath[str], workspace: NamedDependency[Workspace]) -> Reply:
    """Create a code for every role without one, and disable the codes of deleted roles."""
    room = _open_room(workspace, room_id)
    roles = workspace.templates[room.template_id].roles
    for code in workspace.codes_of(room_id):
        if code.enabled and code.role not in roles:
            _enable(workspace, code, enabled=False)
    covered = {code.role for code in workspace.codes_of(room_id)}
    for role in roles:
        if role not in covered:
            _make(workspace, room, role)
    await workspace.save()
    return {"data": [msgspec.structs.asdict(code) for code in workspace.codes_of(room_id) if code.role in roles]}


@post("/room-codes/room/{room_id:str}/role/{role:str}", status_code=200)
async def create_code(room_id: FromPath[str], role: FromPath[str], workspace: NamedDependency[Workspace]) -> Reply:
    """Create another code for a role."""
    room = _open_room(workspace, room_id)
    find(workspace.templates[room.template_id].roles, role, "Role")
    code = _make(workspace, room, role)
    await workspace.save()
    return msgspec.structs.asdict(code)


@get("/room-codes/room/{room_id:str}")
async def list_codes(request: Call, room_id: FromPath[str], workspace: NamedDependency[Workspace]) -> Reply:
    """List a room's codes, newest first. Without `enabled`, both enabled and disabled ones."""
    query = request.query_params
    _open_room(workspace, room_id)
    role, enabled = query.get("role", ""), choice(query, "enabled")

    def wanted(code: RoomCode) -> bool:
        return (not role or code.role == role) and enabled in (None, code.enabled)

    newest_first = reversed(workspace.codes_of(room_id))
    return page(newest_first, query, wanted, identify=lambda code: code.code, render=msgspec.structs.asdict)


@post("/room-codes/code", status_code=200)
async def toggle_code(request: Call, workspace: NamedDependency[Workspace]) -> Reply:
    """Enable or disable a code. It can be disabled even if its room is disabled or its role is deleted."""
    body = await read_body(request, _Toggle)
    code = find(workspace.codes, body.code, "Room code")
    if body.enabled:
        _check_usable(code, workspace)
    code = _enable(workspace, code, enabled=body.enabled)
    await workspace.save()
    return msgspec.structs.asdict(code)


@post("/v2/token", status_code=200)
async def exchange_code(
    request: Call, workspace: NamedDependency[Workspace], verifier: NamedDependency[Verifier]
) -> Reply:
    """Exchange a code for an app token that is valid for 24 hours. The client chooses the user id.

    Ignores the content type, because the web client sends its JSON as text to avoid a CORS preflight.
    """
    try:
        body = msgspec.json.decode(await request.body(), type=_Exchange)
    except (ValueError, RecursionError):
        raise bad_body("code must be a string and user_id a non-empty string") from None
    code = find(workspace.codes, body.code, "Room code")
    if not code.enabled:
        raise ApiError(403, "room code is not active")
    _check_usable(code, workspace)
    claims = AppClaims(code.room_id, code.role, body.user_id or str(uuid.uuid4()))
    return {"token": verifier.issue_app(claims, ttl_s=_TOKEN_TTL_S)}


ROUTES = (create_codes, create_code, list_codes, toggle_code)
CLIENT_ROUTES = (exchange_code,)


def _open_room(workspace: Workspace, room_id: str) -> Room:
    room = workspace.find_room(room_id)
    if not room.enabled:
        raise ApiError(403, "room is not active")
    return room


def _check_usable(code: RoomCode, workspace: Workspace) -> None:
    room = _open_room(workspace, code.room_id)
    if code.role not in workspace.templates[room.template_id].roles:
        raise ApiError(403, "role of the room code does not exist")


def _make(workspace: Workspace, room: Room, role: str) -> RoomCode:
    if len(workspace.codes_of(room.id)) >= _MOST_PER_ROOM:
        raise ApiError(400, f"a room has at most {_MOST_PER_ROOM} room codes")
    text = _new_code()
    while text in workspace.codes:
        text = _new_code()
    now = workspace.now()
    code = RoomCode(code=text, room_id=room.id, role=role, enabled=True, created_at=now, updated_at=now)
    workspace.codes[text] = code
    return code


def _new_code() -> str:
    return "-".join("".join(secrets.choice(string.ascii_lowercase) for _ in range(length)) for length in (3, 4, 3))


def _enable(workspace: Workspace, code: RoomCode, *, enabled: bool) -> RoomCode:
    changed = msgspec.structs.replace(code, enabled=enabled, updated_at=workspace.now())
    workspace.codes[code.code] = changed
    return changed

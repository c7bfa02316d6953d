"""Templates and their roles, in the camelCase of 100ms (100ms docs, api-reference/policy)."""

import re
import uuid
from typing import Annotated, Any, Literal

import msgspec
from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import UNSET, Meta, UnsetType

from gateway.emulator.errors import bad_body, find
from gateway.emulator.records import Template
from gateway.emulator.state import Workspace
from gateway.emulator.wire import Call, Reply, new_id, page, read_body

_NAME = re.compile(r"[a-zA-Z0-9 \-._:]+")
# Defaults of api-reference/policy/create-template-via-api.
_PERMISSIONS = dict.fromkeys(
    ("endRoom", "removeOthers", "mute", "unmute", "changeRole", "sendRoomState", "pollRead", "pollWrite"), False
) | dict.fromkeys(("browserRecording", "rtmpStreaming", "hlsStreaming"), True)
_MEDIA: dict[str, dict[str, Any]] = {
    "audio": {"bitRate": 32, "codec": "opus"},
    "video": {"bitRate": 256, "codec": "vp8", "frameRate": 25, "height": 180, "width": 320},
    "screen": {"bitRate": 1024, "codec": "vp8", "frameRate": 10, "height": 720, "width": 1280},
}


class _Audio(msgspec.Struct, rename="camel"):
    bit_rate: Annotated[int, Meta(ge=16, le=128)] | UnsetType = UNSET
    codec: Literal["opus"] | UnsetType = UNSET


class _Video(msgspec.Struct, rename="camel"):
    bit_rate: Annotated[int, Meta(ge=30, le=2000)] | UnsetType = UNSET
    codec: Literal["vp8"] | UnsetType = UNSET
    frame_rate: Annotated[int, Meta(ge=1, le=30)] | UnsetType = UNSET
    height: Annotated[int, Meta(ge=50, le=1080)] | UnsetType = UNSET
    width: Annotated[int, Meta(ge=50, le=1920)] | UnsetType = UNSET


class _Screen(_Video, rename="camel"):
    bit_rate: Annotated[int, Meta(ge=500)] | UnsetType = UNSET
    height: Annotated[int, Meta(ge=270, le=1080)] | UnsetType = UNSET
    width: Annotated[int, Meta(ge=480, le=1920)] | UnsetType = UNSET


class _PublishParams(msgspec.Struct, rename="camel"):
    allowed: list[Literal["audio", "video", "screen", "simulcast"]] | UnsetType = UNSET
    audio: _Audio | UnsetType = UNSET
    video: _Video | UnsetType = UNSET
    screen: _Screen | UnsetType = UNSET


class _SubscribeParams(msgspec.Struct, rename="camel"):
    subscribe_to_roles: list[str] | UnsetType = UNSET


class _Role(msgspec.Struct, rename="camel"):
    name: Annotated[str, Meta(min_length=1)] | UnsetType = UNSET
    publish_params: _PublishParams | UnsetType = UNSET
    subscribe_params: _SubscribeParams | UnsetType = UNSET
    permissions: dict[str, bool] | UnsetType = UNSET
    priority: Annotated[int, Meta(ge=1, le=5)] | UnsetType = UNSET
    max_peer_count: Annotated[int, Meta(ge=-1)] | UnsetType = UNSET


class _Settings(msgspec.Struct):
    region: Literal["eu", "in", "us", "auto"] | UnsetType = UNSET


class _Template(msgspec.Struct):
    """The keys that are checked. All others are kept unchanged, because a client that overwrites sends them back."""

    name: str | UnsetType = UNSET
    roles: dict[Annotated[str, Meta(min_length=1)], _Role] | UnsetType = UNSET
    settings: _Settings | UnsetType = UNSET
    destinations: dict[str, Any] | UnsetType = UNSET


@get("/templates")
async def list_templates(request: Call, workspace: NamedDependency[Workspace]) -> Reply:
    """List templates, newest first."""
    newest_first = reversed(workspace.templates.values())
    return page(newest_first, request.query_params, render=lambda template: _shown(template, workspace))


@get("/templates/{template_id:str}")
async def get_template(template_id: FromPath[str], workspace: NamedDependency[Workspace]) -> Reply:
    """Return one template."""
    return _shown(_find(workspace, template_id), workspace)


@post("/templates", status_code=200)
async def create_template(request: Call, workspace: NamedDependency[Workspace]) -> Reply:
    """Create a template, or overwrite the template that has this name."""
    body = await _read(request, _Template)
    body = _complete_template(body, body.get("name") or str(uuid.uuid4()))
    template = next((one for one in workspace.templates.values() if one.name == body["name"]), None)
    if template is None:
        now = workspace.now()
        template = Template(id=new_id(), created_at=now, updated_at=now, body=body)
    return _shown(await _overwrite(template, body, workspace), workspace)


@post("/templates/{template_id:str}", status_code=200)
async def update_template(request: Call, template_id: FromPath[str], workspace: NamedDependency[Workspace]) -> Reply:
    """Overwrite a whole template. It keeps its id and, if none is sent, its name."""
    body = await _read(request, _Template)
    template = _find(workspace, template_id)
    body = _complete_template(body, body.get("name") or template.name)
    if any(other.name == body["name"] for other in workspace.templates.values() if other.id != template_id):
        raise bad_body("template name is taken")
    return _shown(await _overwrite(template, body, workspace), workspace)


@get("/templates/{template_id:str}/roles/{role:str}")
async def get_role(template_id: FromPath[str], role: FromPath[str], workspace: NamedDependency[Workspace]) -> Reply:
    """Return one role by its case-sensitive name."""
    return find(_find(workspace, template_id).roles, role, "Role")


@post("/templates/{template_id:str}/roles/{role:str}", status_code=200)
async def put_role(
    request: Call, template_id: FromPath[str], role: FromPath[str], workspace: NamedDependency[Workspace]
) -> Reply:
    """Create or replace a role. A different `name` in the body renames it."""
    body = await _read(request, _Role)
    template = _find(workspace, template_id)
    name = body.get("name", role)
    if name != role and name in template.roles:
        raise bad_body("role name is taken in this template")
    roles = {key: value for key, value in template.roles.items() if key != role}
    roles[name] = _complete_role(body, name)
    await _overwrite(template, template.body | {"roles": roles}, workspace)
    return roles[name]


@delete("/templates/{template_id:str}/roles/{role:str}")
async def delete_role(template_id: FromPath[str], role: FromPath[str], workspace: NamedDependency[Workspace]) -> None:
    """Delete a role. Peers in this role stay in their rooms."""
    template = _find(workspace, template_id)
    find(template.roles, role, "Role")
    roles = {key: value for key, value in template.roles.items() if key != role}
    await _overwrite(template, template.body | {"roles": roles}, workspace)


ROUTES = (list_templates, get_template, create_template, update_template, get_role, put_role, delete_role)


def seed_template(workspace: Workspace, template_id: str) -> bool:
    """Create the configured template with roles `guest` and `host` if it is missing. Return whether it was."""
    if template_id in workspace.templates:
        return False
    taken = any(template.name == "default" for template in workspace.templates.values())
    name = f"default-{template_id}" if taken else "default"
    roles = {
        role: {
            "publishParams": {"allowed": media},
            "subscribeParams": {"subscribeToRoles": ["guest", "host"]},
            "permissions": dict.fromkeys(_PERMISSIONS, role == "host"),
            "priority": priority,
        }
        for role, media, priority in (("guest", ["audio", "video"], 2), ("host", ["audio", "video", "screen"], 1))
    }
    now = workspace.now()
    body = _complete_template({"roles": roles}, name)
    workspace.templates[template_id] = Template(id=template_id, created_at=now, updated_at=now, body=body)
    return True


def _find(workspace: Workspace, template_id: str) -> Template:
    return find(workspace.templates, template_id, "Template")


async def _overwrite(template: Template, body: dict[str, Any], workspace: Workspace) -> Template:
    changed = msgspec.structs.replace(template, updated_at=workspace.now(), body=body)
    workspace.templates[template.id] = changed
    await workspace.save()
    return changed


async def _read(request: Call, shape: type[_Template] | type[_Role]) -> dict[str, Any]:
    """Check a body, and return it with its unknown keys."""
    await read_body(request, shape)
    return await read_body(request, dict[str, Any])


def _complete_template(body: dict[str, Any], name: str) -> dict[str, Any]:
    if not _NAME.fullmatch(name):
        raise bad_body("template name may contain only a-z, A-Z, 0-9, space and - . _ :")
    roles = {key: _complete_role(role, key) for key, role in body.get("roles", {}).items()}
    defaults = {"settings": {"region": "auto", "recording": {"enabled": False}}, "destinations": {}}
    return defaults | body | {"name": name, "roles": roles}


def _complete_role(body: dict[str, Any], name: str) -> dict[str, Any]:
    publish = body.get("publishParams", {})
    media = {
        kind: default | publish.get(kind, {}) for kind, default in _MEDIA.items() if kind in publish.get("allowed", ())
    }
    defaults = {"subscribeParams": {"subscribeToRoles": []}, "priority": 1, "maxPeerCount": 0}
    permissions = _PERMISSIONS | body.get("permissions", {})
    return defaults | body | {"name": name, "publishParams": publish | media, "permissions": permissions}


def _shown(template: Template, workspace: Workspace) -> Reply:
    ids = {"id": template.id, "_id": template.id} | dict.fromkeys(("customerId", "customer"), workspace.customer_id)
    return template.body | ids | {"createdAt": template.created_at, "updatedAt": template.updated_at}

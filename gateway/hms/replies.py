"""What 100ms answers, as values. Fields nobody here knows are ignored; an answer about something else is refused."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import HmsUnreachable
from .times import epoch_s

log = logging.getLogger("gateway.hms")

ROOM_ID = re.compile(r"[0-9a-f]{24}")

# What lets a role rule over others or spend the account's money, and what an unset field means
# (100ms docs: api-reference/policy/create-template-via-api).
_PRIVILEGES = {
    "endRoom": False,
    "removeOthers": False,
    "changeRole": False,
    "browserRecording": True,
    "rtmpStreaming": True,
    "hlsStreaming": True,
}


@dataclass(frozen=True, slots=True)
class HmsRoom:
    """A room as 100ms holds it, without what the gateway has no use for. `created_at` is in epoch seconds.

    `template_id` is empty where 100ms leaves it out, as in the answer to disabling. Name and description are texts of
    whoever made the room.
    """

    id: str
    name: str
    enabled: bool
    template_id: str = ""
    created_at: float | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class HmsRole:
    """A role of a template. `privileged_by` names the permissions that make it more than a guest's.

    `publishes` is what it may send: audio, video, screen.
    """

    name: str
    privileged_by: tuple[str, ...]
    publishes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HmsTemplate:
    """A template and its roles."""

    id: str
    name: str
    roles: tuple[HmsRole, ...]

    @property
    def role_names(self) -> frozenset[str]:
        return frozenset(role.name for role in self.roles)


@dataclass(frozen=True, slots=True)
class HmsPeer:
    """Somebody in a session, once for each device or tab. User and role are empty where 100ms does not tell them."""

    id: str
    user_id: str
    role: str


def read_room(reply: Mapping[str, Any], *, room_id: str = "", name: str = "") -> HmsRoom:
    """Read a room that must be the one of this id or of this name, whose case 100ms may change.

    Raises:
        HmsUnreachable: it is no room, or another one.
    """
    room = HmsRoom(
        id=str(reply.get("id")),
        name=str(reply.get("name")),
        enabled=reply.get("enabled") is not False,
        template_id=_text(reply.get("template_id")),
        created_at=epoch_s(reply.get("created_at")),
        description=_text(reply.get("description")),
    )
    another = (room_id and room.id != room_id) or (name and room.name.casefold() != name.casefold())
    if another or not ROOM_ID.fullmatch(room.id):
        # An answer about another room must never be taken for ours.
        log.error("100ms answered with another room than was asked for")
        raise unusable()
    return room


def read_template(reply: Mapping[str, Any], template_id: str) -> HmsTemplate:
    """Read the template of this id. Raises: HmsUnreachable"""
    roles = reply.get("roles")
    if not isinstance(roles, dict) or reply.get("id", template_id) != template_id:
        log.error("100ms answered with something else than the template that was asked for")
        raise unusable()
    read = tuple(HmsRole(name, _privileges(role), _publishes(role)) for name, role in roles.items())
    return HmsTemplate(template_id, _text(reply.get("name")), read)


def read_peers(reply: Mapping[str, Any]) -> tuple[HmsPeer, ...]:
    """Read the peers of a session.

    A peer's id is made by its client. Whatever it looks like it is returned: who has a strange one can be removed too.

    Raises:
        HmsUnreachable: there is no map of peers.
    """
    peers = reply.get("peers", {})
    if peers is None:
        return ()
    if not isinstance(peers, dict):
        raise unusable()
    return tuple(
        HmsPeer(peer_id, str(peer.get("user_id") or ""), _text(peer.get("role")))
        for peer_id, peer in peers.items()
        if peer_id and isinstance(peer, dict)
    )


def unusable() -> HmsUnreachable:
    return HmsUnreachable("100ms gave an unusable answer.")


def _privileges(role: object) -> tuple[str, ...]:
    permissions = role.get("permissions") if isinstance(role, dict) else None
    given = permissions if isinstance(permissions, dict) else {}
    # What is neither true nor false is taken for granted: better a warning too many than a silent host.
    return tuple(
        name
        for name, default in _PRIVILEGES.items()
        if (default if given.get(name) is None else given[name]) is not False
    )


def _publishes(role: object) -> tuple[str, ...]:
    params = role.get("publishParams") if isinstance(role, dict) else None
    allowed = params.get("allowed") if isinstance(params, dict) else None
    return tuple(kind for kind in allowed if isinstance(kind, str)) if isinstance(allowed, list) else ()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""

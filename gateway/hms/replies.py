"""The answers of 100ms as values. Ignores unknown fields; refuses an answer about another room or template."""

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .errors import HmsUnreachable

log = logging.getLogger("gateway.hms")

ROOM_ID = re.compile(r"[0-9a-f]{24}")
_TIMESTAMP = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?Z")
_UNSET = "0001-01-01T00:00:00"

# The permissions that give power over others or spend the account's money, each with the value of an unset field (100ms
# docs: api-reference/policy/create-template-via-api).
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
    """The fields of a 100ms room that the gateway uses. `created_at` is in epoch seconds.

    `template_id` is empty where 100ms leaves it out, as in its answer when a room is disabled.
    """

    id: str
    name: str
    enabled: bool
    template_id: str = ""
    created_at: float | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class HmsRole:
    """A role of a template. `privileged_by` names the permissions that give it power over others or cost money.

    `publishes` lists the media that it may send: audio, video, screen.
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
    """A connection to a session; a user has one for each device or tab. User and role are empty if 100ms omits them."""

    id: str
    user_id: str
    role: str


@dataclass(frozen=True, slots=True)
class HmsStay:
    """A peer of a session, from its join to its leave. `left_ms` is None while it is connected. Times: epoch ms.

    A session shows only the last stay of a peer id that was used again.
    """

    peer_id: str
    user_id: str
    role: str
    joined_ms: int
    left_ms: int | None


@dataclass(frozen=True, slots=True)
class HmsSession:
    """A session of a room with everyone who has been in it. Times are in epoch milliseconds.

    Once it has ended, `changed_ms` is its end.
    """

    id: str
    room_id: str
    active: bool
    started_ms: int
    changed_ms: int
    stays: tuple[HmsStay, ...]


def read_room(reply: Mapping[str, Any], *, room_id: str = "", name: str = "") -> HmsRoom:
    """Read a room that must have this id or this name, in any case. Raises HmsUnreachable for any other reply."""
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
        log.error("100ms answered with another room than the requested one")
        raise unusable()
    return room


def read_template(reply: Mapping[str, Any], template_id: str) -> HmsTemplate:
    """Read the template with this id. Raises: HmsUnreachable"""
    roles = reply.get("roles")
    if not isinstance(roles, dict) or reply.get("id", template_id) != template_id:
        log.error("100ms did not answer with the requested template")
        raise unusable()
    read = tuple(HmsRole(name, _privileges(role), _publishes(role)) for name, role in roles.items())
    return HmsTemplate(template_id, _text(reply.get("name")), read)


def read_peers(reply: Mapping[str, Any]) -> tuple[HmsPeer, ...]:
    """Read the peers of a session. Raises: HmsUnreachable

    Returns peer ids of any form, because clients choose them and every peer must be removable.
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


def read_session(reply: Mapping[str, Any], *, session_id: str = "") -> HmsSession:
    """Read the session with this id, without peers that have no time of joining. Raises: HmsUnreachable"""
    found, room_id = reply.get("id"), reply.get("room_id")
    started_ms = epoch_ms(reply.get("created_at"))
    ids = isinstance(found, str) and isinstance(room_id, str) and ROOM_ID.fullmatch(room_id)
    if not ids or (session_id and found != session_id) or started_ms is None:
        log.error("100ms answered with something else than the requested session")
        raise unusable()
    return HmsSession(
        id=str(found),
        room_id=str(room_id),
        active=reply.get("active") is True,
        started_ms=started_ms,
        changed_ms=max(started_ms, epoch_ms(reply.get("updated_at")) or started_ms),
        stays=tuple(_stays(reply.get("peers"))),
    )


def _stays(peers: object) -> Iterator[HmsStay]:
    # A map by peer id in every sample, an array in the description (api-reference/Sessions/object).
    listed = [(peer.get("id"), peer) for peer in peers if isinstance(peer, dict)] if isinstance(peers, list) else []
    for peer_id, peer in peers.items() if isinstance(peers, dict) else listed:
        joined_ms = epoch_ms(peer.get("joined_at")) if isinstance(peer, dict) else None
        if joined_ms is None or joined_ms < 0 or not isinstance(peer_id, str) or not peer_id:
            continue
        left_ms = epoch_ms(peer.get("left_at"))
        if left_ms is not None:
            left_ms = max(joined_ms, left_ms)
        yield HmsStay(peer_id, _text(peer.get("user_id")), _text(peer.get("role")), joined_ms, left_ms)


def epoch_s(value: object) -> float | None:
    """Return a timestamp of 100ms in epoch seconds, or None if it is not set.

    100ms writes RFC 3339 in UTC with 0 to 9 fractional digits, trailing zeros trimmed. For "not set" it writes the year
    1, null, an empty string or no key. Any other value counts as not set, because a time is never worth an error.
    """
    parts = _instant(value)
    return parts and parts[0] + float(parts[1] or 0)


def epoch_ms(value: object) -> int | None:
    """Return a timestamp of 100ms in whole epoch milliseconds, rounded down, or None as `epoch_s` does."""
    parts = _instant(value)
    return parts and parts[0] * 1000 + int(parts[1][1:4].ljust(3, "0"))


def _instant(value: object) -> tuple[int, str] | None:
    """Split a timestamp into its whole seconds and its fraction, which fromisoformat would cut to microseconds."""
    match = _TIMESTAMP.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[1] == _UNSET:
        return None
    try:
        whole = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
    except ValueError:  # a date such as 31 February
        return None
    return int(whole.timestamp()), match[2] or ""


def unusable() -> HmsUnreachable:
    return HmsUnreachable("100ms gave an unusable answer. Try again later.")


def _privileges(role: object) -> tuple[str, ...]:
    permissions = role.get("permissions") if isinstance(role, dict) else None
    given = permissions if isinstance(permissions, dict) else {}
    # A value other than false counts as granted: a false warning is better than an unnoticed privilege.
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

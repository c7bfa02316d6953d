"""Webhook events: the envelope and the `data` of each type (100ms docs, how-to-guides/configure-webhooks)."""

import time
import uuid
from typing import Any

from gateway.emulator import wire
from gateway.emulator.records import Peer, Room, Session
from gateway.emulator.state import Workspace

# The acting peer when a server acted.
_NO_PEER = {"peer_id": "", "user_id": "", "user_name": "", "role": ""}


def envelope(workspace: Workspace, kind: str, data: dict[str, Any]) -> dict[str, Any]:
    """Wrap data as an event. Its time is in whole seconds, as in the documented samples."""
    return {
        "version": "2.0",
        "id": str(uuid.uuid4()),
        "account_id": workspace.customer_id,
        "app_id": workspace.app_id,
        "timestamp": wire.timestamp(time.time_ns(), 0),
        "type": kind,
        "data": data,
    }


def of_session(room: Room, session: Session) -> dict[str, Any]:
    """Describe a session that has opened or closed."""
    data = _in_session(room, session)
    if not session.active:
        data["session_stopped_at"] = session.updated_at
        data["session_duration"] = _seconds(session.created_at, session.updated_at)
    return data


def of_join(room: Room, session: Session, peer: Peer) -> dict[str, Any]:
    """Describe a peer that has joined."""
    return _in_session(room, session) | _person(peer) | {"joined_at": peer.joined_at}


def of_leave(room: Room, session: Session, peer: Peer, *, reason: str, message: str) -> dict[str, Any]:
    """Describe a peer that has left. `message` is the reason given for a removal."""
    left_at = peer.left_at or session.updated_at
    times = {"left_at": left_at, "duration": _seconds(peer.joined_at, left_at)}
    return of_join(room, session, peer) | times | {"reason": reason, "message": message}


def of_failed_join(room: Room, peer: Peer, why: str) -> dict[str, Any]:
    """Describe a refused join, which belongs to no session."""
    return _room(room) | _person(peer) | {"joined_at": wire.ZERO_TIME, "error_message": why}


def of_failed_leave(room: Room, peer: Peer) -> dict[str, Any]:
    """Describe the leave of a peer that has left before."""
    times = {"joined_at": wire.ZERO_TIME, "left_at": wire.ZERO_TIME, "duration": 0}
    return _room(room) | _person(peer) | times | {"error_message": "peer not joined"}


def of_end(room: Room, session: Session | None, *, lock: bool, reason: str) -> dict[str, Any]:
    """Describe a room whose session the REST API has ended, or failed to end because there is none."""
    end = _NO_PEER | {"lock_room": lock, "reason": reason, "source": "api"}
    if session is not None:
        return _in_session(room, session) | end
    return _room(room) | {"session_id": ""} | end | {"error_message": "session not found", "error_code": 404}


def of_role_change(room: Room, session: Session, peer: Peer, *, previous: str, at: str) -> dict[str, Any]:
    """Describe a peer whose role the REST API has changed."""
    return _role_change(room, session, peer) | {"previous_role": previous, "role_changed_at": at}


def of_failed_role_change(room: Room, session: Session, peer: Peer, *, role: str) -> dict[str, Any]:
    """Describe a failed change to a role that is full."""
    return _role_change(room, session, peer) | {"role": role, "error_message": "role limit reached"}


def _room(room: Room) -> dict[str, Any]:
    return {"room_id": room.id, "room_name": room.name, "template_id": room.template_id}


def _in_session(room: Room, session: Session) -> dict[str, Any]:
    return _room(room) | {"session_id": session.id, "session_started_at": session.created_at}


def _person(peer: Peer) -> dict[str, Any]:
    names = {"peer_id": peer.id, "user_id": peer.user_id, "user_name": peer.name, "user_data": peer.metadata}
    return names | {"role": peer.role, "type": peer.type}


def _role_change(room: Room, session: Session, peer: Peer) -> dict[str, Any]:
    data = of_join(room, session, peer)
    del data["type"]
    return data


def _seconds(since: str, until: str) -> int:
    return (wire.instant_ns(until) - wire.instant_ns(since)) // 1_000_000_000

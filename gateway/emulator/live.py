"""Running sessions: admission, joins, leaves and ends. Independent of HTTP routes."""

import asyncio
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from gateway.emulator import webhook_events as events
from gateway.emulator.errors import ApiError, not_found
from gateway.emulator.records import Peer, Room, Session, Track
from gateway.emulator.state import Workspace
from gateway.emulator.tokens import AppClaims
from gateway.emulator.wire import new_id, pick, sent

Emit = Callable[[Room, str, dict[str, Any]], None]

_SESSION_MOST_S = 12 * 3600  # api-reference/Sessions/object
_REMOVED = "server removed peer"
Kind = Literal["audio", "video", "screen"]


class Joining(msgspec.Struct, kw_only=True):
    """The values that a joining peer chooses. Of `tracks`, it sends those that its role allows."""

    name: str = ""
    metadata: str = ""
    peer_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    type: Literal["regular", "sip"] = "regular"
    tracks: tuple[Kind, ...] = ("audio", "video")


class PeerChanges(msgspec.Struct, kw_only=True):
    """The fields of a peer that the REST API can change."""

    name: str | UnsetType = UNSET
    role: str | UnsetType = UNSET
    metadata: str | UnsetType = UNSET


class LiveRooms:
    """Opens a session at the first join, closes it at the last leave, and passes each event to `emit`.

    Makes a change and its events without awaiting in between, then waits for the state file.
    """

    def __init__(self, workspace: Workspace, emit: Emit) -> None:
        self._workspace = workspace
        self._emit = emit
        self._running: dict[str, Session] = {}
        self._room_of: dict[str, str] = {}
        self._ends: dict[str, asyncio.TimerHandle] = {}
        self._saves: set[asyncio.Task[None]] = set()

    def session_in(self, room_id: str) -> Session:
        """Return a room's running session, or answer 404."""
        self._workspace.find_room(room_id)
        session = self._running.get(room_id)
        if session is None:
            raise ApiError(404, "session not found", "not found")
        return session

    def peer_in(self, room_id: str, peer_id: str) -> Peer:
        """Return a connected peer, or answer 404."""
        peer = self.session_in(room_id).peers.get(peer_id)
        if peer is None or peer.left_at is not None:
            raise not_found("Peer")
        return peer

    def peer(self, peer_id: str) -> Peer:
        """Return a connected peer of any room, or answer 404."""
        if peer_id not in self._room_of:
            raise not_found("Peer")
        return self.peer_in(self._room_of[peer_id], peer_id)

    def admit(self, claims: AppClaims) -> Room:
        """Return the room of a verified token, or refuse with the text that the web client expects."""
        room = self._workspace.rooms.get(claims.room_id)
        if room is None:
            # Not 404, which the web client reads as "endpoint unreachable".
            raise ApiError(400, "invalid room")
        if not room.enabled:
            raise ApiError(403, "room is not active")
        if claims.role not in self._roles(room):
            raise ApiError(401, "role is invalid")
        if self._is_full(room, claims.role):
            raise ApiError(403, "role limit reached")
        if room.size and self._count(room) >= room.size:
            raise ApiError(403, "room limit reached")
        return room

    async def join(self, claims: AppClaims, joining: Joining) -> tuple[Session, Peer]:
        """Add a peer to a room, under the id that it chose or a new one."""
        now, peer_id = self._workspace.now(), joining.peer_id or str(uuid.uuid4())
        chosen = pick(joining, "name", "metadata", "type")
        peer = Peer(id=peer_id, user_id=claims.user_id, role=claims.role, joined_at=now, **chosen)
        room = self._admit_peer(claims, peer)
        allowed = self._roles(room)[claims.role]["publishParams"].get("allowed", ())
        peer = msgspec.structs.replace(peer, tracks=_tracks([kind for kind in joining.tracks if kind in allowed], now))
        session = self._running.get(room.id) or self._open(room, now)
        session.peers[peer.id] = peer
        session.updated_at = now
        self._room_of[peer.id] = room.id
        self._emit(room, "peer.join.success", events.of_join(room, session, peer))
        await self._workspace.save()
        return session, peer

    async def leave(self, peer_id: str, reason: str) -> None:
        """Let a peer leave. If it has left already, answer 404 and emit the failure event of 100ms."""
        room_id = self._room_of.get(peer_id)
        if room_id is None:
            self._emit_failed_leave(peer_id)
            raise not_found("Peer")
        self._take_out(room_id, [self.peer_in(room_id, peer_id)], reason=reason, message="")
        await self._workspace.save()

    async def remove(self, room_id: str, *, peer_id: str, role: str, reason: str) -> None:
        """Remove one peer or, without `peer_id`, all peers of a role."""
        session = self.session_in(room_id)
        of_role = [peer for peer in session.connected() if peer.role == role]
        peers = [self.peer_in(room_id, peer_id)] if peer_id else of_role
        self._take_out(room_id, peers, reason="peer kicked", message=reason)
        await self._workspace.save()

    async def end(self, room_id: str, *, lock: bool, reason: str) -> None:
        """End a room's session. With `lock`, also disable the room."""
        room = self._workspace.find_room(room_id)
        if room_id not in self._running:
            self._emit(room, "room.end.failure", events.of_end(room, None, lock=lock, reason=reason))
        session = self.session_in(room_id)
        if lock:
            room = msgspec.structs.replace(room, enabled=False, updated_at=self._workspace.now())
            self._workspace.put_room(room)
        self._emit(room, "room.end.success", events.of_end(room, session, lock=lock, reason=reason))
        self._take_out(room_id, session.connected(), reason=_REMOVED, message=reason)
        await self._workspace.save()

    async def update_peer(self, room_id: str, peer_id: str, changes: PeerChanges) -> Peer:
        """Change a connected peer."""
        session, peer = self.session_in(room_id), self.peer_in(room_id, peer_id)
        room, now = self._workspace.rooms[room_id], self._workspace.now()
        role = peer.role if changes.role is UNSET else changes.role
        if role != peer.role and role not in self._roles(room):
            raise ApiError(400, "role is invalid")
        if role != peer.role and self._is_full(room, role):
            self._emit(room, "role.change.failure", events.of_failed_role_change(room, session, peer, role=role))
            raise ApiError(400, "role limit reached")
        changed = msgspec.structs.replace(peer, **sent(changes))
        session.peers[peer_id] = changed
        session.updated_at = now
        if role != peer.role:
            success = events.of_role_change(room, session, changed, previous=peer.role, at=now)
            self._emit(room, "role.change.success", success)
        await self._workspace.save()
        return changed

    async def close(self) -> None:
        """End every session, because peers do not outlive the process. Emits no events."""
        now = self._workspace.now()
        for session in self._running.values():
            session.close(now)
        for timer in self._ends.values():
            timer.cancel()
        ended = bool(self._running)
        self._running.clear()
        self._room_of.clear()
        if ended:
            await self._workspace.save()

    def _admit_peer(self, claims: AppClaims, peer: Peer) -> Room:
        """Admit a peer, and emit an event for the refusals that 100ms reports."""
        try:
            room = self.admit(claims)
            if peer.id in self._room_of:
                raise ApiError(400, "duplicate peer id")
        except ApiError as refusal:
            why = {"role is invalid": "role not allowed", "duplicate peer id": "duplicate peer id"}.get(str(refusal))
            if why is not None:  # the room exists
                room = self._workspace.rooms[claims.room_id]
                self._emit(room, "peer.join.failure", events.of_failed_join(room, peer, why))
            raise
        return room

    def _open(self, room: Room, now: str) -> Session:
        session = Session(id=new_id(), room_id=room.id, created_at=now, updated_at=now, active=True, peers={})
        self._running[room.id] = session
        self._workspace.put_session(session)
        most_s = room.max_duration_seconds or _SESSION_MOST_S
        self._ends[room.id] = asyncio.get_running_loop().call_later(most_s, self._expire, room.id)
        self._emit(room, "session.open.success", events.of_session(room, session))
        return session

    def _expire(self, room_id: str) -> None:
        self._take_out(room_id, self._running[room_id].connected(), reason=_REMOVED, message="")
        save = asyncio.get_running_loop().create_task(self._workspace.save())
        self._saves.add(save)
        save.add_done_callback(self._saves.discard)

    def _take_out(self, room_id: str, peers: list[Peer], *, reason: str, message: str) -> None:
        room, session, now = self._workspace.rooms[room_id], self._running[room_id], self._workspace.now()
        for peer in peers:
            left = msgspec.structs.replace(peer, left_at=now, tracks={})
            session.peers[peer.id] = left
            session.updated_at = now
            del self._room_of[peer.id]
            self._emit(room, "peer.leave.success", events.of_leave(room, session, left, reason=reason, message=message))
        if not session.connected():
            session.close(now)
            del self._running[room_id]
            self._ends.pop(room_id).cancel()
            self._emit(room, "session.close.success", events.of_session(room, session))

    def _emit_failed_leave(self, peer_id: str) -> None:
        for session in reversed(self._workspace.sessions.values()):
            if peer_id in session.peers:
                room = self._workspace.rooms[session.room_id]
                self._emit(room, "peer.leave.failure", events.of_failed_leave(room, session.peers[peer_id]))
                return

    def _roles(self, room: Room) -> dict[str, dict[str, Any]]:
        return self._workspace.templates[room.template_id].roles

    def _is_full(self, room: Room, role: str) -> bool:
        most = self._roles(room)[role].get("maxPeerCount", 0)
        return bool(most) and self._count(room, role) >= most  # -1 admits no peer

    def _count(self, room: Room, role: str | None = None) -> int:
        session = self._running.get(room.id)
        return 0 if session is None else sum(role in (None, peer.role) for peer in session.connected())


def _tracks(kinds: list[Kind], now: str) -> dict[str, Track]:
    stream_id = str(uuid.uuid4())
    tracks = [
        Track(
            id=str(uuid.uuid4()),
            stream_id=stream_id,
            mute=False,
            type="audio" if kind == "audio" else "video",
            source="screen" if kind == "screen" else "regular",
            started_at=now,
        )
        for kind in kinds
    ]
    return {track.id: track for track in tracks}

"""The workspace: all records, in memory and in one JSON file."""

import asyncio
import hashlib
import itertools
import time
from pathlib import Path
from typing import Literal

import msgspec

from gateway.emulator.errors import find
from gateway.emulator.records import Room, RoomCode, Session, Template
from gateway.emulator.wire import instant_ns, timestamp
from gateway.files import write_whole

_KEPT_SESSIONS = 2_000  # each save writes the whole file, so sessions must not grow without limit


class StateError(Exception):
    """The state file cannot be used. The text is one line for the operator."""


class _Document(msgspec.Struct):
    version: Literal[1]
    rooms: list[Room]
    templates: list[Template]
    codes: list[RoomCode] = []
    sessions: list[Session] = []


class Workspace:
    """All records of one access key.

    Callers do not await between a look-up and its `put_...`, so changes never interleave. `save` then returns when the
    file holds them. Only one process at a time may use a file.
    """

    def __init__(self, access_key: str, path: Path | None) -> None:
        # Stable across restarts. Hashed, because every reply contains both.
        self.customer_id = hashlib.sha256(f"customer:{access_key}".encode()).hexdigest()[:24]
        self.app_id = hashlib.sha256(f"app:{access_key}".encode()).hexdigest()[:24]
        self.rooms: dict[str, Room] = {}
        self.templates: dict[str, Template] = {}
        self.codes: dict[str, RoomCode] = {}
        self.sessions: dict[str, Session] = {}
        self._ids_by_name: dict[str, str] = {}
        self._path = path
        self._fractions = itertools.cycle((9, 3, 0, 6, 2, 8, 1, 7, 4, 5))
        self._latest_ns = 0
        self._changes = 0
        self._saved = 0
        self._saving = asyncio.Lock()

    def now(self) -> str:
        """Return the present as a timestamp, with fraction lengths that vary as in the documented samples.

        Never returns an earlier time than before: a leave with a shortened fraction must not precede its join.
        """
        now_ns = time.time_ns()
        text = timestamp(now_ns, next(self._fractions))
        if instant_ns(text) < self._latest_ns:
            text = timestamp(max(now_ns, self._latest_ns), 9)
        self._latest_ns = instant_ns(text)
        return text

    def room_named(self, name: str) -> Room | None:
        """Return the room with this name in any case, or None."""
        return self.rooms.get(self._ids_by_name.get(name.lower(), ""))

    def find_room(self, room_id: str) -> Room:
        """Return a room, or answer 404."""
        return find(self.rooms, room_id, "Room")

    def put_room(self, room: Room) -> None:
        """Add or replace a room in memory."""
        before = self.rooms.get(room.id)
        if before is not None:
            self._ids_by_name.pop(before.name.lower(), None)
        self.rooms[room.id] = room
        self._ids_by_name[room.name.lower()] = room.id

    def codes_of(self, room_id: str) -> list[RoomCode]:
        """Return the codes of a room, oldest first."""
        return [code for code in self.codes.values() if code.room_id == room_id]

    def put_session(self, session: Session) -> None:
        """Add a session in memory. Beyond 2,000, drop the oldest that has ended."""
        self.sessions[session.id] = session
        if len(self.sessions) > _KEPT_SESSIONS:
            ended = next((kept.id for kept in self.sessions.values() if not kept.active), None)
            if ended is not None:
                del self.sessions[ended]

    def load(self) -> None:
        """Read the file if it exists. Raises StateError if it is not a state file."""
        if self._path is None or not self._path.exists():
            return
        try:
            document = msgspec.json.decode(self._path.read_bytes(), type=_Document)
            self._adopt(document)
        except (OSError, ValueError, RecursionError) as error:
            raise StateError(
                f"emulator state {self._path} cannot be used; move it away to start without it: {_line(error)}"
            ) from error

    def save_now(self) -> None:
        """Write the file without an event loop. Raises StateError if it cannot be written."""
        if self._path is None:
            return
        try:
            write_whole(self._path, self._encoded())
        except OSError as error:
            raise StateError(f"emulator state {self._path} cannot be written: {_line(error)}") from error

    async def save(self) -> None:
        """Wait until the file holds every change made so far.

        Changes during a write share the next write. A cancelled caller does not stop a write that has begun, because
        the lock must be held while a thread replaces the file.
        """
        self._changes += 1
        if self._path is not None:
            await asyncio.shield(self._save_up_to(self._changes, self._path))

    async def _save_up_to(self, change: int, path: Path) -> None:
        async with self._saving:
            if self._saved >= change:
                return
            covered, payload = self._changes, self._encoded()
            await asyncio.to_thread(write_whole, path, payload)
            self._saved = covered

    def _adopt(self, document: _Document) -> None:
        for template in document.templates:
            self.templates[template.id] = template
        for room in document.rooms:
            if room.id in self.rooms or self.room_named(room.name) is not None:
                raise ValueError(f"room {room.id} exists twice, by id or by name")
            if room.template_id not in self.templates:
                raise ValueError(f"room {room.id} refers to an unknown template")
            self.put_room(room)
        for code in document.codes:
            if code.room_id not in self.rooms:
                raise ValueError("a room code refers to an unknown room")
            self.codes[code.code] = code
        for session in document.sessions:
            if session.room_id not in self.rooms:
                raise ValueError(f"session {session.id} refers to an unknown room")
            if session.active:
                # The process ended without closing it; its last known time is its last change.
                session.close(session.updated_at)
            self.put_session(session)

    def _encoded(self) -> bytes:
        rooms, templates = list(self.rooms.values()), list(self.templates.values())
        document = _Document(1, rooms, templates, list(self.codes.values()), list(self.sessions.values()))
        return msgspec.json.format(msgspec.json.encode(document), indent=1)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

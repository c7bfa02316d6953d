"""The workspace: rooms and templates, in memory and in one JSON file."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from gateway.emulator.wire import instant_ns, timestamp


class StateError(Exception):
    """The state file cannot be used; `str()` is one line for an operator."""


class UploadInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a recording goes (api-reference/Rooms/create-via-api)."""

    type: Literal["s3", "gs", "oss", "azure"]
    location: Annotated[str, msgspec.Meta(min_length=1)]
    prefix: str = ""
    options: dict[str, Any] | None = None
    credentials: dict[str, Any] | None = None


class RecordingInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A room's own recording settings; a room without them follows its template."""

    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    upload_info: UploadInfo | None = None


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """The address that replaces the workspace's webhook for one room."""

    url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s]+$")]
    headers: dict[str, str] = {}


class Room(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A room as the workspace keeps it; what a reply shows of it depends on the endpoint."""

    id: str
    name: str
    template_id: str
    region: str
    created_at: str
    updated_at: str | None = None
    enabled: bool = True
    description: str = ""
    recording_info: RecordingInfo | None = None
    large_room: bool = False
    size: int = 0
    max_duration_seconds: int | None = None
    polls: tuple[str, ...] = ()
    webhook: Webhook | None = None

    def __post_init__(self) -> None:
        instant_ns(self.created_at)  # an edited file must not fail later, in the middle of a listing


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A template: `body` holds what callers set, unknown keys included, with `name` and `roles` always there."""

    id: str
    created_at: str
    updated_at: str
    body: dict[str, Any]

    @property
    def name(self) -> str:
        """The name, unique in the workspace."""
        return str(self.body["name"])

    @property
    def roles(self) -> dict[str, dict[str, Any]]:
        """Roles by their case-sensitive name."""
        roles: dict[str, dict[str, Any]] = self.body["roles"]
        return roles

    def __post_init__(self) -> None:
        msgspec.convert(self.body, _TemplateCore)


class _TemplateCore(msgspec.Struct):
    name: str
    roles: dict[str, dict[str, Any]]


class _Document(msgspec.Struct):
    version: Literal[1]
    rooms: list[Room]
    templates: list[Template]


class Workspace:
    """Everything one access key owns.

    Changes are made without a pause between look-up and `put_room`/`put_template`, so two of them never mix; `save`
    then returns once the file holds them. One process at a time may use a file.
    """

    def __init__(self, access_key: str, path: Path | None) -> None:
        # Stable across restarts, and not the access key itself: every reply carries both.
        self.customer_id = hashlib.sha256(f"customer:{access_key}".encode()).hexdigest()[:24]
        self.app_id = hashlib.sha256(f"app:{access_key}".encode()).hexdigest()[:24]
        self.rooms: dict[str, Room] = {}
        self.templates: dict[str, Template] = {}
        self._ids_by_name: dict[str, str] = {}
        self._path = path
        self._fractions = itertools.cycle((9, 3, 0, 6, 2, 8, 1, 7, 4, 5))
        self._changes = 0
        self._saved = 0
        self._saving = asyncio.Lock()

    def now(self) -> str:
        """Write the present with the next of all fraction lengths, as the documented samples differ."""
        return timestamp(time.time_ns(), next(self._fractions))

    def room_named(self, name: str) -> Room | None:
        """Find a room by name in any case."""
        return self.rooms.get(self._ids_by_name.get(name.lower(), ""))

    def put_room(self, room: Room) -> None:
        """Add or replace a room in memory."""
        before = self.rooms.get(room.id)
        if before is not None:
            self._ids_by_name.pop(before.name.lower(), None)
        self.rooms[room.id] = room
        self._ids_by_name[room.name.lower()] = room.id

    def put_template(self, template: Template) -> None:
        """Add or replace a template in memory."""
        self.templates[template.id] = template

    def load(self) -> None:
        """Read the file, if there is one.

        Raises:
            StateError: it cannot be read or is not a state file.
        """
        if self._path is None or not self._path.exists():
            return
        try:
            document = msgspec.json.decode(self._path.read_bytes(), type=_Document)
            self._adopt(document)
        except (OSError, ValueError, RecursionError) as error:
            raise StateError(
                f"emulator state {self._path} cannot be used, move it away to start afresh: {_line(error)}"
            ) from error

    def save_now(self) -> None:
        """Write the file before there is an event loop.

        Raises:
            StateError: it cannot be written.
        """
        if self._path is None:
            return
        try:
            _replace(self._path, self._encoded())
        except OSError as error:
            raise StateError(f"emulator state {self._path} cannot be written: {_line(error)}") from error

    async def save(self) -> None:
        """Wait until the file holds every change made so far.

        Changes that arrive while a write is under way share the next one. A caller that goes away does not stop a
        write that has begun: the lock must not be free while a thread still replaces the file.
        """
        self._changes += 1
        if self._path is not None:
            await asyncio.shield(self._save_up_to(self._changes, self._path))

    async def _save_up_to(self, change: int, path: Path) -> None:
        async with self._saving:
            if self._saved >= change:
                return
            covered, payload = self._changes, self._encoded()
            await asyncio.to_thread(_replace, path, payload)
            self._saved = covered

    def _adopt(self, document: _Document) -> None:
        for template in document.templates:
            self.put_template(template)
        for room in document.rooms:
            if room.id in self.rooms or self.room_named(room.name) is not None:
                raise ValueError(f"room {room.id} is there twice, by id or by name")
            if room.template_id not in self.templates:
                raise ValueError(f"room {room.id} names a template that is not there")
            self.put_room(room)

    def _encoded(self) -> bytes:
        document = _Document(version=1, rooms=list(self.rooms.values()), templates=list(self.templates.values()))
        return msgspec.json.format(msgspec.json.encode(document), indent=1)


def _replace(path: Path, payload: bytes) -> None:
    """Write beside the file, then swap: a reader or a crash sees the old state or the new one, never half."""
    # mkstemp makes the file 0600, and it stays so: rooms may carry credentials of a recording bucket.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

"""Rooms as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.policy.model import RoomFacts


class Forbidden(Exception):
    """Something may not be done to a room. The text says why, to whoever tried."""


@dataclass(frozen=True, slots=True)
class Room:
    """A room in the registry. `id` is its id at 100ms, `name` its name here, `upstream` its generated name at 100ms.

    The room counts among the rooms its creator has at once, whoever owns it now; `lease` is what holds that place.
    `held`: an operator disabled it, and no owner may undo that. `locks` counts how often it was disabled.
    """

    id: str
    name: str
    description: str
    access: str
    template: str
    owner_id: str
    enabled: bool
    created_ms: int
    creator_id: str = ""
    lease: str = ""
    held: bool = False
    locks: int = 0
    upstream: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A room as one user sees it, with their stored relation to it."""

    room: Room
    relation: str | None

    @property
    def facts(self) -> RoomFacts:
        return RoomFacts(self.relation, self.room.access, self.room.enabled, self.room.template)


@dataclass(frozen=True, slots=True)
class NewRoom:
    """What a user decides about a new room; checked already."""

    name: str
    description: str
    access: str
    template: str


@dataclass(frozen=True, slots=True)
class RoomChanges:
    """What of a room is to change, checked already; None leaves it as it is."""

    name: str | None = None
    description: str | None = None
    access: str | None = None
    enabled: bool | None = None

    @property
    def fields(self) -> list[str]:
        """Return the names of what is to change."""
        return [name for name in self.__slots__ if getattr(self, name) is not None]


def room_of(room_id: str, row: Mapping[bytes, bytes]) -> Room | None:
    """Read a room from its Redis hash; None if there is none."""
    if not row:
        return None
    field = {name.decode(): value.decode() for name, value in row.items()}
    return Room(
        id=room_id,
        name=field["name"],
        description=field["description"],
        access=field["access"],
        template=field["template"],
        owner_id=field["owner"],
        enabled=field["enabled"] == "1",
        created_ms=int(field["created_ms"]),
        creator_id=field["creator"],
        lease=field["lease"],
        held=field["held"] == "1",
        locks=int(field["locks"]),
        upstream=field["upstream"],
    )


def timed_ids(reply: Sequence[tuple[bytes, float]]) -> list[tuple[int, str]]:
    """Return (time in ms, id) of each entry of a sorted set by time, read with scores."""
    return [(int(score), member.decode()) for member, score in reply]

"""Rooms as values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.policy.model import RoomFacts
from gateway.text import plain_text

UNTITLED = "Untitled room"  # the name of rooms without one; it may repeat
_Name = Annotated[str, Meta(max_length=100, description="Name shown to people; plain text.", examples=["Stand-up"])]
_Description = Annotated[str, Meta(max_length=500, description="Description shown to people; plain text.")]
_Access = Annotated[
    Literal["open", "invited"],
    Meta(description="`open`: all users who may join rooms may join; `invited`: only those with a relation."),
]


class Forbidden(Exception):
    """The caller may not do this to a room. The text for them says why."""


class Room(msgspec.Struct, frozen=True, rename={"owner_id": "owner", "creator_id": "creator"}):
    """A room in the registry. `id` is its id at 100ms, `name` its name here, `upstream` its generated name at 100ms.

    The room counts among the rooms its creator has at once, even if another user owns it; `lease` is the holder of
    its place.
    `held`: an operator disabled it, and no owner may undo that. `locks` counts how often it was disabled.
    `size` is how many people 100ms lets in at once, 0 if the gateway does not know.
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
    size: int = 0


class Found(msgspec.Struct, frozen=True):
    """A room as one user sees it, with their stored relation to it. `people` are in it now; 0 if that was not asked."""

    room: Room
    relation: str | None
    people: int = 0

    @property
    def facts(self) -> RoomFacts:
        room = self.room
        return RoomFacts(self.relation, room.access, room.enabled, room.template, self.people, room.size)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who acts on a room, and their relation to it; without one (empty) a permission allows what they do.

    An operator may lock and end any room, and no owner undoes their lock.
    """

    uid: str
    relation: str
    is_operator: bool = False


@dataclass(frozen=True, slots=True)
class NewRoom:
    """A room that is to be created, all decided."""

    name: str
    description: str
    access: str
    template: str
    size: int = 0


class CreateRoom(msgspec.Struct, forbid_unknown_fields=True):
    name: _Name | None = None
    description: _Description | None = None
    access: _Access | None = None
    template: Annotated[
        Annotated[str, Meta(max_length=64)] | None,
        Meta(description="Name of a template in the policy; by default `default`."),
    ] = None

    def __post_init__(self) -> None:
        self.name = plain_text("name", self.name) or None
        self.description = plain_text("description", self.description) or None


class ChangeRoom(msgspec.Struct, forbid_unknown_fields=True):
    name: _Name | None = None
    description: _Description | None = None
    access: _Access | None = None
    enabled: Annotated[bool | None, Meta(description="False: no join tokens are issued and 100ms admits no one.")] = (
        None
    )

    def __post_init__(self) -> None:
        if self.name is not None:
            self.name = plain_text("name", self.name) or UNTITLED
        if self.description is not None:
            self.description = plain_text("description", self.description)

    @property
    def fields(self) -> list[str]:
        """Return the names of the fields that change."""
        return [name for name in self.__struct_fields__ if getattr(self, name) is not None]


# HMGET of these: Redis takes no longer than for HGETALL, and the list is read in a fifth of the time of the map.
FIELDS = Room.__struct_encode_fields__[1:]
"""The fields of a room's Redis hash: all but its id."""


def room_of(room_id: str, row: Sequence[bytes | None]) -> Room | None:
    """Read a room from the values of `FIELDS` in its Redis hash; None if there is none."""
    if row[0] is None:
        return None
    # Each by hand: `msgspec.convert` from a dict of texts takes three times as long.
    texts = [value.decode() if value else "" for value in row]
    name, description, access, template, owner, enabled, created_ms, creator, lease, held, locks, upstream, size = texts
    stored = (name, description, access, template, owner, enabled == "1", int(created_ms))
    return Room(room_id, *stored, creator, lease, held == "1", int(locks or 0), upstream, int(size or 0))


def words_of(room: Room) -> list[str | int]:
    """Return the fields and values of a room's Redis hash."""
    row = msgspec.to_builtins(room)
    del row["id"]
    return [int(word) if isinstance(word, bool) else word for item in row.items() for word in item]


def timed_ids(reply: Sequence[tuple[bytes, float]]) -> list[tuple[int, str]]:
    """Return (time in ms, id) of each entry of a sorted set by time, read with scores."""
    return [(int(score), member.decode()) for member, score in reply]

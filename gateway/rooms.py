"""The gateway's own registry of rooms: who owns which, who may see it. 100ms knows rooms, but nothing of owners.

Keys: `rm:1:{rid}` the room, whose `owner` decides, `rr:1:{rid}` relations by uid, `ur:1:{uid}` a user's rooms and
`ra:1` all rooms, both zsets by time.
"""

from __future__ import annotations

import asyncio
import re
import time
import unicodedata
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ulid import ULID

from gateway.hms.client import ROOM_ID, HmsClient
from gateway.policy import Policy, RoomFacts

Execute = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Room:
    """One room of ours. `id` is 100ms's room id; `name` is the user's, never the generated one that 100ms has."""

    id: str
    name: str
    description: str
    access: str
    template: str
    owner_id: str
    enabled: bool
    created_ms: int


@dataclass(frozen=True, slots=True)
class Found:
    """What one user's request brings to light about a room. `listed`: the room is in that user's list already."""

    room: Room
    relation: str | None
    listed: bool

    @property
    def facts(self) -> RoomFacts:
        return RoomFacts(self.relation, self.room.access, self.room.enabled, self.room.template)


@dataclass(frozen=True, slots=True)
class NewRoom:
    """What a user may say of a room he creates; all of it is checked before it gets here."""

    name: str
    description: str
    access: str
    template: str


class Rooms:
    """Creates rooms at 100ms, registers them, finds them again. `template_ids` maps policy aliases to 100ms ids."""

    def __init__(self, execute: Execute, hms: HmsClient, policy: Policy, template_ids: Mapping[str, str]) -> None:
        self._execute = execute
        self._hms = hms
        self._policy = policy
        self._template_ids = template_ids

    async def create(self, uid: str, new: NewRoom, *, lease: str) -> Room:
        """Create a room at 100ms under a name of our own making, and register its owner.

        `lease` is what holds the room's place among its owner's rooms at once.

        The generated name is new each time: creating under an existing one would rewrite somebody else's room.

        Raises:
            HmsError: 100ms did not create it.
            StoreError: 100ms created it, but it could not be registered; nobody can reach it.
        """
        defaults = self._policy.rooms
        upstream = await self._hms.create_room(
            name=upstream_name(new.name),
            description=new.description,
            template_id=self._template_ids[new.template],
            region=defaults.region,
            size=defaults.size,
            max_duration_s=defaults.max_duration_s,
        )
        room = Room(upstream.id, new.name, new.description, new.access, new.template, uid, True, _now_ms())
        row = {"name": room.name, "description": room.description, "access": room.access, "template": room.template}
        row |= {
            "owner": uid,
            "enabled": "1",
            "created_ms": str(room.created_ms),
            "upstream": upstream.name,
            "lease": lease,
        }
        # One HSET decides the ownership; the two lists are derived from it.
        await asyncio.gather(
            self._execute("HSET", f"rm:1:{{{room.id}}}", *(word for item in row.items() for word in item)),
            self._execute("ZADD", f"ur:1:{{{uid}}}", room.created_ms, room.id),
            self._execute("ZADD", "ra:1", room.created_ms, room.id),
        )
        return room

    async def find(self, room_id: str, uid: str) -> Found | None:
        """Return a room and a user's relation to it, None if it is not ours. One round trip; never asks 100ms."""
        if not ROOM_ID.fullmatch(room_id):
            return None
        row, relation, listed = await asyncio.gather(
            self._execute("HGETALL", f"rm:1:{{{room_id}}}"),
            self._execute("HGET", f"rr:1:{{{room_id}}}", uid),
            self._execute("ZSCORE", f"ur:1:{{{uid}}}", room_id),
        )
        room = _room(room_id, row)
        if room is None:
            return None
        stored = relation.decode() if relation else None
        return Found(room, "owner" if room.owner_id == uid else stored, listed is not None)

    async def enlist(self, found: Found, uid: str) -> None:
        """Put an open room into the list of a user who has just joined it for the first time."""
        if not found.listed:
            await self._execute("ZADD", f"ur:1:{{{uid}}}", "NX", _now_ms(), found.room.id)

    async def page(
        self, uid: str | None, *, before: tuple[int, str] | None, size: int
    ) -> tuple[list[Room], tuple[int, str] | None]:
        """Return a user's rooms (None: everybody's), newest first, and where the next page begins.

        A place is (time in ms, room id): rooms of one millisecond are in the order of their ids, as Redis has them.
        """
        key = "ra:1" if uid is None else f"ur:1:{{{uid}}}"
        top = "+inf" if before is None else str(before[0])
        # Rooms of the cursor's own millisecond come again and are skipped; the surplus allows for them.
        surplus = await self._execute("ZCOUNT", key, top, top) if before else 0
        span = ("LIMIT", 0, size + 1 + surplus)
        reply = await self._execute("ZRANGE", key, top, "-inf", "BYSCORE", "REV", *span, "WITHSCORES")
        places = [place for place in _places(reply) if before is None or place < before]
        shown = places[:size]
        rows = await asyncio.gather(*(self._execute("HGETALL", f"rm:1:{{{rid}}}") for _, rid in shown))
        rooms = [room for (_, rid), row in zip(shown, rows, strict=True) if (room := _room(rid, row))]
        return rooms, shown[-1] if len(places) > size else None


def upstream_name(name: str) -> str:
    """Return a new name for 100ms: readable in its dashboard, unique by its ULID, of its allowed characters only."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_name)[:40].strip("-") or "room"
    return f"{slug}.{str(ULID()).lower()}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _places(reply: Sequence[Any]) -> list[tuple[int, str]]:
    # RESP3 pairs members with scores, RESP2 lists them in turn
    pairs = reply if reply and isinstance(reply[0], list | tuple) else list(zip(reply[::2], reply[1::2], strict=True))
    return [(int(float(score)), member.decode()) for member, score in pairs]


def _room(room_id: str, row: Mapping[bytes, bytes] | Sequence[bytes]) -> Room | None:
    pairs = row if isinstance(row, Mapping) else dict(zip(row[::2], row[1::2], strict=True))
    if not pairs:
        return None
    field = {name.decode(): value.decode() for name, value in pairs.items()}
    return Room(
        id=room_id,
        name=field["name"],
        description=field["description"],
        access=field["access"],
        template=field["template"],
        owner_id=field["owner"],
        enabled=field["enabled"] == "1",
        created_ms=int(field["created_ms"]),
    )

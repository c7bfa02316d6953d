"""The gateway's registry of rooms: their owners and who may see them. 100ms has rooms, but no owners."""

import asyncio
import logging
import re
import time
import unicodedata
from collections.abc import Awaitable
from typing import Any

import msgspec
from ulid import ULID

from auth import Execute
from gateway.hms.client import HmsClient
from gateway.hms.errors import HmsUnreachable, already_done
from gateway.hms.replies import ROOM_ID
from gateway.policy.actions import RELATIONS
from gateway.policy.live import PolicyInForce
from gateway.rooms import keys
from gateway.rooms.listing import Place, room_row, rooms_by_time
from gateway.rooms.locks import LOCKED_ONLY, UNLOCKED_ONLY, RoomLocks
from gateway.rooms.names import RoomNames
from gateway.rooms.room import UNTITLED, ChangeRoom, Found, NewRoom, Room, room_of, words_of
from gateway.text import FieldError, plain_text
from limits.limiter import Limiter

log = logging.getLogger("gateway")

# KEYS 1 room. ARGV field, value, ... Reply 1 if the room was new and is written, else 0.
_REGISTER = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
"""


_MOST_REMEMBERED = 10_000


class NotOurs(Exception):
    """A room cannot be adopted. The text says why."""


class Rooms:
    """Creates, registers, finds and changes rooms. `locks` locks and ends them."""

    def __init__(self, execute: Execute, hms: HmsClient, limiter: Limiter, policy: PolicyInForce) -> None:
        self._execute = execute
        self._hms = hms
        self._policy = policy
        self.locks = RoomLocks(execute, hms, limiter, policy)
        self._names = RoomNames(execute, policy)
        self._enlisted: set[tuple[str, str]] = set()  # so that only a user's first mint in a room asks Redis twice

    async def create(self, uid: str, new: NewRoom, *, lease: str, upstream: str) -> tuple[Room, bool]:
        """Create a room at 100ms under a generated name, and register its owner.

        `lease` is the holder of the room's place among its creator's rooms. `upstream` is its name at 100ms: a new
        one, or that of an earlier attempt of the same request whose outcome is not known. Under any other existing name
        100ms would overwrite another user's room. Returns the room and whether it is new; if the earlier attempt has
        registered it, the room is as it is now. Raises: NameTaken, HmsError, or StoreError: 100ms created the room, but
        it may not be registered; then no one can reach it.
        """
        policy = self._policy.now
        async with self._names.claimed(new.name, upstream) as claim:
            created = await self._hms.create_room(
                name=upstream,
                description=new.description,
                template_id=policy.template_ids[new.template],
                region=policy.rooms.region,
                size=new.size,
                max_duration_s=policy.rooms.max_duration_s,
            )
            room = _room(created.id, new, uid, lease=lease, upstream=upstream, created_ms=_now_ms())
            await claim.hand_over(room.id)
            had = await self._register(room)
            if had is not None and (had.creator_id, had.upstream) != (uid, upstream):
                log.error("100ms answered a create with room %s, which belongs to another user", created.id)
                raise HmsUnreachable("100ms gave an unusable answer.")
            await self._list(had or room)
        return had or room, had is None

    async def adopt(self, room_id: str, owner: str, *, name: str, access: str | None = None) -> Room:
        """Register a room that already exists at 100ms, with its description there.

        Without a name it keeps the one it has there; without `access` it has the policy's. Raises NotOurs if it is
        registered already, 100ms does not have it or the policy does not have its template; NameTaken; HmsError.
        """
        if not ROOM_ID.fullmatch(room_id):
            raise NotOurs(f"{room_id!r} is not a room id of 100ms, which has 24 hexadecimal digits")
        if await self.get(room_id) is not None:
            raise NotOurs(f"room {room_id} is registered already")
        found = await self._hms.get_room(room_id)
        if found is None:
            raise NotOurs(f"100ms has no room {room_id}")
        policy = self._policy.now
        aliases = [alias for alias, template_id in policy.template_ids.items() if template_id == found.template_id]
        if not aliases:
            raise NotOurs(f"its template {found.template_id or '(unknown)'} is not one of the policy's [templates.*]")
        texts = name or _theirs(found.name, 100) or UNTITLED, _theirs(found.description, 500)
        new = NewRoom(*texts, access or policy.rooms.access, aliases[0])
        created_ms = int(found.created_at * 1000) if found.created_at else _now_ms()
        lease = f"adopted-{found.id}"
        room = _room(found.id, new, owner, lease=lease, upstream=found.name, created_ms=created_ms)
        room = msgspec.structs.replace(room, enabled=found.enabled)
        async with self._names.claimed(room.name, found.id):
            if await self._register(room) is not None:
                raise NotOurs(f"room {room_id} has just been registered")
            await self._list(room)
        return room

    async def update(self, room: Room, changes: ChangeRoom, *, held: bool = False) -> None:
        """Change a room, `enabled` and the description also at 100ms; what 100ms refuses does not change here either.

        Enabling takes a place among the rooms its creator has at once. `enabled` is changed first: if anything fails
        after disabling, no token is minted. `held`: only an operator may enable it again. Raises NameTaken,
        TooManyRooms or LockedMeanwhile if nothing has changed, HmsError if at most `enabled` has, as the text says.
        """
        renamed = changes.name if changes.name != room.name else None
        async with self._names.claimed(renamed, room.id):
            holds = {None: "", False: LOCKED_ONLY, True: UNLOCKED_ONLY}[changes.enabled]
            if changes.enabled is False:
                await self.locks.lock(room, held=held)
            if changes.enabled and not room.enabled:
                await self.locks.unlock(room)
            if changes.description is not None and changes.description != room.description:
                with already_done(holds):
                    await self._hms.update_room(room.id, description=changes.description)
            wanted = {"name": renamed, "description": changes.description, "access": changes.access}
            fields = {name: value for name, value in wanted.items() if value is not None}
            if fields:
                await self._execute("HSET", keys.room(room.id), *(word for item in fields.items() for word in item))

    async def _register(self, room: Room) -> Room | None:
        """Write a new room. If it is registered already, change nothing and return it."""
        is_new = await self._execute("EVAL", _REGISTER, 1, keys.room(room.id), *words_of(room))
        return None if is_new else await self.get(room.id)

    async def _list(self, room: Room) -> None:
        """Put a registered room into its owner's list and the list of all rooms."""
        await asyncio.gather(
            self._execute("ZADD", keys.rooms_of(room.owner_id), "NX", room.created_ms, room.id),
            self._execute("ZADD", keys.ALL_ROOMS, room.created_ms, room.id),
        )

    async def get(self, room_id: str) -> Room | None:
        """Return a room by its id, None if it is not registered."""
        if not ROOM_ID.fullmatch(room_id):
            return None
        return room_of(room_id, await room_row(self._execute, room_id))

    def find(self, room_id: str, uid: str, *, people: bool = False) -> Awaitable[Found | None]:
        """Ask Redis at once for a room and a user's relation to it; await the result, None if it is not registered.

        With `people` also how many are in it now. One round trip, in the same write as what is asked before the result
        is awaited. Never asks 100ms.
        """
        if not ROOM_ID.fullmatch(room_id):
            return _nothing()
        row, relation = room_row(self._execute, room_id), self._execute("HGET", keys.relations(room_id), uid)
        return _found(room_id, uid, row, relation, self._execute("HLEN", keys.people(room_id)) if people else None)

    async def enlist(self, found: Found, uid: str) -> None:
        """Put an open room into the list of a user who joins it without a stored relation."""
        joined = (uid, found.room.id)
        if found.relation is None and joined not in self._enlisted:
            await self._execute("ZADD", keys.rooms_of(uid), "NX", _now_ms(), found.room.id)
            if len(self._enlisted) >= _MOST_REMEMBERED:
                self._enlisted.clear()
            self._enlisted.add(joined)

    async def page(
        self, uid: str | None, *, before: Place | None, size: int, open_rooms: bool = True
    ) -> tuple[list[Room], Place | None]:
        """Return a user's rooms (None: all rooms), newest first, and where the next page begins.

        Rooms that they joined while these were open are left out once they are closed, or without `open_rooms`.
        """
        key = keys.ALL_ROOMS if uid is None else keys.rooms_of(uid)
        rooms, following = await rooms_by_time(self._execute, key, before=before, size=size)
        if uid is not None:
            rooms = await self._shown(rooms, uid, open_rooms)
        return rooms, following

    async def owned(self, uid: str, *, before: Place | None, size: int) -> tuple[list[Room], Place | None]:
        """Return the rooms that a user owns, as `page` does; a page before the last may have fewer, even none."""
        rooms, following = await rooms_by_time(self._execute, keys.rooms_of(uid), before=before, size=size)
        return [room for room in rooms if room.owner_id == uid], following

    async def _shown(self, rooms: list[Room], uid: str, open_rooms: bool) -> list[Room]:
        """Return the rooms of a user's list that they may still read; relations to their own are not asked for."""
        others = [room for room in rooms if room.owner_id != uid]
        stored = [(room, self._execute("HGET", keys.relations(room.id), uid)) for room in others]
        hidden = {room.id for room, relation in stored if not _may_read(room, await relation, open_rooms)}
        return [room for room in rooms if room.id not in hidden]


def _room(room_id: str, new: NewRoom, owner: str, *, lease: str, upstream: str, created_ms: int) -> Room:
    texts = (new.name, new.description, new.access, new.template)
    return Room(
        room_id, *texts, owner, True, created_ms, creator_id=owner, lease=lease, upstream=upstream, size=new.size
    )


def upstream_name(name: str) -> str:
    """Return a new name for 100ms, of the characters it allows: readable in its dashboard, unique by its ULID."""
    return f"{slug(name)}.{str(ULID()).lower()}"


def slug(name: str) -> str:
    """Return the readable part of a name for 100ms."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_name)[:40].strip("-") or "room"


def _theirs(text: str, most: int) -> str:
    """Return a text of 100ms, cut to size; empty if the gateway would not accept it from a user."""
    try:
        return plain_text("", text)[:most].rstrip()
    except FieldError:
        return ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _may_read(room: Room, relation: bytes | None, open_rooms: bool) -> bool:
    return relation.decode() in RELATIONS if relation else open_rooms and room.access == "open"


async def _found(
    room_id: str, uid: str, row: Awaitable[Any], relation: Awaitable[Any], people: Awaitable[int] | None
) -> Found | None:
    room, stored = room_of(room_id, await row), await relation
    count = 0 if people is None else await people
    if room is None:
        return None
    return Found(room, "owner" if room.owner_id == uid else stored and stored.decode(), count)


async def _nothing() -> None:
    return None

"""Reads rooms in the order of a list by time, without knowing 100ms."""

from collections.abc import Awaitable, Iterable, Sequence

from auth import Execute
from gateway.rooms import keys
from gateway.rooms.room import FIELDS, Room, room_of, timed_ids

Place = tuple[int, str]
"""A place in a list of rooms: time in ms, room id. Redis orders rooms of the same millisecond by their ids."""


async def rooms_by_time(
    execute: Execute, key: str, *, before: Place | None, size: int
) -> tuple[list[Room], Place | None]:
    """Return the rooms of a list, newest first, and the place before which the next page begins (None: the end)."""
    top = "+inf" if before is None else str(before[0])
    # Rooms of the cursor's own millisecond are read again and skipped; the surplus makes up for them.
    surplus = await execute("ZCOUNT", key, top, top) if before else 0
    span = ("LIMIT", 0, size + 1 + surplus)
    reply = await execute("ZRANGE", key, top, "-inf", "BYSCORE", "REV", *span, "WITHSCORES")
    found = [place for place in timed_ids(reply) if before is None or place < before]
    shown = found[:size]
    rooms = await rooms_by_id(execute, [rid for _, rid in shown])
    return list(rooms.values()), shown[-1] if len(found) > size else None


async def rooms_by_id(execute: Execute, ids: Iterable[str]) -> dict[str, Room]:
    """Return rooms by id, in this order; those that are not registered are left out."""
    rows = [(rid, room_row(execute, rid)) for rid in ids]  # all sent before the first is awaited
    return {rid: room for rid, row in rows if (room := room_of(rid, await row))}


def room_row(execute: Execute, room_id: str) -> Awaitable[Sequence[bytes | None]]:
    """Ask Redis at once for what `room_of` reads a room from."""
    return execute("HMGET", keys.room(room_id), *FIELDS)

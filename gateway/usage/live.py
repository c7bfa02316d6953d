"""Who is in which room now, as 100ms's events say."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from auth import Execute
from auth.accounts import Accounts
from gateway.rooms import keys
from gateway.rooms.listing import rooms_by_id
from limits.counters import ALL

OPEN_STAYS = keys.people(ALL)

Since = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


class _Stay(msgspec.Struct):
    """What the hash holds of one stay."""

    room: str
    joined_ms: int
    session: str = ""
    user: str = ""
    role: str = ""


class LivePerson(msgspec.Struct):
    """A person in a room; once for each device."""

    user_id: Annotated[str, Meta(description="Id of the user, as 100ms has it; empty if they joined without one.")]
    username: Annotated[str, Meta(description="Name of the user; empty if the gateway has no such user.")]
    role: Annotated[str, Meta(description="Role at 100ms.")]
    since: Annotated[Since, Meta(description="When they joined.")]


class LiveRoom(msgspec.Struct):
    """A room with people in it."""

    room_id: Annotated[str, Meta(description="Id of the room.")]
    name: Annotated[str, Meta(description="Name of the room; empty if it is not registered.")]
    owner_id: Annotated[str, Meta(description="Id of the owner; empty if it is not registered.")]
    owner: Annotated[str, Meta(description="Name of the owner; empty if the account was deleted.")]
    since: Annotated[Since, Meta(description="When the person who has been there longest joined.")]
    people: Annotated[list[LivePerson], Meta(description="Who is in the room; the first to join first.")]


@dataclass(frozen=True, slots=True)
class Now:
    """The rooms with the most people, and how many rooms and people there are in all."""

    rooms: list[LiveRoom]
    all_rooms: int
    all_people: int


async def who_is_where(execute: Execute, accounts: Accounts, *, size: int) -> Now:
    """Return the `size` rooms with the most people now."""
    by_room: dict[str, list[_Stay]] = defaultdict(list)
    for value in (await execute("HGETALL", OPEN_STAYS)).values():
        stay = msgspec.json.decode(value, type=_Stay)
        by_room[stay.room].append(stay)
    fullest = sorted(by_room, key=lambda room: (-len(by_room[room]), room))[:size]
    registered = await rooms_by_id(execute, fullest)
    shown = {stay.user for room in fullest for stay in by_room[room]} | {one.owner_id for one in registered.values()}
    users = await accounts.several(sorted(shown - {""}))
    names = {uid: user.username for uid, user in users.items()}
    rooms = []
    for room_id in fullest:
        stays = sorted(by_room[room_id], key=lambda stay: stay.joined_ms)
        room = registered.get(room_id)
        owner_id = room.owner_id if room else ""
        people = [LivePerson(one.user, names.get(one.user, ""), one.role, _instant(one.joined_ms)) for one in stays]
        name, owner = room.name if room else "", names.get(owner_id, "")
        rooms.append(LiveRoom(room_id, name, owner_id, owner, people[0].since, people))
    return Now(rooms, len(by_room), sum(map(len, by_room.values())))


def _instant(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""Changing and ending a room: the rules beyond the caller's relation, the audit entries, and who has to leave."""

from __future__ import annotations

from gateway.audit import Audit
from gateway.hms.client import HmsError
from gateway.rooms.registry import Rooms
from gateway.rooms.relations import Members
from gateway.rooms.room import Caller, ChangeRoom, Forbidden, Room


class RoomControl:
    """Changes and ends rooms on somebody's behalf."""

    def __init__(self, rooms: Rooms, members: Members, audit: Audit) -> None:
        self._rooms = rooms
        self._members = members
        self._audit = audit

    async def change(self, room: Room, changes: ChangeRoom, *, by: Caller) -> Room:
        """Change a room and return it as it is then. If it becomes `invited`, peers without a relation are removed.

        Raises:
            Forbidden, NameTaken, TooManyRooms, LockedMeanwhile: nothing has changed.
            HmsError: it says what has changed all the same.
        """
        if not by.relation and changes.fields != ["enabled"]:
            raise Forbidden("Whoever is neither owner nor cohost of this room may change nothing but `enabled`.")
        if changes.enabled and room.held and not by.is_operator:
            raise Forbidden("An operator has locked this room; only an operator unlocks it.")
        said = {"by": by.uid, "subject": "", "room": room.id, "fields": " ".join(changes.fields)}
        try:
            await self._rooms.update(room, changes, held=by.is_operator)
        except HmsError:
            await self._audit.record("room.changed", **said, code="upstream")  # a lock holds here all the same
            raise
        await self._audit.record("room.changed", **said)
        changed = await self._rooms.get(room.id) or room
        if changes.access == "invited":  # even if it was before: 100ms may not have removed everyone then
            await self._members.remove_strangers(changed, reason="this room is for invited people now")
        return changed

    async def end(self, room: Room, *, lock: bool, reason: str | None, by: Caller) -> bool:
        """Remove everybody from a room, and with `lock` let nobody join again; return whether anybody was there.

        Raises:
            HmsError: 100ms did not end it; a lock holds here all the same.
        """
        why = reason or "the room was ended"
        await self._audit.record("room.ended", by=by.uid, subject="", room=room.id, lock=int(lock), reason=why)
        return await self._rooms.locks.end(room, lock=lock, held=by.is_operator, reason=why)

"""Use cases of changing and ending a room: rules beyond the caller's relation, audit entries, removals."""

from typing import Any

from gateway.audit import Audit
from gateway.hms.errors import HmsError
from gateway.rooms.locks import check_unlock
from gateway.rooms.registry import Rooms
from gateway.rooms.relations import Members
from gateway.rooms.room import Caller, ChangeRoom, Forbidden, Room


class RoomControl:
    """Changes and ends rooms on behalf of a user."""

    def __init__(self, rooms: Rooms, members: Members, audit: Audit) -> None:
        self._rooms = rooms
        self._members = members
        self._audit = audit

    async def change(self, room: Room, changes: ChangeRoom, *, by: Caller) -> Room:
        """Change a room and return it as it is then. If it becomes `invited`, peers without a relation are removed.

        Raises: Forbidden, NameTaken, TooManyRooms, LockedMeanwhile (nothing has changed), or HmsError, which says what
        has changed nevertheless.
        """
        if not by.relation and changes.fields != ["enabled"]:
            raise Forbidden("Only an owner or cohost of this room may change more than `enabled`.")
        if not changes.fields:
            return room
        if changes.enabled:
            check_unlock(room, by)
        said = {"by": by.uid, "subject": "", "room": room.id, "fields": " ".join(changes.fields)}
        try:
            await self._rooms.update(room, changes, held=by.is_operator)
        except HmsError:
            await self._audit.record("room.changed", **said, code="upstream")  # the gateway may have locked it
            raise
        await self._audit.record("room.changed", **said)
        changed = await self._rooms.get(room.id) or room
        if changes.access == "invited":  # even if it was before: 100ms may not have removed everyone then
            await self._members.remove_strangers(changed, reason="this room is now for invited people only")
        return changed

    async def remove(self, room: Room, uid: str, *, reason: str | None, by: Caller) -> int:
        """Remove a user from the session, who may join again; return how many peers they had there. Raises: HmsError"""
        why = reason or "you were removed from the room"
        said: dict[str, Any] = {"by": by.uid, "subject": uid, "room": room.id, "reason": why}
        try:
            removed = await self._members.send_out(room, uid, reason=why)
        except HmsError:
            await self._audit.record("peer.removed", **said, code="upstream")  # it may have removed some
            raise
        if removed:
            await self._audit.record("peer.removed", **said)
        return removed

    async def end(self, room: Room, *, lock: bool, reason: str | None, by: Caller) -> bool:
        """Remove everyone from a room, and with `lock` refuse joins; tell whether anyone was there. Raises: HmsError"""
        why = reason or "the room was ended"
        said: dict[str, Any] = {"by": by.uid, "subject": "", "room": room.id, "lock": int(lock), "reason": why}
        try:
            ended = await self._rooms.locks.end(room, lock=lock, held=by.is_operator, reason=why)
        except HmsError:
            await self._audit.record("room.end_failed", **said)  # the gateway may have locked it
            raise
        await self._audit.record("room.ended" if ended else "room.locked" if lock else "room.found_empty", **said)
        return ended

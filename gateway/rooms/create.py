"""Creates rooms: template, place among the owner's rooms, the call to 100ms, and repeated requests."""

import secrets
from dataclasses import dataclass

import msgspec

from auth.tokens import Principal
from gateway.audit import Audit
from gateway.policy.decide import decide
from gateway.policy.live import PolicyInForce
from gateway.redis.store import StoreError
from gateway.rooms.idempotency import Attempt, Idempotency, key_of
from gateway.rooms.registry import Rooms, upstream_name
from gateway.rooms.room import UNTITLED, CreateRoom, NewRoom, Room


class TemplateNotAllowed(Exception):
    """The policy has no template of that name. `allowed` lists its templates."""

    def __init__(self, allowed: list[str]) -> None:
        super().__init__(f"template: the policy has no template of that name. Allowed: {', '.join(allowed)}.")
        self.allowed = allowed


class RoomGone(Exception):
    """The room that an earlier request made no longer exists, or the caller may no longer see it."""


@dataclass(frozen=True, slots=True)
class Created:
    """The room of a request. `is_replayed`: an earlier one made it. `is_charged`: the request counts as a create."""

    room: Room
    is_replayed: bool = False
    is_charged: bool = True


class RoomCreation:
    """Creates rooms, each once for an Idempotency-Key."""

    def __init__(self, rooms: Rooms, idempotency: Idempotency, policy: PolicyInForce, audit: Audit) -> None:
        self._rooms = rooms
        self._idempotency = idempotency
        self._policy = policy
        self._audit = audit

    async def create(self, caller: Principal, key: str | None, wish: CreateRoom) -> Created:
        """Create a room that the caller owns, or find the one an earlier request with the same key made.

        The key is checked already. What of the wish is None is as the policy says.
        Raises: TemplateNotAllowed, NameTaken, TooManyRooms, HmsError, InFlight, OtherRequest, RoomGone
        """
        new = self._new_room(wish, caller.roles)
        upstream = upstream_name(new.name)
        if key is None:
            room, is_new = await self._create(caller, new, upstream), True
        else:
            asked = msgspec.json.encode(wish)
            own = key_of(caller, key)
            attempt = await self._idempotency.begin(caller.uid, "rooms.create", own, asked, name=upstream)
            if attempt.room_id:
                return await self.replay(caller, attempt.room_id)
            room, is_new = await self._create_once(caller, new, attempt)
        self._audit.note("room.created", by=caller.uid, subject=caller.uid, room=room.id)
        # An attempt that crashed may have registered the room without an audit entry.
        return Created(room) if is_new else await self.replay(caller, room.id, is_charged=room.enabled)

    async def replay(self, caller: Principal, room_id: str, *, is_charged: bool = False) -> Created:
        """Return the room of an earlier request as it is now. Raises: RoomGone"""
        found = await self._rooms.find(room_id, caller.uid)
        if found is None or not decide(self._policy.of(caller), caller.roles, "rooms.read", found.facts).allowed:
            raise RoomGone("The room no longer exists, or you have no relation to it.")
        return Created(found.room, is_replayed=True, is_charged=is_charged)

    def _new_room(self, wish: CreateRoom, roles: tuple[str, ...]) -> NewRoom:
        defaults, known = self._policy.now.rooms_of(roles), sorted(self._policy.now.templates)
        template = "default" if wish.template is None else wish.template
        if template not in known:
            raise TemplateNotAllowed(known)
        return NewRoom(
            wish.name or UNTITLED, wish.description or "", wish.access or defaults.access, template, defaults.size
        )

    async def _create(self, caller: Principal, new: NewRoom, upstream: str) -> Room:
        uid, holder, locks = caller.uid, secrets.token_hex(8), self._rooms.locks
        await locks.take_place(uid, holder, caller.roles)
        try:
            room, _ = await self._rooms.create(uid, new, lease=holder, upstream=upstream)
        except BaseException:
            await locks.give_place_back(uid, holder)
            raise
        return room

    async def _create_once(self, caller: Principal, new: NewRoom, attempt: Attempt) -> tuple[Room, bool]:
        """Create the room of a key; return it and whether it is new. The place is the key's, not the attempt's."""
        uid, holder, locks = caller.uid, attempt.holder, self._rooms.locks
        async with self._idempotency.held(attempt):
            is_taken = await locks.take_place(uid, holder, caller.roles)
            try:
                room, is_new = await self._rooms.create(uid, new, lease=holder, upstream=attempt.name)
            except StoreError:
                raise  # the outcome is unknown: a room may have the place
            except Exception:
                if is_taken:
                    await locks.give_place_back(uid, holder)
                raise
            if room.lease != holder or not room.enabled:  # an attempt that died registered it; it was locked since
                await locks.give_place_back(uid, holder)
            await self._idempotency.finish(attempt, room.id)
        return room, is_new

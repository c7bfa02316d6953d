"""Locks, unlocks and ends rooms, in the registry and at 100ms, and frees or takes their places.

A room's hash has `enabled`, `held` (only an operator may unlock it), `locks` (how often it was locked) and `lease`
(the holder of its place among the rooms that its creator has at once); while only a budget locks it, also `budget`.
"""

import secrets

from auth import Execute
from auth.users import roles_of
from gateway.hms.client import HmsClient
from gateway.hms.errors import already_done
from gateway.policy.live import PolicyInForce
from gateway.rooms import keys
from gateway.rooms.room import Caller, Forbidden, Room
from limits.limiter import Limiter
from limits.policy import Decision

# KEYS 1 room. ARGV 1 '1' if an operator locks it, and only an operator may unlock it, 2 the budget that locks it or ''.
# Reply the holder of its place. A budget does not put itself in the place of people who have locked it, but they do.
_LOCK = """
local was = redis.call('HGET', KEYS[1], 'enabled')
redis.call('HSET', KEYS[1], 'enabled', '0')
if ARGV[1] == '1' then redis.call('HSET', KEYS[1], 'held', '1') end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], 'budget')
elseif was == '1' then
  redis.call('HSET', KEYS[1], 'budget', ARGV[2])
end
redis.call('HINCRBY', KEYS[1], 'locks', 1)
return redis.call('HGET', KEYS[1], 'lease')
"""
# KEYS 1 room. ARGV 1 how often it had been locked when the unlocking was decided, 2 the holder of its place: a new
# one, because a late lock frees the place of the old one.
# Reply 1; 0: it was locked again; 2: another request has unlocked it, with its own place.
_UNLOCK = """
local had = redis.call('HMGET', KEYS[1], 'locks', 'enabled')
if had[1] ~= ARGV[1] then return 0 end
if had[2] == '1' then return 2 end
redis.call('HSET', KEYS[1], 'enabled', '1', 'held', '0', 'lease', ARGV[2])
redis.call('HDEL', KEYS[1], 'budget')
return 1
"""
_MOST_SWITCHES = 20  # of one room at 100ms by one request; all but the first follow other requests

# What has changed although 100ms did not carry out the request.
_LOCKED = "The gateway has locked the room nevertheless and issues no token to join it. "
LOCKED_ONLY = _LOCKED + "Nothing else has changed. Repeat the request to complete it at 100ms."
_LOCKED_NOT_ENDED = _LOCKED + "People may still be in it. Repeat the request to end it."
UNLOCKED_ONLY = "The room has been enabled nevertheless; nothing else has changed. Repeat the request."


def check_unlock(room: Room, by: Caller) -> None:
    """Check that a caller may unlock a room. Raises: Forbidden, if an operator has locked it and they are not one."""
    if room.held and not by.is_operator:
        raise Forbidden("An operator has locked this room; only an operator can unlock it.")


class LockedMeanwhile(Exception):
    """Another request locked the room while it was being unlocked. The room stays locked."""


class TooManyRooms(Exception):
    """The room's creator has as many rooms at once as the policy allows."""

    def __init__(self, decision: Decision) -> None:
        super().__init__("too many rooms at once")
        self.decision = decision

    @property
    def outcome(self) -> str:
        """Return the outcome that the request is counted as."""
        return f"denied.{self.decision.worst.name}"


class RoomLocks:
    """Locks and unlocks rooms and ends their sessions."""

    def __init__(self, execute: Execute, hms: HmsClient, limiter: Limiter, policy: PolicyInForce) -> None:
        self._execute = execute
        self._hms = hms
        self._limiter = limiter
        self._policy = policy

    async def lock(self, room: Room, *, held: bool) -> None:
        """Refuse all joins, here and then at 100ms; with `held`, until an operator unlocks it. Raises: HmsError"""
        await self._stop_minting(room, held=held)
        with already_done(LOCKED_ONLY):
            await self._switch(room.id, enabled=False)

    async def unlock(self, room: Room) -> None:
        """Allow joins again, at 100ms first. Raises: TooManyRooms, LockedMeanwhile, HmsError"""
        holder = secrets.token_hex(8)
        await self.take_place(room.creator_id, holder, await roles_of(self._execute, room.creator_id))
        try:
            await self._hms.switch_room(room.id, enabled=True)
        except BaseException:
            await self.give_place_back(room.creator_id, holder)
            raise
        # If the reply is lost, the place stays taken: the room may have it.
        done = await self._execute("EVAL", _UNLOCK, 1, keys.room(room.id), room.locks, holder)
        if done != 1:
            await self.give_place_back(room.creator_id, holder)
        if done != 2:  # the faster request switches the room itself
            with already_done(UNLOCKED_ONLY if done else ""):
                await self._switch(room.id, enabled=done == 1)
        if done == 0:
            raise LockedMeanwhile("The room has just been locked.")

    async def end(self, room: Room, *, lock: bool, held: bool, reason: str, budget: str = "") -> bool:
        """Remove everyone, and with `lock` refuse further joins; tell whether anyone was there. Raises: HmsError

        `budget` says which spent budget locks it, if that and no one else does.
        """
        if lock:
            await self._stop_minting(room, held=held, budget=budget)
        with already_done(_LOCKED_NOT_ENDED if lock else ""):
            ended = await self._hms.end_room(room.id, reason=reason, lock=lock)
            if lock and not ended:  # 100ms locks only what it ends
                await self._switch(room.id, enabled=False)
            elif lock and await self._is_enabled(room.id):
                await self._switch(room.id, enabled=True)
        return ended

    async def locked_by(self, room_id: str) -> str:
        """Return the budget that has locked a room, if only a budget has."""
        return (await self._execute("HGET", keys.room(room_id), "budget") or b"").decode()

    async def take_place(self, uid: str, holder: str, roles: tuple[str, ...]) -> bool:
        """Take a place among the rooms that a user with these roles may have at once.

        Return whether the holder had none. Raises: TooManyRooms
        """
        decision = await self._limiter.take(uid, (), leases=[self._policy.now.rooms_of(roles).lease(holder)])
        if not decision.allowed:
            raise TooManyRooms(decision)
        return decision.leases[0].is_new

    async def give_place_back(self, uid: str, holder: str) -> None:
        """Free the place of a room that was not created or that no one can join."""
        await self._limiter.release(uid, self._policy.now.rooms.lease(holder))

    async def _stop_minting(self, room: Room, *, held: bool, budget: str = "") -> None:
        holder = await self._execute("EVAL", _LOCK, 1, keys.room(room.id), int(held), budget)
        await self.give_place_back(room.creator_id, holder.decode())

    async def _switch(self, room_id: str, *, enabled: bool) -> None:
        """Enable or disable a room at 100ms; repeat until 100ms and the registry agree."""
        for _ in range(_MOST_SWITCHES):
            await self._hms.switch_room(room_id, enabled=enabled)
            now = await self._is_enabled(room_id)
            if now is enabled:
                return
            enabled = now

    async def _is_enabled(self, room_id: str) -> bool:
        return bool(await self._execute("HGET", keys.room(room_id), "enabled") == b"1")

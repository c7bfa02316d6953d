"""Relations to a room, and the removals from a running session that a change requires."""

import asyncio
from collections.abc import Sequence

from auth import Execute
from gateway.hms.client import HmsClient
from gateway.hms.errors import already_done
from gateway.policy.actions import BANNED, RELATIONS
from gateway.policy.decide import loses_roles
from gateway.policy.live import PolicyInForce
from gateway.rooms import keys
from gateway.rooms.room import Caller, Forbidden, Room

# KEYS 1 room, 2 its relations. ARGV 1 the expected owner, 2 the new owner. Reply 1, or 0: the room has another owner.
_HAND_OVER = """
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'owner', ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], 'cohost')
redis.call('HDEL', KEYS[2], ARGV[2])
return 1
"""
# KEYS 1 room, 2 its relations. ARGV 1 the actor, 2 the actor's expected relation, 3 the user to change, 4 their
# expected relation ('' none), 5 the new one. Reply 1; 0: the user's relation is another one; -1: the actor's is.
_SET = """
local function relation(uid)
  if redis.call('HGET', KEYS[1], 'owner') == uid then return 'owner' end
  return redis.call('HGET', KEYS[2], uid) or ''
end
if relation(ARGV[1]) ~= ARGV[2] then return -1 end
if relation(ARGV[3]) ~= ARGV[4] then return 0 end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[5])
return 1
"""
# KEYS 1 room, 2 its relations, 3 the users who accepted this invite. ARGV 1 user, 2 relation, 3 ms to keep KEYS 3, then
# all relations, the highest first. Reply {relation the user has now, 1 if this call gave it}. Higher ones and `banned`
# stay. An invite raises a user once: otherwise a user who was lowered since could undo that.
_RAISE = """
if redis.call('HGET', KEYS[1], 'owner') == ARGV[1] then return {'owner', 0} end
local had = redis.call('HGET', KEYS[2], ARGV[1])
if had == 'banned' then return {had, 0} end
local rank = {}
for i = 4, #ARGV do rank[ARGV[i]] = i end
if had and rank[had] and rank[had] <= rank[ARGV[2]] then return {had, 0} end
if redis.call('SADD', KEYS[3], ARGV[1]) == 0 then return {'', 0} end
redis.call('PEXPIRE', KEYS[3], ARGV[3])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return {ARGV[2], 1}
"""
# What has changed although 100ms did not remove a user.
_CHANGED = (
    "The relation has changed nevertheless, and new tokens follow it. The user may still be in the session: repeat the "
    "request to remove them."
)
_CLOSED = (
    "The room is now for invited people only. Others may still be in the session: repeat the request to remove them."
)
_HANDED_OVER = (
    "The room has been handed over nevertheless. The former owner may still be in the session in their old role: the "
    "new owner can remove them by making them a cohost again."
)


class Overtaken(Exception):
    """Another request has changed the relation since it was read; decide again."""


class NotInCharge(Forbidden):
    """The user who changes a relation may no longer do so."""


class Members:
    """Reads and changes relations to a room. `decide_member` has decided before whether the caller may.

    A change is written first, and then the user is removed from the session (`remove_peers`), so that they get no token
    for their old relation any more. A token that they already have lets them in until it expires.
    """

    def __init__(self, execute: Execute, hms: HmsClient, policy: PolicyInForce) -> None:
        self._execute = execute
        self._hms = hms
        self._policy = policy

    async def all(self, room: Room) -> list[tuple[str, str]]:
        """Return (user id, relation) of every member: the owner first, then the others by user id."""
        reply = await self._execute("HGETALL", keys.relations(room.id))
        pairs = ((uid.decode(), relation.decode()) for uid, relation in reply.items())
        others = sorted(pair for pair in pairs if pair[0] != room.owner_id)
        return [(room.owner_id, "owner"), *others]

    async def relation(self, room: Room, uid: str) -> str | None:
        """Return the stored relation of a user, `banned` among them."""
        if uid == room.owner_id:
            return "owner"
        stored = await self._execute("HGET", keys.relations(room.id), uid)
        return stored.decode() if stored else None

    async def set(
        self, room: Room, uid: str, relation: str, *, before: str | None, by: Caller
    ) -> frozenset[str] | None:
        """Give a user a relation, `banned` among them; return the 100ms roles in which they may stay in the session.

        None if they lost nothing. A lowered user is removed whatever their role there: their client holds an old token.
        Giving the same relation again repeats the removal, which 100ms may not have carried out; the user then stays in
        a role that they could join in now. Raises Overtaken or NotInCharge if nothing has changed.
        """
        stored = (keys.room(room.id), keys.relations(room.id))
        done = await self._execute("EVAL", _SET, 2, *stored, by.uid, by.relation, uid, before or "", relation)
        if done < 0:
            raise NotInCharge("Your own relation to this room has just changed.")
        if not done:
            raise Overtaken
        if relation == BANNED:
            return frozenset()  # the room stays in their list, hidden, so that `forget` finds it
        await self._execute("ZADD", keys.rooms_of(uid), "NX", room.created_ms, room.id)
        had = RELATIONS if before == relation else (before,)
        if not any(loses_roles(self._policy.now, room.template, one, relation) for one in had):
            return None
        return frozenset(self._policy.now.mintable(room.template, relation) if before == relation else ())

    async def hand_over(self, room: Room, to: str) -> bool:
        """Make another user owner, the former one cohost; tell whether they have to be removed. Raises: NotInCharge"""
        done = await self._execute(
            "EVAL", _HAND_OVER, 2, keys.room(room.id), keys.relations(room.id), room.owner_id, to
        )
        if not done:
            raise NotInCharge("You do not own this room any more.")
        await self._execute("ZADD", keys.rooms_of(to), "NX", room.created_ms, room.id)
        return loses_roles(self._policy.now, room.template, "owner", "cohost")

    async def let_in(self, room: Room, uid: str, relation: str, *, invite: str, keep_ms: int) -> tuple[str, bool]:
        """Give a user a relation unless they have a higher one, are banned, or used this invite before.

        Returns the relation they have then, empty in the last case, and whether this call gave it.
        """
        stored = (keys.room(room.id), keys.relations(room.id), keys.invited(room.id, invite))
        now, is_new = await self._execute("EVAL", _RAISE, 3, *stored, uid, relation, keep_ms, *RELATIONS)
        if is_new:
            await self._execute("ZADD", keys.rooms_of(uid), "NX", room.created_ms, room.id)
        return now.decode(), bool(is_new)

    async def rooms_of(self, uid: str) -> list[str]:
        """Return the ids of the rooms in a user's list, including those that they are banned from."""
        return [rid.decode() for rid in await self._execute("ZRANGE", keys.rooms_of(uid), 0, -1)]

    async def forget(self, uid: str, *unlisted: str) -> None:
        """Delete a user's relations to the rooms in their list, bans too, and to `unlisted` ones."""
        listed = await self.rooms_of(uid)
        await asyncio.gather(*(self._execute("HDEL", keys.relations(rid), uid) for rid in {*listed, *unlisted}))
        await self._execute("DEL", keys.rooms_of(uid))

    async def remove_strangers(self, room: Room, *, reason: str) -> int:
        """Remove all peers without a relation, and banned ones with an old token; return how many. Raises: HmsError"""
        with already_done(_CLOSED):
            peers = await self._hms.list_peers(room.id)
            # Read after the peers: a user who was invited or made the owner meanwhile must not be removed.
            owner = await self._execute("HGET", keys.room(room.id), "owner")
            known = {owner.decode(), *(uid for uid, relation in await self.all(room) if relation != BANNED)}
            return await self._remove(room.id, [peer.id for peer in peers if peer.user_id not in known], reason)

    async def remove_peers(self, room: Room, uid: str, *, reason: str, sparing: frozenset[str] = frozenset()) -> int:
        """Remove a user's peers, except in 100ms roles of `sparing`; return how many. Tries all. Raises: HmsError"""
        with already_done(_HANDED_OVER if uid == room.owner_id else _CHANGED):  # nothing else removes an owner
            peers = await self._hms.list_peers(room.id, user_id=uid)
            return await self._remove(room.id, [peer.id for peer in peers if peer.role not in sparing], reason)

    async def send_out(self, room: Room, uid: str, *, reason: str) -> int:
        """Remove a user's peers, who may join again; return how many. Tries all. Raises: HmsError"""
        peers = await self._hms.list_peers(room.id, user_id=uid)
        return await self._remove(room.id, [peer.id for peer in peers], reason)

    async def _remove(self, room_id: str, peers: Sequence[str], reason: str) -> int:
        removing = (self._hms.remove_peer(room_id, peer, reason=reason) for peer in peers)
        removed = await asyncio.gather(*removing, return_exceptions=True)
        for outcome in removed:
            if isinstance(outcome, BaseException):
                raise outcome
        return sum(outcome is True for outcome in removed)

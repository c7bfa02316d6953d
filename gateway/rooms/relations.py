"""Relations to a room, and what a change of one does to a running session."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.hms.client import HmsClient, standing
from gateway.policy.decide import loses_roles
from gateway.policy.live import PolicyInForce
from gateway.policy.model import BANNED, RELATIONS
from gateway.rooms import keys
from gateway.rooms.keys import Execute
from gateway.rooms.room import Forbidden, Room

# KEYS 1 room, 2 its relations. ARGV 1 the owner there must be, 2 the owner to be. Reply 1, or 0: he owns it no more.
_HAND_OVER = """
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'owner', ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], 'cohost')
redis.call('HDEL', KEYS[2], ARGV[2])
return 1
"""
# KEYS 1 room, 2 its relations. ARGV 1 who changes, 2 his relation, 3 whose, 4 that one's ('' none), 5 the new one.
# Reply 1; 0: the relation was changed meanwhile; -1: whoever changes it is not what he was. Nothing is written then.
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
# KEYS 1 room, 2 its relations, 3 who was let in by this invite. ARGV 1 user, 2 relation, 3 ms to remember him, then all
# relations, the highest first. Reply {relation he has now, 1 if this call gave it}; what was higher and `banned` stay.
# Nobody is let in twice by one invite: whom it let in and somebody then lowered would raise himself again.
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
# What stands while somebody is not thrown out for it.
_CHANGED = (
    "The relation has changed all the same, and every new token heeds it. The user may still be in the session: repeat "
    "the request to throw him out."
)
_CLOSED = (
    "The room is for invited people now all the same. Others may still be in the session: repeat the request to throw "
    "them out."
)
_HANDED_OVER = (
    "The room is handed over all the same. Whoever owned it may still be in the session in his old role: the new owner "
    "throws him out by making him a cohost once more."
)


class Overtaken(Exception):
    """The relation was changed by somebody else meanwhile: look and decide anew."""


class NotInCharge(Forbidden):
    """Whoever changes a relation may do so no more."""


@dataclass(frozen=True, slots=True)
class InCharge:
    """Who changes a relation, and the relation that lets him."""

    uid: str
    relation: str


class Members:
    """Reads and changes relations to a room. Whether somebody may is decided before (`policy.decide_member`).

    A change is written first; then the user is thrown out (`remove_peers`), so that no token he could still get lets
    him in again as what he was. A token that he has already does so until it expires.
    """

    def __init__(self, execute: Execute, hms: HmsClient, policy: PolicyInForce) -> None:
        self._execute = execute
        self._hms = hms
        self._policy = policy

    async def all(self, room: Room) -> list[tuple[str, str]]:
        """Return (user id, relation) of everybody who has one, the owner first, the others by user id."""
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
        self, room: Room, uid: str, relation: str, *, before: str | None, by: InCharge
    ) -> frozenset[str] | None:
        """Give a user a relation, `banned` among them; return the 100ms roles in which he may stay in the session.

        None if he lost nothing. Whoever is lowered goes whatever his role there is: his client holds a token of
        before. Giving him the relation he has repeats whatever lowered him to it, for 100ms may not have carried that
        out; then he stays in a role that he could join in anew.

        Raises:
            Overtaken, NotInCharge: nothing has changed.
        """
        stored = (keys.room(room.id), keys.relations(room.id))
        done = await self._execute("EVAL", _SET, 2, *stored, by.uid, by.relation, uid, before or "", relation)
        if done < 0:
            raise NotInCharge("Your own relation to this room has just changed.")
        if not done:
            raise Overtaken
        if relation == BANNED:
            return frozenset()  # the room stays in his list, which does not show it, so that `forget` finds him here
        await self._execute("ZADD", keys.rooms_of(uid), "NX", room.created_ms, room.id)
        had = RELATIONS if before == relation else (before,)
        if not any(loses_roles(self._policy.now, room.template, one, relation) for one in had):
            return None
        return frozenset(self._policy.now.mintable(room.template, relation) if before == relation else ())

    async def hand_over(self, room: Room, to: str) -> bool:
        """Make another user the owner; who was becomes a cohost. Tell whether he has to be thrown out for it.

        Raises:
            NotInCharge: he is not the owner any more.
        """
        done = await self._execute(
            "EVAL", _HAND_OVER, 2, keys.room(room.id), keys.relations(room.id), room.owner_id, to
        )
        if not done:
            raise NotInCharge("You do not own this room any more.")
        await self._execute("ZADD", keys.rooms_of(to), "NX", room.created_ms, room.id)
        return loses_roles(self._policy.now, room.template, "owner", "cohost")

    async def let_in(self, room: Room, uid: str, relation: str, *, invite: str, keep_ms: int) -> tuple[str, bool]:
        """Give a user a relation unless he has a higher one, is banned, or had one by this invite already.

        Returns the relation he has then, empty in the last case, and whether this call gave it.
        """
        stored = (keys.room(room.id), keys.relations(room.id), keys.invited(room.id, invite))
        now, is_new = await self._execute("EVAL", _RAISE, 3, *stored, uid, relation, keep_ms, *RELATIONS)
        if is_new:
            await self._execute("ZADD", keys.rooms_of(uid), "NX", room.created_ms, room.id)
        return now.decode(), bool(is_new)

    async def rooms_of(self, uid: str) -> list[str]:
        """Return the ids of the rooms in a user's list, also of those that he is banned from."""
        return [rid.decode() for rid in await self._execute("ZRANGE", keys.rooms_of(uid), 0, -1)]

    async def forget(self, uid: str, *unlisted: str) -> None:
        """Take a user out of every room in his list, banned or not, and out of `unlisted` ones."""
        listed = await self.rooms_of(uid)
        await asyncio.gather(*(self._execute("HDEL", keys.relations(rid), uid) for rid in {*listed, *unlisted}))
        await self._execute("DEL", keys.rooms_of(uid))

    async def remove_strangers(self, room: Room, *, reason: str) -> int:
        """Throw out who has no relation to a room or is banned from it; return how many peers.

        The first joined while it was open, the second, who had a token from before, after he had been thrown out.

        Raises:
            HmsError: not all could be removed; each was tried.
        """
        with standing(_CLOSED):
            peers = await self._hms.list_peers(room.id)
            # Read after them: whoever was let in, or handed the room, meanwhile is no stranger.
            owner = await self._execute("HGET", keys.room(room.id), "owner")
            known = {owner.decode(), *(uid for uid, relation in await self.all(room) if relation != BANNED)}
            return await self._remove(room.id, [peer.id for peer in peers if peer.user_id not in known], reason)

    async def remove_peers(self, room: Room, uid: str, *, reason: str, sparing: frozenset[str] = frozenset()) -> int:
        """Throw the peers of a user out of the running session, but those in 100ms roles of `sparing`; return how many.

        Raises:
            HmsError: not all could be removed; each was tried. It says what was changed before.
        """
        with standing(_HANDED_OVER if uid == room.owner_id else _CHANGED):  # nothing else throws an owner out
            peers = await self._hms.list_peers(room.id, user_id=uid)
            return await self._remove(room.id, [peer.id for peer in peers if peer.role not in sparing], reason)

    async def _remove(self, room_id: str, peers: Sequence[str], reason: str) -> int:
        removing = (self._hms.remove_peer(room_id, peer, reason=reason) for peer in peers)
        removed = await asyncio.gather(*removing, return_exceptions=True)
        for outcome in removed:
            if isinstance(outcome, BaseException):
                raise outcome
        return sum(outcome is True for outcome in removed)

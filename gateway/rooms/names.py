"""Unique names of rooms, if the policy requires them.

The hash of a name has `holder` (a room's id, or the name at 100ms of a room that is being created), `was` (the latter,
once the room has an id) and `at` (since when, ms). A name is claimed before the room is written with it, so that no
crash in between gives it to another room too. A holder of more than a minute that is not a room of that name has
crashed, and may be replaced.
"""

import contextlib
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from redis.exceptions import RedisError

from auth import Execute
from gateway.hms.replies import ROOM_ID
from gateway.policy.live import PolicyInForce
from gateway.redis.store import StoreError
from gateway.rooms import keys
from gateway.rooms.room import UNTITLED

_CLAIM_MS = 60_000  # longer than any create or change takes

# KEYS 1 name. ARGV 1 the new holder, 2 for how many ms no holder is replaced, 3 which holder may be replaced then.
# Reply {the former holder or '', 1 if it keeps the name}
_CLAIM = """
local had = redis.call('HMGET', KEYS[1], 'holder', 'at', 'was')
if had[3] == ARGV[1] then return {ARGV[1], 0} end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if had[1] and had[1] ~= ARGV[1] and (had[1] ~= ARGV[3] or now - had[2] < tonumber(ARGV[2])) then return {had[1], 1} end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'at', string.format('%.0f', now))
return {had[1] or '', 0}
"""
# KEYS 1 name. ARGV 1 its holder, 2 the new holder. Reply 1, or 0: another holder has it by now.
_HAND_OVER = """
local had = redis.call('HMGET', KEYS[1], 'holder', 'was')
if had[1] ~= ARGV[1] and had[1] ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'holder', ARGV[2], 'was', ARGV[1])
return 1
"""
# KEYS 1 name. ARGV 1 the name at 100ms that holds it; never a room's id, which another request may rely on.
_FREE = "if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class NameTaken(Exception):
    """Another room has this name, and the policy requires unique names."""


@dataclass(slots=True)
class _Claim:
    """A name that is held while a room is written. Without a key the name need not be unique."""

    execute: Execute
    key: str
    holder: str
    is_new: bool = False

    async def hand_over(self, room_id: str) -> None:
        """Pass the name on to the room that is about to be written with it. Raises: NameTaken"""
        if self.key:
            if not await self.execute("EVAL", _HAND_OVER, 1, self.key, self.holder, room_id):
                raise NameTaken("Another room took this name meanwhile.")
            self.holder = room_id

    async def free(self) -> None:
        if self.is_new and not ROOM_ID.fullmatch(self.holder):
            await self.execute("EVAL", _FREE, 1, self.key, self.holder)


class RoomNames:
    """Gives each name to one room. Does nothing if the policy lets names repeat."""

    def __init__(self, execute: Execute, policy: PolicyInForce) -> None:
        self._execute = execute
        self._policy = policy

    @asynccontextmanager
    async def claimed(self, name: str | None, holder: str) -> AsyncIterator[_Claim]:
        """Hold a name while a room is written with it; free it if no room is created.

        A name that a room gave up, or was refused, stays reserved for it for a minute: it may be about to get it again.

        `holder` is the room's id, or its name at 100ms until the claim is handed over to the id; a repeated request
        then holds the name already. If Redis fails, the outcome is unknown, and the name stays held. Raises: NameTaken
        """
        claim = _Claim(self._execute, "", holder)
        if name is not None and self._counts(name):
            claim.key = _key(name)
            claim.is_new = await self._claim(name, holder)
        try:
            yield claim
        except (StoreError, RedisError):
            raise
        except Exception:
            with contextlib.suppress(StoreError, RedisError):
                await claim.free()
            raise

    def _counts(self, name: str) -> bool:
        return self._policy.now.rooms.unique_names and name != UNTITLED

    async def _claim(self, name: str, holder: str) -> bool:
        """Take a name; return whether the holder did not have it before. Raises: NameTaken"""
        key = _key(name)
        had, refused = await self._execute("EVAL", _CLAIM, 1, key, holder, _CLAIM_MS, "")
        if not refused:
            return bool(had.decode() != holder)
        room_name, upstream = b"", b""
        if ROOM_ID.fullmatch(had.decode()):
            row = await self._execute("HMGET", keys.room(had.decode()), "name", "upstream")
            room_name, upstream = (word or b"" for word in row)
        if upstream == holder.encode():
            return False  # the request that this one repeats has written the room
        if _key(room_name.decode()) != key:
            _, refused = await self._execute("EVAL", _CLAIM, 1, key, holder, _CLAIM_MS, had)
            if not refused:
                return True
        raise NameTaken(f"There is already a room named {name!r}.")


def _key(name: str) -> str:
    return keys.name(unicodedata.normalize("NFKC", name).casefold())

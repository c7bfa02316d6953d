"""Names of rooms, where the policy wants them unique.

A name's key says who holds the name (`holder`, a room's id or the name at 100ms of one that is being created;
`was`, the latter once it has an id) and since when (`at`, ms). A name is a room's from before the room's row has it, so
that no crash between the two lets another have it too. Whoever has held one for a minute and is no room of that name,
has crashed, and may be replaced.
"""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from redis.exceptions import RedisError

from gateway.hms.client import ROOM_ID
from gateway.policy.live import PolicyInForce
from gateway.redis.store import StoreError
from gateway.rooms import keys
from gateway.rooms.keys import Execute

UNTITLED = "Untitled room"  # of rooms nobody gave a name, which therefore need not differ
_CLAIM_MS = 60_000  # longer than any create or change takes

# KEYS 1 name. ARGV 1 who is to hold it, 2 for how many ms nobody is replaced, 3 who may be replaced then.
# Reply {who had it or '', 1 if he was not replaced}
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
# KEYS 1 name. ARGV 1 who holds it, 2 who is to hold it instead. Reply 1, or 0: somebody else has it by now.
_HAND_OVER = """
local had = redis.call('HMGET', KEYS[1], 'holder', 'was')
if had[1] ~= ARGV[1] and had[1] ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'holder', ARGV[2], 'was', ARGV[1])
return 1
"""
# KEYS 1 name. ARGV 1 the name at 100ms that holds it: never a room's id, which another request may rely on.
_FREE = "if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class NameTaken(Exception):
    """Another room has this name, and the policy wants names to be unique."""


@dataclass(slots=True)
class _Claim:
    """A name that is held while a room is being written. Without a key: a name that need not be unique."""

    execute: Execute
    key: str
    holder: str
    is_new: bool = False

    async def hand_over(self, room_id: str) -> None:
        """Give the name to the room that is about to be written with it. Raises: NameTaken"""
        if self.key:
            if not await self.execute("EVAL", _HAND_OVER, 1, self.key, self.holder, room_id):
                raise NameTaken("Another room took this name meanwhile.")
            self.holder = room_id

    async def free(self) -> None:
        if self.is_new and not ROOM_ID.fullmatch(self.holder):
            await self.execute("EVAL", _FREE, 1, self.key, self.holder)


class RoomNames:
    """Gives names to rooms, each to one. Does nothing while the policy lets names repeat."""

    def __init__(self, execute: Execute, policy: PolicyInForce) -> None:
        self._execute = execute
        self._policy = policy

    @asynccontextmanager
    async def claimed(self, name: str | None, holder: str) -> AsyncIterator[_Claim]:
        """Hold a name while the room that is to have it is written; free it if none is created.

        A name that a room has given up, or was refused, is its own for a minute: it may be about to get it again.

        `holder` is the room's id, or its name at 100ms until the claim is handed over to the id: a repeat of the same
        request holds the name already. While Redis is away nobody knows what was written, and the name stays held.

        Raises:
            NameTaken
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
        """Take a name; tell whether the holder did not have it already. Raises: NameTaken"""
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

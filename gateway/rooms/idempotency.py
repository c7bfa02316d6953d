"""`Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07): the same request again has the same effect, once.

Key: `ik:1:{uid}:<hash of the key>`, a hash of what was asked, the name to use at 100ms, until when somebody is at it,
and the room it became. The name is stored before 100ms is called, so whoever repeats the request after a crash asks for
the same room.
"""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass

from gateway.rooms import keys
from gateway.rooms.keys import Execute

KEEP_MS = 24 * 3_600_000
_AT_IT_MS = 15_000  # a create asks 100ms for 5 s and Redis some times; after this whoever had begun is dead
KEY = re.compile(r"[!-~]{1,128}")

# KEYS 1 record. ARGV 1 what is asked, 2 name for a new one, 3 now ms, 4 ms to be at it, 5 ms to keep.
# Reply {'new' or 'again', name}, {'done', room}, {'busy'} or {'other'}.
_BEGIN = """
local r = redis.call('HMGET', KEYS[1], 'asked', 'name', 'until', 'room')
local till = string.format('%.0f', ARGV[3] + ARGV[4])
if not r[1] then
  redis.call('HSET', KEYS[1], 'asked', ARGV[1], 'name', ARGV[2], 'until', till)
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
  return {'new', ARGV[2]}
end
if r[1] ~= ARGV[1] then return {'other'} end
if r[4] then return {'done', r[4]} end
if tonumber(r[3]) > tonumber(ARGV[3]) then return {'busy'} end
redis.call('HSET', KEYS[1], 'until', till)
return {'again', r[2]}
"""


class InFlight(Exception):
    """The first request under this key has not been answered yet."""


class OtherRequest(Exception):
    """The key was used for another request."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a request: the name to create under, or the room that an earlier try made."""

    key: str
    name: str
    room_id: str = ""

    @property
    def holder(self) -> str:
        """What holds the place, among a user's rooms at once, of whatever all tries make."""
        return f"k{self.key[-24:]}"


class Idempotency:
    """Remembers requests of a user by the key he gave them."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    async def begin(self, uid: str, route: str, key: str, asked: bytes, *, name: str) -> Attempt:
        """Start a request, or find what it led to.

        Raises:
            InFlight, OtherRequest
        """
        record = keys.attempt(uid, hashlib.sha256(f"{route} {key}".encode()).hexdigest()[:32])
        digest, now_ms = hashlib.sha256(asked).hexdigest(), time.time_ns() // 1_000_000
        reply = await self._execute("EVAL", _BEGIN, 1, record, digest, name, now_ms, _AT_IT_MS, KEEP_MS)
        match [word.decode() for word in reply]:
            case ["done", room_id]:
                return Attempt(record, "", room_id)
            case ["new" | "again", stored]:
                return Attempt(record, stored)
            case ["busy"]:
                raise InFlight("The first request under this Idempotency-Key has not been answered yet.")
            case _:
                raise OtherRequest("This Idempotency-Key was used for a request with another body.")

    async def finish(self, attempt: Attempt, room_id: str) -> None:
        """Remember what a request led to."""
        await self._execute("HSET", attempt.key, "room", room_id)

    async def leave(self, attempt: Attempt) -> None:
        """Let the next try go on at once where this one failed."""
        await self._execute("HSET", attempt.key, "until", "0")

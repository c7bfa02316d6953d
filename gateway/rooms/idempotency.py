"""`Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07): a repeated request takes effect once.

A record holds a hash of the request, the name to use at 100ms, the try that carries it out and until when (ms), and
finally the room. The name is stored before 100ms is called, so a repetition after a crash asks for the same room. The
hold is short and is renewed during the work: it ends soon after its process dies.
"""

import asyncio
import contextlib
import hashlib
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from redis.exceptions import RedisError

from auth import Execute
from auth.tokens import Principal
from gateway.redis.store import StoreError
from gateway.rooms import keys

KEEP_MS = 24 * 3_600_000
HOLD_MS = 2000
_RENEW_S = 0.5  # three renewals may fail or be late before a hold is lost
KEY = re.compile(r"[!-~]{1,128}")

_NOW_MS = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000)"
# KEYS 1 record. ARGV 1 hash of the request, 2 name for a new one, 3 the try, 4 ms to hold, 5 ms to keep.
# Reply {'new' or 'again', name}, {'done', room}, {'busy'} or {'other'}.
_BEGIN = f"""
{_NOW_MS}
local r = redis.call('HMGET', KEYS[1], 'asked', 'name', 'until', 'room')
if r[1] and r[1] ~= ARGV[1] then return {{'other'}} end
if r[4] then return {{'done', r[4]}} end
if r[1] and tonumber(r[3]) > now then return {{'busy'}} end
redis.call('HSET', KEYS[1], 'by', ARGV[3], 'until', string.format('%.0f', now + ARGV[4]))
if r[1] then return {{'again', r[2]}} end
redis.call('HSET', KEYS[1], 'asked', ARGV[1], 'name', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return {{'new', ARGV[2]}}
"""
# KEYS 1 record. ARGV 1 the try, 2 ms to hold from now on. Reply 1, or 0: another try has taken over.
_HOLD = f"""
{_NOW_MS}
if redis.call('HGET', KEYS[1], 'by') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + ARGV[2]))
return 1
"""


class InFlight(Exception):
    """An earlier request under this key has not been answered yet."""

    outcome = "refused.idempotency_conflict"


class OtherRequest(Exception):
    """The key was used for another request."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a request: the name to create under, or the room that an earlier try made.

    `by` is a random id of the try; `held_until_s` is when its hold ends, by the clock of the event loop.
    """

    record: str
    name: str
    room_id: str = ""
    by: str = ""
    held_until_s: float = 0.0

    @property
    def holder(self) -> str:
        """Return the holder of a place among the rooms the user has at once, the same for all tries."""
        return f"k{self.record[-24:]}"


def key_of(caller: Principal, key: str) -> str:
    """Return a caller's key among those of their user: two backends that act for a user may choose the same keys."""
    return key if caller.key is None else f"{caller.key.id} {key}"  # without one a key has no space


class Idempotency:
    """Remembers requests of a user by the key the user gave them."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    async def begin(self, uid: str, route: str, key: str, asked: bytes, *, name: str) -> Attempt:
        """Start a request, or find the room it made. Raises: InFlight, OtherRequest"""
        record, digest = _record(uid, route, key), _digest(asked)
        by = secrets.token_hex(8)
        held_until_s = asyncio.get_running_loop().time() + HOLD_MS / 1000
        reply = await self._execute("EVAL", _BEGIN, 1, record, digest, name, by, HOLD_MS, KEEP_MS)
        match [word.decode() for word in reply]:
            case ["done", room_id]:
                return Attempt(record, "", room_id)
            case ["new" | "again", stored]:
                return Attempt(record, stored, "", by, held_until_s)
            case ["busy"]:
                raise InFlight("The first request under this Idempotency-Key has not been answered yet.")
            case _:
                raise OtherRequest("This Idempotency-Key was used for a request with another body.")

    async def made(self, uid: str, route: str, key: str, asked: bytes) -> str:
        """Return the room that this very request of a user made earlier, or an empty text. Changes nothing."""
        known, room_id = await self._execute("HMGET", _record(uid, route, key), "asked", "room")
        return room_id.decode() if room_id and known == _digest(asked).encode() else ""

    @asynccontextmanager
    async def held(self, attempt: Attempt) -> AsyncIterator[None]:
        """Hold a request while it is carried out; if that fails, release it for the next attempt.

        If Redis fails, the outcome is unknown: the hold then expires. If it could not be renewed, another attempt may
        have begun: the block is cancelled, and this raises InFlight.
        """
        try:
            async with asyncio.timeout_at(attempt.held_until_s) as hold:
                renewing = asyncio.create_task(self._renew(attempt, hold))
                try:
                    yield
                finally:
                    renewing.cancel()
        except (StoreError, RedisError):
            raise
        except Exception as error:
            if isinstance(error, TimeoutError) and hold.expired():
                raise InFlight("This request took too long and was abandoned. Repeat it with the same key.") from None
            await self._hold(attempt, 0)
            raise

    async def finish(self, attempt: Attempt, room_id: str) -> None:
        """Remember the room that a request made."""
        await self._execute("HSET", attempt.record, "room", room_id)

    async def _renew(self, attempt: Attempt, hold: asyncio.Timeout) -> None:
        loop = asyncio.get_running_loop()
        while not hold.expired():
            await asyncio.sleep(_RENEW_S)
            now_s = loop.time()  # read before Redis is asked, so that this hold never outlasts the one in Redis
            with contextlib.suppress(StoreError, RedisError):
                is_ours = await self._hold(attempt, HOLD_MS)
                if not hold.expired():
                    hold.reschedule(now_s + HOLD_MS / 1000 if is_ours else now_s)

    async def _hold(self, attempt: Attempt, hold_ms: int) -> bool:
        return bool(await self._execute("EVAL", _HOLD, 1, attempt.record, attempt.by, hold_ms))


def _record(uid: str, route: str, key: str) -> str:
    return keys.attempt(uid, hashlib.sha256(f"{route} {key}".encode()).hexdigest()[:32])


def _digest(asked: bytes) -> str:
    return hashlib.sha256(asked).hexdigest()

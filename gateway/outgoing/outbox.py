"""Everything that waits to be delivered, in Redis: the inbox of new events, a queue for each endpoint, dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct, structs

from gateway.outgoing import messages
from gateway.outgoing.messages import Message
from limits import Execute

BACKOFF_S = (5, 30, 120, 600, 3600, 21_600)
MOST_WAITING = 10_000  # of one endpoint
MOST_DEAD = 1000
ID = r"[0-9]{1,15}-[0-9]{1,15}"
_KEEP_MS = 2 * 86_400_000  # a queue whose endpoint has left the policy; the last attempt is 8 hours after the first

# Moves an event from the inbox into queues; what a full queue cannot take becomes a dead letter.
# KEYS  1 inbox   2 dead letters   3... queues   ARGV  1 place   2 message   3 ms   4 most in a queue   5 ms to keep
#   6 most dead letters   7... names of the endpoints. Reply 1; 0: it was done already.
_SHARE = """
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
for i = 3, #KEYS do
  if redis.call('ZCARD', KEYS[i]) < tonumber(ARGV[4]) then
    redis.call('ZADD', KEYS[i], ARGV[3], ARGV[2])
    redis.call('PEXPIRE', KEYS[i], ARGV[5])
  else
    redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[6], '*', 'endpoint', ARGV[i + 4], 'message', ARGV[2],
      'why', 'too many events waited', 'at', ARGV[3])
  end
end
return 1
"""
# Replaces a message after an attempt: by itself at a later time, by a dead letter, or by nothing.
# KEYS  1 queue   2 dead letters   ARGV  1 message   2 ms   3 the message as it waits from now on, or ''   4 ms to keep
#   5 why it is dead, or ''   6 most dead letters   7 endpoint. Reply 1; 0: somebody else has delivered it meanwhile.
_SETTLE = """
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
if ARGV[3] ~= '' then
  redis.call('ZADD', KEYS[1], ARGV[2], ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
elseif ARGV[5] ~= '' then
  redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[6], '*', 'endpoint', ARGV[7], 'message', ARGV[1],
    'why', ARGV[5], 'at', ARGV[2])
end
return 1
"""
# KEYS  1 dead letters   2 queue   ARGV  1 id   2 message   3 ms   4 ms to keep. Reply 1; 0: there is none any more.
_REPLAY = """
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 1
"""


class DeadMessage(Struct, frozen=True):
    """An event that could not be delivered: to whom, why, and since when."""

    id: str
    endpoint: str
    at_ms: int
    why: str
    message: Message


class Outbox:
    """Reads and changes what waits. Every change is one step, so that a crash loses nothing and doubles nothing."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    async def arrived(self, most: int) -> list[tuple[str, Message | None]]:
        """Return the oldest events of the inbox, and where each is; None for one that cannot be read."""
        found = await self._execute("XRANGE", messages.INBOX, "-", "+", "COUNT", most)
        return [(place.decode(), _message(words[1])) for place, words in found]

    async def share(self, place: str, message: Message | None, endpoints: Sequence[str], now_ms: int) -> None:
        """Move an event of the inbox into the queues of endpoints, once, to be delivered at once."""
        keys = [messages.INBOX, messages.DEAD, *map(messages.queue, endpoints)]
        text = msgspec.json.encode(message)
        await self._execute(
            "EVAL", _SHARE, len(keys), *keys, place, text, now_ms, MOST_WAITING, _KEEP_MS, MOST_DEAD, *endpoints
        )

    async def due(self, endpoint: str, now_ms: int, most: int) -> list[Message]:
        """Return messages to deliver now."""
        key = messages.queue(endpoint)
        found = await self._execute("ZRANGE", key, "-inf", now_ms, "BYSCORE", "LIMIT", 0, most)
        return [msgspec.json.decode(text, type=Message) for text in found]

    async def delivered(self, endpoint: str, message: Message, now_ms: int) -> None:
        """Forget a message."""
        if await self._settle(endpoint, message, now_ms, "", ""):
            await self._count(endpoint, "delivered", last_delivered_ms=now_ms, last_failure="")

    async def failed(self, endpoint: str, message: Message, why: str, now_ms: int) -> bool:
        """Put a message off after a failed attempt, for longer each time; tell whether it is a dead letter now."""
        is_dead = message.attempts >= len(BACKOFF_S)
        if is_dead:
            await self.bury(endpoint, message, why, now_ms)
        else:
            later = structs.replace(message, attempts=message.attempts + 1)
            due_ms = now_ms + BACKOFF_S[message.attempts] * 1000
            if not await self._settle(endpoint, message, due_ms, msgspec.json.encode(later).decode(), ""):
                return False
        await self._count(endpoint, "failed", last_failed_ms=now_ms, last_failure=why)
        return is_dead

    async def bury(self, endpoint: str, message: Message, why: str, now_ms: int) -> None:
        """Keep a message as a dead letter, to be tried no more."""
        if await self._settle(endpoint, message, now_ms, "", why):
            await self._count(endpoint, "dead")

    async def numbers(self, endpoint: str) -> tuple[int, dict[str, str]]:
        """Return how many messages wait for an endpoint, and what has been counted."""
        waiting, row = await asyncio.gather(
            self._execute("ZCARD", messages.queue(endpoint)), self._execute("HGETALL", messages.statistics(endpoint))
        )
        return int(waiting), {name.decode(): value.decode() for name, value in row.items()}

    async def note(self, endpoint: str, name: str, value: int | None) -> None:
        """Set a number of an endpoint, or remove it."""
        key = messages.statistics(endpoint)
        await (self._execute("HDEL", key, name) if value is None else self._execute("HSET", key, name, value))

    async def dead(self, *, before: str | None = None, size: int) -> tuple[list[DeadMessage], str | None]:
        """Return dead letters, newest first, and the id before which the next page begins (None: there is none)."""
        found = await self._execute("XREVRANGE", messages.DEAD, f"({before}" if before else "+", "-", "COUNT", size)
        letters = [_letter(place.decode(), words) for place, words in found]
        return letters, letters[-1].id if len(letters) == size else None

    async def dead_letter(self, letter_id: str) -> DeadMessage | None:
        """Return a dead letter, if there is one of that id."""
        found = await self._execute("XRANGE", messages.DEAD, letter_id, letter_id)
        return _letter(found[0][0].decode(), found[0][1]) if found else None

    async def count_dead(self) -> int:
        """Return how many dead letters are kept."""
        return int(await self._execute("XLEN", messages.DEAD))

    async def replay(self, letter: DeadMessage, now_ms: int) -> bool:
        """Put a dead letter back into its queue, with all its attempts; tell whether it was still there."""
        text = msgspec.json.encode(structs.replace(letter.message, attempts=0))
        keys = (messages.DEAD, messages.queue(letter.endpoint))
        return bool(await self._execute("EVAL", _REPLAY, 2, *keys, letter.id, text, now_ms, _KEEP_MS))

    async def _settle(self, endpoint: str, message: Message, at_ms: int, later: str, why: str) -> bool:
        """Replace a message; tell whether it still waited. If not, another process has delivered it meanwhile."""
        keys = (messages.queue(endpoint), messages.DEAD)
        text = msgspec.json.encode(message)
        words = (text, at_ms, later, _KEEP_MS, why, MOST_DEAD, endpoint)
        return bool(await self._execute("EVAL", _SETTLE, 2, *keys, *words))

    async def _count(self, endpoint: str, name: str, **values: Any) -> None:
        key = messages.statistics(endpoint)
        await self._execute("HINCRBY", key, name, 1)
        if values:
            await self._execute("HSET", key, *(word for pair in values.items() for word in pair))


def _message(text: bytes) -> Message | None:
    try:
        return msgspec.json.decode(text, type=Message)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _letter(place: str, words: list[bytes]) -> DeadMessage:
    fields = dict(zip(words[::2], words[1::2], strict=True))
    message = msgspec.json.decode(fields[b"message"], type=Message)
    return DeadMessage(place, fields[b"endpoint"].decode(), int(fields[b"at"]), fields[b"why"].decode(), message)

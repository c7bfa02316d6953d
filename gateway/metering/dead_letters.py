"""Events that could not be understood: kept for an operator, who may read them and have them processed again.

They are shown without secrets: an event can hold addresses of recordings, or a token to join a room.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

from gateway.metering import keys
from limits import Execute

MOST = 1000
ID = r"[0-9]{1,15}-[0-9]{1,15}"
_MOST_SHOWN = 4000  # characters of a body
_HIDDEN = "[hidden]"
_NAMES = "meeting_url|presigned_url|rtmp|token|secret|password|authorization"
_SECRET_NAME = re.compile(_NAMES, re.IGNORECASE)
_FIELD = re.compile(
    rf'"([^"]*(?:{_NAMES})[^"]*)"\s*:\s*(?:"[^"]*"?|\[[^\]]*\]?|[^,}}]*)', re.IGNORECASE
)  # in a body that is not JSON
_JWT = re.compile(r"eyJ[\w-]*\.[\w-]*(?:\.[\w-]*)*")
_ADDRESS = re.compile(r"\b(?:https?|rtmps?|wss?):(?:\\*/){2}[^\s\"'<>]*", re.IGNORECASE)  # \\ in JSON within JSON
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")

# KEYS dead letters, events. ARGV first and last id, ms. The oldest of these letters. Reply 1, or 0 if there is none.
_REPLAY = """
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', 1)[1]
if not found then return 0 end
local words = {}
for i = 1, #found[2], 2 do words[found[2][i]] = found[2][i + 1] end
redis.call('XADD', KEYS[2], '*', 'body', words.body, 'at', ARGV[3])
redis.call('XDEL', KEYS[1], found[1])
return 1
"""


class DeadLetter(Struct, frozen=True):
    """One event that could not be processed: why, and its body without secrets, cut if it is long."""

    id: str
    at_ms: int
    why: str
    bytes: int
    body: str


class DeadLetters:
    """The last 1,000 of them, in a stream."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    async def add(self, body: bytes, why: str, at_ms: int) -> None:
        """Keep an event. `at_ms`: when it was received."""
        await self._execute("XADD", keys.DEAD_LETTERS, "MAXLEN", MOST, "*", "body", body, "why", why, "at", at_ms)

    async def page(self, *, before: str | None = None, size: int = 100) -> tuple[list[DeadLetter], str | None]:
        """Return letters, newest first, and the id before which the next page begins (None: there is none)."""
        newest = f"({before}" if before else "+"
        found = await self._execute("XREVRANGE", keys.DEAD_LETTERS, newest, "-", "COUNT", size)
        letters = [_letter(place.decode(), words) for place, words in found]
        return letters, letters[-1].id if len(letters) == size else None

    async def count(self) -> int:
        """Return how many letters are kept."""
        return int(await self._execute("XLEN", keys.DEAD_LETTERS))

    async def replay(self, letter_id: str, now_ms: int) -> bool:
        """Put a letter back among the events, in one step; return whether there was one."""
        return await self._replay(letter_id, letter_id, now_ms)

    async def replay_all(self, now_ms: int) -> int:
        """Put all letters back that there are now; return how many. Those that fail again become new letters."""
        newest = await self._execute("XREVRANGE", keys.DEAD_LETTERS, "+", "-", "COUNT", 1)
        count = 0
        while newest and await self._replay("-", newest[0][0].decode(), now_ms):
            count += 1
        return count

    async def _replay(self, first: str, last: str, now_ms: int) -> bool:
        words = (keys.DEAD_LETTERS, keys.EVENTS, first, last, now_ms)
        return bool(await self._execute("EVAL", _REPLAY, 2, *words))


def without_secrets(body: bytes) -> str:
    """Return a body as a text to show: without tokens, addresses and fields whose names suggest a secret."""
    try:
        # Decoded and encoded again, so that an escape such as \u0065yJ cannot hide a token.
        text = msgspec.json.encode(_masked(msgspec.json.decode(body))).decode()
    except (ValueError, RecursionError):
        text = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), body[: 2 * _MOST_SHOWN].decode("utf-8", "replace"))
        text = _FIELD.sub(rf'"\1":"{_HIDDEN}"', text)
    text = _ADDRESS.sub(_HIDDEN, _JWT.sub(_HIDDEN, text))
    text = "".join(char if char.isprintable() else " " for char in text[: _MOST_SHOWN + 1])
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _HIDDEN if _SECRET_NAME.search(str(name)) else _masked(one) for name, one in value.items()}
    return [_masked(one) for one in value] if isinstance(value, list) else value


def _letter(place: str, words: list[bytes]) -> DeadLetter:
    fields = dict(zip(words[::2], words[1::2], strict=True))
    body = fields[b"body"]
    return DeadLetter(place, int(fields[b"at"]), fields[b"why"].decode(), len(body), without_secrets(body))

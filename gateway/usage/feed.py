"""The feed for billing systems: every stay that 100ms has confirmed, once, and every later correction of one.

Entries are appended at least once: a repeated entry has the same id. The seconds of all entries with
different ids add up to what the counters say.
"""

import msgspec
from msgspec import Struct

from auth import Execute

STREAM = "ev:1"
PLACE = r"^[0-9]{1,15}-[0-9]{1,15}$"


class Entry(Struct, frozen=True):
    """A stay of a user (`user`, the user_id at 100ms) in a room of `owner`, both empty if they are not known.

    `place` is the entry's position in the feed; `seconds` may be negative in a correction.
    """

    place: str
    id: str
    room: str
    session: str
    user: str
    owner: str
    role: str
    started_ms: int
    ended_ms: int
    seconds: int


class Feed:
    """Reads the feed."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    async def page(self, after: str | None, size: int) -> list[Entry]:
        """Return the entries that follow a place, oldest first; None is the beginning."""
        reply = await self._execute("XRANGE", STREAM, f"({after}" if after else "-", "+", "COUNT", size)
        return [_entry(place.decode(), words) for place, words in reply]


def _entry(place: str, words: list[bytes]) -> Entry:
    fields = dict(zip((name.decode() for name in words[::2]), (value.decode() for value in words[1::2]), strict=True))
    return msgspec.convert({"place": place, **fields}, Entry, strict=False)

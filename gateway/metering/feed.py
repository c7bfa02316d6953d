"""The feed of confirmed stays for billing systems: at least once each, under ids that stay the same."""

import asyncio
from collections.abc import Sequence
from typing import Any

from gateway.usage.feed import STREAM
from limits import Execute
from limits.metered import KEEP_LEDGER_MS

from .events import Stay
from .keys import published

MOST_ENTRIES = 1_000_000
_PART = 100  # entries sent at once; others run in between


class Feed:
    """Appends confirmed stays to the stream, and remembers per session how many seconds of each it has published."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    async def publish(self, owner: str, stays: Sequence[Stay]) -> int:
        """Append what is new about the stays of one session; return how many entries were appended.

        The first entry of a stay has its digest as id and all its seconds. A later correction has the digest and a
        number, and the difference. An entry is noted after it was appended: it is appended twice,
        under the same id, if a process dies in between, or if two publish at the same time.
        """
        if not stays:
            return 0
        key = published(stays[0].room, stays[0].session)
        noted: dict[bytes, bytes] = await self._execute("HGETALL", key)
        entries: list[tuple[Any, ...]] = []
        notes: list[str] = []
        for stay in stays:
            count, _, seconds = noted.get(stay.digest.encode(), b"0:0").partition(b":")
            if stay.seconds != int(seconds):
                number = int(count) + 1
                name = stay.digest if number == 1 else f"{stay.digest}.{number}"
                entries.append(_entry(name, owner, stay, stay.seconds - int(seconds)))
                notes += (stay.digest, f"{number}:{stay.seconds}")
        if entries:
            await asyncio.gather(
                *(self._execute("XADD", STREAM, "MAXLEN", "~", MOST_ENTRIES, "*", *e) for e in entries)
            )
            await self._execute("HSET", key, *notes)
            await self._execute("PEXPIRE", key, KEEP_LEDGER_MS)
        return len(entries)


def _entry(name: str, owner: str, stay: Stay, seconds: int) -> tuple[Any, ...]:
    who = ("user", stay.user, "owner", owner, "role", stay.role)
    times = ("started_ms", stay.joined_ms, "ended_ms", stay.left_ms, "seconds", seconds)
    return ("id", name, "room", stay.room, "session", stay.session, *who, *times)

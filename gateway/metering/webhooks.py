"""What operators see of webhooks, and what they may do with events that could not be understood."""

import asyncio
import re
import time

from msgspec import Struct

from gateway.audit import Audit
from gateway.metering import keys
from gateway.metering.dead_letters import ID, DeadLetter, DeadLetters
from limits import Execute

_COUNTS = ("received", "applied", "unchanged", "ignored", "recorder", "dead", "corrected")


class WebhookState(Struct, frozen=True):
    """Numbers of events since the installation began, when the last one came, and what waits.

    `counts`: by what became of them; `types`: by type, unknown ones together. `lag_ms`: longest wait of the last ones.
    """

    last_ms: int | None
    lag_ms: int
    waiting: int
    dead_letters: int
    counts: dict[str, int]
    types: dict[str, int]


class Webhooks:
    """Reads the state of webhooks, and dead letters; has these processed again."""

    def __init__(self, execute: Execute, audit: Audit) -> None:
        self._execute = execute
        self._audit = audit
        self._letters = DeadLetters(execute)

    async def state(self) -> WebhookState:
        """Return what has become of the events so far. One round trip."""
        row, waiting, letters = await asyncio.gather(
            self._execute("HGETALL", keys.STATISTICS), self._execute("XLEN", keys.EVENTS), self._letters.count()
        )
        found = {name.decode(): int(value) for name, value in row.items()}
        types = {name.removeprefix("type:"): n for name, n in sorted(found.items()) if name.startswith("type:")}
        counts = {name: found.get(name, 0) for name in _COUNTS}
        return WebhookState(found.get("last_ms"), found.get("lag_ms", 0), int(waiting), letters, counts, types)

    async def dead(self, *, before: str | None = None, size: int) -> tuple[list[DeadLetter], str | None]:
        """Return dead letters without their secrets, newest first, and where the next page begins."""
        return await self._letters.page(before=before, size=size)

    async def replay(self, letter_id: str, *, by: str) -> bool:
        """Have one letter processed again; return whether there is one with that id."""
        if not re.fullmatch(ID, letter_id) or not await self._letters.replay(letter_id, _now_ms()):
            return False
        await self._audit.record("webhooks.replayed", by=by, subject="", letter=letter_id)
        return True

    async def replay_all(self, *, by: str) -> int:
        """Have all letters processed again; return how many."""
        count = await self._letters.replay_all(_now_ms())
        if count:
            await self._audit.record("webhooks.replayed", by=by, subject="", count=count)
        return count


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

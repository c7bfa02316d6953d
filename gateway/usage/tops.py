"""Keeps the top lists of finished days and months short: they name the first users, not all of them."""

from datetime import date, timedelta

from gateway.usage.query import last_settled_day
from limits.derived import KEEP_DAYS, Derived
from limits.periods import Zone, utc

_EVERY_S = 60.0


class TopLists:
    """Shortens the lists of each day once it has ended; at first, those of all days that Redis may still have."""

    def __init__(self, derived: Derived, *, zone: Zone = utc) -> None:
        self._derived = derived
        self._zone = zone
        self._through: date | None = None

    async def work(self) -> float:
        """Shorten what has ended since the last time; return how many seconds to wait before the next time."""
        through = last_settled_day(self._zone())
        before = self._through or through - timedelta(days=KEEP_DAYS)
        if before < through:
            await self._derived.shorten(before + timedelta(days=1), through)
            self._through = through
        return _EVERY_S

"""Keeps the metrics of one process up to date and answers scrapes."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from auth.passwords import Passwords
from gateway.hms.client import HmsClient
from gateway.metrics.readings import Reader, Readings
from gateway.metrics.slots import Slot, forget_dead
from gateway.metrics.tally import Tally
from gateway.redis.topology import AnyStore

log = logging.getLogger("gateway")

PATH = "/metrics"
FLUSH_S = 1.0
_LAG_FOR = 15  # flushes: about as long as from one scrape to the next


@dataclass(frozen=True, slots=True)
class Workload:
    """What the parts of this process know about themselves."""

    stores: tuple[AnyStore, ...]
    hms: HmsClient
    passwords: Passwords

    @property
    def failures(self) -> int:
        """Commands that Redis has not answered so far."""
        return sum(store.failures for store in self.stores)

    def gauges(self) -> dict[str, float]:
        """Return present values by the names of their gauges."""
        return {
            "password_hashes_waiting": self.passwords.waiting,
            "redis_breaker_open": any(store.state != "closed" for store in self.stores),
            "hms_breaker_open": self.hms.state != "closed",
        }


class Monitor:
    """Flushes the tally once a second, measures the event loop, and renders what Prometheus reads.

    A process that is killed loses the counts of its last second.
    """

    def __init__(self, token: str, slot: Slot, tally: Tally, reader: Reader, workload: Workload) -> None:
        from gateway.metrics.instruments import Instruments  # after the slot: see there

        self._authorization = f"Bearer {token}".encode()
        self._slot = slot
        self._tally = tally
        self._reader = reader
        self._workload = workload
        self._instruments = Instruments(slot)
        self._lags: deque[float] = deque(maxlen=_LAG_FOR)

    def admits(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Tell whether there is one Authorization field, and it has the token of metrics. Compares in constant time."""
        sent = [value for name, value in headers if name == b"authorization"]
        return hmac.compare_digest(sent[0] if len(sent) == 1 else b"", self._authorization)

    def spares(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Tell whether a request is a scrape, which no limit may refuse."""
        return path == PATH and self.admits(headers)

    async def run(self) -> None:
        """Flush once a second until cancelled; then write what is left, and give the slot up."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                due = loop.time() + FLUSH_S
                await asyncio.sleep(FLUSH_S)
                self._lags.append(max(0.0, loop.time() - due))
                try:
                    self.flush()
                except Exception:  # a full disk must not end the chore
                    log.exception("metrics could not be written")
        finally:
            self.close()

    def flush(self) -> None:
        """Write what this process has counted, and its present values, where every process can read them."""
        self._instruments.redis_failed(self._workload.failures)
        self._instruments.set(event_loop_lag_seconds=max(self._lags, default=0.0), **self._workload.gauges())
        self._instruments.flush(self._tally)

    async def scrape(self) -> bytes:
        """Return the metrics of all processes as Prometheus reads them."""
        self.flush()
        readings = await self._reader.read()
        # In a thread: adding up the files of many workers takes milliseconds.
        return await asyncio.to_thread(self._render, readings)

    def _render(self, readings: Readings) -> bytes:
        forget_dead(self._slot)
        return self._instruments.render(readings)

    def close(self) -> None:
        """Write what is left, and give the slot up."""
        self.flush()
        self._instruments.close()
        self._slot.close()

"""What an operator sets for one subject: temporary numbers, a block, a reset. In force from the next request on.

`take.lua` reads them from `ov:1:{subject}` in the call that decides. A value is `until:numbers:rest`; the script never
reads the rest, which is for people.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from . import Execute
from .limiter import AMEND_WINDOW_US, Limiter
from .periods import span_of
from .policy import Charge, Clock, Limit, Quota

BLOCK = "*"


@dataclass(frozen=True, slots=True)
class Override:
    """Other numbers for one limit or quota of one subject, or (`name` is `*`) a block, until an instant.

    Of `rate` and `burst` for a limit, `amount` for a quota, only what concerns it is set. `until_us` is epoch
    microseconds; `by` is whoever set it.
    """

    name: str
    until_us: int
    reason: str
    by: str
    rate: str = ""
    burst: int = 0
    amount: int = 0


class Overrides:
    """Sets, lists and lifts overrides, and resets what a subject has used."""

    def __init__(self, execute: Execute, limiter: Limiter, *, clock: Clock | None = None) -> None:
        self._execute = execute
        self._limiter = limiter
        self._clock = clock or (lambda: time.time_ns() // 1000)

    async def set_limit(self, subject: str, limit: Limit, *, until_us: int, reason: str, by: str) -> Override:
        """Replace the numbers of the limit of the same name by those of `limit`."""
        override = Override(limit.id, until_us, reason, by, rate=limit.rate, burst=limit.burst)
        return await self._set(subject, override, f"{limit.emission_us}:{limit.burst}")

    async def set_quota(self, subject: str, quota: Quota, *, until_us: int, reason: str, by: str) -> Override:
        """Replace the amount of the quota of the same name by that of `quota`."""
        override = Override(quota.id, until_us, reason, by, amount=quota.amount)
        return await self._set(subject, override, str(quota.amount * quota.unit), unit=quota.unit)

    async def block(self, subject: str, *, until_us: int, reason: str, by: str) -> Override:
        """Deny the subject every limited request."""
        return await self._set(subject, Override(BLOCK, until_us, reason, by), "")

    async def lift(self, subject: str, name: str) -> bool:
        """Remove an override or block; return whether there was one."""
        return bool(await self._execute("HDEL", _key(subject), name))

    async def current(self, subject: str) -> list[Override]:
        """Return the overrides that have not ended, by name."""
        reply = await self._execute("HGETALL", _key(subject))
        now = self._clock()
        found = (
            _read(name.decode(), value.decode()) for name, value in reply.items() if name[:2] not in (b"r:", b"t:")
        )
        return sorted((one for one in found if one.until_us > now), key=lambda one: one.name)

    async def reset(self, subject: str, charges: Sequence[Charge], quotas: Sequence[Quota]) -> dict[str, int]:
        """Reset a subject's limits and the current period's quotas; return what had been used, by name.

        Usage counters stay: the quota only ignores what was used so far. A request that is decided during the reset may
        count before or after it.
        """
        decision = await self._limiter.peek(subject, charges, quotas=quotas)
        used = {state.name: state.burst - state.remaining for state in decision.limits}
        # Until then a request that was in flight at the reset may ask for a refund of units that the reset gave back.
        until_us = decision.now_us + 2 * AMEND_WINDOW_US
        for name in (*used, *(state.name for state in decision.quotas)):
            await self._write(subject, f"t:{name}", str(decision.now_us), until_us)
        if used:
            await self._execute("HDEL", f"rl:1:{{{subject}}}", *used)
        for state in decision.quotas:
            used[state.name] = state.used
            span = span_of(state.quota.period, state.quota.zone, decision.now_us)
            forgiven = await self._execute("HGET", _key(subject), f"r:{state.name}")
            of, _, before = (forgiven or b"").decode().partition(":")
            total = state.counted + (int(before) if of == span.id else 0)
            await self._write(subject, f"r:{state.name}", f"{span.id}:{total}", span.end_us)
        return used

    async def _set(self, subject: str, override: Override, numbers: str, *, unit: int = 1) -> Override:
        rest = {"reason": override.reason, "by": override.by, "rate": override.rate, "unit": unit}
        value = f"{override.until_us}:{numbers}:{json.dumps(rest)}"
        await self._write(subject, override.name, value, override.until_us)
        return override

    async def _write(self, subject: str, field: str, value: str, until_us: int) -> None:
        """Write a field; the key lives as long as its longest-lived field."""
        key, until_ms = _key(subject), until_us // 1000 + 1
        await self._execute("HSET", key, field, value)
        await self._execute("PEXPIREAT", key, until_ms, "NX")
        await self._execute("PEXPIREAT", key, until_ms, "GT")


def _key(subject: str) -> str:
    return f"ov:1:{{{subject}}}"


def _read(name: str, value: str) -> Override:
    until, numbers, rest = (
        value.partition(":")[0],
        value[: value.index("{")].split(":")[1:-1],
        value[value.index("{") :],
    )
    text = json.loads(rest)
    known = [int(number) for number in numbers if number]
    burst = known[1] if len(known) == 2 else 0
    amount = known[0] // text.get("unit", 1) if len(known) == 1 else 0
    return Override(name, int(until), text["reason"], text["by"], text["rate"], burst, amount)

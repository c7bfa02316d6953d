"""What follows when budgets are nearly or quite spent: an entry in the audit trail, the end of rooms, their lock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from msgspec import Struct

from gateway.audit import NO_USER, Audit
from gateway.hms.client import HmsClient
from gateway.hms.errors import HmsError
from gateway.rooms.registry import Rooms
from limits import Execute
from limits.periods import span_of
from limits.policy import QuotaState

from .keys import INSTALLATION, LOCKED, budget_notices
from .stays import OpenStay

log = logging.getLogger("gateway.metering")

PERCENTS = (80, 100)
FIRST_MS = 10_000  # until somebody looks whether a room that is being locked may be unlocked
AGAIN_MS = 10_000  # 100ms acts after it has answered; then its webhook takes a moment
_KEEP_NOTICES_MS = 62 * 86_400_000  # longer than a month
_MOST_CALLS = 10  # to 100ms at once; users need the others
_WHY = {
    "user": "your minutes are used up",
    "owner": "the minutes of the owner of this room are used up",
    "all": "the minutes of this service are used up",
}

Payer = tuple[str, str]
"""A scope, and the user whose budget it is or `keys.INSTALLATION`."""


class _Order(Struct, frozen=True):
    """What a spent budget ends: the stay of one person or, without `alone`, the session of its room."""

    stay: OpenStay
    scope: str
    budget: str
    alone: bool

    @property
    def place(self) -> tuple[str, str]:
        return self.stay.room, self.stay.peer if self.alone else ""


class Consequences:
    """Audits that budgets reach a percentage, and ends rooms. What fails is tried again with the next look."""

    def __init__(self, execute: Execute, rooms: Rooms, hms: HmsClient, audit: Audit) -> None:
        self._execute = execute
        self._rooms = rooms
        self._hms = hms
        self._audit = audit
        self._calls = asyncio.Semaphore(_MOST_CALLS)
        self._done: dict[tuple[str, str], int] = {}  # what has been ended, and when (ms)

    async def notice(self, payer: Payer, state: QuotaState, percent: int, now_us: int) -> None:
        """Audit that so much of a budget is used: once in each of its periods."""
        scope, subject = payer
        period = span_of(state.quota.period, state.quota.zone, now_us).id
        key, name = budget_notices(subject), f"{state.name}:{percent}"
        if await self._execute("HGET", key, name) == period.encode():
            return
        about = NO_USER if scope == "all" else subject
        detail: dict[str, str | int] = {"budget": state.name, "scope": scope, "percent": percent, "period": period}
        # Before it is marked as audited: after a crash in between it is reported twice, not never.
        await self._audit.record("budget.reached", by=NO_USER, subject=about, **detail, minutes=state.amount)
        await self._execute("HSET", key, name, period)
        await self._execute("PEXPIRE", key, _KEEP_NOTICES_MS)

    async def end(self, spent: Iterable[tuple[Payer, str]], stays: Sequence[OpenStay], now_ms: int) -> None:
        """End what spent budgets, given by whose they are and their names, must end of all open stays."""
        self._done = {place: at_ms for place, at_ms in self._done.items() if now_ms - at_ms < AGAIN_MS}
        orders = [order for payer, budget in spent for order in _orders(payer, budget, stays)]
        todo = {order.place: order for order in reversed(orders) if order.place not in self._done}
        await asyncio.gather(*(self._carry_out(order, now_ms) for order in todo.values()))

    async def _carry_out(self, order: _Order, now_ms: int) -> None:
        async with self._calls:
            try:
                await (self._remove(order) if order.alone else self._end(order, now_ms))
            except HmsError as error:
                log.warning("room %s goes on although a budget is spent: %s", order.stay.room, error)
            else:
                self._done[order.place] = now_ms

    async def _end(self, order: _Order, now_ms: int) -> None:
        stay, of_all = order.stay, order.scope == "all"
        room = await self._rooms.get(stay.room)
        if room is None:  # not ours: a room of the same 100ms account
            return
        why = _WHY["all" if of_all else "owner"]
        budget = f"{order.scope}|{INSTALLATION if of_all else stay.owner}|{order.budget}"
        if room.enabled:  # before it is locked: after a crash in between it would stay locked
            await self._execute("ZADD", LOCKED, now_ms + FIRST_MS, f"{budget}|{room.id}")
        await self._rooms.locks.end(room, lock=True, held=False, reason=why, budget=budget)
        detail = {"room": room.id, "reason": why, "budget": order.budget}
        await self._audit.record("room.ended", by=NO_USER, subject=stay.owner, **detail, lock=1)

    async def _remove(self, order: _Order) -> None:
        stay = order.stay
        await self._hms.remove_peer(stay.room, stay.peer, reason=_WHY["user"])
        await self._audit.record("peer.removed", by=NO_USER, subject=stay.user, room=stay.room, budget=order.budget)


def _orders(payer: Payer, budget: str, stays: Iterable[OpenStay]) -> Iterable[_Order]:
    """Return what ends: the rooms of an owner, and of a user also their stays in rooms of others, which go on."""
    scope, subject = payer
    for stay in stays:
        if scope == "all" or stay.owner == subject:
            yield _Order(stay, scope, budget, alone=False)
        elif scope == "user" and stay.user == subject:
            yield _Order(stay, scope, budget, alone=True)

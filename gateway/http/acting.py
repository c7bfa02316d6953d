"""Charges a service key beside the user for whom it acts: in one write, both or neither."""

import asyncio
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from typing import Any

from auth.service_keys import ServiceKey
from auth.tokens import Principal
from gateway.http.access import Access
from gateway.http.callers import StaleCaller
from gateway.http.context import Context
from gateway.http.outcomes import Outcomes
from gateway.http.problems import RateLimited
from gateway.policy.live import PolicyInForce
from gateway.policy.scopes import ROLE, narrowed
from limits.counters import ACTING
from limits.limiter import Limiter
from limits.policy import Decision, QuotaState

Take = Coroutine[Any, Any, Decision]
_Both = tuple[Decision | BaseException, Decision | BaseException]


@dataclass(repr=False, eq=False)
class Acting:
    """The key has limits and counters of its own, in another cluster slot than the user's: two decisions, each atomic.

    They are sent together. If one of them denies the request, what the other charged is given back at once.
    """

    _limiter: Limiter
    _outcomes: Outcomes
    _policy: PolicyInForce

    def charge(self, caller: Principal, access: Access, context: Context, take: Take) -> Take:
        """Begin to charge the key of a caller and, by `take`, the user; await the decision about the user.

        Raises: RateLimited by the key; StaleCaller, after which a second call decides only what is still open
        """
        if caller.key is None or not caller.is_acting:
            # The key may have been charged already, before its user turned out to be disabled.
            charged, context.by_key = context.by_key, None
            return _decided(charged, take) if charged else take
        # Tasks, so that both leave in one write, together with what the caller asks Redis for next.
        mine = self._of_key(caller.key, access)
        if context.by_key:
            mine = _decided(context.by_key, mine)
        theirs = _decided(context.by_user, take) if context.by_user else take
        return self._charged(access, context, asyncio.gather(mine, theirs, return_exceptions=True))

    async def _charged(self, access: Access, context: Context, both: Awaitable[_Both]) -> Decision:
        by_key, by_user = await both
        if isinstance(by_key, BaseException) or isinstance(by_user, BaseException):
            await self._undo("failed", by_key, by_user)
            raise by_key if isinstance(by_key, BaseException) else by_user  # type: ignore[misc]  # one of them is
        context.by_key = by_key if by_key.failed_guard is None else None
        context.by_user = by_user if by_user.failed_guard is None else None
        if context.by_key is None or context.by_user is None:
            raise StaleCaller
        context.by_user = None
        if access.is_charged:
            await self._deny(context, by_key, by_user)
        return by_user

    async def abandon(self, context: Context, outcome: str) -> None:
        """Give back what only one of both was charged, for a request that is answered otherwise."""
        await self._undo(outcome, context.by_key, context.by_user)

    async def _deny(self, context: Context, by_key: Decision, by_user: Decision) -> None:
        """Give back what one of both charged if the other denied. Raises: RateLimited, if that was the key"""
        if not by_key.allowed:
            self._outcomes.derive(by_key, None, f"denied.{by_key.worst.name}")
            await self._undo(_refused(by_key), by_user)
            raise RateLimited(by_key)
        if not by_user.allowed:
            context.by_key = None
            await self._undo(_refused(by_user), by_key)

    async def _undo(self, outcome: str, *decisions: object) -> None:
        made = [one for one in decisions if isinstance(one, Decision)]
        await asyncio.gather(*(self._outcomes.undo(one, outcome) for one in made))

    def _of_key(self, key: ServiceKey, access: Access) -> Take:
        charges = narrowed(self._policy.now, key.scopes, acting=False).charges((ROLE,), access.action)
        if not access.is_charged:
            return self._limiter.peek(key.id, charges, guards=[key.guard])
        return self._limiter.take(key.id, charges, metric=ACTING, guards=[key.guard])


async def _decided(decision: Decision, take: Take) -> Decision:
    """Return what was decided before, instead of deciding again."""
    take.close()
    return decision


def _refused(denial: Decision) -> str:
    return "refused.quota_exceeded" if isinstance(denial.worst, QuotaState) else "refused.rate_limited"

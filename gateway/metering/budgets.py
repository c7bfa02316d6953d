"""Budgets of minutes: what is left of a user's, of an owner's rooms', and of the installation's."""

from __future__ import annotations

import asyncio

from msgspec import structs

from auth.users import roles_of
from gateway.policy.live import PolicyInForce
from limits import Execute
from limits.limiter import Limiter
from limits.policy import Decision, Quota

from .keys import INSTALLATION


class BudgetSpent(Exception):
    """Nothing is left of a budget. `scope` says whose it is: `owner`, of the room, or `all`."""

    def __init__(self, scope: str, decision: Decision) -> None:
        super().__init__("a budget is spent")
        self.scope = scope
        self.decision = decision  # of that budget and others of the same subject


class Budgets:
    """Reads budgets. Nothing here charges them: the seconds are credited as 100ms reports them."""

    def __init__(self, execute: Execute, limiter: Limiter, policy: PolicyInForce) -> None:
        self._execute = execute
        self._limiter = limiter
        self._policy = policy

    async def check_mint(self, own: Decision, owner: str) -> int | None:
        """Return for how many seconds a join token may live by the budgets of its user, the owner and everyone.

        `own` is the decision on the request, which has the user's own budgets already. None: there are no budgets.
        Raises: BudgetSpent
        """
        if not self._policy.now.metered:
            return None
        states = [state for state in own.quotas if state.quota.metered]
        for scope, decision in (await self.of_room(owner)).items():
            if decision.violated:
                raise BudgetSpent(scope, decision)
            states += decision.quotas
        return min((state.left for state in states if state.decides), default=None)

    async def of_room(self, owner: str) -> dict[str, Decision]:
        """Decide whether the budgets of a room's owner and of everyone, if there are any, leave a second; by scope."""
        scopes = [scope for scope in ("owner", "all") if self._policy.now.has_budgets(scope)]
        looks = await asyncio.gather(*(self.look(scope, owner) for scope in scopes))
        return dict(zip(scopes, looks, strict=True))

    async def look(self, scope: str, uid: str) -> Decision:
        """Decide whether the budgets of a scope leave a second; of `user` and `owner` by the roles they have now.

        Its `violated` are budgets only: whether an operator has blocked the account does not matter here.
        """
        if scope == "all":
            subject, quotas = INSTALLATION, self._policy.now.installation
        else:
            subject, quotas = uid, self._of(scope, await roles_of(self._execute, uid))
        # Without a metric and with metered quotas only, this writes nothing.
        decision = await self._limiter.take(subject, (), quotas=quotas)
        return structs.replace(decision, block=None)

    async def ends_rooms(self, scope: str, uid: str) -> bool:
        """Tell whether a budget of a scope that ends rooms is spent."""
        decision = await self.look(scope, uid)
        return any(state.name in self._policy.now.ending and not state.left for state in decision.quotas)

    def _of(self, scope: str, roles: tuple[str, ...]) -> tuple[Quota, ...]:
        policy = self._policy.now
        if scope == "owner":
            return policy.owner_budgets(roles)
        return tuple(quota for quota in policy.quotas(roles, "tokens.mint") if quota.metered)

"""Counts what became of charged requests: corrects their counts, derives other counters, audits denials."""

import asyncio
import logging
from dataclasses import dataclass

from litestar.types import HTTPScope, Message, Send
from redis.exceptions import RedisError

from gateway.audit import Audit
from gateway.http.access import Access
from gateway.http.context import Admitted, Context, context_of
from gateway.redis.store import StoreError
from gateway.rooms.room import Found
from limits.derived import Derived
from limits.fields import ratelimit_fields
from limits.limiter import Limiter
from limits.policy import Decision

log = logging.getLogger("gateway")


@dataclass(repr=False, eq=False)
class Outcomes:
    """A request is counted as ok when it is charged; this changes the count if it ends otherwise."""

    _limiter: Limiter
    _derived: Derived
    _audit: Audit

    def counting(self, access: Access, scope: HTTPScope, admitted: Admitted, send: Send) -> Send:
        """Return a `send` that adds the RateLimit fields, audits a denial and corrects the count of a refusal."""
        shown, context = ratelimit_fields(admitted.shown or admitted.decision), context_of(scope)
        fields = [(name.lower().encode(), value.encode()) for name, value in shown.items()]

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *fields]
                status = message["status"]
                code = context.problem_code
                self._audit_denial(access, admitted, status, context)
                outcome = admitted.outcome
                if status >= 400 and not admitted.refund:
                    outcome = "failed" if status >= 500 else f"refused.{code or 'invalid_request'}"
                refund = admitted.refund or not 400 <= status < 500
                if context.by_key is None:
                    await self._amend(admitted.decision, outcome, refund=refund)
                else:
                    of_key = outcome if status >= 400 else ""
                    self.derive(context.by_key, None, of_key or "ok")
                    pairs = (admitted.decision, outcome), (context.by_key, of_key)
                    await asyncio.gather(*(self._amend(one, what, refund=refund) for one, what in pairs))
                self.derive(admitted.decision, admitted.found, outcome or "ok")
            await send(message)

        return counting

    async def undo(self, decision: Decision, outcome: str) -> None:
        """Give back what a request was charged that is not carried out, and count it as an outcome."""
        if decision.allowed and decision.metric:
            await self._amend(decision, outcome, refund=True)
            self.derive(decision, None, outcome)

    def derive(self, decision: Decision, found: Found | None, outcome: str) -> None:
        """Add an outcome to the derived counters: top lists, and the counters of a registered room."""
        if decision.metric:
            room = found.room.id if found else None
            self._derived.note(decision.subject, f"{decision.metric}.{outcome}", decision.now_us, room=room)

    async def _amend(self, decision: Decision, outcome: str, *, refund: bool) -> None:
        if outcome and decision.metric:
            try:
                await self._limiter.amend(decision, outcome, refund=refund)
            except (StoreError, RedisError):
                log.warning("a refused request stays counted as succeeded: Redis is unavailable")

    def _audit_denial(self, access: Access, admitted: Admitted, status: int, context: Context) -> None:
        """Audit every 403, and the 404 of a room whose existence the caller may not know."""
        if status != 403 and (admitted.verdict.allowed or status != 404):
            return
        room = admitted.found.room.id if admitted.found else ""
        uid, code, denial = admitted.principal.uid, context.problem_code, context.not_allowed
        if denial is None:
            self._audit.denied(uid, code, access.action, room=room)
        else:
            self._audit.denied(uid, code, access.action, room=room, subject=denial.subject, why=denial.why)

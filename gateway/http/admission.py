"""Authenticates, authorizes and rate-limits a request in one Redis round trip, before its handler runs."""

import contextlib
import logging
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import msgspec
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send
from msgspec import structs
from redis.exceptions import RedisError

from auth.errors import InvalidToken, TokenExpired
from auth.sessions import Sessions
from auth.tokens import LoginTokens, Principal
from gateway.audit import Audit
from gateway.http.access import Access, access_of
from gateway.http.context import Admitted, Context, context_of
from gateway.http.dispatch import Dispatch
from gateway.http.login_throttle import Throttle
from gateway.http.problems import CHALLENGE, STATUS_OF, Problem, RateLimited, send_problem
from gateway.http.request_input import read_input
from gateway.metering.intake import SecretCheck
from gateway.policy.actions import counter_of
from gateway.policy.decide import Verdict, decide
from gateway.policy.live import PolicyInForce
from gateway.policy.model import Policy
from gateway.redis.store import StoreError
from gateway.rooms.idempotency import Idempotency
from gateway.rooms.registry import Rooms
from gateway.rooms.room import Found
from gateway.text import FieldError
from limits.counters import Counters, Usage
from limits.derived import Derived
from limits.fields import ratelimit_fields
from limits.limiter import Limiter
from limits.policy import Decision

log = logging.getLogger("gateway")

T = TypeVar("T")


@dataclass(repr=False, eq=False)
class Admission:
    """Admits or refuses a request before its handler runs, by the `Access` of its route.

    One Redis flush checks the session, charges every limit, counts the request and, where the action concerns a room,
    reads the room and the caller's relation to it. Then the policy decides.
    """

    _tokens: LoginTokens
    _sessions: Sessions
    _limiter: Limiter
    _counters: Counters
    _rooms: Rooms
    _policy: PolicyInForce
    _throttle: Throttle
    _derived: Derived
    _idempotency: Idempotency
    _audit: Audit
    _secret_check: SecretCheck
    _dispatch: Dispatch

    def __call__(self, app: ASGIApp) -> ASGIApp:
        """Take the place of a route's app, as a middleware of Litestar: `Dispatch` does what the app would."""
        return cast(ASGIApp, self._handle)  # there are only HTTP routes

    async def _handle(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        access = access_of(scope["route_handler"])
        try:
            if access.is_public or (access.guests and not _has_login(scope)):
                if access.webhook:
                    self._secret_check.check(scope["headers"])
                if access.throttled:
                    await self._throttle.request(context_of(scope).client)
                arguments = await read_input(scope, receive)
            else:
                principal = self._tokens.verify(bearer_of(scope))
                arguments, refusal = await _read_input(scope, receive)
                if access.repeatable and (made := await self._made(access, principal, arguments)):
                    admitted = await self._admit_repetition(access, principal, made)
                else:
                    admitted = await self._admit(access, principal, scope, refusal)
                context_of(scope).admitted = admitted
                scope["user"], scope["auth"] = principal, admitted
                send = self._counting(access, scope, admitted, send)
                if refused := _forbidden(admitted.verdict) or refusal:
                    raise refused
        except Exception as error:  # noqa: BLE001  every exception has its problem
            await send_problem(error, scope, send)
            return
        await self._dispatch(scope, arguments, receive, send)

    async def _admit(
        self, access: Access, principal: Principal, scope: HTTPScope, refusal: Problem | FieldError | None
    ) -> Admitted:
        """Charge a request and decide on it. Raises: InvalidToken, TokenExpired, RateLimited (nothing was charged)"""
        policy = self._policy.now  # read once: a decision must not mix two policies
        decision, found, usage = await self._flush(access, principal, policy, scope, refusal)
        self._check(access, decision, found)
        verdict = decide(policy, principal.roles, access.action, found.facts if found else None)
        return Admitted(principal, decision, verdict, found, usage)

    async def _made(self, access: Access, principal: Principal, arguments: dict[str, Any]) -> str:
        """Return the room that an earlier, equal request with the same Idempotency-Key made, if any."""
        if not (key := arguments.get("key")):
            return ""
        asked = msgspec.json.encode(arguments["data"])
        return await self._idempotency.made(principal.uid, access.action, key, asked)

    async def _admit_repetition(self, access: Access, principal: Principal, made: str) -> Admitted:
        """Admit a request that has been carried out already: it costs what all requests cost, and no more.

        Otherwise a client that missed the answer would be denied it once its limit is used up. Raises: as `_admit`
        """
        policy, uid, roles = self._policy.now, principal.uid, principal.roles
        own, quotas = policy.own_charges(roles, access.action), policy.quotas(roles, access.action)
        charges = [charge for charge in policy.charges(roles, access.action) if charge not in own]
        seen = await self._limiter.peek(uid, own, quotas=quotas)  # before this request is counted: quotas count it
        guards = self._sessions.guards(principal)
        decision = await self._limiter.take(uid, charges, metric=counter_of(access.action), guards=guards)
        self._check(access, decision, None)
        shown = structs.replace(decision, limits=(*decision.limits, *seen.limits), quotas=seen.quotas)
        verdict = decide(policy, roles, access.action, None)
        return Admitted(principal, decision, verdict, made=made, shown=shown)

    def _check(self, access: Access, decision: Decision, found: Found | None) -> None:
        """Refuse what was not charged. Raises: InvalidToken, TokenExpired, RateLimited"""
        if decision.failed_guard == 0:
            raise InvalidToken("The session has ended. Log in again.")
        if decision.failed_guard is not None:
            raise TokenExpired("The account has changed since this token was issued. Refresh it.")
        if access.is_charged and not decision.allowed:
            self._derive(decision, found, f"denied.{decision.worst.name}")
            raise RateLimited(decision)

    async def _flush(
        self,
        access: Access,
        principal: Principal,
        policy: Policy,
        scope: HTTPScope,
        refusal: Problem | FieldError | None,
    ) -> tuple[Decision, Found | None, Usage | None]:
        """Ask Redis for everything at once: commands issued together are sent in one write."""
        uid, roles = principal.uid, principal.roles
        guards = self._sessions.guards(principal)
        if not access.is_charged:
            leases = [policy.rooms_of(roles).lease()] if "rooms:create" in policy.permissions(roles) else []
            look = self._limiter.peek(
                uid, policy.charges(roles, "*"), guards=guards, quotas=policy.quotas(roles, "*"), leases=leases
            )
            decision, usage = await self._together(look, self._counters.usage(uid, time.time_ns() // 1000))
            return decision, None, usage
        if refusal is None:
            charges, quotas = policy.charges(roles, access.action), policy.quotas(roles, access.action)
        else:  # an invalid request costs only what every request costs
            charges, quotas = policy.common_charges(roles, access.action), ()
        room = None
        if access.concerns_room:
            joins = access.action == "tokens.mint"
            room = self._rooms.find(str(scope["path_params"]["room_id"]), uid, people=joins)
        take = self._limiter.take(uid, charges, metric=counter_of(access.action), guards=guards, quotas=quotas)
        if room is None:
            return await take, None, None
        decision, found = await self._together(take, room)
        return decision, found, None

    async def _together(self, take: Awaitable[Decision], fetch: Awaitable[T]) -> tuple[Decision, T]:
        """Await both; `fetch` has been sent already. Uses no tasks, which would cost as much as the decision.

        If only the fetch fails, the request counts as failed, like any other that was not served.
        """
        try:
            decision = await take
        except BaseException:
            with contextlib.suppress(Exception):  # it fails for the same reason
                await fetch
            raise
        try:
            return decision, await fetch
        except Exception:
            if decision.allowed and decision.metric:
                await self._limiter.amend(decision, "failed", refund=True)
                self._derive(decision, None, "failed")
            raise

    def _counting(self, access: Access, scope: HTTPScope, admitted: Admitted, send: Send) -> Send:
        """Return a `send` that adds the RateLimit fields, audits a denial and corrects the count of a refusal."""
        shown = ratelimit_fields(admitted.shown or admitted.decision)
        fields = [(name.lower().encode(), value.encode()) for name, value in shown.items()]

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *fields]
                status = message["status"]
                code = context_of(scope).problem_code
                self._audit_denial(access, admitted, status, context_of(scope))
                outcome = admitted.outcome
                if status >= 400 and not admitted.refund:
                    outcome = "failed" if status >= 500 else f"refused.{code or 'invalid_request'}"
                await self._amend(admitted, outcome, refund=admitted.refund or not 400 <= status < 500)
                self._derive(admitted.decision, admitted.found, outcome or "ok")
            await send(message)

        return counting

    async def _amend(self, admitted: Admitted, outcome: str, *, refund: bool) -> None:
        if outcome and admitted.decision.metric:
            try:
                await self._limiter.amend(admitted.decision, outcome, refund=refund)
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

    def _derive(self, decision: Decision, found: Found | None, outcome: str) -> None:
        """Add an outcome to the derived counters: top lists, and the counters of a registered room."""
        if decision.metric:
            room = found.room.id if found else None
            self._derived.note(decision.subject, f"{decision.metric}.{outcome}", decision.now_us, room=room)


async def _read_input(scope: HTTPScope, receive: Receive) -> tuple[dict[str, Any], Problem | FieldError | None]:
    """Return what a request brings, or what is wrong with it: that is answered once the caller is known."""
    try:
        return await read_input(scope, receive), None
    except (Problem, FieldError) as refusal:
        return {}, refusal


def _forbidden(verdict: Verdict) -> Problem | None:
    if verdict.allowed:
        return None
    extra: dict[str, Any] = {"missing_permission": verdict.missing} if verdict.missing else {}
    return Problem(STATUS_OF[verdict.code], verdict.code, verdict.reason, **extra)


def _has_login(scope: Scope) -> bool:
    return any(name == b"authorization" for name, _ in scope["headers"])


def bearer_of(scope: Scope) -> str:
    """Return the token of a request (RFC 6750, header only). Raises: InvalidToken, or Problem without a header"""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if not values:
        raise Problem(401, "invalid_token", "Log in first: the Authorization header is missing.", headers=CHALLENGE)
    scheme, _, token = values[0].decode("latin-1").partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer" or not token:
        raise InvalidToken("The Authorization header must be: Bearer, one space, the login token.")
    return token

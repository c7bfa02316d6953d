"""The inner middleware: who is calling, may he now, and what his request needs to know; all in one Redis flush."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from redis.exceptions import RedisError

from auth.errors import InvalidToken, TokenExpired
from auth.sessions import Sessions
from auth.tokens import LoginTokens, Principal
from gateway.audit import Audit
from gateway.http.bodies import all_there, json_body
from gateway.http.login_throttle import Throttle
from gateway.http.problems import CHALLENGE, CODE_KEY, STATUS_OF, Problem, RateLimited
from gateway.policy.decide import Verdict, decide
from gateway.policy.live import PolicyInForce
from gateway.policy.model import counter_of
from gateway.redis.store import StoreError
from gateway.rooms.registry import Rooms
from gateway.rooms.room import Found
from limits.counters import Counters, Usage
from limits.derived import Derived
from limits.fields import ratelimit_fields
from limits.limiter import Limiter
from limits.policy import Decision, Lease

log = logging.getLogger("gateway")

T = TypeVar("T")

_MOST_AGENT = 120
_AUDITED_BY_THEMSELVES = frozenset({"users.manage", "limits.manage"})  # they know whom it was about


@dataclass(slots=True)
class Admitted:
    """What admission found out about a request. `found` and `usage` only where the route asks for them.

    A handler may set `outcome`, what a successful request is counted as instead of `ok`, its units given back. With
    `refund` that holds for a request it refuses, too.
    """

    decision: Decision
    outcome: str = ""
    refund: bool = False
    found: Found | None = None
    usage: Usage | None = None
    verdict: Verdict | None = None

    def room(self) -> tuple[Found, str | None]:
        """Return the room of the path and the relation that counted; only for routes that fetch the room."""
        if self.found is None or self.verdict is None:
            raise RuntimeError("the route did not fetch its room")
        return self.found, self.verdict.relation


class Admission(ASGIMiddleware):
    """Admits or refuses a request before its handler runs.

    A route says in its `opt` what it is: `public`, or its `action`; `fetch` names what rides the same flush (`room` of
    the path, or the caller's `usage`); `charge=False` looks at the limits and spends nothing. `guests`: without a login
    it is public.
    """

    scopes = (ScopeType.HTTP,)

    def __init__(  # noqa: PLR0913  the place where auth, limits and rooms meet
        self,
        tokens: LoginTokens,
        sessions: Sessions,
        limiter: Limiter,
        counters: Counters,
        rooms: Rooms,
        policy: PolicyInForce,
        throttle: Throttle,
        derived: Derived,
        audit: Audit,
    ) -> None:
        self._tokens = tokens
        self._sessions = sessions
        self._limiter = limiter
        self._counters = counters
        self._rooms = rooms
        self._policy = policy
        self._throttle = throttle
        self._derived = derived
        self._audit = audit

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        opt = scope["route_handler"].opt
        receive = json_body(scope, receive)
        anonymous = opt.get("guests") and all(name != b"authorization" for name, _ in scope["headers"])
        if opt.get("public") or anonymous:
            if opt.get("throttled") or anonymous:
                await self._throttle.request(client_of(scope))
            await next_app(scope, receive, send)
            return
        principal = self._tokens.verify(bearer_of(scope))
        receive = await all_there(receive)
        admitted = await self._flush(principal, scope)
        decision = admitted.decision
        if decision.failed_guard == 0:
            raise InvalidToken("The session has ended. Log in again.")
        if decision.failed_guard is not None:
            raise TokenExpired("The account has changed since this token was issued. Refresh it.")
        if not decision.allowed and opt.get("charge", True):  # a look at one's own limits is never denied
            self._note(admitted, f"denied.{decision.worst.name}")
            raise RateLimited(decision)
        scope["user"], scope["auth"] = principal, admitted
        await next_app(scope, receive, self._amending(scope, admitted, send))

    async def _flush(self, principal: Principal, scope: Scope) -> Admitted:
        """Ask Redis everything at once: commands issued together leave in one write."""
        opt = scope["route_handler"].opt
        action = opt["action"]
        guards = self._sessions.guards(principal)
        take: Awaitable[Decision]
        if opt.get("charge", True):
            take = self._limiter.take(
                principal.uid,
                self._policy.now.charges(principal.roles, action),
                metric=counter_of(action),
                guards=guards,
                quotas=self._policy.now.quotas(principal.roles, action),
                leases=self._leases(principal, action, scope),
            )
        else:
            take = self._limiter.peek(
                principal.uid,
                self._policy.now.charges(principal.roles, "*"),
                guards=guards,
                quotas=self._policy.now.quotas(principal.roles, "*"),
                leases=self._leases(principal, "rooms.create", scope),
            )
        match opt.get("fetch"):
            case "room":
                find = self._rooms.find(str(scope["path_params"]["room_id"]), principal.uid)
                decision, found = await self._together(take, find)
                return Admitted(decision, found=found)
            case "usage":
                usage = self._counters.usage(principal.uid, time.time_ns() // 1000)
                decision, counted = await self._together(take, usage)
                return Admitted(decision, usage=counted)
        return Admitted(await take)

    def _note(self, admitted: Admitted, outcome: str) -> None:
        """Put an outcome into what is derived: top lists, and the counters of a room that is ours."""
        decision = admitted.decision
        if decision.metric:
            room = admitted.found.room.id if admitted.found else None
            self._derived.note(decision.subject, f"{decision.metric}.{outcome}", decision.now_us, room=room)

    def _audit_denial(self, scope: Scope, admitted: Admitted) -> None:
        action = scope["route_handler"].opt["action"]
        if admitted.verdict is None or action not in _AUDITED_BY_THEMSELVES:
            room = admitted.found.room.id if admitted.found else ""
            self._audit.denied(admitted.decision.subject, str(scope.get(CODE_KEY)), action, room)

    def _leases(self, principal: Principal, action: str, scope: Scope) -> tuple[Lease, ...]:
        """Return the bound on an owner's rooms, for whoever may create any.

        Not with an Idempotency-Key: such requests share one place, which is taken once it is known which of them acts.
        """
        if action != "rooms.create" or "rooms:create" not in self._policy.now.permissions(principal.roles):
            return ()
        if any(name == b"idempotency-key" for name, _ in scope["headers"]):
            return ()
        return (self._policy.now.rooms.lease(secrets.token_hex(8)),)

    async def _together(self, take: Awaitable[Decision], fetch: Awaitable[T]) -> tuple[Decision, T]:
        """Await both; if only the fetch fails, the request counts as failed, like any other that we could not serve."""
        decision, fetched = await asyncio.gather(take, fetch, return_exceptions=True)
        if isinstance(decision, BaseException):
            raise decision
        if isinstance(fetched, BaseException):
            if decision.allowed and decision.metric:
                await self._limiter.amend(decision, "failed", refund=True)
            raise fetched
        return decision, fetched

    def _amending(self, scope: Scope, admitted: Admitted, send: Send) -> Send:
        """Return a `send` that corrects the count of a request that is refused or fails after it was admitted."""
        fields = [
            (name.lower().encode(), value.encode()) for name, value in ratelimit_fields(admitted.decision).items()
        ]

        async def amending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *fields]
                status = message["status"]
                outcome = admitted.outcome
                if status >= 400 and not admitted.refund:
                    outcome = "failed" if status >= 500 else f"refused.{scope.get(CODE_KEY, 'invalid_request')}"
                if status == 403:
                    self._audit_denial(scope, admitted)
                if outcome and admitted.decision.metric:
                    refund = admitted.refund or not 400 <= status < 500
                    try:
                        await self._limiter.amend(admitted.decision, outcome, refund=refund)
                    except (StoreError, RedisError):
                        log.warning("a refused request stays counted as done: the store is away")
                self._note(admitted, outcome or "ok")
            await send(message)

        return amending


async def authorize(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let the policy decide, as a guard of every route that is not public. Async: Litestar calls others in a thread."""
    if handler.opt.get("public"):
        return
    if handler.opt.get("guests") and connection.scope.get("auth") is None:
        return
    admitted: Admitted = connection.auth
    policy: PolicyInForce = connection.app.state.policy
    facts = admitted.found.facts if admitted.found else None
    verdict = decide(policy.now, connection.user.roles, handler.opt["action"], facts)
    if not verdict.allowed:
        extra: dict[str, Any] = {"missing_permission": verdict.missing} if verdict.missing else {}
        audit: Audit = connection.app.state.audit
        if verdict.code == "not_found":  # a 403 is noted where it leaves
            room = admitted.found.room.id if admitted.found else ""
            audit.denied(connection.user.uid, verdict.code, handler.opt["action"], room)
        raise Problem(STATUS_OF[verdict.code], verdict.code, verdict.reason, **extra)
    admitted.verdict = verdict


def client_of(scope: Scope) -> str:
    """Return the client's address as the edge found it."""
    client = scope.get("client")
    return client[0] if client else ""


def agent_of(scope: Scope) -> str:
    """Return what the client calls itself, cut to what a person can read."""
    value = next((value for name, value in scope["headers"] if name == b"user-agent"), b"").decode("latin-1")
    return "".join(char for char in value[:_MOST_AGENT] if char.isascii() and char.isprintable())


def bearer_of(scope: Scope) -> str:
    """Return the bearer token of a request (RFC 6750, header form only).

    Raises:
        Problem: there is none, or more than one Authorization header.
    """
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if not values:
        raise Problem(401, "invalid_token", "Log in first: the Authorization header is missing.", headers=CHALLENGE)
    scheme, _, token = values[0].decode("latin-1").partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer" or not token:
        raise InvalidToken("The Authorization header must be: Bearer, one space, the login token.")
    return token

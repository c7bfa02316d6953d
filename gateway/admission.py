"""The inner middleware: who is calling, may he now, and what his request needs to know; all in one Redis flush."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from redis.exceptions import RedisError

from auth.errors import InvalidToken, TokenExpired
from auth.sessions import Sessions
from auth.tokens import LoginTokens, Principal
from gateway.policy import Policy, Verdict, counter_of, decide
from gateway.problems import CHALLENGE, CODE_KEY, STATUS_OF, Problem, RateLimited, invalid
from gateway.rooms import Found, Rooms
from gateway.store import StoreError
from gateway.throttle import Throttle
from limits.counters import Counters, Usage
from limits.derived import Derived
from limits.fields import ratelimit_fields
from limits.limiter import Limiter
from limits.policy import Decision, Lease

log = logging.getLogger("gateway")

T = TypeVar("T")

MOST_BODY_BYTES = 16 * 1024
BODY_TIMEOUT_S = 10.0
EXPOSED_HEADERS = ["RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id"]


@dataclass(slots=True)
class Admitted:
    """What admission found out about a request. `found` and `usage` only where the route asks for them."""

    decision: Decision
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
    the path, or the caller's `usage`); `charge=False` looks at the limits and spends nothing.
    """

    scopes = (ScopeType.HTTP,)

    def __init__(  # noqa: PLR0913  the place where auth, limits and rooms meet
        self,
        tokens: LoginTokens,
        sessions: Sessions,
        limiter: Limiter,
        counters: Counters,
        rooms: Rooms,
        policy: Policy,
        throttle: Throttle,
        derived: Derived,
    ) -> None:
        self._tokens = tokens
        self._sessions = sessions
        self._limiter = limiter
        self._counters = counters
        self._rooms = rooms
        self._policy = policy
        self._throttle = throttle
        self._derived = derived

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        opt = scope["route_handler"].opt
        receive = _json_body(scope, receive)
        if opt.get("public") or scope.get("method") == "OPTIONS":  # Litestar's own OPTIONS handlers carry no opt
            if opt.get("throttled"):
                await self._throttle.request(client_of(scope))
            await next_app(scope, receive, send)
            return
        principal = self._tokens.verify(bearer_of(scope))
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
                self._policy.charges(principal.roles, action),
                metric=counter_of(action),
                guards=guards,
                quotas=self._policy.quotas(principal.roles, action),
                leases=self._leases(principal, action),
            )
        else:
            take = self._limiter.peek(
                principal.uid,
                self._policy.charges(principal.roles, "*"),
                guards=guards,
                quotas=self._policy.quotas(principal.roles, "*"),
                leases=self._leases(principal, "rooms.create"),
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

    def _leases(self, principal: Principal, action: str) -> tuple[Lease, ...]:
        """Return the bound on an owner's rooms, for whoever may create any."""
        if action != "rooms.create" or "rooms:create" not in self._policy.permissions(principal.roles):
            return ()
        return (self._policy.rooms.lease(secrets.token_hex(8)),)

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
        decision = admitted.decision
        fields = [(name.lower().encode(), value.encode()) for name, value in ratelimit_fields(decision).items()]

        async def amending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *fields]
                status = message["status"]
                outcome = "ok"
                if status >= 400 and decision.metric:
                    outcome = "failed" if status >= 500 else f"refused.{scope.get(CODE_KEY, 'invalid_request')}"
                    try:
                        await self._limiter.amend(decision, outcome, refund=status >= 500)
                    except (StoreError, RedisError):
                        log.warning("a refused request stays counted as done: the store is away")
                self._note(admitted, outcome)
            await send(message)

        return amending


def authorize(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let the policy decide, as a guard of every route that is not public."""
    if handler.opt.get("public") or connection.scope.get("method") == "OPTIONS":
        return
    admitted: Admitted = connection.auth
    policy: Policy = connection.app.state.policy
    facts = admitted.found.facts if admitted.found else None
    verdict = decide(policy, connection.user.roles, handler.opt["action"], facts)
    if not verdict.allowed:
        extra: dict[str, Any] = {"missing_permission": verdict.missing} if verdict.missing else {}
        raise Problem(STATUS_OF[verdict.code], verdict.code, verdict.reason, **extra)
    admitted.verdict = verdict


def client_of(scope: Scope) -> str:
    """Return the client's address as the edge found it."""
    client = scope.get("client")
    return client[0] if client else ""


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


def _json_body(scope: Scope, receive: Receive) -> Receive:
    """Return a `receive` that hands on a JSON body of bounded size, or refuses; an empty body means `{}`.

    The check runs when the body is read, inside the route: a refused body is then counted like any other refusal.
    """
    done = False

    async def checked() -> Any:
        nonlocal done
        if done:
            return await receive()
        done = True
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > MOST_BODY_BYTES:
            raise _too_large()
        content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content_type and content_type != b"application/json":
            raise Problem(415, "unsupported_media_type", "The body must be sent as application/json.")
        body = await _read(receive)
        if body and not content_type:
            raise Problem(415, "unsupported_media_type", "The body must be sent as application/json.")
        try:
            msgspec.json.decode(body or b"{}")  # Litestar lets broken UTF-8 and deep nesting out as a server's error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise invalid("", "The body is not valid JSON.") from None
        return {"type": "http.request", "body": body or b"{}", "more_body": False}

    return checked


async def _read(receive: Receive) -> bytes:
    body = b""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Problem(400, "invalid_request", "The request ended before its body was complete.")
                body += message.get("body", b"")
                if len(body) > MOST_BODY_BYTES:
                    raise _too_large()
                if not message.get("more_body"):
                    return body
    except TimeoutError:
        raise Problem(400, "invalid_request", f"The body did not arrive within {BODY_TIMEOUT_S:.0f} s.") from None


def _too_large() -> Problem:
    return Problem(413, "payload_too_large", f"The body must have at most {MOST_BODY_BYTES} bytes.")

"""Authenticates, authorizes and rate-limits a request in one Redis round trip, before its handler runs."""

import contextlib
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import msgspec
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send
from msgspec import structs

from auth.errors import InvalidToken, TokenExpired
from auth.sessions import Sessions
from auth.tokens import Principal
from gateway.http.access import Access, access_of
from gateway.http.acting import Acting
from gateway.http.callers import Callers, StaleCaller
from gateway.http.context import Admitted, context_of
from gateway.http.dispatch import Dispatch
from gateway.http.login_throttle import Throttle
from gateway.http.outcomes import Outcomes
from gateway.http.problems import STATUS_OF, Problem, RateLimited, send_problem
from gateway.http.request_input import read_input
from gateway.logs import service_key
from gateway.metering.intake import SecretCheck
from gateway.policy.actions import counter_of
from gateway.policy.decide import Verdict
from gateway.policy.live import PolicyInForce
from gateway.policy.model import Policy
from gateway.policy.scopes import decide_for
from gateway.redis.store import StoreError
from gateway.rooms.idempotency import Idempotency, key_of
from gateway.rooms.registry import Rooms
from gateway.rooms.room import Found
from gateway.text import FieldError
from limits.counters import Counters, Usage
from limits.limiter import Limiter
from limits.policy import Decision

T = TypeVar("T")


@dataclass(repr=False, eq=False)
class Admission:
    """Admits or refuses a request before its handler runs, by the `Access` of its route.

    One Redis flush checks the caller, charges every limit, counts the request and, where the action concerns a room,
    reads the room and the caller's relation to it. Then the policy decides.
    """

    _callers: Callers
    _sessions: Sessions
    _limiter: Limiter
    _acting: Acting
    _counters: Counters
    _rooms: Rooms
    _policy: PolicyInForce
    _throttle: Throttle
    _outcomes: Outcomes
    _idempotency: Idempotency
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
                caller, refusal = self._callers.login(scope), None
                if caller is None:
                    caller, refusal = await self._callers.identify(scope)
                arguments, wrong = await _read_input(scope, receive)
                if caller.key is None:
                    admitted = await self._admit(access, caller, scope, arguments, refusal or wrong)
                else:
                    service_key.set(caller.key.id)
                    admitted, refusal = await self._admit_key(access, caller, scope, arguments, (refusal, wrong))
                context_of(scope).admitted = admitted
                scope["user"], scope["auth"] = admitted.principal, admitted
                send = self._outcomes.counting(access, scope, admitted, send)
                if refused := refusal or _forbidden(admitted.verdict) or wrong:
                    raise refused
        except Exception as error:  # noqa: BLE001  every exception has its problem
            await send_problem(error, scope, send)
            return
        await self._dispatch(scope, arguments, receive, send)

    async def _admit(
        self,
        access: Access,
        caller: Principal,
        scope: HTTPScope,
        arguments: dict[str, Any],
        refusal: Problem | FieldError | None,
    ) -> Admitted:
        """Charge a request and decide on it. Raises: InvalidToken, TokenExpired, RateLimited (nothing was charged)"""
        if access.repeatable and (made := await self._made(access, caller, arguments)):
            return await self._admit_repetition(access, caller, scope, made)
        policy = self._policy.of(caller)  # read once: a decision must not mix two policies
        decision, found, usage = await self._flush(access, caller, policy, scope, refusal)
        self._check(access, caller, decision, found)
        verdict = decide_for(policy, caller, access.action, found.facts if found else None)
        return Admitted(caller, decision, verdict, found, usage)

    async def _admit_key(
        self,
        access: Access,
        caller: Principal,
        scope: HTTPScope,
        arguments: dict[str, Any],
        refusals: tuple[Problem | FieldError | None, Problem | FieldError | None],
    ) -> tuple[Admitted, Problem | FieldError | None]:
        """Do the same for a service key, again if it has changed since it was remembered; return why it may not act."""
        (refusal, wrong), context = refusals, context_of(scope)
        try:
            try:
                return await self._admit(access, caller, scope, arguments, refusal or wrong), refusal
            except StaleCaller:
                caller, refusal = await self._callers.identify_anew(scope, caller)
                return await self._admit(access, caller, scope, arguments, refusal or wrong), refusal
        except InvalidToken:
            await self._acting.abandon(context, "refused.invalid_token")
            raise
        except StoreError:
            await self._acting.abandon(context, "failed")
            raise

    async def _made(self, access: Access, caller: Principal, arguments: dict[str, Any]) -> str:
        """Return the room that an earlier, equal request with the same Idempotency-Key made, if any."""
        if not (key := arguments.get("key")):
            return ""
        asked = msgspec.json.encode(arguments["data"])
        return await self._idempotency.made(caller.uid, access.action, key_of(caller, key), asked)

    async def _admit_repetition(self, access: Access, caller: Principal, scope: HTTPScope, made: str) -> Admitted:
        """Admit a request that has been carried out already: it costs what all requests cost, and no more.

        Otherwise a client that missed the answer would be denied it once its limit is used up. Raises: as `_admit`
        """
        policy, uid, roles = self._policy.of(caller), caller.uid, caller.roles
        own, quotas = policy.own_charges(roles, access.action), policy.quotas(roles, access.action)
        charges = [charge for charge in policy.charges(roles, access.action) if charge not in own]
        seen = await self._limiter.peek(uid, own, quotas=quotas)  # before this request is counted: quotas count it
        guards = self._sessions.guards(caller)
        take = self._limiter.take(uid, charges, metric=counter_of(access.action), guards=guards)
        if caller.key is not None:
            take = self._acting.charge(caller, access, context_of(scope), take)
        decision = await take
        self._check(access, caller, decision, None)
        shown = structs.replace(decision, limits=(*decision.limits, *seen.limits), quotas=seen.quotas)
        verdict = decide_for(policy, caller, access.action)
        return Admitted(caller, decision, verdict, made=made, shown=shown)

    def _check(self, access: Access, caller: Principal, decision: Decision, found: Found | None) -> None:
        """Refuse what was not charged. Raises: InvalidToken, TokenExpired, RateLimited"""
        if decision.failed_guard is not None:
            if caller.key is not None:
                raise StaleCaller
            if decision.failed_guard == 0:
                raise InvalidToken("The session has ended. Log in again.")
            raise TokenExpired("The account has changed since this token was issued. Refresh it.")
        if access.is_charged and not decision.allowed:
            self._outcomes.derive(decision, found, f"denied.{decision.worst.name}")
            raise RateLimited(decision)

    async def _flush(
        self, access: Access, caller: Principal, policy: Policy, scope: HTTPScope, refusal: Problem | FieldError | None
    ) -> tuple[Decision, Found | None, Usage | None]:
        """Ask Redis for everything at once: commands issued together are sent in one write."""
        uid, roles = caller.uid, caller.roles
        guards = self._sessions.guards(caller)
        if not access.is_charged:
            leases = [policy.rooms_of(roles).lease()] if "rooms:create" in policy.permissions(roles) else []
            limits, quotas = policy.charges(roles, "*"), policy.quotas(roles, "*")
            look = self._limiter.peek(uid, limits, guards=guards, quotas=quotas, leases=leases)
            if caller.key is not None:
                look = self._acting.charge(caller, access, context_of(scope), look)
            decision, usage = await self._together(
                look, self._counters.usage(uid, time.time_ns() // 1000, policy.time_zone)
            )
            return decision, None, usage
        if refusal is None:
            charges, quotas = policy.charges(roles, access.action), policy.quotas(roles, access.action)
        else:  # an invalid request costs only what every request costs
            charges, quotas = policy.common_charges(roles, access.action), ()
        take = self._limiter.take(uid, charges, metric=counter_of(access.action), guards=guards, quotas=quotas)
        if caller.key is not None:
            take = self._acting.charge(caller, access, context_of(scope), take)
        if not access.concerns_room:
            return await take, None, None
        joins = access.action == "tokens.mint"
        room = self._rooms.find(str(scope["path_params"]["room_id"]), uid, people=joins)
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
            await self._outcomes.undo(decision, "failed")
            raise


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

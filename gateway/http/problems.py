"""Turns every exception into a problem document (RFC 9457), with one table."""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any

from litestar import Request, Response
from litestar.exceptions import ClientException, HTTPException, MethodNotAllowedException, NotFoundException
from litestar.types import Scope, Send
from redis.exceptions import RedisError

from auth.breaches import BadBreachFile
from auth.errors import (
    BadKey,
    BadUsername,
    Busy,
    InvalidCredentials,
    InvalidGrant,
    InvalidToken,
    InvalidVoucher,
    KeysUnavailable,
    TokenExpired,
    UnknownKey,
    UnknownUser,
    UserExists,
    WeakPassword,
)
from auth.key_texts import PREFIX
from gateway.accounts.actor import NotAllowed
from gateway.accounts.admin import AdminsBusy, LastAdmin, NoSession
from gateway.accounts.logins import Blocked
from gateway.accounts.registration import RegistrationClosed
from gateway.hms.errors import HmsBusy, HmsRefused, HmsTimeout, HmsUnreachable
from gateway.http.context import context_of
from gateway.logs import request_id, to_json
from gateway.metering.budgets import BudgetSpent
from gateway.metering.intake import IntakeFull, NoWebhook, WrongSecret
from gateway.overview.live import TooManyStreams
from gateway.policy.model import written
from gateway.redis.durable import NotDurable
from gateway.redis.refusals import log_refusal
from gateway.redis.store import StoreError
from gateway.rooms.create import RoomGone, TemplateNotAllowed
from gateway.rooms.idempotency import InFlight, OtherRequest
from gateway.rooms.locks import LockedMeanwhile, TooManyRooms
from gateway.rooms.names import NameTaken
from gateway.rooms.relations import Overtaken
from gateway.rooms.room import Forbidden
from gateway.text import FieldError
from gateway.usage.archive import ArchiveError
from limits.fields import ratelimit_fields, retry_after_s
from limits.policy import BlockState, Decision, LeaseState, LimitState, QuotaState, State

log = logging.getLogger("gateway")

MEDIA_TYPE = "application/problem+json"
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
BEARER_ERROR = "invalid_token"  # RFC 6750 section 3.1; only the problem's code says whether it expired


class Problem(Exception):
    """A refusal with a status and a stable code for programs. `detail` is a sentence for people."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = extra
        if status == 401:
            self.headers.setdefault("WWW-Authenticate", f'Bearer realm="hms-gateway", error="{BEARER_ERROR}"')


class RateLimited(Exception):
    """A limit denied the request."""

    def __init__(self, decision: Decision) -> None:
        super().__init__("rate limited")
        self.decision = decision


CHALLENGE = {"WWW-Authenticate": 'Bearer realm="hms-gateway"'}
"""The challenge of a 401 to a request without a token (RFC 6750 section 3.1)."""

STATUS_OF = {"forbidden": 403, "not_found": 404, "room_disabled": 409, "room_full": 409}
"""Status of each code that a verdict of the policy can have."""


def invalid(field: str, rule: str) -> Problem:
    """Return the 400 for a field that breaks a rule."""
    detail = f"{field}: {rule}" if field else rule
    return Problem(400, "invalid_request", detail, errors=[{"field": field, "rule": rule}])


def problem_response(request: Request[Any, Any, Any], exc: Exception) -> Response[bytes]:
    """Return the response to an exception of a handler; Litestar's handler of `Exception`."""
    problem = _noted(exc, request.scope)
    body = document(problem, instance=request.scope["path"])
    return Response(body, status_code=problem.status, media_type=MEDIA_TYPE, headers=problem.headers)


async def send_problem(exc: Exception, scope: Scope, send: Send) -> None:
    """Send the response to an exception outside Litestar."""
    problem = _noted(exc, scope)
    body = document(problem, instance=scope["path"])
    headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body))} | problem.headers
    fields = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _noted(exc: Exception, scope: Scope) -> Problem:
    """Return the problem of an exception, and record in the context what is counted and audited."""
    problem, context = problem_of(exc), context_of(scope)
    context.problem_code = problem.code
    context.not_allowed = exc if isinstance(exc, NotAllowed) else None
    return problem


def allow_of(methods: Iterable[str]) -> str:
    """Return the Allow field of an address: HEAD comes with GET, and OPTIONS is always allowed."""
    names = {*methods, "OPTIONS"}
    return ", ".join(sorted(names | {"HEAD"} if "GET" in names else names))


def document(problem: Problem, *, instance: str) -> bytes:
    """Return the JSON of a problem. `success` and `error` are for the seed's client."""
    fields: dict[str, Any] = {
        "type": f"urn:hms-gateway:problem:{problem.code}",
        "title": title_of(problem.status),
        "status": problem.status,
        "detail": problem.detail,
        "instance": instance,
        "code": problem.code,
        "request_id": request_id.get(),
        "success": False,
        "error": problem.detail,
    }
    return to_json(fields | problem.extra).encode()


@cache
def title_of(status: int) -> str:
    """Return RFC 9110's name of a status; Python before 3.13 has older ones."""
    return _RFC_9110.get(status, HTTPStatus(status).phrase)


def problem_of(exc: Exception) -> Problem:
    """Return the problem for an exception. An unexpected one is logged and becomes a 500 without details."""
    if isinstance(exc, Problem):
        return exc
    for kind, make in _TABLE:
        if isinstance(exc, kind):
            return make(exc)
    return _internal(exc)


def _internal(exc: Exception) -> Problem:
    log.error("unexpected %s", type(exc).__name__, exc_info=exc)
    return Problem(500, "internal", "The gateway failed unexpectedly. The operator finds the error by this request id.")


def _unauthorized(code: str) -> Callable[[Any], Problem]:
    return lambda exc: Problem(401, code, str(exc))


def _rate_limited(exc: RateLimited | TooManyRooms | Blocked) -> Problem:
    decision = exc.decision
    names = _names(decision)
    whose, owner = (" of the service key", "service key") if decision.subject.startswith(PREFIX) else ("", "account")
    reached = f"An operator has blocked this {owner} for now" if decision.block else f"Limit{whose} reached: {names}"
    wait_s = retry_after_s(decision)
    if wait_s is None:
        return Problem(422, "cost_exceeds_limit", f"The request costs more than is ever allowed at once: {names}.")
    headers = ratelimit_fields(decision) | {"Retry-After": str(wait_s), "Cache-Control": "no-store"}
    code = "quota_exceeded" if isinstance(decision.worst, QuotaState | LeaseState) else "rate_limited"
    violated = [state.name for state in decision.violated]
    extra: dict[str, Any] = {"type": QUOTA_EXCEEDED, "violated-policies": violated}
    if any(isinstance(state, QuotaState) and state.quota.metered for state in decision.violated):
        extra["budget_of"] = "user"
    return Problem(429, code, f"{reached}. Try again in {wait_s} s.", headers=headers, **extra)


_WHOSE = {"owner": "The budget of the owner of this room", "all": "The budget of this installation"}


def _budget_spent(exc: BudgetSpent) -> Problem:
    spent = exc.decision.violated
    wait_s = retry_after_s(exc.decision) or 1
    detail = f"{_WHOSE[exc.scope]} is spent: {_names(exc.decision)}. Try again in {wait_s} s."
    headers = {"Retry-After": str(wait_s), "Cache-Control": "no-store"}
    violated = [state.name for state in spent]
    extra: dict[str, Any] = {"type": QUOTA_EXCEEDED, "violated-policies": violated, "budget_of": exc.scope}
    return Problem(429, "quota_exceeded", detail, headers=headers, **extra)


def _names(decision: Decision) -> str:
    """Return the limits that denied a request, with their numbers."""
    return ", ".join(_describe(state) for state in decision.violated if not isinstance(state, BlockState))


def _describe(state: State) -> str:
    match state:
        case LimitState(name=name, rate=rate, burst=burst):
            return f"{name} ({rate}, burst {burst})"
        case QuotaState(quota=quota, amount=amount):
            return f"{quota.id} ({written(quota, amount)})"
        case LeaseState(lease=lease):
            return f"{lease.id} ({lease.most} at once)"


def _framework(exc: HTTPException) -> Problem:
    """Return the problem for a refusal by Litestar, whose texts are meant for developers and are not shown."""
    if isinstance(exc, NotFoundException):
        return Problem(404, "not_found", "This address does not exist.")
    if isinstance(exc, MethodNotAllowedException):
        allow = allow_of((exc.headers or {}).get("allow", "").split(", "))
        return Problem(405, "method_not_allowed", "This address does not support the method.", headers={"Allow": allow})
    if isinstance(exc, ClientException) and "host header" in exc.detail:
        return Problem(400, "invalid_request", "The Host header is malformed.")
    if exc.status_code >= 500:
        return _internal(exc)
    return Problem(exc.status_code, "invalid_request", HTTPStatus(exc.status_code).phrase)


_RFC_9110 = {413: "Content Too Large", 422: "Unprocessable Content"}


def _later(status: int, code: str, seconds: Callable[[Any], int]) -> Callable[[Any], Problem]:
    return lambda exc: Problem(status, code, str(exc), headers={"Retry-After": str(seconds(exc))})


_UNCONFIRMED = (
    "The database did not confirm in time that the change is on disk. A new account has not been created. Any other "
    "change is in force, but a crash of the database may still undo it. Check its state before you repeat the request."
)


def _store_away(exc: Exception) -> Problem:
    if isinstance(exc, RedisError):
        log_refusal(exc)
    text = "The gateway cannot reach its database. Try again in a moment."
    return Problem(503, "unavailable", text, headers={"Retry-After": "1"})


def _archive_away(exc: Exception) -> Problem:
    log.error("%s", exc)
    text = "The usage of past days cannot be read for now. Ask for the last 35 days, or try again later."
    return Problem(503, "unavailable", text, headers={"Retry-After": "60"})


def _breaches_away(exc: Exception) -> Problem:
    log.critical("the file of breached passwords cannot be read: %s", exc)
    text = "New passwords are refused for now because they cannot be checked. The operator has been notified."
    return Problem(503, "unavailable", text, headers={"Retry-After": "60"})


# The first match wins, so subclasses come before their parents.
_TABLE: list[tuple[type[Exception] | tuple[type[Exception], ...], Callable[[Any], Problem]]] = [
    ((RateLimited, TooManyRooms, Blocked), _rate_limited),
    (BudgetSpent, _budget_spent),
    (TokenExpired, _unauthorized("token_expired")),
    (InvalidToken, _unauthorized("invalid_token")),
    (InvalidCredentials, lambda exc: Problem(401, "invalid_credentials", str(exc), headers=CHALLENGE)),
    (KeysUnavailable, _later(503, "unavailable", lambda exc: exc.retry_after_s)),
    (InvalidGrant, lambda exc: Problem(400, "invalid_grant", str(exc))),
    (InvalidVoucher, lambda exc: Problem(403, "invite_invalid", str(exc))),
    (UserExists, lambda exc: Problem(409, "user_exists", str(exc))),
    (UnknownUser, lambda exc: Problem(404, "not_found", str(exc))),
    (UnknownKey, lambda exc: Problem(404, "not_found", str(exc))),
    (BadUsername, lambda exc: invalid("username", str(exc))),
    (WeakPassword, lambda exc: Problem(422, "weak_password", str(exc), reasons=exc.reasons)),
    ((FieldError, BadKey), lambda exc: invalid(exc.field, exc.rule)),
    (TemplateNotAllowed, lambda exc: Problem(403, "template_not_allowed", str(exc), allowed_templates=exc.allowed)),
    (RoomGone, lambda exc: Problem(404, "not_found", str(exc))),
    ((NoWebhook, NoSession), lambda exc: Problem(404, "not_found", str(exc))),
    (WrongSecret, lambda exc: Problem(401, "invalid_credentials", str(exc), headers=CHALLENGE)),
    (IntakeFull, _later(503, "busy", lambda _: 10)),
    (TooManyStreams, _later(503, "busy", lambda _: 30)),
    ((Overtaken, AdminsBusy), _later(503, "busy", lambda _: 1)),
    (NameTaken, lambda exc: Problem(409, "name_taken", str(exc))),
    (LockedMeanwhile, lambda exc: Problem(409, "room_disabled", str(exc))),
    (InFlight, _later(409, "idempotency_conflict", lambda _: 1)),
    (OtherRequest, lambda exc: Problem(422, "idempotency_mismatch", str(exc))),
    ((NotAllowed, Forbidden), lambda exc: Problem(403, "forbidden", str(exc))),
    (RegistrationClosed, lambda exc: Problem(403, "registration_closed", str(exc))),
    (LastAdmin, lambda exc: Problem(409, "last_admin", str(exc))),
    (Busy, _later(503, "busy", lambda exc: exc.retry_after_s)),
    (HmsBusy, _later(503, "upstream_busy", lambda exc: exc.retry_after_s)),
    (HmsTimeout, lambda exc: Problem(504, "upstream_timeout", str(exc))),
    ((HmsRefused, HmsUnreachable), lambda exc: Problem(502, "upstream_error", str(exc))),
    (NotDurable, lambda _: Problem(503, "unavailable", _UNCONFIRMED, headers={"Retry-After": "1"})),
    ((StoreError, RedisError), _store_away),
    (ArchiveError, _archive_away),
    (BadBreachFile, _breaches_away),
    (HTTPException, _framework),
]

"""What one call does, without sending anything: both clients carry out the same steps, each in its own way.

A flow is a generator. It yields a request and gets the response, a Wait, or a Locked flow, which only one caller at a
time may carry out.
"""

import re
import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

import httpx
import msgspec

from gateway.client import calls
from gateway.client.calls import Call
from gateway.client.problem import GatewayProblem, GatewayUnreachable, problem_of, rate_limits_of
from gateway.client.shapes import RateLimit, Tokens, User

T = TypeVar("T")

_EARLY_S = 30.0  # the access token is renewed this long before it expires
_REFUSED = ("token_expired", "invalid_token")
_BASE_URL = re.compile(r"https?://[^\s/?#@\\]+(?:/[^\s?#\\]*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Wait:
    """Continue after this many seconds."""

    s: float


@dataclass(frozen=True, slots=True)
class Locked:
    """Carry out a flow while no other caller carries one out that is locked."""

    flow: "Flow[Any]"


Step: TypeAlias = httpx.Request | Wait | Locked
Flow: TypeAlias = Generator[Step, Any, T]


@dataclass(frozen=True, slots=True)
class Session:
    """A login, to be kept and given to another client. `renew_at` is in epoch seconds."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    renew_at: float
    id: str
    user: User


@dataclass(slots=True, kw_only=True)
class Flows:
    """The state of a client, and its flows.

    An answer takes `timeout_s` at most, a call `retries` repetitions and `wait_s` of waiting.
    """

    base_url: str
    key: str = field(default="", repr=False)
    user_id: str = ""
    session: Session | None = None
    timeout_s: float = 15.0
    retries: int = 2
    wait_s: float = 10.0
    rate_limits: tuple[RateLimit, ...] = ()

    def __post_init__(self) -> None:
        if not _BASE_URL.fullmatch(self.base_url):  # the value is not repeated: it may contain a password
            raise ValueError("base_url must be the gateway's http:// or https:// address")
        self.base_url = self.base_url.rstrip("/").removesuffix("/api")
        if self.user_id and not self.key:
            raise ValueError("only a client with a service key acts for users")

    def acting_as(self, user_id: str) -> "Flows":
        """Return the same for a user for whom the service key acts."""
        return replace(self, user_id=user_id, rate_limits=())

    def run(self, call: Call[T]) -> Flow[T]:
        """Send a call as the caller; once more with new tokens if the gateway refuses the token, and so did nothing."""
        if self.key:
            return (yield from self._send(call, self.key))
        session = yield from self._current()
        try:
            return (yield from self._send(call, session.access_token))
        except GatewayProblem as problem:
            if problem.code not in _REFUSED:
                raise
        yield Locked(self._renew(session))
        return (yield from self._send(call, self._required().access_token))

    def public(self, call: Call[T]) -> Flow[T]:
        """Send a call without credentials."""
        return (yield from self._send(call, ""))

    def log_in(self, call: Call[Tokens]) -> Flow[User]:
        """Log in by a call that answers tokens."""
        if self.key:
            raise ValueError("a client with a service key does not log in")
        return self._adopt((yield from self._send(call, ""))).user

    def log_out(self, scope: str) -> Flow[None]:
        """End this session, the user's others, or all. Unless it is `others`, the login is forgotten in any case."""
        if (session := self.session) is None:
            return
        if scope != "others":
            self.session = None
        try:
            yield from self._send(calls.logout(session.refresh_token, scope), "")
        except GatewayProblem as problem:
            if problem.code != "invalid_grant" or scope == "others":
                raise

    def refresh(self) -> Flow[User]:
        """Renew the tokens now, for example after a change of roles."""
        yield Locked(self._renew(self._required()))
        return self._required().user

    def _current(self) -> Flow[Session]:
        session = self._required()
        if time.time() >= session.renew_at:
            yield Locked(self._renew(session))
        return self._required()

    def _renew(self, used: Session) -> Flow[None]:
        """Replace the tokens unless another caller has replaced them meanwhile."""
        held = self._required()
        if held is not used:
            return
        try:
            self._adopt((yield from self._send(calls.refresh(held.refresh_token), "")), held)
        except GatewayProblem as problem:
            if problem.code == "invalid_grant" and self.session is held:
                self.session = None
            raise

    def _adopt(self, tokens: Tokens, before: Session | None = None) -> Session:
        if before is not None and self.session is not before:
            raise _no_session("The login changed while this call was running.")
        early_s = min(_EARLY_S, tokens.expires_in / 4)
        renew_at = time.time() + tokens.expires_in - early_s
        self.session = Session(tokens.access_token, tokens.refresh_token, renew_at, tokens.session_id, tokens.user)
        return self.session

    def _required(self) -> Session:
        if self.session is None:
            raise _no_session("Log in first.")
        return self.session

    def _send(self, call: Call[T], credential: str) -> Flow[T]:
        waited_s, repeated = 0.0, 0
        while True:
            try:
                response = yield self._request(call, credential)
                return self._read(call, response)
            except GatewayProblem as problem:
                under_way = problem.code == "idempotency_conflict" and call.repeatable
                harmless = problem.status == 429 or under_way or (problem.status == 503 and call.repeatable)
                wait_s = problem.retry_after_s
                if wait_s is None or not harmless or waited_s + wait_s > self.wait_s:
                    raise
                if repeated >= self.retries and not (under_way and self.retries):
                    raise
            repeated += not under_way  # its first attempt will end; only the time limits this
            waited_s += wait_s
            yield Wait(wait_s)

    def _request(self, call: Call[Any], credential: str) -> httpx.Request:
        headers = {"Accept": "application/json", **call.headers}
        if credential:
            headers["Authorization"] = f"Bearer {credential}"
        if self.user_id:
            headers["X-Act-As"] = self.user_id
        body = None
        if call.body is not None:
            headers["Content-Type"] = "application/json"
            body = msgspec.json.encode(call.body)
        url = f"{self.base_url}{call.path}"
        request = httpx.Request(call.method, url, params=call.query or None, headers=headers, content=body)
        request.extensions |= {"gateway.call": call.name, "timeout": httpx.Timeout(self.timeout_s).as_dict()}
        return request

    def _read(self, call: Call[T], response: httpx.Response) -> T:
        if limits := rate_limits_of(response.headers):
            self.rate_limits = limits
        if not response.is_success:
            raise problem_of(response.status_code, response.headers, response.content)
        if call.answers is None:
            return None  # type: ignore[return-value]  # Call[None]
        try:
            answer: T = msgspec.json.decode(response.content, type=call.answers)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            text = f"{call.name}: the answer did not come from a gateway. Check the base URL."
            raise GatewayProblem(response.status_code, "unexpected_answer", text) from None
        return answer


def unreachable(request: httpx.Request, error: httpx.HTTPError) -> GatewayUnreachable:
    """Return the error for a request without an answer. It names the call, and not the URL or the headers."""
    name = request.extensions.get("gateway.call", request.method)
    if isinstance(error, httpx.TimeoutException):
        return GatewayUnreachable(f"{name}: no answer in time", timed_out=True)
    return GatewayUnreachable(f"{name}: the gateway cannot be reached ({type(error).__name__})")


def _no_session(text: str) -> GatewayProblem:
    return GatewayProblem(401, "no_session", text)

"""One call to 100ms: time limit, concurrency limit, retries, and the meaning of the answer."""

import asyncio
import json
import logging
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import stamina
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from gateway.breaker import Breaker

from .errors import HmsBusy, HmsError, HmsNotFound, HmsRefused, HmsTimeout, HmsUnauthorized, HmsUnreachable
from .replies import unusable
from .tokens import HmsTokens

log = logging.getLogger("gateway.hms")

CONNECT_TIMEOUT_S = 2.0
TOTAL_TIMEOUT_S = 5.0
MOST_IN_FLIGHT = 50
MOST_REPLY_BYTES = 1 << 20
ATTEMPTS = 3
# 0.05 to 0.25 s, then 0.1 to 0.3 s: short, because a user waits; random, so that calls that failed together spread out.
FIRST_WAIT_S, JITTER_S, LONGEST_WAIT_S = 0.05, 0.2, 0.5
_LEAST_LEFT_S = 1.0  # an attempt with less time would only turn a clear error into a timeout
_DEFAULT_BUSY_S, _LONGEST_BUSY_S = 5, 300
_ID = re.compile(r"[0-9a-f]{24}")  # every id that a path of ours can have


@dataclass(frozen=True, slots=True)
class Call:
    """A request to 100ms. `path` is already encoded. With `may_be_missing`, a 404 is not logged as an error."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    query: Mapping[str, str] | None = None
    may_be_missing: bool = False
    most_bytes: int = MOST_REPLY_BYTES

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def template(self) -> str:
        """The path without the ids in it."""
        return _ID.sub("{id}", self.path)


OnCall = Callable[[Call, str, float], None]


class _ServerError(Exception):
    """100ms answered 5xx."""


# Failures that a second attempt may overcome. A timeout of the answer is not among them: it has used up the time of the
# whole call.
_TRANSIENT = (httpx.NetworkError, httpx.ConnectTimeout, httpx.RemoteProtocolError, _ServerError)


class Calls:
    """Makes calls to 100ms, at most 50 at once, each within 5 s including retries. Each process has one instance.

    Retries a call after a transient failure, so every call must be safe to send twice. Each of `on_call` receives a
    call, how it ended (`ok`, `cancelled` or the `outcome` of an error) and how many seconds it took.
    """

    def __init__(self, http: httpx.AsyncClient, tokens: HmsTokens, on_call: Sequence[OnCall] = ()) -> None:
        self._on_call = on_call
        self._http = http
        self._tokens = tokens
        self._in_flight = 0
        self._breaker = Breaker()
        self._busy_until = 0.0
        self.answered_ms: int | None = None  # when 100ms last did, whatever its answer was
        self.failed_ms: int | None = None  # when it last gave none, or a 5xx

    @property
    def state(self) -> str:
        """The breaker's state: closed, open (calls fail at once) or half-open (one call probes)."""
        return self._breaker.state

    async def make(self, call: Call) -> dict[str, Any]:
        """Return the JSON object that 100ms answers. Raises: HmsError"""
        begun, outcome = time.perf_counter(), "cancelled"
        try:
            reply = await self._make(call)
            outcome = "ok"
            return reply
        except HmsError as error:
            outcome = error.outcome
            raise
        finally:
            for note in self._on_call:
                note(call, outcome, time.perf_counter() - begun)

    async def _make(self, call: Call) -> dict[str, Any]:
        self._check_free()
        generation = self._breaker.generation
        self._in_flight += 1
        try:
            reply = await self._within_time(call)
        except (HmsTimeout, HmsUnreachable):
            self._breaker.failed(generation)
            self.failed_ms = _now_ms()
            raise
        except HmsBusy as error:
            self._busy_until = max(self._busy_until, time.monotonic() + error.retry_after_s)
            self._answered()
            raise
        except HmsRefused:
            self._answered()  # 100ms answered, so it works
            raise
        finally:
            self._in_flight -= 1  # also if the caller is cancelled
        self._answered()
        return reply

    def _answered(self) -> None:
        self._breaker.succeeded()
        self.answered_ms = _now_ms()

    def _check_free(self) -> None:
        """Refuse a call while 100ms or the gateway is at its limit. Raises: HmsBusy"""
        wait_s = math.ceil(self._busy_until - time.monotonic())
        if wait_s > 0:
            raise HmsBusy("100ms is rate-limiting the gateway. Try again later.", wait_s)
        if self._in_flight >= MOST_IN_FLIGHT:
            raise HmsBusy("The gateway is making too many calls to 100ms. Try again in a moment.", 1)
        if not self._breaker.allows():
            raise HmsBusy("100ms has failed too often. Try again in a moment.", 1)

    async def _within_time(self, call: Call) -> dict[str, Any]:
        try:
            async with asyncio.timeout(TOTAL_TIMEOUT_S):
                return await self._attempt_until(call, time.monotonic() + TOTAL_TIMEOUT_S - _LEAST_LEFT_S)
        except (TimeoutError, httpx.TimeoutException) as error:
            log.warning("100ms timed out: %s", call)
            raise HmsTimeout("100ms did not answer in time.") from error
        except _ServerError as error:
            log.warning("100ms answered %s with %s", call, error)
            raise HmsUnreachable("100ms is not working. Try again later.") from error
        except httpx.DecodingError as error:
            log.warning("100ms gave an unreadable answer to %s: %s", call, error)
            raise unusable() from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            log.warning("100ms cannot be reached: %s: %s", call, type(error).__name__)
            raise HmsUnreachable("100ms cannot be reached.") from error

    async def _attempt_until(self, call: Call, last_begin: float) -> dict[str, Any]:
        attempts = stamina.retry_context(
            on=self._may_repeat(last_begin),
            attempts=ATTEMPTS,
            timeout=None,  # stamina would check it only between attempts
            wait_initial=FIRST_WAIT_S,
            wait_jitter=JITTER_S,
            wait_max=LONGEST_WAIT_S,
        )
        async for attempt in attempts:
            with attempt:
                return _interpret(call, *await self._send(call))
        raise AssertionError  # the last attempt either returned or raised

    def _may_repeat(self, last_begin: float) -> Callable[[Exception], bool]:
        def may_repeat(error: Exception) -> bool:
            # No retry while 100ms is down (the breaker is open, or this call is its probe) or after a 429.
            available = self._breaker.state == "closed" and time.monotonic() >= self._busy_until
            return isinstance(error, _TRANSIENT) and available and time.monotonic() + LONGEST_WAIT_S < last_begin

        return may_repeat

    async def _send(self, call: Call) -> tuple[int, str, bytes]:
        # No compression: a small answer could otherwise expand to any size before it is measured.
        headers = {"Authorization": f"Bearer {self._tokens.management_token()}", "Accept-Encoding": "identity"}
        request = self._http.build_request(call.method, call.path, params=call.query, json=call.body, headers=headers)
        response = await self._http.send(request, stream=True, follow_redirects=False)
        try:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise httpx.DecodingError("the reply is compressed, but no compression was requested")
            content = bytearray()
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > call.most_bytes:
                    raise httpx.DecodingError("the reply is too large")
            return response.status_code, response.headers.get("retry-after", ""), bytes(content)
        finally:
            await response.aclose()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _interpret(call: Call, status: int, retry_after: str, content: bytes) -> dict[str, Any]:
    """Return the JSON object of an answer. Raises: HmsError, _ServerError"""
    if status in (401, 403):
        log.critical("100ms rejected our credentials (%s): check HMS_APP_ACCESS_KEY and HMS_APP_SECRET", status)
        raise HmsUnauthorized("100ms rejected the gateway's credentials. The operator must fix them.")
    if status == 429 or (status == 503 and retry_after):
        raise HmsBusy("100ms is rate-limiting the gateway. Try again later.", _wait_s(retry_after, content))
    if status >= 500:
        raise _ServerError(status)
    if status == 404 and _message(content):
        level = logging.DEBUG if call.may_be_missing else logging.ERROR
        log.log(level, "100ms found nothing for %s: %s", call, _message(content))
        raise HmsNotFound("100ms does not know this id.")
    if status >= 400:
        log.error("100ms refused %s with %s: %s", call, status, _message(content) or "(no message)")
        raise HmsRefused("100ms refused the request.")
    if not 200 <= status < 300:
        log.error("100ms answered %s with %s, which is not followed: check HMS_API_URL", call, status)
        raise HmsUnreachable("100ms is not working. Try again later.")
    try:
        reply = json.loads(content)
    except (ValueError, RecursionError) as error:
        log.warning("100ms did not answer %s with JSON", call)
        raise unusable() from error
    if not isinstance(reply, dict):
        raise unusable()
    return reply


def _wait_s(retry_after: str, content: bytes) -> int:
    """Return how long to make no calls: from the header, or from the text, which is all that 100ms documents."""
    given = re.fullmatch(r"([0-9]{1,9})", retry_after) or re.search(r"retry after ([0-9]{1,9}) s", _message(content))
    wait_s = int(given[1]) if given else _until_date_s(retry_after)
    return max(1, min(wait_s, _LONGEST_BUSY_S))


def _until_date_s(retry_after: str) -> int:
    """Read a Retry-After that is a date (RFC 9110 section 10.2.3)."""
    try:
        return math.ceil(parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return _DEFAULT_BUSY_S


def _message(content: bytes) -> str:
    """Return the `message` of a documented error body for the log, or an empty text."""
    try:
        return str(json.loads(content)["message"])[:200]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def _log_retry(details: RetryDetails) -> None:
    log.info("100ms failed (%s); retrying in %.2f s", type(details.caused_by).__name__, details.wait_for)


# By default stamina reports through any library that it finds installed, such as prometheus_client.
set_on_retry_hooks([_log_retry])

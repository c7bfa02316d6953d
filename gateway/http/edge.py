"""The outermost ASGI wrapper. It sees every request, including those that no middleware or route sees (404, 405)."""

import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from litestar.enums import ScopeType
from litestar.exceptions import NotFoundException
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from gateway.http.client_address import ClientAddresses, site_of
from gateway.http.context import context_of
from gateway.http.cors import Cors, Headers, origin_of
from gateway.http.problems import RateLimited, send_problem
from gateway.logs import event, path_to_log, request_id, service_key
from limits.local import LocalBuckets
from limits.policy import Charge, Decision, Limit

log = logging.getLogger("gateway.access")

REFUSED = "gateway.refused"  # scope key under which the server leaves the problem of a request it could not parse

# OWASP REST Security Cheat Sheet, "Security Headers". JSON needs them too: an error or a report opened in a browser is
# a page. Cross-Origin-Resource-Policy restricts embedding only; it blocks no request that CORS allows.
_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
# Defaults: a page sets its own.
_DEFAULTS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"permissions-policy", b"camera=(), display-capture=(), geolocation=(), microphone=()"),
    (b"referrer-policy", b"no-referrer"),
)
_DEFAULT_NAMES = frozenset(name for name, _ in _DEFAULTS)
# RFC 6797; without includeSubDomains, because subdomains may belong to other parties.
_YEAR_OF_HTTPS = (b"strict-transport-security", b"max-age=31536000")
_EXEMPT = frozenset({"/health/live", "/health/ready"})  # a monitor must never be rate-limited
# The normal form of a path: no empty or dotted segment, and nothing encoded that needs no encoding or is a slash, a
# backslash or a control (RFC 3986 section 6.2.2). Litestar finds a route by most other spellings too, and so past the
# rules of a proxy for its path.
_NORMAL = re.compile(
    rb"/|(?:/(?!\.{0,2}(?:/|$))[^/%]*+"
    rb"(?:%(?:2[0-9A-Ca-c]|3[A-Fa-f]|40|5[BDEbde]|60|7[BCDbcd]|[89A-Fa-f][0-9A-Fa-f])[^/%]*+)*+)++"
)


@dataclass(slots=True)
class Edge:
    """Adds the request id and the fixed headers to every response, logs it, and answers uncaught exceptions.

    Everything inside sees a HEAD request as GET, so that both pass the same checks (RFC 9110 section 9.3.2).
    """

    app: ASGIApp
    _: KW_ONLY
    addresses: ClientAddresses
    flood: Callable[[], Limit]  # called for every request: the policy may have changed
    cors: Cors = field(default_factory=lambda: Cors(()))
    https: bool = False
    is_exempt: Callable[[Scope], bool] = lambda _: False  # the flood limit spares these requests
    hides: Callable[[Scope], bool] | None = None  # these do not exist on the listener that they came to
    on_request: Callable[[Any], None] | None = None  # gets the server's scope; not of health checks
    on_response: Sequence[Callable[[Any, int, float], None]] = ()  # scope, status (0: the client had gone), seconds
    _always: Headers = field(init=False)
    _buckets: LocalBuckets = field(init=False)

    def __post_init__(self) -> None:
        self._always = [*_ALWAYS, _YEAR_OF_HTTPS] if self.https else [*_ALWAYS]
        self._buckets = LocalBuckets(lambda: time.monotonic_ns() // 1000)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self.app(scope, receive, send)
            return
        rid = os.urandom(12).hex()  # never the caller's own: it could forge log lines
        token = request_id.set(rid)
        begun = time.perf_counter()
        status = 0
        if self.on_request is not None and scope["path"] not in _EXEMPT:
            self.on_request(scope)
        method = scope["method"]
        cors = self.cors.fields(origin_of(scope["headers"]))
        added = [*cors, (b"x-request-id", rid.encode()), *self._always]

        async def finish(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _headers(message.get("headers", ()), added)
            elif method == "HEAD" and message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        address = self.addresses.find((scope.get("client") or ("",))[0], scope["headers"])
        # A copy: the server looks at its own to know whether a body may follow.
        inner: Any = {**scope, "client": (address, 0), "method": "GET" if method == "HEAD" else method}
        context = context_of(inner)
        context.client, context.is_head = address, method == "HEAD"  # nothing reads X-Forwarded-For again
        try:
            if scope["path"] not in _EXEMPT and not self.is_exempt(scope):
                self._slow_down(site_of(address))
            if refused := inner.get(REFUSED):
                raise refused
            if not _NORMAL.fullmatch(inner["raw_path"]) or (self.hides is not None and self.hides(scope)):
                raise NotFoundException
            preflight = self.cors.preflight(method, scope["headers"], cors)
            if preflight is not None:
                await finish({"type": "http.response.start", "status": 204, "headers": preflight})
                await finish({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await self.app(inner, receive, finish)
        except Exception as error:
            if status:
                raise  # the response has begun: the server can only close the connection
            await send_problem(error, inner, finish)
        finally:
            self._report(inner, method, status, time.perf_counter() - begun)
            request_id.reset(token)
            service_key.set("")

    def _report(self, scope: Any, method: str, status: int, seconds: float) -> None:
        _log(scope, method, status, seconds)
        for note in self.on_response:
            note(scope, status, seconds)

    def _slow_down(self, site: str) -> None:
        """Refuse a flood from one address before it costs a Redis call. Raises: RateLimited"""
        flood = self.flood()
        state = self._buckets.take(site, flood)
        if state is not None and state.decides:
            raise RateLimited(Decision("", site, "", 0, allowed=False, limits=(state,), charges=(Charge(flood),)))


def _headers(given: Any, added: Headers) -> Headers:
    names = {name.lower() for name, _ in given}
    if names.isdisjoint(_DEFAULT_NAMES):
        return [*given, *_DEFAULTS, *added]
    return [*given, *(field for field in _DEFAULTS if field[0] not in names), *added]


def _log(scope: Any, method: str, status: int, seconds: float) -> None:
    """Write the access log line: the path without its query, and the user if logged in; no header and no body."""
    if status == 200 and scope["path"] in _EXEMPT:
        return  # health checks come every few seconds; only those that fail are logged
    fields = {"method": method, "path": path_to_log(scope["path"]), "status": status}
    fields["ms"] = round(seconds * 1000, 1)
    if admitted := context_of(scope).admitted:
        fields["user"] = admitted.principal.uid
        if key := admitted.principal.key:
            fields["key"] = key.id
    event(log, "request", fields)

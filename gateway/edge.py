"""The outermost ASGI wrapper: it sees every request, also those that no route or middleware gets to see (404, 405)."""

from __future__ import annotations

import logging
import secrets
import time
from typing import Any

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from gateway.addresses import ClientAddresses, site_of
from gateway.logs import request_id
from gateway.problems import MEDIA_TYPE, RateLimited, document, problem_of
from limits.local import LocalBuckets
from limits.policy import Charge, Decision, Limit

log = logging.getLogger("gateway.access")

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_EXEMPT = frozenset({"/health/live", "/health/ready"})  # whoever watches us must not be sent away
_NO_STORE = (b"cache-control", b"no-store")


class Edge:
    """Gives every response a request id and its fixed headers, logs it, and answers what escaped everything else."""

    def __init__(self, app: ASGIApp, *, addresses: ClientAddresses, flood: Limit) -> None:
        self._app = app
        self._addresses = addresses
        self._flood = Charge(flood)
        self._buckets = LocalBuckets(lambda: time.monotonic_ns() // 1000)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        rid = secrets.token_hex(12)  # always ours: a caller's own would let him forge log lines
        token = request_id.set(rid)
        begun = time.perf_counter()
        status = 0

        async def finish(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", []))
                if not any(name.lower() == b"cache-control" for name, _ in headers):
                    headers.append(_NO_STORE)
                message["headers"] = [*headers, (b"x-request-id", rid.encode()), *_HEADERS]
            await send(message)

        address = self._addresses.find((scope.get("client") or ("",))[0], scope["headers"])
        scope["client"] = (address, 0)  # from here on everybody asks the scope, and nobody reads the header again
        try:
            if scope["path"] not in _EXEMPT:
                self._slow_down(site_of(address))
            await self._app(scope, receive, finish)
        except Exception as error:
            if status:
                raise  # the response has begun: the server can only cut the connection
            status = await _answer(error, scope, finish)
        finally:
            _log(scope, status, begun)
            request_id.reset(token)

    def _slow_down(self, site: str) -> None:
        """Refuse a flood from one address before it costs anything. Raises: RateLimited"""
        states, allowed = self._buckets.take(site, (self._flood,))
        if not allowed:
            raise RateLimited(Decision("", site, "", 0, allowed=False, limits=states, charges=(self._flood,)))


async def _answer(error: Exception, scope: Any, send: Send) -> int:
    problem = problem_of(error)
    headers = [(b"content-type", MEDIA_TYPE.encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": document(problem, instance=scope["path"]), "more_body": False})
    return problem.status


def _log(scope: Any, status: int, begun: float) -> None:
    """Write the access line: the path without its query, and who, if he is known; no header, no body."""
    fields = {"method": scope["method"], "path": scope["path"], "status": status}
    fields["ms"] = round((time.perf_counter() - begun) * 1000, 1)
    if user := scope.get("user"):
        fields["user"] = user.uid
    # Health checks come every few seconds and say nothing, unless they fail.
    quiet = status == 200 and scope["path"] in _EXEMPT
    log.log(logging.DEBUG if quiet else logging.INFO, "request", extra={"fields": fields})

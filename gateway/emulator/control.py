"""The emulator's own levers for tests: fault rules, and the record of calls. Loopback only, no token."""

from __future__ import annotations

import ipaddress
import re
from collections import deque
from typing import Annotated, Any

import msgspec
from litestar import Request, delete, get, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler

from gateway.emulator import wire
from gateway.emulator.errors import ApiError, bad_body
from gateway.emulator.faults import Fault, FaultRules

_KEPT_CALLS = 200
# Whatever looks like a JWT, wherever a mistaken client has put it: an encoded JSON object, a dot, and so on.
_TOKEN = re.compile(r"eyJ[\w-]*\.[\w-]*(?:\.[\w-]*)*")


class CallLog:
    """The last REST calls, oldest first, without headers and with every token struck out."""

    def __init__(self) -> None:
        self._calls: deque[msgspec.Raw] = deque(maxlen=_KEPT_CALLS)

    def record(self, method: str, path: str, query: str, body: bytes) -> None:
        """Keep one call as it came in; a body that is not JSON is kept as null."""
        try:
            content = msgspec.json.decode(body)
        except (ValueError, RecursionError):
            content = None
        # Struck out of the decoded and re-encoded text, so that an escape such as \u0065yJ hides nothing.
        text = msgspec.json.encode({"method": method, "path": path, "query": query, "body": content})
        self._calls.append(msgspec.Raw(_TOKEN.sub("[token]", text.decode()).encode()))

    def calls(self) -> list[msgspec.Raw]:
        """The calls, each an encoded `{method, path, query, body}`."""
        return list(self._calls)


class _Rule(msgspec.Struct, forbid_unknown_fields=True):
    match: Annotated[str, msgspec.Meta(pattern="^/")]
    fault: str
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None


@post("/faults", status_code=200)
async def add_fault(request: Request[Any, Any, Any], faults: NamedDependency[FaultRules]) -> dict[str, Any]:
    """Let a fault strike calls at or below a path, `times` times or until it is cleared."""
    rule = await wire.read_body(request, _Rule)
    try:
        fault = Fault.parse(rule.fault)
    except ValueError as error:
        raise bad_body(str(error)) from None
    faults.add(rule.match, fault, rule.times)
    return {"match": rule.match, "fault": rule.fault, "times": rule.times}


@delete("/faults")
async def clear_faults(faults: NamedDependency[FaultRules]) -> None:
    """Forget all rules."""
    faults.clear()


@get("/calls")
async def list_calls(calls: NamedDependency[CallLog]) -> dict[str, Any]:
    """Show the last REST calls, oldest first, those that a fault struck included."""
    return {"calls": calls.calls()}


ROUTES = (add_fault, clear_faults, list_calls)


def require_loopback(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Answer 403 to whoever is not on this machine."""
    host = connection.client.host if connection.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    mapped = getattr(address, "ipv4_mapped", None)
    if address is None or not (mapped or address).is_loopback:
        raise ApiError(403, "Forbidden", "control endpoints answer to loopback clients only")

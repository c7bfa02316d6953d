"""Control calls for tests: fault rules and the log of calls.

They need no token on this machine. Other machines, such as a container beside the emulator's, need a management token.
"""

import ipaddress
import re
from collections import deque
from typing import Annotated, Any

import msgspec
from litestar import delete, get, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard

from gateway.emulator.errors import ApiError, bad_body
from gateway.emulator.faults import Fault, FaultRules
from gateway.emulator.tokens import Verifier, management_guard
from gateway.emulator.wire import Call, Reply, read_body

_KEPT_CALLS = 200
# Anything that looks like a JWT, wherever a faulty client has put it: an encoded JSON object, a dot, and so on.
_TOKEN = re.compile(r"eyJ[\w-]*\.[\w-]*(?:\.[\w-]*)*")


class CallLog:
    """The last REST calls, oldest first, without headers and with every token removed."""

    def __init__(self) -> None:
        self._calls: deque[msgspec.Raw] = deque(maxlen=_KEPT_CALLS)

    def record(self, method: str, path: str, query: str, body: bytes) -> None:
        """Record one call. A body that is not JSON becomes null."""
        try:
            content = msgspec.json.decode(body)
        except (ValueError, RecursionError):
            content = None
        # Tokens are removed after decoding and encoding, so that an escape such as \u0065yJ cannot hide one.
        text = msgspec.json.encode({"method": method, "path": path, "query": query, "body": content})
        self._calls.append(msgspec.Raw(_TOKEN.sub("[token]", text.decode()).encode()))

    def calls(self) -> list[msgspec.Raw]:
        """Return the calls, each an encoded `{method, path, query, body}`."""
        return list(self._calls)


class _Rule(msgspec.Struct, forbid_unknown_fields=True):
    match: Annotated[str, msgspec.Meta(pattern="^/")]
    fault: str
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None


@post("/faults", status_code=200)
async def add_fault(request: Call, faults: NamedDependency[FaultRules]) -> Reply:
    """Apply a fault to requests at or below a path, `times` times or until it is cleared."""
    rule = await read_body(request, _Rule)
    try:
        fault = Fault.parse(rule.fault)
    except ValueError as error:
        raise bad_body(str(error)) from None
    faults.add(rule.match, fault, rule.times)
    return msgspec.structs.asdict(rule)


@delete("/faults")
async def clear_faults(faults: NamedDependency[FaultRules]) -> None:
    """Remove all fault rules."""
    faults.clear()


@get("/calls")
async def list_calls(calls: NamedDependency[CallLog]) -> Reply:
    """Return the last REST calls, oldest first, including those with a fault."""
    return {"calls": calls.calls()}


ROUTES = (add_fault, clear_faults, list_calls)


def control_guard(verifier: Verifier) -> Guard:
    """Return the guard of the control calls: clients on other machines get 403 without a management token."""
    require_management_token = management_guard(verifier)

    def require_loopback_or_token(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        if _is_loopback(connection.client.host if connection.client else ""):
            return
        if "authorization" not in connection.headers:
            raise ApiError(403, "Forbidden", "control endpoints need a management token from other machines")
        require_management_token(connection, handler)

    return require_loopback_or_token


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    mapped = getattr(address, "ipv4_mapped", None)
    return address is not None and (mapped or address).is_loopback

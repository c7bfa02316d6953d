"""The 100ms REST API, as far as the gateway needs it (100ms docs: server-side v2, API reference).

HmsError
├── HmsRefused      100ms understood and said no: our request or our credentials are wrong
├── HmsUnreachable  it could not be reached, or answered nonsense or a server error
├── HmsTimeout      it did not answer in time; whether it acted is not known
└── HmsBusy         it, or our share of it, is at its limit; `retry_after_s` says for how long
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import time
from dataclasses import dataclass
from typing import Any

import httpx

from gateway.breaker import Breaker

from .tokens import HmsTokens

log = logging.getLogger("gateway.hms")

CONNECT_TIMEOUT_S = 2.0
TOTAL_TIMEOUT_S = 5.0
MOST_IN_FLIGHT = 50
MOST_REPLY_BYTES = 1 << 20
ROLES_TTL_S = 300.0
_ROLES_RETRY_S = 5.0

ROOM_ID = re.compile(r"[0-9a-f]{24}")


class HmsError(Exception):
    """Base of what can go wrong with 100ms. The text says nothing of what 100ms answered."""


class HmsRefused(HmsError):
    """100ms refused a request of ours, or our credentials."""


class HmsUnreachable(HmsError):
    """100ms cannot be reached or does not work."""


class HmsTimeout(HmsError):
    """100ms did not answer in time."""


class HmsBusy(HmsError):
    """100ms is at its limit, or all our connections to it are in use."""

    def __init__(self, text: str, retry_after_s: int) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class HmsRoom:
    """A room as 100ms holds it, without the fields the gateway has no use for."""

    id: str
    name: str
    enabled: bool


class HmsClient:
    """Calls 100ms. `http` belongs to the caller: its base URL and transport are his, the time limits are ours."""

    def __init__(self, http: httpx.AsyncClient, tokens: HmsTokens) -> None:
        self._http = http
        self._tokens = tokens
        self._in_flight = 0
        self._breaker = Breaker()
        self._busy_until = 0.0
        self._roles: dict[str, tuple[frozenset[str], float]] = {}
        self._roles_asked: dict[str, float] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def create_room(
        self, *, name: str, description: str, template_id: str, region: str, size: int, max_duration_s: int
    ) -> HmsRoom:
        """Create a room. The name must be new: 100ms answers an existing one by rewriting that room.

        Raises:
            HmsError: see the module.
        """
        body = {"name": name, "description": description, "template_id": template_id, "region": region, "size": size}
        reply = await self._call("POST", "/rooms", body | {"max_duration_seconds": max_duration_s})
        room = HmsRoom(str(reply.get("id")), str(reply.get("name")), reply.get("enabled") is not False)
        if not ROOM_ID.fullmatch(room.id) or room.name.casefold() != name.casefold():
            # An answer about another room must never be registered as ours.
            log.error("100ms answered a create with another room")
            raise HmsUnreachable("100ms gave an unusable answer.")
        return room

    async def fetch_template_roles(self, template_id: str) -> frozenset[str]:
        """Return the names of a template's roles. Raises: HmsError"""
        reply = await self._call("GET", f"/templates/{template_id}")
        roles = reply.get("roles")
        if not isinstance(roles, dict):
            raise HmsUnreachable("100ms gave an unusable answer.")
        return frozenset(str(name) for name in roles)

    def template_roles(self, template_id: str) -> frozenset[str] | None:
        """Return a template's roles as last seen, None if never; ask anew in the background when they are old.

        Never waits: a mint is local and must not depend on whether 100ms answers.
        """
        now = time.monotonic()
        roles, seen_at = self._roles.get(template_id, (None, 0.0))
        stale = roles is None or now - seen_at > ROLES_TTL_S
        if stale and now - self._roles_asked.get(template_id, -_ROLES_RETRY_S) >= _ROLES_RETRY_S:
            self._roles_asked[template_id] = now
            task = asyncio.get_running_loop().create_task(self._refresh_roles(template_id))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
        return roles

    async def close(self) -> None:
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def _refresh_roles(self, template_id: str) -> None:
        try:
            self._roles[template_id] = await self.fetch_template_roles(template_id), time.monotonic()
        except HmsError as error:
            log.warning("the roles of template %s could not be read: %s", template_id, error)

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        self._check_free()
        self._in_flight += 1
        try:
            async with asyncio.timeout(TOTAL_TIMEOUT_S):
                status, retry_after_s, content = await self._send(method, path, body)
        except (TimeoutError, httpx.TimeoutException) as error:
            self._breaker.failed()
            log.warning("100ms timed out: %s %s", method, path)
            raise HmsTimeout("100ms did not answer in time.") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._breaker.failed()
            log.warning("100ms cannot be reached: %s %s: %s", method, path, type(error).__name__)
            raise HmsUnreachable("100ms cannot be reached.") from error
        finally:
            self._in_flight -= 1
        try:
            reply = _understand(method, path, status, retry_after_s, content)
        except HmsUnreachable:
            self._breaker.failed()
            raise
        except HmsBusy as error:
            self._busy_until = time.monotonic() + error.retry_after_s
            raise
        self._breaker.succeeded()
        return reply

    def _check_free(self) -> None:
        """Refuse a call that 100ms, or we, could not bear now. Raises: HmsBusy"""
        wait_s = math.ceil(self._busy_until - time.monotonic())
        if wait_s > 0:
            raise HmsBusy("100ms is limiting our calls.", wait_s)
        if self._in_flight >= MOST_IN_FLIGHT:
            raise HmsBusy("Too many calls to 100ms at this moment.", 1)
        if not self._breaker.allows():
            raise HmsBusy("100ms failed too often just now; it is given a moment.", 1)

    async def _send(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, str, bytes]:
        headers = {"Authorization": f"Bearer {self._tokens.management_token()}"}
        request = self._http.build_request(method, path, json=body, headers=headers)
        response = await self._http.send(request, stream=True, follow_redirects=False)
        try:
            content = b""
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MOST_REPLY_BYTES:
                    raise httpx.DecodingError("reply too large")
            return response.status_code, response.headers.get("retry-after", ""), content
        finally:
            await response.aclose()


def _understand(method: str, path: str, status: int, retry_after: str, content: bytes) -> dict[str, Any]:
    """Turn an answer of 100ms into its JSON object, or into the error it means."""
    if status in (401, 403):
        log.critical("100ms refuses our credentials (%s): check HMS_APP_ACCESS_KEY and HMS_APP_SECRET", status)
        raise HmsRefused("100ms refuses the gateway's credentials; the operator has to mend this.")
    if status == 429:
        wait_s = int(retry_after) if re.fullmatch(r"[0-9]{1,9}", retry_after) else 5
        raise HmsBusy("100ms is limiting our calls.", max(1, min(wait_s, 300)))
    if 400 <= status < 500:
        log.error("100ms refused %s %s with %s: %s", method, path, status, _message(content))
        raise HmsRefused("100ms refused the request.")
    if not 200 <= status < 300:
        log.warning("100ms answered %s %s with %s", method, path, status)
        raise HmsUnreachable("100ms is not working at this moment.")
    try:
        reply = json.loads(content)
    except (ValueError, RecursionError) as error:
        log.warning("100ms answered %s %s with something that is not JSON", method, path)
        raise HmsUnreachable("100ms gave an unusable answer.") from error
    if not isinstance(reply, dict):
        raise HmsUnreachable("100ms gave an unusable answer.")
    return reply


def _message(content: bytes) -> str:
    """Return the `message` of a documented error body, for the log."""
    try:
        return str(json.loads(content)["message"])[:200]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "(no message)"

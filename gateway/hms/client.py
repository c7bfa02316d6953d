"""The part of the 100ms REST API that the gateway needs (100ms docs: server-side v2, API reference)."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import httpx

from .calls import CONNECT_TIMEOUT_S, MOST_IN_FLIGHT, TOTAL_TIMEOUT_S, Call, Calls, OnCall
from .errors import HmsError, HmsNotFound, HmsRefused, HmsUnauthorized
from .replies import (
    ROOM_ID,
    HmsPeer,
    HmsRoom,
    HmsSession,
    HmsTemplate,
    read_peers,
    read_room,
    read_session,
    read_template,
    unusable,
)
from .tokens import HmsTokens

log = logging.getLogger("gateway.hms")

ROLES_TTL_S = 300.0
_ROLES_RETRY_S = 5.0
_MOST_REFRESHES = 4
_PAGE = 100  # the most that 100ms allows
_MOST_SESSION_BYTES = 32 << 20  # a session names everyone who was in it: 20,000 peers at once, and each rejoin


def connect(api_url: str) -> httpx.AsyncClient:
    """Return the HTTP client for `HmsClient`; it connects when it is first used."""
    return httpx.AsyncClient(
        base_url=api_url,
        timeout=httpx.Timeout(TOTAL_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        # `Calls` limits the calls in flight, not the pool: httpcore 1.0.9 leaks a pool slot when a request is cancelled
        # just after it has connected (encode/httpcore#1093), and in the end every call would time out.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=MOST_IN_FLIGHT),
        follow_redirects=False,
        trust_env=False,  # a proxy of the environment must not see management tokens
    )


class HmsClient:
    """Calls the 100ms REST API. The caller owns `http` and sets its base URL and transport.

    `on_roles` receives a template's id and role names each time they have been read in the background. Every method
    raises HmsError (see `errors`), and ValueError for an id that cannot be one of 100ms. `on_call`: see `Calls`.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        tokens: HmsTokens,
        *,
        on_roles: Callable[[str, frozenset[str]], None] | None = None,
        on_call: Sequence[OnCall] = (),
    ) -> None:
        self._calls = Calls(http, tokens, on_call)
        self._on_roles = on_roles
        self._roles: dict[str, tuple[frozenset[str], float]] = {}
        self._roles_asked: dict[str, float] = {}
        self._refreshing: dict[str, asyncio.Task[None]] = {}
        self._refreshes = asyncio.Semaphore(_MOST_REFRESHES)

    @property
    def state(self) -> str:
        """The state of the circuit breaker."""
        return self._calls.state

    @property
    def answered_ms(self) -> int | None:
        """When 100ms last answered this process, whatever it was (epoch ms)."""
        return self._calls.answered_ms

    @property
    def failed_ms(self) -> int | None:
        """When 100ms last did not answer, or answered 5xx (epoch ms)."""
        return self._calls.failed_ms

    # --- rooms (api-reference/Rooms) ---

    async def create_room(
        self, *, name: str, description: str, template_id: str, region: str, size: int, max_duration_s: int
    ) -> HmsRoom:
        """Create a room.

        The gateway must have generated the name for this create: 100ms updates a room that has the name already. For
        the same reason a create whose outcome is unknown may be retried under its name.
        """
        body = {"name": name, "description": description, "template_id": template_id, "region": region, "size": size}
        try:
            reply = await self._calls.make(Call("POST", "/rooms", body | {"max_duration_seconds": max_duration_s}))
        except HmsUnauthorized:
            raise
        except HmsRefused as error:  # only the template can be unknown (api-reference/Rooms)
            raise HmsRefused("100ms refused to create the room. It may not know the template.") from error
        return read_room(reply, name=name)

    async def get_room(self, room_id: str) -> HmsRoom | None:
        """Return a room of the workspace, or None if no room has this id."""
        try:
            reply = await self._calls.make(Call("GET", f"/rooms/{_id(room_id)}", may_be_missing=True))
        except HmsNotFound:
            return None
        return read_room(reply, room_id=room_id)

    async def update_room(self, room_id: str, *, description: str) -> HmsRoom:
        """Change what users may change about a room. Never its name: another room's name would select that room."""
        reply = await self._calls.make(Call("POST", f"/rooms/{_id(room_id)}", {"description": description}))
        return read_room(reply, room_id=room_id)

    async def switch_room(self, room_id: str, *, enabled: bool) -> HmsRoom:
        """Allow joins, or prevent further ones; peers in the room stay until its session ends."""
        reply = await self._calls.make(Call("POST", f"/rooms/{_id(room_id)}", {"enabled": enabled}))
        room = read_room(reply, room_id=room_id)
        if room.enabled is not enabled:
            log.error("100ms did not change whether room %s is enabled", room_id)
            raise unusable()
        return room

    # --- running sessions (api-reference/active-rooms) ---

    async def end_room(self, room_id: str, *, reason: str, lock: bool) -> bool:
        """End the room's session; with `lock` also disable the room. Return False if no session was running.

        100ms acts after it has answered. If no session runs it may not disable the room: call `switch_room` too.
        """
        return await self._act(room_id, "end-room", {"reason": reason, "lock": lock})

    async def list_peers(self, room_id: str, *, user_id: str | None = None) -> tuple[HmsPeer, ...]:
        """Return the peers in a room now: all, or those of one user."""
        call = Call(
            "GET",
            f"/active-rooms/{_id(room_id)}/peers",
            query={} if user_id is None else {"user_id": user_id},
            may_be_missing=True,
        )
        try:
            peers = read_peers(await self._calls.make(call))
        except HmsNotFound:
            return ()
        # In case 100ms ignores the filter: peers of other users must not be returned.
        return tuple(peer for peer in peers if user_id is None or peer.user_id in (user_id, ""))

    async def remove_peer(self, room_id: str, peer_id: str, *, reason: str) -> bool:
        """Remove one peer. Return False if it had left. It can join again with a join token that is still valid."""
        if not peer_id:
            raise ValueError("no peer id")  # 100ms would remove the peers of a role instead
        return await self._act(room_id, "remove-peers", {"peer_id": peer_id, "reason": reason})

    async def _act(self, room_id: str, action: str, body: dict[str, object]) -> bool:
        try:
            await self._calls.make(Call("POST", f"/active-rooms/{_id(room_id)}/{action}", body, may_be_missing=True))
        except HmsNotFound:
            return False
        return True

    # --- running and ended sessions (api-reference/Sessions) ---

    async def get_session(self, session_id: str) -> HmsSession | None:
        """Return a session with everyone who has been in it, or None if 100ms does not know it."""
        call = Call("GET", f"/sessions/{_id(session_id)}", may_be_missing=True, most_bytes=_MOST_SESSION_BYTES)
        try:
            return read_session(await self._calls.make(call), session_id=session_id)
        except HmsNotFound:
            return None

    async def list_sessions(
        self, *, active: bool, after_ms: int, before_ms: int, start: str = ""
    ) -> tuple[list[HmsSession], str]:
        """Return a page of the running or ended sessions that began in a span of time, and where the next page starts.

        An empty `start` stands for the first page, and in the result for the end of the list.
        """
        # Always with `active`: its default differs between the description and the samples of 100ms.
        query = {
            "active": str(active).lower(),
            "limit": str(_PAGE),
            "after": _time(after_ms),
            "before": _time(before_ms),
        }
        query |= {"start": start} if start else {}
        reply = await self._calls.make(Call("GET", "/sessions", query=query, most_bytes=_MOST_SESSION_BYTES))
        rows, last = reply.get("data") or [], reply.get("last")
        if not isinstance(rows, list):
            raise unusable()
        following = last if len(rows) >= _PAGE and isinstance(last, str) and last != start else ""
        return [read_session(row) for row in rows if isinstance(row, dict)], following

    # --- templates (api-reference/policy) ---

    async def fetch_template(self, template_id: str) -> HmsTemplate:
        """Return a template and its roles."""
        return read_template(await self._calls.make(Call("GET", f"/templates/{_id(template_id)}")), template_id)

    def template_roles(self, template_id: str) -> frozenset[str] | None:
        """Return the names of a template's roles as last read, or None if they have not been read.

        Refreshes old names in the background and never waits: minting a token must not depend on 100ms.
        """
        now = time.monotonic()
        roles, seen_at = self._roles.get(template_id, (None, 0.0))
        stale = roles is None or now - seen_at > ROLES_TTL_S
        asked_at = self._roles_asked.get(template_id, -math.inf)
        if stale and template_id not in self._refreshing and now - asked_at >= _ROLES_RETRY_S:
            self._roles_asked[template_id] = now
            task = asyncio.get_running_loop().create_task(self._refresh_roles(template_id))
            self._refreshing[template_id] = task
            task.add_done_callback(lambda _: self._refreshing.pop(template_id))
        return roles

    async def close(self) -> None:
        tasks = list(self._refreshing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _refresh_roles(self, template_id: str) -> None:
        async with self._refreshes:  # many templates must not block the calls of users
            try:
                template = await self.fetch_template(template_id)
            except HmsError as error:
                log.warning("the roles of template %s could not be read: %s", template_id, error)
            else:
                self._roles[template_id] = template.role_names, time.monotonic()
                if self._on_roles is not None:
                    self._on_roles(template_id, template.role_names)


def _time(at_ms: int) -> str:
    """Return a time as 100ms wants it in a query: with exactly three fractional digits."""
    seconds, ms = divmod(at_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}Z"


def _id(value: str) -> str:
    """Return an id that is safe in a path. Rooms, sessions and templates have ids of one form. Raises: ValueError"""
    if not ROOM_ID.fullmatch(value):
        raise ValueError("not a 100ms id")
    return value

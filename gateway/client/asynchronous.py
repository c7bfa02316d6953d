"""The client for asyncio; several tasks may share one."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal, TypeVar

import httpx

from gateway.client import calls
from gateway.client.flows import Flow, Flows, Locked, Session, Wait, unreachable
from gateway.client.shapes import Ended, Invite, InviteMade, JoinToken, Member, RateLimit, Room, Usage, User

T = TypeVar("T")


class AsyncGateway:
    """A user of the gateway, or with a service key a backend.

    Methods raise GatewayProblem when the gateway refuses, and GatewayUnreachable when there is no answer. `http` is a
    client of your own, with proxies or certificates; it is not closed. Raises: ValueError
    """

    def __init__(
        self, base_url: str, *, key: str = "", session: Session | None = None, http: httpx.AsyncClient | None = None
    ) -> None:
        self._flows = Flows(base_url=base_url, key=key, session=session)
        self._http = http or httpx.AsyncClient()
        self._owns_http = http is None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> "AsyncGateway":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._owns_http:
            await self._http.aclose()

    @property
    def session(self) -> Session | None:
        """The login, None without one. Keep it and give it to another client to stay logged in."""
        return self._flows.session

    @property
    def rate_limits(self) -> tuple[RateLimit, ...]:
        """The limits after the last answer that reported them, the tightest first."""
        return self._flows.rate_limits

    def act_as(self, user_id: str) -> "AsyncGateway":
        """Return a client that acts for a user, with the same connections; needs a service key with `act:user`."""
        other = AsyncGateway.__new__(AsyncGateway)
        other._flows = self._flows.acting_as(user_id)
        other._http, other._owns_http, other._lock = self._http, False, self._lock
        return other

    async def login(self, username: str, password: str) -> User:
        """Log in. Every later call is made as this user."""
        return await self._carry_out(self._flows.log_in(calls.login(username, password)))

    async def exchange(self, token: str) -> User:
        """Log in with a token of an identity provider that the gateway's policy names."""
        return await self._carry_out(self._flows.log_in(calls.exchange(token)))

    async def logout(self, scope: Literal["current", "others", "all"] = "current") -> None:
        """End this session, the user's others, or all of them."""
        await self._carry_out(self._flows.log_out(scope))

    async def refresh(self) -> User:
        """Renew the tokens now, for example after a change of roles. Calls renew them when needed."""
        return await self._carry_out(self._flows.refresh())

    async def register(
        self, username: str, password: str, *, display_name: str | None = None, invite: str | None = None
    ) -> User:
        """Create an account, if registration is open or with an invite. Does not log in."""
        return (
            await self._carry_out(self._flows.public(calls.register(username, password, display_name, invite)))
        ).user

    async def me(self) -> User:
        """Return the caller."""
        return (await self._run(calls.me())).user

    async def create_room(
        self,
        name: str | None = None,
        *,
        description: str | None = None,
        access: Literal["open", "invited"] | None = None,
        template: str | None = None,
        idempotency_key: str | None = None,
    ) -> Room:
        """Create a room. A repetition of the call with the same key creates no second one."""
        room = {"name": name, "description": description, "access": access, "template": template}
        return (await self._run(calls.create_room(idempotency_key, **room))).room

    async def rooms(self) -> AsyncIterator[Room]:
        """Iterate over the user's rooms, the newest first. Pages are fetched on demand."""
        page = await self._run(calls.room_page(None))
        for one in page.rooms:
            yield one
        while page.next_cursor:
            page = await self._run(calls.room_page(page.next_cursor))
            for one in page.rooms:
                yield one

    async def room(self, room_id: str) -> Room:
        """Return one room, with the caller's relation to it."""
        return (await self._run(calls.room(room_id))).room

    async def update_room(
        self,
        room_id: str,
        *,
        name: str | None = None,
        description: str | None = None,
        access: Literal["open", "invited"] | None = None,
        enabled: bool | None = None,
    ) -> Room:
        """Change a room. What is None keeps its value."""
        changes = {"name": name, "description": description, "access": access, "enabled": enabled}
        return (await self._run(calls.update_room(room_id, **changes))).room

    async def end_room(self, room_id: str, *, lock: bool = False, reason: str | None = None) -> Ended:
        """Remove all peers from a room. With `lock`, prevent further joins."""
        return await self._run(calls.end_room(room_id, lock=lock, reason=reason))

    async def mint_token(self, room_id: str, role: str | None = None) -> JoinToken:
        """Return a join token; without a role, in the least privileged one that the user may have."""
        return await self._run(calls.mint_token(room_id, role))

    async def members(self, room_id: str) -> AsyncIterator[Member]:
        """Iterate over the users with a relation to a room, the owner first, banned ones included."""
        page = await self._run(calls.member_page(room_id, None))
        for one in page.members:
            yield one
        while page.next_cursor:
            page = await self._run(calls.member_page(room_id, page.next_cursor))
            for one in page.members:
                yield one

    async def set_member(self, room_id: str, user: str, relation: str) -> Member:
        """Set the relation of a user, by id or name: owner, cohost, participant, viewer or banned."""
        return (await self._run(calls.set_member(room_id, user, relation))).member

    async def ban_member(self, room_id: str, user: str) -> None:
        """Ban a user, by id or name, from a room, and remove them from it."""
        await self._run(calls.ban_member(room_id, user))

    async def create_invite(
        self,
        room_id: str,
        *,
        relation: Literal["cohost", "participant", "viewer"] | None = None,
        max_uses: int | None = None,
        expires_in_s: int | None = None,
        guests: bool | None = None,
    ) -> InviteMade:
        """Create a code that gives each user who accepts it a relation to a room."""
        terms = {"relation": relation, "max_uses": max_uses, "expires_in_s": expires_in_s, "guests": guests}
        return await self._run(calls.create_invite(room_id, **terms))

    async def invites(self, room_id: str) -> tuple[Invite, ...]:
        """Return the usable invites of a room, without their codes."""
        return (await self._run(calls.invites(room_id))).invites

    async def revoke_invite(self, room_id: str, invite_id: str) -> None:
        """Revoke an invite. Users who have accepted it keep their relation."""
        await self._run(calls.revoke_invite(room_id, invite_id))

    async def accept_invite(self, code: str) -> Room:
        """Accept an invite; return its room."""
        return (await self._run(calls.accept_invite(code))).room

    async def usage(self) -> Usage:
        """Return the caller's limits and counters. Free of charge."""
        return await self._run(calls.usage())

    async def request(self, method: str, path: str, *, body: Any = None, query: dict[str, Any] | None = None) -> Any:
        """Send any other call of docs/api.md and return its JSON, such as `request("GET", "/api/admin/usage")`."""
        return await self._run(calls.any_call(method, path, body=body, query=query))

    async def _run(self, call: calls.Call[T]) -> T:
        return await self._carry_out(self._flows.run(call))

    async def _carry_out(self, flow: Flow[T]) -> T:
        result: Any = None
        error: Exception | None = None
        while True:
            try:
                step = flow.send(result) if error is None else flow.throw(error)
            except StopIteration as end:
                value: T = end.value
                return value
            result = error = None
            try:
                if isinstance(step, Wait):
                    await asyncio.sleep(step.s)
                elif isinstance(step, Locked):
                    async with self._lock:
                        await self._carry_out(step.flow)
                else:
                    result = await self._send(step)
            except Exception as failure:  # noqa: BLE001  the flow decides on it
                error = failure

    async def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._http.send(request, follow_redirects=False)  # a token follows no redirect
        except httpx.HTTPError as error:
            raise unreachable(request, error) from None

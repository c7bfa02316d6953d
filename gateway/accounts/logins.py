"""Logs a person in who has proved who they are: their session, its count and its entry in the audit trail."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

from auth.sessions import Grant, Sessions
from auth.users import User
from gateway.audit import NO_USER, Audit, Origin
from limits.derived import Derived
from limits.limiter import Limiter
from limits.policy import Decision


class Blocked(Exception):
    """An operator has blocked the user for now."""

    def __init__(self, decision: Decision) -> None:
        super().__init__("An operator has blocked this account for now.")
        self.decision = decision


@dataclass(frozen=True, slots=True)
class Client:
    """Where a login comes from. `agent` is the User-Agent, shortened."""

    origin: Origin
    agent: str


@dataclass(repr=False, eq=False)
class Logins:
    """Opens sessions for people who have proved who they are."""

    _limiter: Limiter
    _derived: Derived
    _sessions: Sessions
    _audit: Audit

    async def open(
        self, user: User, client: Client, along: Awaitable[Any], *, ext: str = "", identity: str = ""
    ) -> Grant:
        """Open a session, unless the user has changed since they were verified or is blocked.

        `along` is sent in the same write; `ext` is that of `Sessions.open`, `identity` the name of a provider.
        Raises: InvalidCredentials, Blocked
        """
        details = {"identity": identity} if identity else {}
        decision, grant, _ = await asyncio.gather(
            self._limiter.take(user.id, (), metric="login"),
            self._sessions.open(user, address=client.origin.address, agent=client.agent, ext=ext),
            along,
        )
        outcome = "ok" if decision.allowed else f"denied.{decision.worst.name}"
        self._derived.note(user.id, f"login.{outcome}", decision.now_us)
        if not decision.allowed:
            self._audit.note(
                "login.blocked", by=NO_USER, subject=user.id, origin=client.origin, once_per_s=0, **details
            )
            await self._sessions.end(user.id, grant.principal.sid)
            raise Blocked(decision)
        sid = grant.principal.sid
        details["session"] = sid
        self._audit.note("login", by=user.id, subject=user.id, origin=client.origin, once_per_s=0, **details)
        return grant

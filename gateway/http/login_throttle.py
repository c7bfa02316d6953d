"""Rate limits for unauthenticated callers: by client address and by account name.

An attempt is charged before the password is verified, and refunded if it is right; a throttled attempt is refused
without verifying it. Keys hold MACs, never a name or an address.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from auth.accounts import Accounts
from auth.errors import BadUsername, InvalidCredentials, UserExists
from auth.keys import KeyRing
from auth.names import name_key
from auth.users import Credentials
from gateway.audit import NO_USER, Audit, Origin
from gateway.http.client_address import site_of
from gateway.http.problems import Problem, RateLimited
from gateway.policy.live import PolicyInForce
from gateway.policy.model import Anonymous
from limits import Execute
from limits.fields import retry_after_s
from limits.limiter import Limiter
from limits.policy import Charge, Decision, Limit

_KNOWN_S = 30 * 86_400
_AUDIT_ONCE_PER_S = 60


@dataclass(slots=True)
class Attempt:
    """An attempt to log in that may be verified, against `credentials`."""

    credentials: Credentials
    _succeed: Callable[[], Awaitable[None]]
    is_settled: bool = False

    async def succeeded(self) -> None:
        """Refund the charges and remember the address, once. Other commands may be sent in the same write."""
        if not self.is_settled:
            self.is_settled = True
            await self._succeed()


@dataclass(repr=False, eq=False)
class Throttle:
    """Limits requests and failed logins. `ring` keys the MACs."""

    _execute: Execute
    _limiter: Limiter
    _accounts: Accounts
    _ring: KeyRing
    _policy: PolicyInForce
    _audit: Audit

    @property
    def _limits(self) -> Anonymous:
        return self._policy.now.anonymous

    async def request(self, address: str) -> None:
        """Charge one request of an address. Raises: RateLimited"""
        decision = await self._take("address", site_of(address), self._limits.requests)
        if not decision.allowed:
            self._note("requests", decision, address)
            raise RateLimited(decision)

    @asynccontextmanager
    async def login(self, address: str, username: str) -> AsyncIterator[Attempt]:
        """Charge a login attempt around its verification; refund it unless the credentials were wrong.

        One account bucket is charged: the account's own, or, from an address that has logged in to it before, a bucket
        of the two together. So the failures of another client cannot lock the owner out.

        The account's credentials are read in the same two round trips, by the same commands for every name and for
        refused attempts too. Raises: Problem
        """
        site, account = site_of(address), self._account(username)
        known = f"kn:1:{{{self._subject('known', f'{site} {account}')}}}"
        by_address, is_known, uid = await asyncio.gather(
            self._take("failures", site, self._limits.failures),
            self._execute("EXISTS", known),
            self._accounts.find_id(username),
        )
        self._refuse("failures", by_address, address)
        bucket: tuple[str, str, Limit] = ("account", account, self._limits.account)
        if is_known:
            bucket = ("known", f"{site} {account}", self._limits.known_account)
        by_account, credentials = await asyncio.gather(self._take(*bucket), self._accounts.credentials(uid))
        try:
            self._refuse(bucket[0], by_account, address)
        except Problem:
            await self._give_back(by_address)
            raise
        attempt = Attempt(credentials, lambda: self._succeed(known, by_account, by_address))
        try:
            yield attempt
            await attempt.succeeded()
        except InvalidCredentials:
            raise
        except BaseException:
            if not attempt.is_settled:  # the password was not verified
                await self._give_back(by_account, by_address)
            raise

    @asynccontextmanager
    async def registration(self, address: str) -> AsyncIterator[None]:
        """Charge the creation of one account; refund it if none is created, unless the name was taken. Raises: Problem

        If taken names were free of charge, a client could find out which names exist as fast as requests are answered.
        """
        attempt = await self._take("register", site_of(address), self._limits.register)
        self._refuse("register", attempt, address)
        try:
            yield
        except UserExists:
            raise
        except BaseException:
            await self._give_back(attempt)
            raise

    def origin(self, address: str) -> Origin:
        """Return the address for log lines, with a MAC for the audit that is equal for all addresses of a site."""
        return Origin(address, self._ring.mac(f"source {site_of(address)}")[:16])

    async def refresh_allowed(self, sid: str, address: str) -> None:
        """Check that a session may be refreshed again, without charging it. Raises: Problem"""
        decision = await self._limiter.take(self._subject("refresh", sid), [Charge(self._limits.refresh, 0)])
        if decision.limits[0].remaining < 1:
            self._note("refresh", decision, address)
            raise _too_many(decision)

    async def refreshed(self, sid: str) -> None:
        """Charge a refresh that rotated. Racing refreshes that got the same tokens are not charged."""
        await self._take("refresh", sid, self._limits.refresh)

    async def _take(self, kind: str, text: str, limit: Limit) -> Decision:
        return await self._limiter.take(self._subject(kind, text), [Charge(limit)])

    def _refuse(self, kind: str, decision: Decision, address: str) -> None:
        """Refuse an attempt that a limit denied. Raises: Problem"""
        if not decision.allowed:
            self._note(kind, decision, address)
            raise _too_many(decision)

    def _note(self, kind: str, decision: Decision, address: str) -> None:
        said = {"limit": kind, "bucket": decision.subject[-16:]}
        self._audit.note("throttled", by=NO_USER, origin=self.origin(address), once_per_s=_AUDIT_ONCE_PER_S, **said)

    async def _succeed(self, known: str, *decisions: Decision) -> None:
        await asyncio.gather(self._give_back(*decisions), self._execute("SET", known, "1", "EX", _KNOWN_S))

    async def _give_back(self, *decisions: Decision) -> None:
        await asyncio.gather(*(self._limiter.amend(decision, "ok", refund=True) for decision in decisions))

    def _account(self, username: str) -> str:
        try:
            return name_key(username)
        except BadUsername:
            return username[:64]

    def _subject(self, kind: str, text: str) -> str:
        return f"{kind}:{self._ring.mac(f'{kind} {text}')}"


def _too_many(decision: Decision) -> Problem:
    wait_s = max(1, -(-decision.limits[0].emission_us // 1_000_000)) if decision.allowed else retry_after_s(decision)
    text = f"Too many attempts. Try again in {wait_s} s."
    return Problem(429, "too_many_attempts", text, headers={"Retry-After": str(wait_s), "Cache-Control": "no-store"})

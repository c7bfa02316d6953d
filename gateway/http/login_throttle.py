"""Limits of callers nobody knows yet: by client address and by account name.

An attempt is charged before the password is looked at and given back when it was right; whoever is throttled is
refused unseen. Keys hold MACs, never a name or an address.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from auth.errors import BadUsername, InvalidCredentials, UserExists
from auth.keys import KeyRing
from auth.names import name_key
from gateway.audit import NOBODY, Audit
from gateway.http.client_address import site_of
from gateway.http.problems import Problem, RateLimited
from gateway.policy.live import PolicyInForce
from gateway.policy.model import Anonymous
from limits.fields import retry_after_s
from limits.limiter import Execute, Limiter
from limits.policy import Charge, Decision, Limit

_KNOWN_S = 30 * 86_400
_AUDIT_ONCE_PER_S = 60


class Throttle:
    """Limits requests and failed logins. `ring` keys the MACs."""

    def __init__(self, execute: Execute, limiter: Limiter, ring: KeyRing, policy: PolicyInForce, audit: Audit) -> None:
        self._execute = execute
        self._limiter = limiter
        self._ring = ring
        self._policy = policy
        self._audit = audit

    @property
    def _limits(self) -> Anonymous:
        return self._policy.now.anonymous

    async def request(self, address: str) -> None:
        """Charge one request of an address. Raises: RateLimited"""
        decision = await self._limiter.take(self._subject("address", site_of(address)), [Charge(self._limits.requests)])
        if not decision.allowed:
            self._note("requests", decision, address)
            raise RateLimited(decision)

    @asynccontextmanager
    async def login(self, address: str, username: str) -> AsyncIterator[None]:
        """Charge a login attempt around its verification; give it back unless the credentials were wrong.

        One account bucket counts: the account's own, or, from an address that logged in to it before, that of the two
        together. So a stranger who fails all day cannot lock the owner out.

        Raises:
            Problem: 429 too_many_attempts; the password has not been looked at.
        """
        site = site_of(address)
        account = self._account(username)
        known = self._subject("known", f"{site} {account}")
        by_address = await self._attempt(address, "failures", site, self._limits.failures)
        bucket: tuple[str, str, Limit] = ("account", account, self._limits.account)
        if await self._execute("EXISTS", f"kn:1:{{{known}}}"):
            bucket = ("known", f"{site} {account}", self._limits.known_account)
        try:
            by_account = await self._attempt(address, *bucket)
        except Problem:
            await self._limiter.amend(by_address, "refused", refund=True)
            raise
        try:
            yield
        except InvalidCredentials:
            raise
        except BaseException:
            await self._give_back(by_account, by_address)  # nothing was found out about the password
            raise
        await self._give_back(by_account, by_address)
        await self._execute("SET", f"kn:1:{{{known}}}", "1", "EX", _KNOWN_S)

    @asynccontextmanager
    async def registration(self, address: str) -> AsyncIterator[None]:
        """Charge the making of one account; give it back if none is made, unless the name was taken.

        Otherwise whoever wants to know who has an account could ask for names as fast as requests are answered.

        Raises:
            Problem: 429 too_many_attempts
        """
        attempt = await self._attempt(address, "register", site_of(address), self._limits.register)
        try:
            yield
        except UserExists:
            raise
        except BaseException:
            await self._give_back(attempt)
            raise

    def source(self, address: str) -> str:
        """Return what stands for an address in the audit: the same for the same site, and no way back to it."""
        return self._ring.mac(f"source {site_of(address)}")[:16]

    def note_wrong_code(self, kind: str, address: str) -> None:
        """Put into the audit, once a minute, that somebody at an address tries codes that do not hold."""
        said = {"kind": kind, "source": self.source(address)}
        self._audit.note("code.refused", by=NOBODY, address=address, once_per_s=_AUDIT_ONCE_PER_S, **said)

    async def refresh_allowed(self, sid: str, address: str) -> None:
        """Look whether a session may be refreshed again. Raises: Problem"""
        charge = Charge(self._limits.refresh)
        decision = await self._limiter.take(self._subject("refresh", sid), [Charge(charge.limit, 0)])
        if decision.limits[0].remaining < 1:
            self._note("refresh", decision, address)
            raise _too_many(decision)

    async def refreshed(self, sid: str) -> None:
        """Charge a refresh that rotated. The tabs that got the same tokens in a race were no refresh of their own."""
        await self._limiter.take(self._subject("refresh", sid), [Charge(self._limits.refresh)])

    async def _attempt(self, address: str, kind: str, text: str, limit: Limit) -> Decision:
        decision = await self._limiter.take(self._subject(kind, text), [Charge(limit)])
        if not decision.allowed:
            self._note(kind, decision, address)
            raise _too_many(decision)
        return decision

    def _note(self, kind: str, decision: Decision, address: str) -> None:
        said = {"limit": kind, "bucket": decision.subject[-16:], "source": self.source(address)}
        self._audit.note("throttled", by=NOBODY, address=address, once_per_s=_AUDIT_ONCE_PER_S, **said)

    async def _give_back(self, *decisions: Decision) -> None:
        for decision in decisions:
            await self._limiter.amend(decision, "ok", refund=True)

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

"""Limits of callers nobody knows yet: by client address and by account name.

An attempt is charged before the password is looked at and given back when it was right; whoever is throttled is
refused unseen. Keys hold MACs, never a name or an address.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from auth.accounts import name_key
from auth.errors import BadUsername, InvalidCredentials
from auth.keys import KeyRing
from gateway.addresses import site_of
from gateway.policy import Anonymous
from gateway.problems import Problem, RateLimited
from limits.fields import retry_after_s
from limits.limiter import Execute, Limiter
from limits.policy import Charge, Decision, Limit

_KNOWN_S = 30 * 86_400


class Throttle:
    """Limits requests and failed logins. `ring` keys the MACs."""

    def __init__(self, execute: Execute, limiter: Limiter, ring: KeyRing, limits: Anonymous) -> None:
        self._execute = execute
        self._limiter = limiter
        self._ring = ring
        self._limits = limits

    async def request(self, address: str) -> None:
        """Charge one request of an address. Raises: RateLimited"""
        decision = await self._limiter.take(self._subject("address", site_of(address)), [Charge(self._limits.requests)])
        if not decision.allowed:
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
        by_address = await self._attempt(self._subject("failures", site), self._limits.failures)
        bucket, limit = self._subject("account", account), self._limits.account
        if await self._execute("EXISTS", f"kn:1:{{{known}}}"):
            bucket, limit = known, self._limits.known_account
        try:
            by_account = await self._attempt(bucket, limit)
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

    async def refresh_allowed(self, sid: str) -> None:
        """Look whether a session may be refreshed again. Raises: Problem"""
        charge = Charge(self._limits.refresh)
        decision = await self._limiter.take(self._subject("refresh", sid), [Charge(charge.limit, 0)])
        if decision.limits[0].remaining < 1:
            raise _too_many(decision)

    async def refreshed(self, sid: str) -> None:
        """Charge a refresh that rotated. The tabs that got the same tokens in a race were no refresh of their own."""
        await self._limiter.take(self._subject("refresh", sid), [Charge(self._limits.refresh)])

    async def _attempt(self, subject: str, limit: Limit) -> Decision:
        decision = await self._limiter.take(subject, [Charge(limit)])
        if not decision.allowed:
            raise _too_many(decision)
        return decision

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

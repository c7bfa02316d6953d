"""Runs the work of one command with a connection to Redis."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from auth.accounts import Accounts
from auth.errors import UnknownUser
from auth.identities import Identities
from auth.keys import KeyRing
from auth.passwords import Passwords
from auth.service_keys import ServiceKeys
from auth.sessions import Sessions
from auth.vouchers import Vouchers
from gateway.accounts.admin import UserAdmin
from gateway.accounts.limits import UserLimits
from gateway.accounts.registration import Registration
from gateway.accounts.service_keys import KeyAdmin
from gateway.audit import Audit
from gateway.outgoing.messages import Announcer
from gateway.policy.file import load_policy
from gateway.policy.live import PolicyInForce
from gateway.redis.store import REPORT_DEADLINE_S
from gateway.redis.topology import AnyStore, connect, open_store, open_writes
from gateway.settings import argon2_cost, load_env, password_policy, policy_path, redis_url
from limits.counters import Counters
from limits.limiter import Limiter
from limits.overrides import Overrides

T = TypeVar("T")
C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Office:
    """The services that commands about accounts use."""

    accounts: Accounts
    sessions: Sessions
    admin: UserAdmin
    limits: UserLimits
    keys: KeyAdmin
    registration: Registration
    counters: Counters
    time_zone: str  # of the days and months of counters
    registration_mode: str  # closed, invite or open


def with_office(work: Callable[[Office], Coroutine[Any, Any, T]]) -> T:
    """Run work on accounts. Raises: SettingsError, PolicyError, StoreError"""
    env = load_env()
    policy = PolicyInForce(load_policy(policy_path(env)))
    passwords, (memory_kib, passes) = password_policy(env), argon2_cost(env)

    async def inner(store: AnyStore) -> T:
        execute = store.execute
        # Writes are on disk before the command reports success.
        durable = open_writes(connect(redis_url(env)))
        hashing = Passwords(memory_kib=memory_kib, passes=passes)
        accounts = Accounts(execute, hashing, passwords, write=durable.execute)
        # Ending a session needs no signing key, so the commands work without GATEWAY_SECRET.
        sessions = Sessions(execute, KeyRing(["unused"], "refresh"))
        audit = Audit(execute, store.post, Announcer(policy))
        identities = Identities(execute, accounts, sessions, write=durable.execute)
        admin = UserAdmin(execute, accounts, sessions, policy, audit, Vouchers(execute, "password"), identities)
        limiter = Limiter(execute, zone=policy.zone)
        service_keys = ServiceKeys(execute, write=durable.execute)
        limits = UserLimits(accounts, service_keys, limiter, Overrides(execute, limiter), policy, audit)
        registration = Registration(accounts, Vouchers(execute, "account"), policy, audit)
        keys = KeyAdmin(service_keys, audit)
        mode = env.get("GATEWAY_REGISTRATION") or policy.now.registration.mode
        counted = Counters(execute), policy.zone()
        return await work(Office(accounts, sessions, admin, limits, keys, registration, *counted, mode))

    return with_store(inner)


async def every(page: Callable[[C], Awaitable[tuple[list[T], C | None]]], start: C) -> list[T]:
    """Return the items of all pages. `page` returns the items after a place, and the next place if there is one."""
    found, place = await page(start)
    while place is not None:
        more, place = await page(place)
        found += more
    return found


async def names_of(accounts: Accounts, uids: Iterable[str]) -> dict[str, str]:
    """Return names by user id; for a deleted user, the id."""

    async def name(uid: str) -> str:
        try:
            return (await accounts.get(uid)).username
        except UnknownUser:
            return uid

    wanted = list(dict.fromkeys(uids))
    return dict(zip(wanted, await asyncio.gather(*map(name, wanted)), strict=True))


def with_store(work: Callable[[AnyStore], Coroutine[Any, Any, T]]) -> T:
    """Run work with a store, then close it. Raises: SettingsError, StoreError"""

    async def session() -> T:
        store = open_store(connect(redis_url(load_env())), deadline_s=REPORT_DEADLINE_S)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(session())

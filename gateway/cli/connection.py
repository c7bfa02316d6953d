"""How a command reaches Redis: for as long as one piece of work takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from auth.accounts import Accounts
from auth.keys import KeyRing
from auth.passwords import Passwords
from auth.sessions import Sessions
from gateway.settings import load_env, redis_url
from gateway.store import REPORT_DEADLINE_S, Store, connect

T = TypeVar("T")


def with_accounts(work: Callable[[Accounts, Sessions], Coroutine[Any, Any, T]]) -> T:
    async def inner(store: Store) -> T:
        # Ending sessions needs no key, so the command line works without the gateway's secret.
        return await work(Accounts(store.execute, Passwords()), Sessions(store.execute, KeyRing(["unused"], "refresh")))

    return with_store(inner)


def with_store(work: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
    async def session() -> T:
        store = Store(connect(redis_url(load_env())), deadline_s=REPORT_DEADLINE_S)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(session())

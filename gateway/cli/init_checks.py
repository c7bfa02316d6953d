"""What `gateway init` asks of the servers that its answers name. Each check says in words what is wrong."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, TypeVar

from redis.exceptions import RedisError

from gateway.cli.checks import check_redis
from gateway.cli.failures import store_text
from gateway.hms.client import HmsClient, connect
from gateway.hms.errors import HmsError, HmsNotFound, HmsRefused, HmsUnauthorized
from gateway.hms.replies import HmsTemplate
from gateway.hms.tokens import HmsTokens
from gateway.redis.store import REPORT_DEADLINE_S, StoreError
from gateway.redis.topology import connect as redis_connect
from gateway.redis.topology import open_store, open_writes

T = TypeVar("T")

_NO_ROOM = "0" * 24


class Wrong(Exception):
    """An answer is wrong: to enter it again is the only way. The text holds no secret."""


class Unchecked(Exception):
    """An answer may be right, but the server cannot be reached or is not ready. The text holds no secret."""


async def ask_redis(url: str) -> None:
    """Connect to a Redis as the gateway does, and judge it as the doctor does. Raises: Unchecked"""
    redis = redis_connect(url)
    store = open_store(redis, deadline_s=REPORT_DEADLINE_S)
    try:
        replies = await store.each("PING")
        failed = [reply for reply in replies.values() if isinstance(reply, BaseException)]
        if failed:
            raise failed[0]
        findings = await check_redis(store, open_writes(redis))
    except StoreError as error:
        raise Unchecked(f"REDIS_URL: {store_text(error, url)}") from error
    except RedisError as error:
        raise Unchecked(f"REDIS_URL: Redis refuses: {' '.join(str(error).split())[:100]}") from error
    finally:
        await store.close()
    if failures := [f"{one.check}: {one.text}" for one in findings if one.status == "FAIL"]:
        raise Unchecked(f"REDIS_URL: {'; '.join(failures)}")


def ask_credentials(settings: Mapping[str, str], api: str) -> None:
    """Ask 100ms for a room that does not exist: it says so only to an account. Raises: Wrong, Unchecked"""
    with _refusals(api):
        try:
            asyncio.run(_ask(settings, api, lambda hms: hms.get_room(_NO_ROOM)))
        except HmsUnauthorized:
            raise
        except HmsRefused:
            pass  # if the address is not that of 100ms, the template will say so


def ask_template(settings: Mapping[str, str], api: str) -> HmsTemplate:
    """Return the template as 100ms has it. Raises: Wrong, Unchecked"""
    with _refusals(api):
        try:
            return asyncio.run(_ask(settings, api, lambda hms: hms.fetch_template(settings["HMS_TEMPLATE_ID"])))
        except HmsNotFound as error:
            raise Wrong(f"100ms has no template {settings['HMS_TEMPLATE_ID']} (HMS_TEMPLATE_ID)") from error


async def _ask(settings: Mapping[str, str], api: str, call: Callable[[HmsClient], Coroutine[Any, Any, T]]) -> T:
    async with connect(api) as http:
        return await call(HmsClient(http, HmsTokens(settings["HMS_APP_ACCESS_KEY"], settings["HMS_APP_SECRET"])))


@contextlib.contextmanager
def _refusals(api: str) -> Iterator[None]:
    try:
        yield
    except HmsUnauthorized as error:
        raise Wrong("100ms refuses HMS_APP_ACCESS_KEY and HMS_APP_SECRET") from error
    except HmsError as error:
        raise Unchecked(f"{error} ({api})") from error

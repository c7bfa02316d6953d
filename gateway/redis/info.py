"""What Redis says about itself; of a cluster, what all masters say together."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from gateway.redis.store import StoreError

Each = Callable[..., Awaitable[dict[str, Any]]]
"""Sends a command to every master; returns the replies, or what was raised, by name."""

_SUMS = ("used_memory", "maxmemory", "total_system_memory")


def info_of(reply: Any) -> dict[str, str]:
    """Return the fields of a reply to INFO."""
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else str(reply)
    lines = (line.partition(":") for line in text.splitlines())
    return {name: value for name, colon, value in lines if colon}


async def info_of_all(each: Each, *section: str) -> tuple[dict[str, str], list[str]]:
    """Return the fields of INFO of all masters together, and the names of those that do not answer.

    Memory is summed, 0 (no limit) if one of them has none; of anything else the worst is returned. A master that
    does not let our user ask is left out. Raises StoreError if none answers.
    """
    replies = await each("INFO", *section)
    silent = [name for name, reply in replies.items() if isinstance(reply, StoreError)]
    for reply in replies.values():
        if isinstance(reply, BaseException) and (len(silent) == len(replies) or not _is_expected(reply)):
            raise reply
    infos = [info_of(reply) for reply in replies.values() if not isinstance(reply, BaseException)]
    return (_together(infos) if infos else {}), silent


def _is_expected(error: BaseException) -> bool:
    return isinstance(error, StoreError | ResponseError)


def _together(infos: Sequence[dict[str, str]]) -> dict[str, str]:
    merged = dict(infos[0])
    for name in merged.keys() & {"valkey_version", "redis_version"}:
        merged[name] = min((info.get(name, "") for info in infos), key=_version)
    for name in merged.keys() & set(_SUMS):
        numbers = [int(info.get(name, 0)) for info in infos]
        merged[name] = str(sum(numbers) if all(numbers) else 0)
    if "aof_enabled" in merged:
        merged["aof_enabled"] = min(info.get("aof_enabled", "0") for info in infos)
    if "aof_last_write_status" in merged:
        states = [info.get("aof_last_write_status", "ok") for info in infos]
        merged["aof_last_write_status"] = next((state for state in states if state != "ok"), "ok")
    return merged


def _version(text: str) -> list[int]:
    return [int(part) for part in text.split(".") if part.isdigit()]

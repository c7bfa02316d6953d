"""A check of every command that tests send: all of its keys are in one slot, as a Redis Cluster demands."""

from __future__ import annotations

from typing import Any

from redis.crc import key_slot

_ALL = {"DEL", "EXISTS", "UNLINK", "MGET", "TOUCH", "SUNION", "SINTER", "SDIFF", "PFCOUNT"}
_TWO = {"SMOVE", "RENAME", "RENAMENX", "COPY", "LMOVE", "ZRANGESTORE"}
_NONE = {"PING", "ECHO", "TIME", "INFO", "CONFIG", "ASKING", "CLUSTER", "WAITAOF", "SCRIPT", "CLIENT", "FLUSHALL"}
_NONE |= {"DBSIZE", "HELLO", "SELECT", "KEYS", "SCAN", "SLEEP", "DEBUG", "ROLE"}

violations: list[str] = []


def keys_of(words: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the keys of a command."""
    name = str(words[0]).upper()
    if name in _NONE:
        return ()
    if name in ("EVAL", "EVALSHA"):
        return words[3 : 3 + int(words[2])]
    if name in ("XREADGROUP", "XREAD"):
        rest = words[words.index("STREAMS") + 1 :]
        return rest[: len(rest) // 2]
    if name in ("XGROUP", "XINFO", "OBJECT", "MEMORY"):
        return words[2:3]
    if name in _ALL:
        return words[1:]
    return words[1:3] if name in _TWO else words[1:2]


def check(words: tuple[Any, ...]) -> None:
    """Note a command whose keys are in more than one slot. Raises: ValueError, which the store gives to its caller"""
    keys = [key if isinstance(key, bytes) else str(key).encode() for key in keys_of(words)]
    if len({key_slot(key) for key in keys}) > 1:
        name, shown = words[0], b" ".join(keys).decode(errors="replace")
        violations.append(f"{name} {shown}")
        raise ValueError(f"the keys of one command are in several slots: {violations[-1]}")

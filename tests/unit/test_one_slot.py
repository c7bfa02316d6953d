"""The check of every command's keys finds what it is for."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.redis.topology import AnyStore
from tests import one_slot
from tests.fake_redis import fake_redis

SPLIT: list[tuple[Any, ...]] = [
    ("DEL", "a", "b"),
    ("SMOVE", "a", "b", "x"),
    ("EVAL", "return 1", 2, "a", "b", "x"),
    ("XREADGROUP", "GROUP", "g", "me", "STREAMS", "a", "b", ">", ">"),
]


@pytest.mark.parametrize("words", SPLIT)
async def test_keys_in_two_slots_fail_in_memory(words: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="in several slots"):
        await fake_redis().execute_command(*words)
    assert len(one_slot.violations) == 1
    one_slot.violations.clear()


@pytest.mark.parametrize("words", [("SET", "a", "b"), ("DEL", "{a}1", "{a}2"), ("EVAL", "return 1", 1, "a", "b")])
def test_keys_in_one_slot_pass(words: tuple[Any, ...]) -> None:
    one_slot.check(words)
    assert not one_slot.violations


async def test_keys_in_two_slots_fail_in_the_store(store: AnyStore) -> None:
    with pytest.raises(ValueError, match="in several slots"):
        await store.execute("DEL", "a", "b")
    one_slot.violations.clear()

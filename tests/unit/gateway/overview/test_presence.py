"""How many people and rooms are online."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.metering.keys import open_stays
from gateway.overview.presence import Presence
from tests.fake_redis import fake_redis


async def test_people_are_counted_at_once_and_rooms_seconds_later() -> None:
    redis = fake_redis()
    now = 0.0
    presence = Presence(redis.execute_command, clock=lambda: now)

    async def join(peer: str, room: str) -> None:
        await redis.execute_command("HSET", open_stays("all"), peer, f'{{"room":"{room}","joined_ms":1}}')

    assert await presence.now() == (0, 0)
    await join("p", "a")
    await join("q", "a")
    assert await presence.now() == (2, 1)
    await join("r", "b")
    assert await presence.now() == (3, 1)
    now = 2.0
    assert await presence.now() == (3, 2)
    await redis.execute_command("DEL", open_stays("all"))
    assert await presence.now() == (0, 0)
    await redis.aclose()


async def test_two_who_ask_at_once_get_the_same_rooms() -> None:
    async def execute(command: str, key: str) -> Any:
        assert key == open_stays("all")
        await asyncio.sleep(0)  # the other one asks meanwhile
        return {"HLEN": 1, "HVALS": [b'{"room":"a","joined_ms":1}']}[command]

    presence = Presence(execute)
    assert await asyncio.gather(presence.now(), presence.now()) == [(1, 1), (1, 1)]

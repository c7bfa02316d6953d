"""Who is in which room now."""

from __future__ import annotations

import json

from auth.accounts import Accounts
from gateway.usage.live import OPEN_STAYS, who_is_where
from tests.fake_redis import fake_redis

HANNA = "u" + "h" * 20
FULL, ALONE = "a" * 24, "b" * 24
NOON_MS = 1_795_608_000_000


async def test_rooms_are_shown_with_their_people_the_fullest_first() -> None:
    redis = fake_redis()
    execute = redis.execute_command
    await execute("HSET", f"u:1:{{{HANNA}}}", "username", "hanna", "status", "active", "ver", 1, "created_ms", 1)
    room = {"name": "Stand-up", "description": "", "access": "open", "template": "default", "owner": HANNA}
    await redis.hset(f"rm:1:{{{FULL}}}", mapping=room | {"enabled": 1, "created_ms": 1})
    stays = [
        {"room": ALONE, "user": "", "role": "guest", "joined_ms": NOON_MS},
        {"room": FULL, "user": "another system's", "role": "guest", "joined_ms": NOON_MS + 1000, "peer": "p"},
        {"room": FULL, "user": HANNA, "role": "host", "joined_ms": NOON_MS, "session": "s", "owner": HANNA},
    ]
    for number, stay in enumerate(stays):
        await execute("HSET", OPEN_STAYS, number, json.dumps(stay))
    accounts = Accounts(execute)

    now = await who_is_where(execute, accounts, size=10)
    assert (now.all_rooms, now.all_people) == (2, 3)
    full, alone = now.rooms
    assert (full.room_id, full.name, full.owner) == (FULL, "Stand-up", "hanna")
    assert full.since == "2026-11-25T12:00:00.000Z"
    assert [(one.username, one.user_id, one.role) for one in full.people] == [
        ("hanna", HANNA, "host"),
        ("", "another system's", "guest"),
    ]
    assert (alone.room_id, alone.name, alone.owner, len(alone.people)) == (ALONE, "", "", 1)

    first = await who_is_where(execute, accounts, size=1)
    assert ([one.room_id for one in first.rooms], first.all_rooms, first.all_people) == ([FULL], 2, 3)
    await redis.flushall()
    assert (await who_is_where(execute, accounts, size=10)).rooms == []
    await redis.aclose()

"""An in-memory Redis, with the replies that the gateway's store gets from a real one."""

from __future__ import annotations

from typing import Any

from fakeredis import FakeAsyncRedis

from tests import one_slot


class FakeRedis(FakeAsyncRedis):
    """Refuses commands whose keys are in several slots, as a cluster would."""

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        one_slot.check(words)
        return await super().execute_command(*words, **options)


def fake_redis(*, max_connections: int | None = None) -> FakeAsyncRedis:
    """Return an empty Redis that answers in RESP3, without redis-py's conversions: `OK` stays bytes, entries lists."""
    redis = FakeRedis(protocol=3, max_connections=max_connections)
    redis.response_callbacks.clear()
    return redis

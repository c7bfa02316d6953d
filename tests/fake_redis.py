"""An in-memory Redis, with the replies that the gateway's store gets from a real one."""

from __future__ import annotations

from fakeredis import FakeAsyncRedis


def fake_redis(*, max_connections: int | None = None) -> FakeAsyncRedis:
    """Return an empty Redis that answers in RESP3, without redis-py's conversions: `OK` stays bytes, entries lists."""
    redis = FakeAsyncRedis(protocol=3, max_connections=max_connections)
    redis.response_callbacks.clear()
    return redis

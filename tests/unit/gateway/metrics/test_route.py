"""GET /metrics without GATEWAY_METRICS_TOKEN. With it, and with others: tests/e2e/test_metrics."""

from __future__ import annotations

import httpx

from gateway.app import create_app
from gateway.settings import Settings
from tests.fake_redis import fake_redis


async def test_without_the_setting_there_is_no_such_address() -> None:
    settings = Settings("redis://unused", "key", "a" * 32, "0" * 24, ("b" * 32,))
    async with httpx.AsyncClient() as upstream:
        app = create_app(settings, redis=fake_redis(), http=upstream)
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            answers = [await http.get("/metrics", headers=headers) for headers in ({}, {"Authorization": "Bearer x"})]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(404, "not_found")] * 2

"""Shared fixtures of the tests of the 100ms client and of the emulator: a receiver of webhooks, a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import stamina
import uvicorn

from gateway.hms.calls import ATTEMPTS
from gateway.hms.client import HmsClient
from gateway.hms.tokens import HmsTokens
from tests.unit.gateway.local_100ms import client, new_app, unchanged
from tests.unit.gateway.receiver import pauses, receiver, webhooks
from tests.unit.gateway.upstream import KEY, SECRET, Upstream

__all__ = ["client", "pauses", "receiver", "server_url", "unchanged", "webhooks"]


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def impatient() -> Iterator[None]:
    """Retry without waits."""
    with stamina.set_testing(True, attempts=ATTEMPTS, cap=True):
        yield


@pytest.fixture
async def hms(upstream: Upstream, impatient: None) -> AsyncIterator[HmsClient]:
    transport = httpx.MockTransport(upstream)
    async with httpx.AsyncClient(transport=transport, base_url="https://api.100ms.test/v2") as http:
        client = HmsClient(http, HmsTokens(KEY, SECRET))
        yield client
        await client.close()


@pytest.fixture(params=["httptools", "h11"])
def server_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The emulator on uvicorn, with either of its HTTP parsers."""
    config = uvicorn.Config(new_app(), port=0, http=request.param, log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
        assert thread.is_alive()
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()

"""The emulator in this process, with tokens for it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from litestar.types import ASGIApp

from gateway.emulator.app import create_app

KEY, SECRET, TEMPLATE = "key-of-tests", "s" * 64, "0123456789abcdef01234567"


def signed(secret: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    """Return a token, by default a management token. A change to `...` removes the claim."""
    now = int(time.time())
    claims = {"access_key": KEY, "type": "management", "version": 2, "jti": "j", "iat": now - 10, "nbf": now - 10}
    claims |= {"exp": now + 600} | changes
    return jwt.encode({name: value for name, value in claims.items() if value is not ...}, secret, algorithm=algorithm)


def app_token(room_id: str, role: str = "guest", user_id: str = "u1") -> str:
    return signed(type="app", room_id=room_id, role=role, user_id=user_id)


def new_app(state: Path | None = None) -> ASGIApp:
    return create_app(access_key=KEY, app_secret=SECRET, template_id=TEMPLATE, state=state)


def client_for(state: Path | None = None, *, app: ASGIApp | None = None) -> httpx.AsyncClient:
    """Return a client with a management token. Its paths include `/v2`."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app or new_app(state)),
        base_url="http://emulator",
        headers={"authorization": f"Bearer {signed()}"},
    )


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_for() as made:
        yield made


@cache
def _unchanged_app() -> ASGIApp:
    return new_app()


@pytest.fixture
async def unchanged() -> AsyncIterator[httpx.AsyncClient]:
    """A client for tests that change nothing; they share one app, because each takes a while to build."""
    async with client_for(app=_unchanged_app()) as made:
        yield made


async def new_room(client: httpx.AsyncClient, **body: Any) -> str:
    reply = await client.post("/v2/rooms", json=body)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["id"])


async def join(
    client: httpx.AsyncClient, room_id: str, peer_id: str, *, role: str = "guest", user_id: str = "u1", **body: Any
) -> dict[str, Any]:
    """Join as the peer with this id, and return the reply."""
    token = app_token(room_id, role, user_id)
    reply = await client.post("/emulator/peers", json={"token": token, "peer_id": peer_id} | body)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def app_of(client: httpx.AsyncClient) -> Any:
    return client._transport.app  # type: ignore[attr-defined]


async def stop(client: httpx.AsyncClient) -> None:
    """Shut the app down, as its server does."""
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(_: dict[str, Any]) -> None:
        pass

    await app_of(client)({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)

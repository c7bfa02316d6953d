"""The emulator in this process, and the tokens it takes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import jwt
from litestar.types import ASGIApp

from gateway.emulator.app import create_app

KEY, SECRET, TEMPLATE = "key-of-tests", "s" * 40, "0123456789abcdef01234567"


def signed(**changes: Any) -> str:
    """Return a token, a management token unless the changes say otherwise."""
    now = int(time.time())
    claims = {"access_key": KEY, "type": "management", "version": 2, "jti": "j", "iat": now - 10, "nbf": now - 10}
    return jwt.encode(claims | {"exp": now + 600} | changes, SECRET, algorithm="HS256")


def app_token(room_id: str, role: str = "guest", user_id: str = "u1") -> str:
    return signed(type="app", room_id=room_id, role=role, user_id=user_id)


def new_app(state: Path | None = None) -> ASGIApp:
    return create_app(access_key=KEY, app_secret=SECRET, template_id=TEMPLATE, state=state)


def client_for(state: Path | None = None) -> httpx.AsyncClient:
    """Return a client with a management token; its paths are whole, `/v2` included."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=new_app(state)),
        base_url="http://emulator",
        headers={"authorization": f"Bearer {signed()}"},
    )


async def new_room(client: httpx.AsyncClient, **body: Any) -> str:
    reply = await client.post("/v2/rooms", json=body)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["id"])


async def join(
    client: httpx.AsyncClient, room_id: str, peer_id: str, *, role: str = "guest", user_id: str = "u1", **body: Any
) -> dict[str, Any]:
    """Join as the peer of that id, and return what the emulator says of it."""
    token = app_token(room_id, role, user_id)
    reply = await client.post("/emulator/peers", json={"token": token, "peer_id": peer_id} | body)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def stop(client: httpx.AsyncClient) -> None:
    """Let the app shut down, as its server does."""
    app = client._transport.app  # type: ignore[attr-defined]
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(_: dict[str, Any]) -> None:
        pass

    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)

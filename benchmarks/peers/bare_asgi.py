"""The floor: one ASGI function with the same cryptography and one Redis script, and nothing that a product needs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import time
from typing import Any

from benchmarks.peers.script import COUNT_AND_LIMIT
from gateway.redis.store import Store, connect

LOGIN_SECRET, HMS_SECRET = os.environ["LOGIN_SECRET"].encode(), os.environ["HMS_APP_SECRET"].encode()
ACCESS_KEY, LIMIT = os.environ["HMS_APP_ACCESS_KEY"], os.environ["LIMIT"]
STORE = Store(connect(os.environ["REDIS_URL"]), deadline_s=5)
HEAD = b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await receive()
    user = _user(dict(scope["headers"]).get(b"authorization", b"")[7:])
    if user is None:
        await _answer(send, 401, b'{"success":false,"error":"Log in first."}')
    elif not await STORE.execute("EVAL", COUNT_AND_LIMIT, 1, f"bare:{user}", LIMIT):
        await _answer(send, 429, b'{"success":false,"error":"Too many requests."}')
    else:
        token = _sign(scope["path"].split("/")[3], user)
        await _answer(send, 200, b'{"success":true,"token":"' + token + b'"}')


def _user(token: bytes) -> str | None:
    signed, _, signature = token.rpartition(b".")
    good = _b64(hmac.digest(LOGIN_SECRET, signed, hashlib.sha256))
    if not signed or not hmac.compare_digest(good, signature):
        return None
    body = signed.partition(b".")[2]
    claims = json.loads(base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4)))
    return str(claims["sub"]) if claims["exp"] > time.time() else None


def _sign(room: str, user: str) -> bytes:
    now = int(time.time())
    payload = {
        "access_key": ACCESS_KEY,
        "room_id": room,
        "user_id": user,
        "role": "guest",
        "type": "app",
        "version": 2,
        "jti": secrets.token_hex(16),
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
    }
    signed = HEAD + _b64(json.dumps(payload, separators=(",", ":")).encode())
    return signed + b"." + _b64(hmac.digest(HMS_SECRET, signed, hashlib.sha256))


def _b64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


async def _answer(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

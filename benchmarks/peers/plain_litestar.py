"""Plain Litestar doing the core of the job the way its documentation shows: PyJWT, one awaited script, a counter."""

from __future__ import annotations

import os
import time
import uuid
from typing import Any

import jwt
from litestar import Litestar, Request, post
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException, TooManyRequestsException
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.params import FromPath
from redis.asyncio import Redis

from benchmarks.peers.script import COUNT_AND_LIMIT

REDIS = Redis.from_url(os.environ["REDIS_URL"])
SCRIPT = REDIS.register_script(COUNT_AND_LIMIT)
LOGIN_SECRET, HMS_SECRET = os.environ["LOGIN_SECRET"], os.environ["HMS_APP_SECRET"]
ACCESS_KEY, LIMIT = os.environ["HMS_APP_ACCESS_KEY"], int(os.environ["LIMIT"])


class Login(AbstractAuthenticationMiddleware):
    async def authenticate_request(self, connection: ASGIConnection[Any, Any, Any, Any]) -> AuthenticationResult:
        try:
            token = connection.headers.get("authorization", "").removeprefix("Bearer ")
            claims = jwt.decode(token, LOGIN_SECRET, algorithms=["HS256"])
        except jwt.InvalidTokenError as error:
            raise NotAuthorizedException("Log in first.") from error
        return AuthenticationResult(user=claims["sub"], auth=claims)


@post("/api/rooms/{room_id:str}/token", status_code=200)
async def mint(room_id: FromPath[str], request: Request[str, Any, Any]) -> dict[str, Any]:
    if not await SCRIPT(keys=[f"litestar:{request.user}"], args=[LIMIT]):
        raise TooManyRequestsException("Too many requests.", headers={"Retry-After": "1"})
    now = int(time.time())
    payload = {
        "access_key": ACCESS_KEY,
        "room_id": room_id,
        "user_id": request.user,
        "role": "guest",
        "type": "app",
        "version": 2,
        "jti": str(uuid.uuid4()),
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
    }
    return {"success": True, "token": jwt.encode(payload, HMS_SECRET, algorithm="HS256")}


app = Litestar([mint], middleware=[Login], openapi_config=None, logging_config=None)

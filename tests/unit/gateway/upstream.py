"""A fake 100ms that answers by one function, for the tests of the client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from gateway.hms.client import HmsClient
from gateway.hms.replies import HmsRoom

KEY, SECRET = "63f0a5b1c2d3e4f5a6b7c8d9", "hms-secret-of-tests-" + "h" * 32
ROOM, TEMPLATE = "0123456789abcdef01234567", "89abcdef0123456789abcdef"
NAME = "my-room.01j0000000000000000000000"
BODY_SECRET = "confidential-text-of-100ms"

Answer = httpx.Response | Exception
Handler = Callable[[httpx.Request], Awaitable[Answer] | Answer]


class Upstream:
    """Answers as configured and records the requests."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.answer: Handler = lambda _: httpx.Response(500)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answer(request)
        if isinstance(answer, Awaitable):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    def says(self, status: int, content: Any = None, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.answer = lambda _: httpx.Response(status, content=body, headers=headers)

    def says_in_turn(self, *answers: Answer) -> None:
        """Answer each call with the next answer, and repeat the last one."""
        left = list(answers)
        self.answer = lambda _: left.pop(0) if len(left) > 1 else left[0]

    async def hang(self, _: httpx.Request) -> Answer:
        await asyncio.sleep(60)
        raise AssertionError


async def create(hms: HmsClient) -> HmsRoom:
    return await hms.create_room(
        name=NAME, description="about", template_id=TEMPLATE, region="auto", size=100, max_duration_s=43_200
    )


def created(**changes: Any) -> dict[str, Any]:
    return {"id": ROOM, "name": NAME, "enabled": True, "customer_id": "c", "recording_info": {}} | changes


async def settled(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  the condition has no event
            await asyncio.sleep(0.001)

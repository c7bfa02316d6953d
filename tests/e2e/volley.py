"""Many HTTP requests at the same moment, each on a connection of its own, below any client library."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.servers import HOST


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def post(path: str, body: Mapping[str, object] | None = None, *, token: str = "") -> bytes:
    """Return the bytes of one POST."""
    content = json.dumps(body or {}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(content)}\r\n"
    if token:
        head += f"Authorization: Bearer {token}\r\n"
    return head.encode() + b"\r\n" + content


async def fire(port: int, requests: Sequence[bytes]) -> list[Answer | None]:
    """Open a connection per request, then send them all at once; None where the connection died unanswered."""
    links = [await asyncio.open_connection(HOST, port) for _ in requests]
    try:
        for (_, writer), request in zip(links, requests, strict=True):
            writer.write(request)
        async with asyncio.timeout(60):
            return await asyncio.gather(*(_read(reader) for reader, _ in links))
    finally:
        for _, writer in links:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in links), return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Answer | None:
    try:
        content = await reader.read()
    except ConnectionError:
        return None
    head, separator, body = content.partition(b"\r\n\r\n")
    if not separator:
        return None
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if len(body) < int(headers.get("content-length", "0")):
        return None
    return Answer(int(status_line.split(" ")[1]), headers, body)

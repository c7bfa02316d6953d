"""HTTP without a client library: many requests at the same moment, or sequential ones on a kept connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
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
    """Return the bytes of one POST, after which the connection closes."""
    return _request("POST", path, body or {}, token, "Connection: close")


def _request(method: str, path: str, body: object, token: str, *fields: str) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    fields = (f"{method} {path} HTTP/1.1", f"Host: {HOST}", *fields)
    if content:
        fields += ("Content-Type: application/json", f"Content-Length: {len(content)}")
    if token:
        fields += (f"Authorization: Bearer {token}",)
    return "\r\n".join((*fields, "", "")).encode() + content


class Line:
    """A connection for sequential requests; httpx would need more CPU for them than the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, method: str, path: str, body: object = None, *, token: str) -> Answer:
        self._writer.write(_request(method, path, body, token))
        async with asyncio.timeout(30):
            status, headers = _head((await self._reader.readuntil(b"\r\n\r\n"))[:-4])
            return Answer(status, headers, await self._reader.readexactly(int(headers["content-length"])))

    @property
    def is_open(self) -> bool:
        return not self._reader.at_eof()

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


@asynccontextmanager
async def open_lines(port: int, count: int) -> AsyncIterator[list[Line]]:
    lines = [Line(*await asyncio.open_connection(HOST, port)) for _ in range(count)]
    try:
        yield lines
    finally:
        await asyncio.gather(*(line.close() for line in lines), return_exceptions=True)


async def fire(port: int, requests: Sequence[bytes]) -> list[Answer | None]:
    """Open a connection per request, then send all at once; None where the connection closed without an answer."""
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
    status, headers = _head(head)
    if len(body) < int(headers.get("content-length", "0")):
        return None
    return Answer(status, headers, body)


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    status_line, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(status_line.split(" ")[1]), fields

"""Documents of identity providers: bounded, and fetched from nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from auth.provider_keys import FetchFailed
from gateway import fetch
from gateway.fetch import MOST_BYTES, Fetcher

URL = "https://login.example.com/keys"


def fetcher(answer: Callable[[httpx.Request], httpx.Response]) -> Fetcher:
    return Fetcher(httpx.MockTransport(answer))


class Slow(httpx.AsyncByteStream):
    """A body that never ends; each part comes in time for a limit between parts."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.01)
            yield b" "


async def test_a_document_is_fetched_with_a_plain_request() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, stream=httpx.ByteStream(b'{"keys":[]}'), headers={"set-cookie": "a=b"})

    get = fetcher(answer)
    assert await get(URL) == b'{"keys":[]}'
    assert await get(URL)
    await get.close()
    for request in seen:
        assert (request.method, str(request.url)) == ("GET", URL)
        assert set(request.headers) == {"host", "accept-encoding", "user-agent"}, "no cookie, no credentials"
        assert request.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (httpx.Response(302, headers={"location": "https://evil.test/"}), "it was answered with 302"),
        (httpx.Response(404), "it was answered with 404"),
        (httpx.Response(500), "it was answered with 500"),
        (httpx.Response(204), "it was answered with 204"),
        (httpx.Response(200, stream=httpx.ByteStream(b" " * (MOST_BYTES + 1))), "larger than 256 KiB"),
        (httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Slow()), "is compressed"),
    ],
)
async def test_another_answer_is_no_document(answer: httpx.Response, why: str) -> None:
    with pytest.raises(FetchFailed, match=why):
        await fetcher(lambda _: answer)(URL)


@pytest.mark.parametrize("error", [httpx.ConnectError("x"), httpx.ReadTimeout("x"), httpx.RemoteProtocolError("x")])
async def test_a_connection_that_fails_is_reported_without_details(error: Exception) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(FetchFailed, match=f"^the connection failed: {type(error).__name__}$"):
        await fetcher(answer)(URL)


async def test_a_body_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "TOTAL_S", 0.1)
    with pytest.raises(FetchFailed, match="no answer within 0 s"):
        await fetcher(lambda _: httpx.Response(200, stream=Slow()))(URL)


@pytest.mark.parametrize("url", ["http://login.example.com/", "file:///etc/passwd", "https://a@b.test/", ""])
async def test_other_addresses_are_not_asked(url: str) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise AssertionError("it was asked")

    with pytest.raises(FetchFailed, match="only https"):
        await fetcher(answer)(url)


async def test_without_a_transport_it_connects_by_itself_and_verifies_certificates() -> None:
    """Nothing listens there: what is checked is that a real connection is attempted, without a proxy."""
    get = Fetcher()
    with pytest.raises(FetchFailed, match="the connection failed"):
        await get("https://127.0.0.1:1/")
    await get.close()

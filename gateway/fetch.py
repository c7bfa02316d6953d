"""Fetches small documents of identity providers: by https, without redirects, bounded in time and size."""

import asyncio
import ssl

import httpx

from auth.provider_keys import FetchFailed, is_safe_url
from gateway import __version__

TOTAL_S = 3.0
MOST_BYTES = 256 * 1024


class Fetcher:
    """Fetches documents. Connects when it is first called, through `transport` if there is one."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._transport = transport

    async def __call__(self, url: str) -> bytes:
        """Return the document of a URL. Raises: FetchFailed"""
        if not is_safe_url(url):
            raise FetchFailed("only https:// addresses are fetched")
        try:
            async with asyncio.timeout(TOTAL_S):
                return await self._fetch(url)
        except TimeoutError:
            raise FetchFailed(f"no answer within {TOTAL_S:.0f} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
            raise FetchFailed(f"the connection failed: {type(error).__name__}") from None

    async def close(self) -> None:
        """Close all connections."""
        if self._transport is not None:
            await self._transport.aclose()

    async def _fetch(self, url: str) -> bytes:
        if self._transport is None:
            context = await asyncio.to_thread(_trust)  # reading all certificates takes 20 ms
            self._transport = self._transport or httpx.AsyncHTTPTransport(verify=context, trust_env=False)
        # No compression: a small answer could otherwise expand to any size before it is measured.
        headers = {"accept-encoding": "identity", "user-agent": f"hms-gateway/{__version__}"}
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), TOTAL_S)
        request = httpx.Request("GET", url, headers=headers, extensions={"timeout": timeouts})
        # Unlike a client of httpx, a transport follows no redirect and keeps no cookie.
        response = await self._transport.handle_async_request(request)
        try:
            if response.status_code != 200:
                raise FetchFailed(f"it was answered with {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise FetchFailed("the answer is compressed, but no compression was requested")
            content = bytearray()
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > MOST_BYTES:
                    raise FetchFailed(f"the answer is larger than {MOST_BYTES >> 10} KiB")
            return bytes(content)
        finally:
            await response.aclose()


def _trust() -> ssl.SSLContext:
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()  # an operator's own authority that the machine trusts
    return context

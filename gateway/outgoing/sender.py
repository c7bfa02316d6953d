"""One POST to an endpoint: to a checked address, without redirects, within ten seconds whatever is answered."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import cache

import httpx

from gateway import __version__
from gateway.outgoing.messages import Message
from gateway.policy.endpoints import Endpoint
from gateway.signing import sign
from gateway.threads import in_daemon_thread

TOTAL_S = 10.0
CONNECT_S = 3.0
MOST_READ_BYTES = 4096
_MOST_ADDRESSES = 3
_STEPS = ("connect", "read", "write", "pool")

Resolve = Callable[[str, int], Awaitable[list[str]]]


class NotSent(Exception):
    """No answer was received. The text says why; it has neither the URL nor a secret."""


async def resolve(host: str, port: int) -> list[str]:
    """Return all addresses of a host. Raises: OSError"""
    # A thread for each call: name servers that do not answer must not use up those that other lookups need.
    found = await asyncio.wrap_future(
        in_daemon_thread(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), "resolve")
    )
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Sender:
    """Signs and sends messages. `keys` by name of the endpoint; connects when the first message is sent."""

    def __init__(self, keys: Mapping[str, tuple[bytes, ...]], resolve: Resolve = resolve) -> None:
        self._keys = keys
        self._resolve = resolve
        self._transport: httpx.AsyncHTTPTransport | None = None

    async def send(self, endpoint: Endpoint, message: Message) -> int:
        """Send a message and return the status of the answer. Raises: NotSent"""
        keys = self._keys.get(endpoint.name)
        if not keys:
            raise NotSent("the endpoint has no secret in GATEWAY_WEBHOOK_SECRETS")
        status: list[int] = []
        try:
            async with asyncio.timeout(TOTAL_S):
                await self._send(endpoint, message, keys, status)
        except TimeoutError:
            if not status:
                raise NotSent(f"no answer within {TOTAL_S:g} s") from None
        except socket.gaierror:
            raise NotSent("the name of the host cannot be resolved") from None
        except (OSError, UnicodeError, httpx.HTTPError, httpx.InvalidURL) as error:
            if not status:
                raise NotSent(_words(error)) from None
        return status[0]

    async def close(self) -> None:
        """Close all connections."""
        if self._transport is not None:
            await self._transport.aclose()

    async def _send(self, endpoint: Endpoint, message: Message, keys: tuple[bytes, ...], status: list[int]) -> None:
        """Append the status once it has come. What follows it may be cut off by the time limit."""
        url, body = httpx.URL(endpoint.url), message.body.encode()
        addresses = await self._checked(endpoint, url)
        headers = _headers(url, message, keys, body)
        # TLS asks for the name of the URL and verifies it, although the connection is to an address.
        extensions = {"sni_hostname": url.host, "timeout": {**dict.fromkeys(_STEPS, TOTAL_S), "connect": CONNECT_S}}
        for left, address in zip(range(len(addresses))[::-1], addresses, strict=True):
            pinned = httpx.Request(
                "POST", url.copy_with(host=address), content=body, headers=headers, extensions=extensions
            )
            try:
                return await self._post(pinned, status)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if not left:
                    raise
        return None

    async def _checked(self, endpoint: Endpoint, url: httpx.URL) -> list[str]:
        """Resolve the host once and check every address; the name could resolve to others a moment later."""
        addresses = await self._resolve(url.host, url.port or (443 if url.scheme == "https" else 80))
        for address in addresses:
            if why := endpoint.refuses(address):
                raise NotSent(f"not sent: {why}")
        if not addresses:
            raise NotSent("the host has no address")
        return addresses[:_MOST_ADDRESSES]

    async def _post(self, request: httpx.Request, status: list[int]) -> None:
        if self._transport is None:
            context = await asyncio.to_thread(_trust)  # reading all certificates takes 20 ms
            self._transport = self._transport or _new_transport(context)
        response = await self._transport.handle_async_request(request)
        try:
            status.append(response.status_code)
            read = 0
            async for chunk in response.aiter_raw():  # a receiver may take an early end for an error
                read += len(chunk)
                if read > MOST_READ_BYTES:
                    break
        finally:
            await response.aclose()


def _headers(url: httpx.URL, message: Message, keys: tuple[bytes, ...], body: bytes) -> dict[str, str]:
    at_s = int(time.time())
    return {
        "host": url.netloc.decode("ascii"),
        "content-type": "application/json",
        "accept-encoding": "identity",
        "user-agent": f"hms-gateway/{__version__}",
        "webhook-id": message.id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": sign(keys, message.id, at_s, body),
    }


def _new_transport(context: ssl.SSLContext) -> httpx.AsyncHTTPTransport:
    """Return a transport: unlike a client of httpx it follows no redirect and keeps no cookie."""
    return httpx.AsyncHTTPTransport(
        verify=context,
        # A connection is never used again: the pool knows it by its address only, and another endpoint with the same
        # address would get it although TLS has verified another name.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        trust_env=False,  # a proxy of the environment would resolve the name itself
    )


@cache
def _trust() -> ssl.SSLContext:
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()  # an operator's own authority that the machine trusts
    return context


def _words(error: Exception) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "the certificate is not valid for this host, or its issuer is not trusted"
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return "no connection could be made"
    return f"the connection failed: {type(error).__name__}"

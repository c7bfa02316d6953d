"""One POST to a webhook: only to loopback and private addresses, with a time limit, without redirects."""

import asyncio
import ipaddress
import socket

import httpx
import msgspec

from gateway.emulator.records import Webhook

_ATTEMPT_MOST_S = 5.0
_MOST_AT_ONCE = 50
_READ_MOST_BYTES = 65_536
# Not Python's is_private, which includes 169.254.0.0/16, where clouds serve credentials.
_LOCAL = tuple(
    ipaddress.ip_network(net)
    for net in ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
_RULE = f"events go only to loopback and private addresses ({', '.join(map(str, _LOCAL))})"
_OURS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding"})


class NotSentError(Exception):
    """No answer was received. The text says why."""


async def check_address(webhook: Webhook) -> None:
    """Check that a webhook's host resolves to allowed addresses, if it resolves yet. Raises: ValueError"""
    try:
        async with asyncio.timeout(_ATTEMPT_MOST_S):
            await _local_address(httpx.URL(webhook.url))
    except (NotSentError, httpx.InvalidURL, UnicodeError) as error:
        raise ValueError(str(error)) from None
    except OSError:  # TimeoutError and gaierror among them
        return


class Sender:
    """Sends events. Creates its HTTP client with the first one, because most runs send none."""

    def __init__(self) -> None:
        self._http: httpx.AsyncClient | None = None
        self._slots = asyncio.Semaphore(_MOST_AT_ONCE)

    async def post(self, webhook: Webhook, event: dict[str, object]) -> int:
        """Send an event and return the status of the answer. Raises: NotSentError"""
        try:
            async with self._slots, asyncio.timeout(_ATTEMPT_MOST_S):
                return await self._post(webhook, msgspec.json.encode(event))
        except TimeoutError:
            raise NotSentError("timeout") from None
        except (OSError, httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise NotSentError(f"{type(error).__name__}: {error}") from None

    async def close(self) -> None:
        """Close all connections."""
        if self._http is not None:
            await self._http.aclose()

    async def _post(self, webhook: Webhook, body: bytes) -> int:
        url = httpx.URL(webhook.url)
        headers = {name.lower(): value for name, value in webhook.headers.items() if name.lower() not in _OURS}
        headers |= {"host": url.netloc.decode("ascii"), "content-type": "application/json"}
        # Sent to the checked address, because the name could resolve to another one a moment later.
        pinned = url.copy_with(host=await _local_address(url))
        if self._http is None:
            self._http = httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=_ATTEMPT_MOST_S)
        extensions = {"sni_hostname": url.host}
        async with self._http.stream("POST", pinned, content=body, headers=headers, extensions=extensions) as response:
            # The answer is read so that the connection can be reused.
            read = 0
            async for chunk in response.aiter_raw():
                read += len(chunk)
                if read > _READ_MOST_BYTES:
                    break
            return response.status_code


async def _local_address(url: httpx.URL) -> str:
    port = url.port or (443 if url.scheme == "https" else 80)
    found = await asyncio.get_running_loop().getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    for *_, address in found:
        if not _is_local(str(address[0])):
            raise NotSentError(f"the address is neither loopback nor private: {_RULE}")
    return str(found[0][4][0])


def _is_local(text: str) -> bool:
    address = ipaddress.ip_address(text)
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address.version == net.version and address in net for net in _LOCAL)

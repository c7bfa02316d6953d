"""The client address of a request. What a header says of it counts only from trusted proxies."""

import ipaddress
import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache

log = logging.getLogger("gateway")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Parsing the addresses of each request took 6 us, these caches take 1.
_MOST_KNOWN = 4096
_LONGEST_KNOWN = 200  # bytes of X-Forwarded-For: four addresses
_IPV6_SITE_BITS = 64  # a subscriber gets at least a /64 and may use any address in it


class ClientAddresses:
    """Finds the client's address behind trusted proxies.

    `header` is one in which they write that address alone, replacing what a client sent; by default X-Forwarded-For.
    """

    def __init__(self, trusted: Sequence[Network], header: str = "") -> None:
        self._trusted = trusted
        self._name = header or "X-Forwarded-For"
        self._field = self._name.lower().encode()
        self._entries = 1 if header else 0  # how many are read from the right; 0: all
        self._warned = False
        self._known = lru_cache(maxsize=_MOST_KNOWN)(self._find)
        self._known_peers = lru_cache(maxsize=_MOST_KNOWN)(self._trusts)

    def find(self, peer: str | None, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return the client's address as text; `peer` is the other end of the connection ("" for a local socket).

        X-Forwarded-For is read from the right, past trusted proxies only: the first address that is not one of them is
        the client. Anything further left may have been written by the client itself. Of another header only the last
        address is read.
        """
        field = self._field
        forwarded = b",".join([value for name, value in headers if name == field])
        # A client may send very long fields; they must not fill the memory.
        find = self._known if len(forwarded) <= _LONGEST_KNOWN else self._find
        return find(peer or "", forwarded.decode("latin-1"))

    def trusts(self, peer: str) -> bool:
        """Tell whether the other end of a connection is one of the trusted proxies."""
        return self._known_peers(peer)

    def _find(self, peer: str, forwarded: str) -> str:
        current = _parse(peer)
        if current is None or not self._is_trusted(current):
            if forwarded and not self._warned:
                self._warned = True
                log.warning("%s came from an untrusted peer; is GATEWAY_TRUSTED_PROXIES missing?", self._name)
            return str(current or "")
        for text in reversed(forwarded.split(",")[-self._entries :]):
            claimed = _parse(text.strip())
            if claimed is None:
                break
            current = claimed
            if not self._is_trusted(current):
                break
        return str(current)

    def _trusts(self, peer: str) -> bool:
        address = _parse(peer)
        return address is not None and self._is_trusted(address)

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


@lru_cache(maxsize=_MOST_KNOWN)
def site_of(address: str) -> str:
    """Return the network that is limited as one client: the address itself for IPv4, its /64 for IPv6."""
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, _IPV6_SITE_BITS), strict=False))
    return str(parsed or "")


def _parse(text: str) -> Address | None:
    """Parse an address, with a port or in brackets as some proxies write it; return IPv4-mapped IPv6 as IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed

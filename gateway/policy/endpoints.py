"""Where events of outgoing webhooks may be sent: the rules of an endpoint's URL and of the addresses it resolves to."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from gateway.setting_values import is_local

EVENTS = frozenset({"budget.reached", "room.ended", "user.blocked", "user.unblocked", "user.disabled", "user.enabled"})
MOST_ENDPOINTS = 8
MOST_URL = 2000
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Services of clouds that hand out credentials to anyone who can reach them; one of them has a public address.
_METADATA = "169.254.0.0/16 100.100.100.200/32 168.63.129.16/32 192.0.0.192/32 fd00:ec2::254/128 fd20:ce::254/128"
# Loopback, RFC 1918, RFC 6598, RFC 4193. Not Python's `is_private`, which differs between its releases.
_OWN = "127.0.0.0/8 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 ::1/128 fc00::/7"
_NEVER_NETS, _OWN_NETS = (tuple(map(ipaddress.ip_network, nets.split())) for nets in (_METADATA, _OWN))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that IANA has given to global unicast
_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address of the operator's own systems, and the types of the events that they want."""

    name: str
    url: str
    events: frozenset[str]
    allow_private: bool = False

    @property
    def host(self) -> str:
        """The host of the URL. Only this is shown: the path may be a secret."""
        return urlsplit(self.url).hostname or ""

    def refuses(self, address: str) -> str:
        """Say why nothing may be sent to an address that the host resolves to; empty if it may."""
        kind = _kind(ipaddress.ip_address(address.partition("%")[0]))
        if kind == "public" and self.url.startswith("http:"):
            return f"{address} is not of your own network; http:// is for nothing else"
        if kind == "public" or (kind == "own" and self.allow_private):
            return ""
        return (
            f"{address} is private; only allow_private = true permits it" if kind == "own" else f"{address} is {kind}"
        )


def check_endpoint(endpoint: Endpoint) -> None:
    """Check an endpoint's URL, and its address if that is written out. Raises: ValueError"""
    url = endpoint.url
    if not re.fullmatch(rf"[!-\[\]-~]{{1,{MOST_URL}}}", url):
        raise ValueError("must be a URL of printable ASCII without spaces and backslashes")
    try:
        parts = urlsplit(url)
        host, has_port = parts.hostname or "", parts.port != 0
    except ValueError:
        raise ValueError("is not a valid URL") from None
    if "@" in parts.netloc or parts.fragment or not has_port:
        raise ValueError("must have no user name, no password, no fragment and no port 0")
    literal = _literal(parts, host)
    if parts.scheme != "https" and not (parts.scheme == "http" and endpoint.allow_private and is_local(host)):
        raise ValueError(
            "must begin with https://; http:// is for a host of your own network with allow_private = true"
        )
    if literal and (why := endpoint.refuses(literal)):
        raise ValueError(f"must not be sent to: {why}")


def _literal(parts: SplitResult, host: str) -> str:
    """Return the host if it is an address. Raises: ValueError, if it is neither a name nor one in its usual form"""
    if "[" in parts.netloc:
        if "%" in host:
            raise ValueError("must not have an address with a zone")
        return str(ipaddress.IPv6Address(host))
    if not _NAME.fullmatch(host) or len(host) > 253:
        raise ValueError("must have a host name of a-z 0-9 . _ and - (an international one as xn--...)")
    # Resolvers read 2130706433, 0x7f.1 and 0177.0.0.1 as 127.0.0.1; so does WHATWG's URL standard.
    if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise ValueError("must not have an address in an unusual form; write it as 203.0.113.5") from None
    return ""


def _kind(address: Address) -> str:
    """Return `public`, `own`, or what is wrong with an address."""
    if isinstance(address, ipaddress.IPv6Address) and (inner := _embedded(address)) is not None:
        return _kind(inner)
    if any(address in net for net in _NEVER_NETS) or address.is_link_local:
        return "link-local or serves credentials of a cloud, to which nothing is ever sent"
    if any(address in net for net in _OWN_NETS):
        return "own"
    is_unicast = address.version == 4 or address in _UNICAST
    is_public = is_unicast and address.is_global and not (address.is_multicast or address.is_reserved)
    return "public" if is_public else "no address of a single host"


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address to which packets for this one go in the end, if it contains one."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour

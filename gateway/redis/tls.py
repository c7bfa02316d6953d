"""TLS to Redis: the server's certificate is checked on every connection, before anything is sent to it.

This matters most for the password, which redis-py sends as soon as a connection is open. `settings.redis_url` puts
REDIS_CA_FILE and REDIS_FINGERPRINT into the query of the URL; operators must not.
"""

import asyncio
import hashlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from redis.asyncio.connection import AbstractConnection, SSLConnection
from redis.exceptions import RedisError

from gateway.setting_values import authorities

_LOOK_S = 0.4  # to read a certificate that was refused: together with the handshake less than a store waits
# Codes of OpenSSL (X509_V_ERR_… in x509_vfy.h).
_FAULTS = {9: "is not valid yet", 10: "has expired", 62: "is for another host name", 64: "is for another address"}
_UNKNOWN = (2, 18, 19, 20, 21)  # the issuer is not known, or the certificate has signed itself


class TlsError(Exception):
    """The server is not the one that it should be. The text says why and holds no address and no secret.

    `seen` is the fingerprint of its certificate, empty if it presented none.
    """

    def __init__(self, text: str, seen: str = "") -> None:
        super().__init__(text)
        self.seen = seen


@dataclass(frozen=True, slots=True)
class Trust:
    """Which certificates are accepted: those that pass `context` and, if there are fingerprints, have one of them."""

    context: ssl.SSLContext
    fingerprints: frozenset[str]
    unknown: str  # what is wrong with a certificate of another CA


class TlsConnection(SSLConnection):
    """A connection of redis-py to a server whose certificate a `Trust` accepts."""

    def __init__(self, *, trust: Trust, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = trust.context  # else redis-py would read all CAs of the system again, in 20 ms
        self._trust = trust

    async def _connect(self) -> None:
        """Connect; redis-py authenticates afterwards. Raises: TlsError, OSError"""
        try:
            await super()._connect()  # type: ignore[no-untyped-call]
        except ssl.SSLCertVerificationError as error:
            fault = self._trust.unknown if error.verify_code in _UNKNOWN else _FAULTS.get(error.verify_code)
            seen = await fingerprint_of(self.host, self.port)
            raise _refusal(fault or f"is refused: {error.verify_message}", seen) from None
        except ssl.SSLError as error:
            raise TlsError(_words(error)) from None
        pinned, writer = self._trust.fingerprints, self._writer
        if not pinned or writer is None:
            return
        seen = _fingerprint(writer)
        if seen not in pinned:
            writer.transport.abort()
            self._reader = self._writer = None
            raise _refusal("is not in REDIS_FINGERPRINT", seen)


def tls_failure(error: BaseException) -> str:
    """Return why TLS failed if an error of redis-py was raised for that, else an empty text."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, TlsError):
        return str(cause)
    # With TLS 1.3 a server that demands a client certificate says so only after the handshake.
    return _words(cause) if isinstance(cause, ssl.SSLError) else ""


def split(url: str) -> tuple[str, dict[str, Any]]:
    """Return a URL without its query, and the options of its connections that redis-py does not read from URLs.

    Every scheme that begins with `rediss` means TLS. Files are read now, and not again for later connections.
    """
    parts = urlsplit(url)
    if not parts.scheme.startswith("rediss"):
        return url, {}
    query = parse_qs(parts.query)
    trust = _trust("".join(query.get("ca", ())), frozenset(query.get("fingerprint", ())))
    return parts._replace(query="").geturl(), {"connection_class": TlsConnection, "trust": trust}


async def distrust(connect: Callable[[], Awaitable[AbstractConnection]]) -> TlsError | None:
    """Connect to a Redis; return why its certificate is refused, None if it is trusted or cannot be reached."""
    try:
        connection = await connect()
    except RedisError as error:
        return error.__cause__ if isinstance(error.__cause__, TlsError) else None
    await connection.disconnect(nowait=True)
    return None


async def fingerprint_of(host: str, port: int) -> str:
    """Return the SHA-256 of the certificate that a server presents, empty if none comes in time. Sends nothing."""
    try:
        async with asyncio.timeout(_LOOK_S):
            _, writer = await asyncio.open_connection(host, port, ssl=_any_certificate())
    except OSError:  # also a TimeoutError
        return ""
    seen = _fingerprint(writer)
    writer.transport.abort()
    return seen


def _trust(ca: str, fingerprints: frozenset[str]) -> Trust:
    if ca:
        return Trust(authorities(ca), fingerprints, "is signed by no CA in REDIS_CA_FILE")
    if fingerprints:  # alone they decide: a certificate that needs one often has no known CA and another name
        return Trust(_any_certificate(), fingerprints, "")
    return Trust(ssl.create_default_context(), fingerprints, "is signed by no CA that this system knows")


def _any_certificate() -> ssl.SSLContext:
    """Return a context that verifies nothing: the caller compares the fingerprint, or sends nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _fingerprint(writer: asyncio.StreamWriter) -> str:
    # The handshake has proved that the server has the key of this certificate, whatever is verified about it.
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return hashlib.sha256(certificate or b"").hexdigest()


def _words(error: ssl.SSLError) -> str:
    return f"TLS failed: {(error.reason or 'unknown error').replace('_', ' ').lower()}"


def _refusal(fault: str, seen: str) -> TlsError:
    shown = f"; its fingerprint is {bytes.fromhex(seen).hex(':').upper()}" if seen else ""
    return TlsError(f"the certificate of the server {fault}{shown}", seen)

"""Certificates, and a proxy that speaks TLS in front of a Redis, because the Valkey of the tests does not."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.servers import HOST, free_port

_NOW = datetime.now(UTC)


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, in one PEM file."""

    signed: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    path: Path

    @property
    def fingerprint(self) -> str:
        """The SHA-256 as `openssl x509 -fingerprint -sha256` prints it."""
        return hashlib.sha256(self.signed.public_bytes(Encoding.DER)).digest().hex(":").upper()


class Authority:
    """A certificate authority, like that of a hosting platform: its own certificate has no key usage."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own: Certificate | None = None
        self._own = self.sign("ca", is_ca=True)
        self.path = folder / "ca-only.pem"
        self.path.write_bytes(self._own.signed.public_bytes(Encoding.PEM))

    def sign(
        self,
        name: str,
        *,
        host: str = HOST,
        ends: timedelta = timedelta(days=1),
        is_ca: bool = False,
        by_itself: bool = False,
    ) -> Certificate:
        """Return a certificate for an address or a host name."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        by = None if by_itself else self._own
        signer = by.key if by else key
        try:
            names: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            names = x509.DNSName(host)
        signed = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(by.signed.subject if by else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_NOW - timedelta(days=2))
            .not_valid_after(_NOW + ends)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([names]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .sign(signer, hashes.SHA256())
        )
        path = self._folder / f"{name}.pem"
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(pem + signed.public_bytes(Encoding.PEM))
        return Certificate(signed, key, path)


class Closable(Protocol):
    """Something that listens."""

    def close(self) -> None:
        """Stop listening."""


class TlsProxy:
    """Takes TLS connections and passes them on to a port of this machine; runs in a thread of its own.

    `heard` is what clients have sent inside TLS, `heard_plain` without it.
    """

    def __init__(self, to_port: int, shown: Certificate) -> None:
        self.port, self._to_port = free_port(), to_port
        self.heard = self.heard_plain = b""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._loop = asyncio.new_event_loop()
        self._links: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.show(shown)

    def show(self, shown: Certificate) -> None:
        """Show this certificate to connections that are made from now on."""
        self._context.load_cert_chain(shown.path)

    @property
    def connections(self) -> int:
        return len(self._links)

    def url(self, *, host: str = HOST, password: str = "") -> str:
        return f"rediss://{f':{password}@' if password else ''}{host}:{self.port}/0"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(HOST, self._to_port)
        except OSError:  # the server is down
            writer.transport.abort()
            return
        self._links |= {writer, back}
        note = self._note_tls if writer.get_extra_info("ssl_object") else self._note_plain
        await asyncio.gather(self._pass(reader, back, note), self._pass(there, writer), return_exceptions=True)
        self._links -= {writer, back}

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Callable[[bytes], None] | None = None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if note is not None:
                    note(data)
                writer.write(data)
        writer.transport.abort()

    def _note_tls(self, data: bytes) -> None:
        self.heard += data

    def _note_plain(self, data: bytes) -> None:
        self.heard_plain += data

    def break_connections(self) -> None:
        """Abort all connections."""

        async def abort() -> None:
            for link in self._links:
                link.transport.abort()

        asyncio.run_coroutine_threadsafe(abort(), self._loop).result(5)

    def __enter__(self) -> TlsProxy:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(5)
        return self

    async def _listen(self) -> Closable:
        return await asyncio.start_server(self._serve, HOST, self.port, ssl=self._context)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async def close() -> None:
            self._server.close()
            for link in self._links:
                link.transport.abort()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.wait(others, timeout=2) if others else None

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


@dataclass(frozen=True)
class _Accepting:
    task: asyncio.Task[None]
    listening: socket.socket

    def close(self) -> None:
        self.task.cancel()
        self.listening.close()


class TwoWayProxy(TlsProxy):
    """Takes TLS as well as plain connections: servers that speak no TLS reach each other where clients use it."""

    async def _listen(self) -> Closable:
        listening = socket.create_server((HOST, self.port), backlog=100)
        listening.setblocking(False)
        return _Accepting(asyncio.create_task(self._accept(listening)), listening)

    async def _accept(self, listening: socket.socket) -> None:
        loop, meetings = asyncio.get_running_loop(), set()
        while True:
            accepted, _ = await loop.sock_accept(listening)
            meeting = loop.create_task(self._meet(accepted))
            meetings.add(meeting)
            meeting.add_done_callback(meetings.discard)

    async def _meet(self, accepted: socket.socket) -> None:
        """Look at the first byte, which begins a handshake of TLS (RFC 8446, section 5.1) or a command."""
        loop = asyncio.get_running_loop()
        readable = loop.create_future()
        loop.add_reader(accepted, lambda: readable.done() or readable.set_result(None))
        try:
            await readable
        finally:
            loop.remove_reader(accepted)
        try:
            context = self._context if accepted.recv(1, socket.MSG_PEEK) == b"\x16" else None
            protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader(), self._serve)
            await loop.connect_accepted_socket(lambda: protocol, accepted, ssl=context)
        except OSError:  # also a handshake that fails
            accepted.close()

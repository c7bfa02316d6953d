"""Raw bytes to and from a gateway, which a client library would normalise."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass

from tests.servers import HOST, Installation


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. `raw` is all of it; the other fields are its first response."""

    raw: bytes
    closed: bool

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])

    @property
    def headers(self) -> dict[str, str]:
        lines = self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        pairs = [line.split(": ", 1) for line in lines]
        names = [name for name, _ in pairs]
        assert len({*names}) == len(names) or {name for name in names if names.count(name) > 1} == {"vary"}, names
        return dict(pairs)  # type: ignore[arg-type]

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def count(self) -> int:
        return self.raw.count(b"HTTP/1.1 ")


def exchange(target: Installation, *parts: bytes, within_s: float = 5) -> Answer:
    """Send bytes, then read until the gateway closes the connection or sends nothing more."""
    with socket.create_connection((HOST, target.port), timeout=within_s) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except OSError:  # closed while we were still sending: only the answer counts
            pass
        return receive(connection)


def receive(connection: socket.socket) -> Answer:
    raw = b""
    try:
        while received := connection.recv(65536):
            raw += received
    except TimeoutError:
        return Answer(raw, closed=False)
    except ConnectionError:
        pass
    return Answer(raw, closed=True)


def head(line: str, *fields: str) -> bytes:
    """Return a request head that ends the connection, with a Host unless the fields have one."""
    fields = (*fields, "Connection: close")
    if not any(field.lower().startswith("host:") for field in fields):
        fields = ("Host: gateway", *fields)
    return "\r\n".join([line, *fields, "", ""]).encode("latin-1")


def send_until_refused(target: Installation, start: bytes, filling: Iterable[bytes]) -> int:
    """Send endless data; return the number of bytes sent before the gateway closed the connection."""
    sent = 0
    with socket.create_connection((HOST, target.port), timeout=5) as connection:
        try:
            connection.sendall(start)
            for part in filling:
                connection.sendall(part)
                sent += len(part)
        except ConnectionError:
            pass
    return sent

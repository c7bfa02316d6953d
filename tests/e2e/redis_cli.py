"""Stands in for `redis-cli` where it is not installed: `redis-cli -u URL --rdb FILE`, or a command of Redis."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import redis


def save_snapshot(url: str, path: Path) -> None:
    """Save the data set as a replica receives it, which is what redis-cli does."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as link, link.makefile("rb") as replies:
        link.sendall(b"SYNC\r\n")
        while not (line := replies.readline()).strip():  # the server sends empty lines until the snapshot is ready
            pass
        assert line[:1] == b"$", line
        path.write_bytes(replies.read(int(line[1:])))


def main(option: str, url: str, *words: str) -> None:
    assert option == "-u"
    if words[0] == "--rdb":
        save_snapshot(url, Path(words[1]))
        return
    connection = redis.Connection(**redis.connection.parse_url(url))  # type: ignore[no-untyped-call]
    connection.connect()  # type: ignore[no-untyped-call]
    connection.send_command(*words)  # type: ignore[no-untyped-call]
    try:
        reply = connection.read_response()  # type: ignore[no-untyped-call]
        print(reply.decode())
    except redis.ConnectionError:
        assert words == ("shutdown",)


main(*sys.argv[1:])

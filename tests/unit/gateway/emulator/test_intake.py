"""The request targets that the outermost layer accepts."""

import json
import socket
from urllib.parse import urlsplit

import pytest

from tests.unit.gateway.local_100ms import signed


def ask(server_url: str, target: str, host: str) -> tuple[int, bytes]:
    """Send a GET with exactly this target, and return status and body."""
    port = urlsplit(server_url).port
    head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {signed()}\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(head.encode())
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_absolute_url_of_100ms_is_answered_like_its_path(server_url: str, scheme: str) -> None:
    """RFC 9112, section 3.2.2: a server must accept the absolute form. A client that uses a proxy sends it."""
    host = "api.100ms.live"
    status, body = ask(server_url, f"{scheme}://{host}/v2/rooms?limit=20", host)
    assert (status, json.loads(body)) == (200, {"limit": 20, "data": [], "last": ""})
    status, body = ask(server_url, f"{scheme}://{host}:443/v2/rooms/{'f' * 24}", host)
    assert (status, json.loads(body)["message"]) == (404, "Room not found")
    assert ask(server_url, f"{scheme}://{host}/", host)[0] == 404
    status, body = ask(server_url, "/emulator/calls", "localhost")
    assert [call["path"] for call in json.loads(body)["calls"]] == ["/v2/rooms", f"/v2/rooms/{'f' * 24}"]


def test_a_url_inside_a_path_stays_in_the_path(server_url: str) -> None:
    assert ask(server_url, "/v2/rooms/https://api.100ms.live/v2/rooms", "localhost")[0] == 404

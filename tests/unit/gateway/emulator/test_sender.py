"""The allowed addresses of webhooks, and the failures of one POST."""

import asyncio
import socket
from typing import Any

import pytest

from gateway.emulator import sender
from gateway.emulator.records import Webhook
from gateway.emulator.state import Workspace
from gateway.emulator.webhooks import Webhooks
from tests.servers import free_port
from tests.unit.gateway.receiver import ROOM, Pauses, Receiver, settled


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "93.184.215.14", "0.0.0.1", "224.0.0.1", "fe80::1", "2606:4700::1111", "::ffff:93.184.215.14"],
)
async def test_nothing_is_sent_to_public_or_link_local_addresses(
    pauses: Pauses, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """OWASP: server-side request forgery. Any user who can create a room chooses a webhook's URL, and clouds serve
    credentials on link-local addresses. One forbidden address of a name is enough to refuse it."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, 80)) for text in ("127.0.0.1", address)]

    async def resolve(*_: object, **__: object) -> list[Any]:
        return found

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve, raising=False)
    webhooks = Webhooks(Workspace("key", None), Webhook(url="http://outside.example/hook"), sleep=pauses)
    webhooks.emit(ROOM, "peer.join.success", {})
    (delivery,) = await settled(webhooks)
    assert delivery.state == "failed"
    assert {(attempt.error or "").partition(":")[0] for attempt in delivery.attempts} == {
        "the address is neither loopback nor private"
    }
    await webhooks.close()


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.9.9.9", "10.1.2.3", "172.31.0.1", "192.168.1.1", "::1", "fd00::1"]
)
def test_private_addresses_are_local(address: str) -> None:
    assert sender._is_local(address)


async def test_a_name_is_resolved_once_and_sent_as_the_host(
    webhooks: Webhooks, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the address of a second look-up would not have been checked."""
    asked: list[str] = []

    async def resolve(host: str, *_: object, **__: object) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]

    webhooks.default = Webhook(url=f"http://hooks.example:{receiver.port}/hook")
    with monkeypatch.context() as patched:
        patched.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve, raising=False)
        webhooks.emit(ROOM, "peer.join.success", {})
        await settled(webhooks)
    assert [name for name in asked if name != "127.0.0.1"] == ["hooks.example"]
    assert receiver.requests[0][1]["host"] == f"hooks.example:{receiver.port}"


async def test_a_receiver_that_hangs_is_a_timeout(
    webhooks: Webhooks, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "_ATTEMPT_MOST_S", 0.05)
    receiver.pause_s = 30
    webhooks.emit(ROOM, "peer.join.success", {})
    (delivery,) = await settled(webhooks)
    assert [attempt.error for attempt in delivery.attempts] == ["timeout"] * 4


@pytest.mark.parametrize(
    "url", [f"http://127.0.0.1:{free_port()}/", "http://127.0.0.1:notaport/", "http://"], ids=["silent", "port", "host"]
)
async def test_an_unusable_url_makes_the_delivery_fail(webhooks: Webhooks, url: str) -> None:
    webhooks.default = Webhook(url=url)
    webhooks.emit(ROOM, "peer.join.success", {})
    (delivery,) = await settled(webhooks)
    assert delivery.state == "failed"
    assert all(attempt.error and attempt.status is None for attempt in delivery.attempts)


@pytest.mark.parametrize("headers", [{"X-Name": "naïve"}, {"X-Name": "a\r\nX-Other: b"}, {"": "x"}, {"a b": "x"}])
async def test_an_unusable_header_is_not_sent(webhooks: Webhooks, receiver: Receiver, headers: dict[str, str]) -> None:
    webhooks.default = Webhook(url=receiver.url, headers=headers)
    webhooks.emit(ROOM, "peer.join.success", {})
    (delivery,) = await settled(webhooks)
    assert (delivery.state, receiver.requests) == ("failed", [])


async def test_the_headers_of_a_webhook_cannot_change_the_framing(webhooks: Webhooks, receiver: Receiver) -> None:
    """RFC 9112, section 6.1: a length and a transfer coding in one request allow request smuggling."""
    webhooks.default = Webhook(
        url=receiver.url, headers={"Content-Length": "3", "Transfer-Encoding": "chunked", "Host": "x", "X-Ok": "1"}
    )
    webhooks.emit(ROOM, "peer.join.success", {"n": 1})
    (delivery,) = await settled(webhooks)
    _, headers, event = receiver.requests[0]
    assert (delivery.state, event["data"], headers["x-ok"]) == ("delivered", {"n": 1}, "1")
    assert "transfer-encoding" not in headers
    assert headers["host"] != "x"

"""Outgoing webhooks must not reach what the gateway can reach and an operator did not mean (SSRF).

OWASP API7:2023; PortSwigger and OWASP SSRF cheat sheets for the forms of addresses; standardwebhooks.com, "Server side
request forgery". Names resolve to what the tests say; the only servers are on loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gateway.outgoing import sender as module
from gateway.outgoing.messages import Message
from gateway.outgoing.sender import MOST_READ_BYTES, NotSent, Sender, resolve
from gateway.policy.endpoints import Endpoint
from gateway.policy.file import built_in_text, parse_policy
from gateway.policy.tables import PolicyError

module._trust()  # reading all certificates takes longer than the time limits of these tests

KEYS = {"mine": (secrets.token_bytes(32),)}
MESSAGE = Message("msg_1", "user.blocked", '{"type":"user.blocked"}')


def endpoint(url: str, *, private: bool = False) -> Endpoint:
    return Endpoint("mine", url, frozenset({"user.blocked"}), private)


def policy_error(url: str, *, private: bool = False) -> str:
    more = f'\n[webhooks.mine]\nurl = {url!r}\nevents = ["user.blocked"]\nallow_private = {str(private).lower()}\n'
    try:
        parse_policy(built_in_text() + more, "policy.toml")
    except PolicyError as error:
        return str(error).removeprefix("policy.toml: webhooks.mine.url: ")
    return ""


def names(*addresses: str) -> Callable[[str, int], Awaitable[list[str]]]:
    async def answer(_: str, __: int) -> list[str]:
        return list(addresses)

    return answer


# --- What the policy refuses when it is read ---

UNUSUAL = [
    "2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "127.0.0.1.", "0", "017700000001", "1.2.3.4.5", "0x",
    "169.254.43518", "example.0x7f",
]  # fmt: skip
REFUSED = [
    *(f"https://{host}/" for host in UNUSUAL),
    "https://127.0.0.1/", "https://[::1]/", "https://0.0.0.0/", "https://[::]/", "https://10.1.2.3/",
    "https://172.16.0.1/", "https://192.168.0.1/", "https://100.64.0.1/", "https://169.254.169.254/latest/meta-data/",
    "https://100.100.100.200/", "https://168.63.129.16/", "https://192.0.0.192/", "https://[fd00:ec2::254]/",
    "https://[::ffff:127.0.0.1]/", "https://[::ffff:a9fe:a9fe]/", "https://[::127.0.0.1]/", "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/", "https://[64:ff9b::7f00:1]/", "https://[64:ff9b:1::1]/", "https://[2002:7f00:1::]/",
    "https://[2001::1]/", "https://[2001:db8::1]/", "https://[fc00::1]/", "https://[ff02::1]/", "https://224.0.0.1/",
    "https://240.0.0.1/", "https://255.255.255.255/", "https://192.0.2.1/", "https://198.18.0.1/", "https://[fec0::1]/",
    "https://good.test@127.0.0.1/", "https://user:password@good.test/", "https://@good.test/", "https://good.test#@x/",
    "https://good.test\\@127.0.0.1/", "https://good.test/ x", "https://good.test/\t", "https://good.test:0/",
    "https://good.test:99999/", "https://good.test:x/", "https:///", "https://", "https:good.test", "//good.test/",
    "https://gööd.test/", "https://①②⑦.⓪.⓪.①/", "https://good..test/", "https://-good.test/", "https://[::1/",
    "https://%31%32%37.0.0.1/", "https://good.test%2f@127.0.0.1/", "http://good.test/", "http://127.0.0.1/",
    "http://receiver/", "ftp://good.test/", "file:///etc/passwd", "gopher://good.test/", "javascript:alert(1)", "",
    "https://good.test/" + "x" * 2000,
]  # fmt: skip


@pytest.mark.parametrize("url", REFUSED)
def test_a_policy_with_such_a_url_is_refused(url: str) -> None:
    assert policy_error(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://good.test/hook?x=1", "https://good.test:8443/", "https://203.0.114.5/", "https://[2606:4700::1111]/",
        "https://xn--gd-fkaa.test/", "https://1.good.test./", "https://receiver/",
    ],
)  # fmt: skip
def test_a_policy_with_an_ordinary_url_is_accepted(url: str) -> None:
    assert policy_error(url) == ""


@pytest.mark.parametrize(
    "url",
    [
        "https://169.254.169.254/", "https://[fd00:ec2::254]/", "https://[::ffff:169.254.169.254]/", "https://0.0.0.0/",
        "https://[fe80::1]/", "https://2130706433/", "http://good.test/", "http://203.0.114.5/", "https://x@10.0.0.1/",
        "https://168.63.129.16/", "https://224.0.0.1/", "https://[64:ff9b::a9fe:a9fe]/",
    ],
)  # fmt: skip
def test_permission_for_private_addresses_is_for_those_of_the_own_network_only(url: str) -> None:
    assert policy_error(url, private=True)
    for own in ("http://receiver/", "http://10.0.0.1/", "https://[::1]/", "http://127.0.0.1:9/", "https://[fd12::1]/"):
        assert policy_error(own, private=True) == ""


# --- What a name resolves to ---

INNER = [
    "127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::ffff:10.0.0.1",  # noqa: S104
    "64:ff9b::a00:1", "2002:a00:1::", "fe80::1%lo", "fd00::1", "100.64.0.1", "168.63.129.16", "224.0.0.1", "::7f00:1",
]  # fmt: skip


@pytest.mark.parametrize("address", INNER)
async def test_nothing_is_sent_to_a_name_of_which_one_address_is_inside(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(*_: object) -> None:
        raise AssertionError("connected")

    monkeypatch.setattr(Sender, "_post", connect)
    for found in ([address], ["203.0.114.5", address], [address, "203.0.114.5"]):
        with pytest.raises(NotSent, match="not sent"):
            await Sender(KEYS, names(*found)).send(endpoint("https://good.test/"), MESSAGE)


async def test_a_local_name_over_http_that_resolves_outside_gets_nothing() -> None:
    with pytest.raises(NotSent, match="is not of your own network"):
        await Sender(KEYS, names("203.0.114.5")).send(endpoint("http://receiver/", private=True), MESSAGE)


async def test_a_name_is_resolved_once_so_that_it_cannot_change_after_the_check() -> None:
    """DNS rebinding: the second answer would be the metadata service."""
    asked: list[tuple[str, int]] = []
    reached = asyncio.Event()

    async def rebind(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    async with server(lambda *_: reached.set()) as port:
        sender = Sender(KEYS, rebind)
        with pytest.raises(NotSent):
            await sender.send(endpoint(f"http://receiver:{port}/", private=True), MESSAGE)
        await sender.close()
        await asyncio.wait_for(reached.wait(), 1)
        assert asked == [("receiver", port)]


async def test_numbers_that_resolvers_take_for_loopback_are_checked_as_addresses() -> None:
    for host in ("2130706433", "0x7f.1", "127.1"):
        assert await resolve(host, 443) == ["127.0.0.1"]
        with pytest.raises(NotSent, match=r"127\.0\.0\.1 is private"):
            await Sender(KEYS).send(endpoint(f"https://{host}/"), MESSAGE)


async def test_name_servers_that_do_not_answer_end_with_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOTAL_S", 0.1)
    done = threading.Event()
    monkeypatch.setattr(module.socket, "getaddrinfo", lambda *_, **__: done.wait(10))
    begun = time.monotonic()
    for _ in range(3):
        with pytest.raises(NotSent, match="no answer"):
            await Sender(KEYS).send(endpoint("https://good.test/"), MESSAGE)
    assert time.monotonic() - begun < 5
    assert await asyncio.to_thread(lambda: True), "lookups take no thread that other work needs"
    done.set()


async def test_tls_asks_for_and_verifies_the_name_although_it_connects_to_an_address() -> None:
    hello = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        hello.set_result(await reader.read(4096))

    async with server(serve, read=False) as port:
        sender = Sender(KEYS, names("127.0.0.1"))
        with pytest.raises(NotSent, match="no connection could be made"):
            await sender.send(endpoint(f"https://receiver.test:{port}/", private=True), MESSAGE)
        await sender.close()
    assert b"receiver.test" in await hello  # the name for which TLS wants a certificate (RFC 6066)
    assert b"127.0.0.1" not in await hello
    context = module._trust()
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


# --- What the other side answers ---


@contextlib.asynccontextmanager
async def server(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object], *, head: bytes = b"", read: bool = True
) -> AsyncIterator[int]:
    """A receiver on loopback that reads a request, sends `head`, lets `answer` do the rest, and hangs up."""

    tasks: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                if read:
                    await reader.readuntil(b"\r\n\r\n")
                writer.write(head)
                done = answer(reader, writer)
                if isinstance(done, Awaitable):
                    await done
                await writer.drain()
        finally:
            writer.close()

    running = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield running.sockets[0].getsockname()[1]
    running.close()
    for task in filter(None, tasks):
        task.cancel()
    await asyncio.gather(*filter(None, tasks), return_exceptions=True)


async def sent_to(port: int) -> int:
    sender = Sender(KEYS)
    try:
        return await sender.send(endpoint(f"http://127.0.0.1:{port}/hook", private=True), MESSAGE)
    finally:
        await sender.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_is_not_followed(status: int) -> None:
    followed = asyncio.Event()
    async with server(lambda *_: followed.set()) as target:
        head = f"HTTP/1.1 {status} Moved\r\nlocation: http://127.0.0.1:{target}/\r\ncontent-length: 0\r\n\r\n"
        async with server(lambda *_: None, head=head.encode()) as port:
            assert await sent_to(port) == status
            assert not followed.is_set()


async def test_of_a_long_answer_little_is_read() -> None:
    written = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        while written < 64 << 20:
            writer.write(b"x" * 65_536)
            await writer.drain()
            written += 65_536

    async with server(flood, head=b"HTTP/1.1 200 OK\r\n\r\n") as port:
        assert await sent_to(port) == 200
    assert written < 16 << 20, "only what fits into the buffers of both sides"
    assert MOST_READ_BYTES == 4096


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: "])
async def test_an_answer_that_drips_ends_with_the_time_limit(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOTAL_S", 0.3)

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" if b"100" in head else head and b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with server(drip, head=head) as port:
        begun = time.monotonic()
        with pytest.raises(NotSent, match=r"no answer within 0\.3 s"):
            await sent_to(port)
        assert time.monotonic() - begun < 2


async def test_a_body_that_drips_does_not_change_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOTAL_S", 0.3)

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with server(drip, head=b"HTTP/1.1 204 OK\r\n\r\n") as port:
        assert await sent_to(port) == 204
    async with server(drip, head=b"HTTP/1.1 200 OK\r\n\r\n") as port:
        assert await sent_to(port) == 200


@pytest.mark.parametrize("head", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 40_000, b"\x00" * 100])
async def test_what_is_no_http_is_a_failure(head: bytes) -> None:
    async with server(lambda *_: None, head=head) as port:
        with pytest.raises(NotSent, match="the connection failed: RemoteProtocolError"):
            await sent_to(port)


async def test_no_compression_is_expanded_no_cookie_kept_and_no_connection_used_again() -> None:
    heads: list[list[bytes]] = []  # of each connection

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append([])
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                heads[-1].append(await reader.readuntil(b"\r\n\r\n"))
                await reader.readexactly(len(MESSAGE.body))
                fields = b"content-encoding: gzip\r\nset-cookie: a=b\r\ncontent-length: 2\r\n\r\nxx"
                writer.write(b"HTTP/1.1 200 OK\r\n" + fields)

    async with server(answer, read=False) as port:
        sender = Sender(KEYS)
        for _ in range(2):
            assert await sender.send(endpoint(f"http://127.0.0.1:{port}/", private=True), MESSAGE) == 200
        await sender.close()
    assert [len(one) for one in heads] == [1, 1], "TLS has verified the name of a connection for one endpoint only"
    assert b"cookie" not in heads[1][0].lower()


async def test_a_failure_names_neither_the_url_nor_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "gateway")
    async with server(lambda *_: None) as port:
        with pytest.raises(NotSent) as failed:
            await Sender(KEYS, names("127.0.0.1")).send(
                endpoint(f"http://receiver:{port}/PATH-SECRET?q=QUERY-SECRET", private=True), MESSAGE
            )
    assert "SECRET" not in str(failed.value) + caplog.text
    assert "PATH-SECRET" not in repr(Sender(KEYS))

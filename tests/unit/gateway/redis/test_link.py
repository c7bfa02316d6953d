"""The protocol of a Redis connection, on bytes of the test's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.exceptions import BusyLoadingError, InvalidResponse, NoScriptError, ResponseError

from gateway.redis.link import Link


class Transport:
    """Takes a protocol, as asyncio's transports do."""

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


class Ends:
    """What a link reports."""

    def __init__(self) -> None:
        self.replies: list[list[Any]] = []
        self.lost: list[Exception | None] = []
        self.connection = SimpleNamespace(_writer=SimpleNamespace(transport=Transport()))
        self.link = Link(
            cast("Any", self.connection),
            lambda _, replies: self.replies.append(replies),
            lambda _, error: self.lost.append(error),
        )


@pytest.fixture
def ends() -> Ends:
    return Ends()


def test_a_link_takes_the_transport_from_redis_py() -> None:
    ends = Ends()
    assert ends.link._writer.transport.protocol is ends.link  # type: ignore[attr-defined]
    assert ends.connection._writer is None


def test_a_connection_without_a_transport_makes_no_link() -> None:
    with pytest.raises(ConnectionError):
        Link(cast("Any", SimpleNamespace(_writer=None)), lambda *_: None, lambda *_: None)


def test_the_replies_of_one_read_are_reported_together(ends: Ends) -> None:
    ends.link.data_received(b"+OK\r\n:7\r\n_\r\n#f\r\n%1\r\n$1\r\na\r\n$1\r\nb\r\n")
    assert ends.replies == [[b"OK", 7, None, False, {b"a": b"b"}]]
    assert ends.lost == []


def test_a_reply_that_arrives_byte_by_byte_is_reported_once_it_is_whole(ends: Ends) -> None:
    for byte in b"*2\r\n$3\r\nabc\r\n:12\r\n":
        ends.link.data_received(bytes([byte]))
    assert [replies for replies in ends.replies if replies] == [[[b"abc", 12]]]


def test_an_error_is_a_reply_of_its_kind(ends: Ends) -> None:
    ends.link.data_received(b"-ERR wrong\r\n-NOSCRIPT No matching script.\r\n")
    [[wrong, unknown]] = ends.replies
    assert isinstance(wrong, ResponseError)
    assert isinstance(unknown, NoScriptError)
    assert ends.lost == []


def test_a_push_is_no_reply(ends: Ends) -> None:
    ends.link.data_received(b">2\r\n+invalidate\r\n*1\r\n+k\r\n:1\r\n")
    assert ends.replies == [[1]]


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b":1\r\n-LOADING Redis is loading\r\n:2\r\n", BusyLoadingError), (b":1\r\nHTTP/1.1 400\r\n", InvalidResponse)],
)
def test_a_connection_is_lost_with_a_server_that_loads_or_is_no_redis(
    ends: Ends, data: bytes, kind: type[Exception]
) -> None:
    ends.link.data_received(data)
    assert ends.replies == [[1]]  # what came before counts
    [error] = ends.lost
    assert type(error) is kind


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
def test_the_end_of_a_connection_is_reported(ends: Ends, error: Exception | None) -> None:
    ends.link.connection_lost(error)
    assert ends.lost == [error]

"""Refusals of Redis in the log."""

from __future__ import annotations

import errno
import logging
import re
import socket
import ssl

import pytest
from redis._parsers.hiredis import _HiredisParser
from redis._parsers.socket import SERVER_CLOSED_CONNECTION_ERROR
from redis.exceptions import ConnectionError, InvalidResponse, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.redis import refusals
from gateway.redis.refusals import log_refusal, reply_text
from gateway.redis.store import Store, StoreError, connect
from tests.servers import HOST
from tests.unit.gateway.redis.test_durable import FakeRedis

REFUSED = [
    "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY You can't write against a read only replica.",
    "MISCONF Errors writing to the AOF file: No space left on device",
    "NOREPLICAS Not enough good replicas to write.",
    "LOADING Valkey is loading the dataset in memory",
    "NOPERM User gate has no permissions to run the 'set' command",
]


@pytest.fixture(autouse=True)
def _no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "_last_s", {})


def error_of(reply: str) -> RedisError:
    """Return the exception that redis-py raises for an error reply."""
    error = _HiredisParser.parse_error(reply)
    assert isinstance(error, RedisError)
    return error


@pytest.mark.parametrize("reply", [*REFUSED, "WRONGTYPE Operation against a key", "ERR syntax error"])
def test_the_text_of_a_reply_is_complete(reply: str) -> None:
    assert reply_text(error_of(reply)) == reply


def test_only_the_type_of_another_error_is_shown() -> None:
    assert reply_text(ConnectionError("redis://:password@host")) == "ConnectionError"
    assert reply_text(OSError("redis://:password@host")) == "OSError"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (("127.0.0.1", 1), "connection refused"),
        (("no-such-host.invalid", 6379), "no such host|the name of the host cannot be looked up now"),
    ],
)
async def test_a_failed_connection_is_named_in_words_without_the_address(address: tuple[str, int], said: str) -> None:
    with pytest.raises(RedisError) as failed:
        await connect(f"redis://:password@{address[0]}:{address[1]}/0").open()
    assert re.fullmatch(said, reply_text(failed.value))


def test_a_server_that_is_no_redis_or_hangs_up_is_named_as_such() -> None:
    assert reply_text(InvalidResponse("b'SSH-2.0'")) == "the server does not speak the protocol of Redis"
    assert reply_text(ConnectionError(SERVER_CLOSED_CONNECTION_ERROR)) == "the server closed the connection"


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (socket.gaierror(socket.EAI_NONAME, "h"), "no such host"),
        (socket.gaierror(socket.EAI_AGAIN, "h"), "the name of the host cannot be looked up now"),
        (TimeoutError(), "timed out"),
        (
            OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1), [Errno 111] …"),
            "connection refused",
        ),
        (OSError(errno.EHOSTUNREACH, "10.1.2.3"), "no route to host"),
    ],
)
def test_the_cause_of_a_failed_connection_is_said_in_words(cause: OSError, said: str) -> None:
    error = ConnectionError("Error connecting to 10.1.2.3:6379.")
    error.__context__ = cause
    assert (reply_text(error), reply_text(cause)) == (said, said)
    assert reply_text(RedisTimeoutError("Timeout connecting to server")) == "timed out"


@pytest.mark.parametrize("reply", REFUSED)
def test_an_outage_is_logged_in_one_line_with_the_whole_text_and_no_traceback(
    reply: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        log_refusal(error_of(reply))
    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, f"Redis refuses commands: {reply}")
    assert record.exc_info is None


def test_two_kinds_of_refusal_are_two_outages(caplog: pytest.LogCaptureFixture) -> None:
    for reply in REFUSED * 2:
        log_refusal(error_of(reply))
    assert len(caplog.records) == len(REFUSED)


def test_an_outage_after_a_quiet_minute_is_a_new_one(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(refusals.time, "monotonic", lambda: now)
    for step_s in (0, 59, 59, 60):
        now += step_s
        log_refusal(error_of(REFUSED[0]))
    assert len(caplog.records) == 2


def test_any_other_refusal_is_logged_each_time_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        log_refusal(error_of("WRONGTYPE Operation against a key"))
    assert len(caplog.records) == 3
    assert all(record.exc_info for record in caplog.records)


async def test_a_redis_that_loads_its_data_is_one_outage(caplog: pytest.LogCaptureFixture) -> None:
    server = FakeRedis()
    await server.start()
    store = Store(connect(f"redis://{HOST}:{server.port}/0"), deadline_s=1)
    server.answer = lambda words: b"-" + REFUSED[4].encode() + b"\r\n" if words[0] == "PING" else b"+OK\r\n"
    for _ in range(5):
        with pytest.raises(StoreError, match=REFUSED[4]):
            await store.execute("PING")
    server.answer = lambda words: b"+OK\r\n"
    assert await store.execute("PING") == b"OK"
    away, back = [record.getMessage() for record in caplog.records]
    assert away == f"Redis is unavailable: the connection to Redis broke: {REFUSED[4]}"
    assert back == "Redis is available again"
    await store.close()
    await server.stop()


def test_a_server_that_wants_a_certificate_of_the_client_is_named_as_the_reason() -> None:
    alert = ssl.SSLError()
    alert.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    error = ConnectionError("Error while reading from 10.1.2.3:6379")
    error.__context__ = alert  # as redis-py raises it
    assert reply_text(error) == "TLS failed: tlsv13 alert certificate required"

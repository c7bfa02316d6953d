"""Which webhooks are accepted, and what happens when Redis or a full stream cannot store them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.metering import keys
from gateway.metering.intake import Intake, IntakeFull, NoWebhook, SecretCheck, WrongSecret
from limits import Execute
from tests.fake_redis import fake_redis

NEW, OLD = "n" * 40, "o" * 40
HEADER = b"x-gateway-webhook-secret"


@pytest.fixture
def secret_check() -> SecretCheck:
    return SecretCheck((NEW, OLD), "X-Gateway-Webhook-Secret")


@pytest.mark.parametrize("secret", [NEW, OLD])
def test_each_of_the_secrets_is_accepted(secret_check: SecretCheck, secret: str) -> None:
    secret_check.check([(b"host", b"x"), (HEADER, secret.encode())])


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(HEADER, b"")],
        [(HEADER, NEW.encode() + b"n")],
        [(HEADER, NEW.encode()[:-1])],
        [(HEADER, NEW.upper().encode())],
        [(HEADER, f"{NEW},{OLD}".encode())],
        [(HEADER, b"\xff" * 40)],
        [(HEADER, NEW.encode()), (HEADER, NEW.encode())],
        [(HEADER, NEW.encode()), (HEADER, b"")],
        [(b"authorization", NEW.encode())],
    ],
)
def test_everything_else_is_refused(secret_check: SecretCheck, headers: list[tuple[bytes, bytes]]) -> None:
    assert not secret_check.accepts(headers)
    with pytest.raises(WrongSecret) as refused:
        secret_check.check(headers)
    assert NEW not in str(refused.value)


@pytest.mark.parametrize("value", [b"", b"anything"])
def test_without_a_secret_no_webhook_is_accepted(value: bytes) -> None:
    secret_check = SecretCheck((), "X-Gateway-Webhook-Secret")
    assert not secret_check.is_set
    assert not secret_check.accepts([(HEADER, value)])
    with pytest.raises(NoWebhook):
        secret_check.check([(HEADER, value)])


@pytest.fixture
def execute() -> Execute:
    return fake_redis().execute_command


async def test_an_event_is_stored_as_it_came(execute: Execute) -> None:
    posted: list[tuple[Any, ...]] = []
    intake = Intake(execute, lambda *words: posted.append(words))
    body = bytes(range(256))
    await intake.store(body)
    ((_, words),) = await execute("XRANGE", keys.EVENTS, "-", "+")
    assert words[:2] == [b"body", body]
    assert intake.wake.is_set()
    assert posted[0] == ("HINCRBY", keys.STATISTICS, "received", 1)


async def test_a_full_stream_refuses_events_and_keeps_those_it_has(execute: Execute) -> None:
    intake = Intake(execute, lambda *_: None, most_waiting=2)
    await intake.store(b"1")
    await intake.store(b"2")
    intake.wake.clear()
    with pytest.raises(IntakeFull):
        await intake.store(b"3")
    assert await execute("XLEN", keys.EVENTS) == 2
    assert not intake.wake.is_set()


async def test_an_event_that_redis_did_not_store_is_not_acknowledged() -> None:
    async def away(*_: Any) -> Any:
        raise ConnectionError

    posted: list[Any] = []
    with pytest.raises(ConnectionError):
        await Intake(away, lambda *words: posted.append(words)).store(b"{}")
    assert posted == []

"""Webhooks: destination, retries and order of events."""

import asyncio

import pytest

from gateway.emulator.records import Room, Webhook, parse_webhook
from gateway.emulator.state import Workspace
from gateway.emulator.webhooks import Webhooks
from tests.unit.gateway.local_100ms import TEMPLATE
from tests.unit.gateway.receiver import ROOM, Pauses, Receiver, settled, until


async def test_an_event_arrives_in_its_envelope_with_the_headers_of_the_webhook(
    webhooks: Webhooks, receiver: Receiver
) -> None:
    webhooks.emit(ROOM, "session.open.success", {"room_id": ROOM.id})
    (delivery,) = await settled(webhooks)
    (line, headers, event) = receiver.requests[0]
    assert line == "POST /hook HTTP/1.1"
    assert (headers["x-secret"], headers["content-type"]) == ("s3cret", "application/json")
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert event.keys() == {"version", "id", "account_id", "app_id", "timestamp", "type", "data"}
    assert (event["version"], event["type"], event["data"]) == ("2.0", "session.open.success", {"room_id": ROOM.id})
    assert len(event["timestamp"]) == len("2026-01-01T00:00:00Z")
    assert (delivery.state, delivery.event["id"]) == ("delivered", event["id"])
    assert "s3cret" not in str(delivery)


async def test_an_event_is_retried_after_1_3_and_10_seconds_then_dropped(
    webhooks: Webhooks, receiver: Receiver, pauses: Pauses
) -> None:
    """Only 200 is a success: not 204, and not the target of a redirect."""
    receiver.answers = ["204 No Content", "500 Oops", "302 Found\r\nlocation: /elsewhere", "201 Created"]
    webhooks.emit(ROOM, "peer.join.success", {})
    (delivery,) = await settled(webhooks)
    assert delivery.state == "failed"
    assert [attempt.status for attempt in delivery.attempts] == [204, 500, 302, 201]
    assert pauses.taken == [1, 3, 10]
    assert {line for line, _, _ in receiver.requests} == {"POST /hook HTTP/1.1"}
    assert len({event["id"] for event in receiver.events()}) == 1


async def test_retries_end_with_the_first_200(webhooks: Webhooks, receiver: Receiver, pauses: Pauses) -> None:
    receiver.answers = ["503 Busy", "200 OK", "500 Never asked"]
    webhooks.emit(ROOM, "peer.join.success", {})
    (delivery,) = await settled(webhooks)
    assert (delivery.state, pauses.taken, len(receiver.requests)) == ("delivered", [1], 2)


async def test_the_pauses_are_real_seconds() -> None:
    assert Webhooks(Workspace("key", None), None)._sleep is asyncio.sleep


async def test_a_rooms_own_webhook_replaces_the_workspaces(webhooks: Webhooks, receiver: Receiver) -> None:
    own = Webhook(url=receiver.url.replace("/hook", "/own"), headers={"X-Room": "1"})
    room = Room(
        id="b" * 24, name="o", template_id=TEMPLATE, region="auto", created_at="2024-01-01T00:00:00Z", webhook=own
    )
    webhooks.emit(room, "peer.join.success", {})
    webhooks.default = None
    webhooks.emit(ROOM, "peer.join.success", {})
    assert len(await settled(webhooks)) == 1
    ((line, headers, _),) = receiver.requests
    assert line == "POST /own HTTP/1.1"
    assert (headers["x-room"], "x-secret" in headers) == ("1", False)


async def test_events_of_a_room_arrive_in_order_at_a_slow_receiver(webhooks: Webhooks, receiver: Receiver) -> None:
    receiver.pause_s = 0.003
    for number in range(30):
        webhooks.emit(ROOM, f"event.{number}", {})
    await settled(webhooks)
    assert [event["type"] for event in receiver.events()] == [f"event.{number}" for number in range(30)]


async def test_a_retry_delays_no_later_event(receiver: Receiver) -> None:
    gate = asyncio.Event()

    async def wait(_: float) -> None:
        await gate.wait()

    webhooks = Webhooks(Workspace("key", None), Webhook(url=receiver.url), sleep=wait)
    receiver.answers = ["500 Oops"]
    for kind in ("first", "second", "third"):
        webhooks.emit(ROOM, kind, {})
    await until(lambda: len(receiver.requests) == 3)
    gate.set()
    await settled(webhooks)
    assert [event["type"] for event in receiver.events()] == ["first", "second", "third", "first"]
    await webhooks.close()


async def test_requested_duplicates_have_the_same_id(webhooks: Webhooks, receiver: Receiver) -> None:
    webhooks.disturb(duplicate=2, reorder=0)
    for kind in ("a", "b", "c"):
        webhooks.emit(ROOM, kind, {})
    await settled(webhooks)
    assert [event["type"] for event in receiver.events()] == ["a", "a", "b", "b", "c"]
    assert len({event["id"] for event in receiver.events()}) == 3


async def test_requested_reordering_sends_the_held_events_last_first(webhooks: Webhooks, receiver: Receiver) -> None:
    webhooks.disturb(duplicate=0, reorder=3)
    for kind in ("a", "b"):
        webhooks.emit(ROOM, kind, {})
    await asyncio.sleep(0.05)
    assert receiver.requests == []
    assert [delivery.state for delivery in webhooks.deliveries()] == ["held", "held"]
    for kind in ("c", "d"):
        webhooks.emit(ROOM, kind, {})
    await settled(webhooks)
    kinds = [event["type"] for event in receiver.events()]
    assert [kind for kind in kinds if kind != "d"] == ["c", "b", "a"]
    assert sorted(kinds) == ["a", "b", "c", "d"]


async def test_held_events_are_sent_when_reordering_ends(webhooks: Webhooks, receiver: Receiver) -> None:
    webhooks.disturb(duplicate=0, reorder=5)
    for kind in ("a", "b"):
        webhooks.emit(ROOM, kind, {})
    webhooks.disturb(duplicate=0, reorder=0)
    await settled(webhooks)
    assert [event["type"] for event in receiver.events()] == ["b", "a"]


async def test_closing_waits_for_no_retry(receiver: Receiver) -> None:
    webhooks = Webhooks(Workspace("key", None), Webhook(url=receiver.url))
    receiver.answers = ["500 Oops"]
    for _ in range(3):
        webhooks.emit(ROOM, "peer.join.success", {})
    await until(lambda: len(receiver.requests) == 3)
    await webhooks.close()
    assert webhooks.deliveries()[0].state == "pending"


@pytest.mark.parametrize(
    ("url", "header", "text"),
    [
        ("ftp://127.0.0.1/", "a=b", "the URL must begin"),
        ("http://127.0.0.1/ x", "a=b", "the URL must begin"),
        ("http://127.0.0.1/", "s3cret", "NAME=VALUE"),
        ("http://127.0.0.1/", "=s3cret", "NAME=VALUE"),
        ("http://127.0.0.1/", "a b=s3cret", "NAME=VALUE"),
    ],
)
def test_the_error_of_a_malformed_webhook_hides_its_secret(url: str, header: str, text: str) -> None:
    with pytest.raises(ValueError, match=text) as error:
        parse_webhook(url, [header])
    assert "s3cret" not in str(error.value)


def test_a_header_value_may_contain_an_equals_sign() -> None:
    assert parse_webhook("http://h/", ["X-Key=a=b=="]).headers == {"X-Key": "a=b=="}

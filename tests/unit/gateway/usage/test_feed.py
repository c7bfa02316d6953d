"""The feed of confirmed stays."""

from __future__ import annotations

import json

import msgspec
import pytest

from auth import Execute
from gateway.routes.events import StayEvent
from gateway.usage.feed import STREAM, Entry, Feed
from tests.fake_redis import fake_redis

STARTED_MS, ENDED_MS = 1764000000000, 1764000061500
STAY = {"room": "r" * 24, "session": "s" * 24, "user": "U", "owner": "O", "role": "guest"}
ENTRY = {"id": "abc", **STAY, "started_ms": str(STARTED_MS), "ended_ms": str(ENDED_MS), "seconds": "61"}


@pytest.fixture
def execute() -> Execute:
    return fake_redis().execute_command


async def append(execute: Execute, **fields: str) -> str:
    words = [word for item in (ENTRY | fields).items() for word in item]
    place: bytes = await execute("XADD", STREAM, "*", *words)
    return place.decode()


async def test_an_empty_feed_has_no_entries(execute: Execute) -> None:
    assert await Feed(execute).page(None, 10) == []


async def test_a_page_begins_after_a_place_and_ends_at_its_size(execute: Execute) -> None:
    places = [await append(execute, id=str(n)) for n in range(5)]
    feed = Feed(execute)
    assert [entry.id for entry in await feed.page(None, 3)] == ["0", "1", "2"]
    assert [entry.place for entry in await feed.page(places[2], 3)] == places[3:]
    assert await feed.page(places[4], 3) == []


async def test_an_entry_becomes_a_cloudevent(execute: Execute) -> None:
    place = await append(execute)
    (entry,) = await Feed(execute).page(None, 10)
    assert entry == Entry(place, "abc", *STAY.values(), STARTED_MS, ENDED_MS, 61)
    event = StayEvent.of(entry, "https://gateway.example")
    assert json.loads(msgspec.json.encode(event)) == {
        "specversion": "1.0",
        "id": "abc",
        "source": "https://gateway.example",
        "type": "gateway.stay",
        "subject": "U",
        "time": "2025-11-24T16:01:01.500Z",
        "sequence": place,
        "datacontenttype": "application/json",
        "data": {
            "room_id": "r" * 24,
            "session_id": "s" * 24,
            "user_id": "U",
            "owner_id": "O",
            "role": "guest",
            "started_at": "2025-11-24T16:00:00.000Z",
            "ended_at": "2025-11-24T16:01:01.500Z",
            "seconds": 61,
        },
    }


async def test_a_correction_may_be_negative(execute: Execute) -> None:
    await append(execute, seconds="-5")
    (entry,) = await Feed(execute).page(None, 10)
    assert entry.seconds == -5


async def test_a_damaged_entry_is_an_error_and_not_a_wrong_bill(execute: Execute) -> None:
    await append(execute, seconds="a minute")
    with pytest.raises(msgspec.ValidationError):
        await Feed(execute).page(None, 10)

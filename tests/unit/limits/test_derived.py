"""Derived counters, which are summed in the process and sent later: top lists and counters of rooms."""

from __future__ import annotations

import asyncio
from typing import Any

from limits.derived import Derived

NOON_US = 1_795_608_000 * 1_000_000  # 2026-11-25
MINUTE_US = 60 * 1_000_000


class Sent(list[tuple[Any, ...]]):
    def __init__(self) -> None:
        self.any = asyncio.Event()

    def post(self, *words: Any) -> None:
        self.append(words)
        self.any.set()

    def writes(self) -> set[tuple[Any, ...]]:
        return {words for words in self if words[0] != "EXPIRE"}


async def never(*words: Any) -> Any:
    raise AssertionError(words)


async def test_equal_outcomes_are_sent_as_one_sum() -> None:
    sent = Sent()
    derived = Derived(never, sent.post)
    for subject in ("ann", "bob", "ann"):
        derived.note(subject, "tokens.mint.ok", NOON_US, room="r1")
    derived.note("ann", "api.ok", NOON_US)
    assert not sent
    derived.flush()
    assert sent.writes() == {
        ("ZINCRBY", "tp:1:2026-11-25:tokens.mint.ok", 2, "ann"),
        ("ZINCRBY", "tp:1:2026-11:tokens.mint.ok", 2, "ann"),
        ("ZINCRBY", "tp:1:2026-11-25:tokens.mint.ok", 1, "bob"),
        ("ZINCRBY", "tp:1:2026-11:tokens.mint.ok", 1, "bob"),
        ("ZINCRBY", "tp:1:2026-11-25:api.ok", 1, "ann"),
        ("ZINCRBY", "tp:1:2026-11:api.ok", 1, "ann"),
        ("HINCRBY", "rc:1:{r1}:2026-11", "25:tokens.mint.ok", 3),
        ("HINCRBY", "rc:1:{r1}:2026-11", "*:tokens.mint.ok", 3),
        ("HINCRBY", "uc:1:{all}:2026-11", "25:tokens.mint.ok", 3),
        ("HINCRBY", "uc:1:{all}:2026-11", "*:tokens.mint.ok", 3),
        ("HINCRBY", "uc:1:{all}:2026-11", "25:api.ok", 1),
        ("HINCRBY", "uc:1:{all}:2026-11", "*:api.ok", 1),
        ("HSET", "uc:1:{all}:2026-11", "25:zone.UTC", 1),
        ("HINCRBY", "mn:1:2026-11-25T12", "00:ok", 4),
    }
    assert len({words[1] for words in sent if words[0] == "EXPIRE"}) == 7


async def test_denials_by_any_limit_have_a_list_together() -> None:
    sent = Sent()
    derived = Derived(never, sent.post)
    derived.note("ann", "api.denied.api", NOON_US)
    derived.note("ann", "tokens.mint.denied.mints", NOON_US)
    derived.note("ann", "tokens.mint.refused.not_found", NOON_US)
    derived.flush()
    assert ("ZINCRBY", "tp:1:2026-11-25:denials", 2, "ann") in sent
    assert ("ZINCRBY", "tp:1:2026-11:denials", 2, "ann") in sent


async def test_noted_outcomes_are_sent_automatically_and_once() -> None:
    sent = Sent()
    derived = Derived(never, sent.post)
    derived.note("ann", "api.ok", NOON_US)
    async with asyncio.timeout(20):
        await sent.any.wait()
    derived.flush()
    assert len([words for words in sent if words[0] == "ZINCRBY"]) == 2
    derived.note("ann", "api.ok", NOON_US)
    derived.flush()
    assert len([words for words in sent if words[0] == "ZINCRBY"]) == 4


async def test_outcomes_of_two_days_are_not_mixed() -> None:
    sent = Sent()
    derived = Derived(never, sent.post)
    derived.note("ann", "api.ok", NOON_US)
    derived.note("ann", "api.ok", NOON_US + 86_400 * 1_000_000)
    derived.flush()
    assert {words[1:3] for words in sent.writes() if words[0] == "ZINCRBY"} == {
        ("tp:1:2026-11-25:api.ok", 1),
        ("tp:1:2026-11-26:api.ok", 1),
        ("tp:1:2026-11:api.ok", 2),
    }


async def test_days_are_those_of_the_time_zone_and_say_so_once() -> None:
    sent = Sent()
    zone = ["Asia/Kolkata"]
    derived = Derived(never, sent.post, zone=lambda: zone[0])
    before_midnight_us = NOON_US + (6 * 60 + 30) * MINUTE_US - 1  # of Kolkata, at 18:30 UTC
    for at_us in (before_midnight_us, before_midnight_us + 1, before_midnight_us + 2):
        derived.note("ann", "api.ok", at_us, room="r1")
    derived.flush()
    assert {words[1:] for words in sent.writes() if words[1].startswith(("tp", "rc"))} == {
        ("tp:1:2026-11-25:api.ok", 1, "ann"),
        ("tp:1:2026-11-26:api.ok", 2, "ann"),
        ("tp:1:2026-11:api.ok", 3, "ann"),
        ("rc:1:{r1}:2026-11", "25:api.ok", 1),
        ("rc:1:{r1}:2026-11", "26:api.ok", 2),
        ("rc:1:{r1}:2026-11", "*:api.ok", 3),
    }
    zone[0] = "UTC"
    for _ in range(2):
        derived.note("ann", "api.ok", before_midnight_us)
        derived.flush()
    marks = [words[2] for words in sent if words[0] == "HSET"]
    assert sorted(marks) == ["25:zone.Asia/Kolkata", "25:zone.UTC", "26:zone.Asia/Kolkata"]


async def test_totals_of_minutes_have_every_outcome_and_live_two_days() -> None:
    sent = Sent()
    derived = Derived(never, sent.post)
    last_us = NOON_US + 59 * MINUTE_US
    for metric in ("api.refused.not_found", "api.denied.api", "tokens.mint.denied.mints", "api.failed"):
        derived.note("ann", metric, last_us)
    derived.note("ann", "api.ok", last_us + MINUTE_US)
    derived.flush()
    assert {words[1:] for words in sent.writes() if words[1].startswith("mn:")} == {
        ("mn:1:2026-11-25T12", "59:refused", 1),
        ("mn:1:2026-11-25T12", "59:denied", 2),
        ("mn:1:2026-11-25T12", "59:failed", 1),
        ("mn:1:2026-11-25T13", "00:ok", 1),
    }
    kept_s = {words[2] for words in sent if words[0] == "EXPIRE" and words[1].startswith("mn:")}
    assert kept_s == {49 * 3600}


async def test_seconds_are_sent_with_the_next_flush() -> None:
    sent = Sent()
    derived = Derived(never, sent.post)
    derived.note_seconds(NOON_US // 1000 + 10_000, 30)
    async with asyncio.timeout(20):
        await sent.any.wait()
    assert {words[1:] for words in sent.writes()} == {
        ("mn:1:2026-11-25T11", "59:seconds", 20),
        ("mn:1:2026-11-25T12", "00:seconds", 10),
    }

"""The audit trail: writing, reading, bounds and protection against floods."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import fakeredis
import pytest

from gateway import audit as module
from gateway.audit import ACTIONS, KEEP_S, MOST_ENTRIES, STREAM, Audit, Filter, Origin
from gateway.logs import request_id
from tests.fake_redis import fake_redis


@pytest.fixture
def redis() -> fakeredis.FakeAsyncRedis:
    return fake_redis()


class Posted:
    """Keeps posted commands and sends them on demand."""

    def __init__(self, redis: fakeredis.FakeAsyncRedis) -> None:
        self.redis = redis
        self.words: list[tuple[Any, ...]] = []

    def __call__(self, *words: Any) -> None:
        self.words.append(words)

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(words[-1]) for words in self.words if words[0] == "XADD"]


@pytest.fixture
def posted(redis: fakeredis.FakeAsyncRedis) -> Posted:
    return Posted(redis)


@pytest.fixture
def trail(redis: fakeredis.FakeAsyncRedis, posted: Posted) -> Audit:
    return Audit(redis.execute_command, posted)


async def filled(trail: Audit, count: int) -> None:
    for number in range(count):
        await trail.record("login" if number % 2 else "login.failed", by=f"u{number % 3}", subject="", n=number)


async def test_an_entry_is_read_as_it_was_recorded_with_its_request(trail: Audit) -> None:
    token = request_id.set("r" * 24)
    before_ms = time.time() * 1000
    await trail.record("user.roles", by="cli", subject="u1", was="member", now="host", uses=3)
    request_id.reset(token)
    [entry], following = await trail.page()
    assert (entry.action, entry.by, entry.subject, entry.request_id) == ("user.roles", "cli", "u1", "r" * 24)
    assert entry.details == {"was": "member", "now": "host", "uses": 3}
    assert before_ms - 2000 < entry.at_ms < before_ms + 60_000
    assert following is None


async def test_an_address_is_only_in_the_log_line(
    trail: Audit, posted: Posted, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gateway.audit")
    trail.note("login", by="u1", subject="u1", origin=Origin("192.0.2.7", "abc"))
    assert "192.0.2.7" not in json.dumps(posted.entries())
    assert caplog.records[0].fields["address"] == "192.0.2.7"  # type: ignore[attr-defined]


async def test_pages_list_every_entry_once_newest_first(trail: Audit) -> None:
    await filled(trail, 25)
    for size in (1, 4, 25, 100):
        seen: list[Any] = []
        before = None
        while True:
            page, before = await trail.page(before=before, size=size)
            assert len(page) <= size
            seen += [entry.details["n"] for entry in page]
            if before is None:
                break
        assert seen == list(range(24, -1, -1))


async def test_a_page_of_rare_entries_continues_where_the_last_scan_stopped(
    trail: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 5)
    monkeypatch.setattr(module, "_MOST_SCANNED", 10)
    await trail.record("rare", by="u9", subject="")
    await filled(trail, 30)
    found: list[str] = []
    before, rounds = None, 0
    while True:
        page, before = await trail.page(Filter(action="rare"), before=before)
        found += [entry.action for entry in page]
        rounds += 1
        if before is None:
            break
    assert found == ["rare"]
    assert 3 <= rounds <= 5


async def test_filters_are_exact(trail: Audit) -> None:
    for action in ("login", "login.failed", "loginx", "logout", "user.login"):
        await trail.record(action, by="u1", subject="u2")
    await trail.record("login", by="u3", subject="")

    async def found(**filters: Any) -> list[str]:
        return [entry.action for entry in (await trail.page(Filter(**filters)))[0]]

    assert await found(action="login") == ["login", "login.failed", "login"]
    assert await found(action="login.failed") == ["login.failed"]
    assert await found(action="log") == []
    assert await found(user="u3") == ["login"]
    assert len(await found(user="u2")) == len(await found(user="u1")) == 5
    assert await found(user="") == ["login"]
    assert await found(user="u") == []


async def test_a_time_span_includes_both_ends(trail: Audit, redis: fakeredis.FakeAsyncRedis) -> None:
    for ms in (1000, 2000, 2000, 3000):
        sequence = await redis.xlen(STREAM)
        await redis.xadd(STREAM, {"entry": '{"action": "a", "by": "", "subject": ""}'}, id=f"{ms}-{sequence + 1}")

    async def span(**filters: int) -> list[int]:
        return [entry.at_ms for entry in (await trail.page(Filter(**filters)))[0]]

    assert await span(first_ms=2000) == [3000, 2000, 2000]
    assert await span(last_ms=2000) == [2000, 2000, 1000]
    assert await span(first_ms=2000, last_ms=2000) == [2000, 2000]
    assert await span(first_ms=3001) == []


async def test_entries_after_an_entry_do_not_include_it(trail: Audit) -> None:
    await filled(trail, 5)
    everything, _ = await trail.page()
    after, _ = await trail.page(Filter(after=everything[2].id))
    assert after == everything[:2]
    assert await trail.page(Filter(after=everything[0].id)) == ([], None)


async def test_repeated_entries_are_written_once_per_span(
    trail: Audit, posted: Posted, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    for _ in range(500):
        trail.note("denied", by="u1", subject="u1", once_per_s=60, code="forbidden")
    trail.note("denied", by="u2", subject="u2", once_per_s=60, code="forbidden")
    trail.note("denied", by="u1", subject="u1", once_per_s=60, code="not_found")
    assert len(posted.entries()) == 3
    now += 59.9
    trail.note("denied", by="u1", subject="u1", once_per_s=60, code="forbidden")
    assert len(posted.entries()) == 3
    now += 0.2
    trail.note("denied", by="u1", subject="u1", once_per_s=60, code="forbidden")
    assert len(posted.entries()) == 4


async def test_the_memory_of_repetitions_is_bounded(trail: Audit) -> None:
    for number in range(25_000):
        trail.note("denied", by=f"u{number}", subject="", once_per_s=60)
    assert len(trail._seen) <= 10_000


async def test_a_flood_of_denials_does_not_displace_earlier_entries(trail: Audit, posted: Posted, redis: Any) -> None:
    await trail.record("user.roles", by="cli", subject="u1")
    for _ in range(5 * MOST_ENTRIES):
        trail.note("denied", by="u1", subject="u1", once_per_s=60, code="forbidden", attempted="users.manage")
    for words in posted.words:
        await redis.execute_command(*words)
    assert [entry.action for entry in (await trail.page())[0]] == ["denied", "user.roles"]


async def test_length_and_age_are_bounded(trail: Audit, posted: Posted, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 5000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    for _ in range(10):
        trail.note("login", by="u1")
    adds = [words for words in posted.words if words[0] == "XADD"]
    assert {words[:5] for words in adds} == {("XADD", STREAM, "MAXLEN", "~", MOST_ENTRIES)}
    [trim] = [words for words in posted.words if words[0] == "XTRIM"]
    assert trim[:4] == ("XTRIM", STREAM, "MINID", "~")
    assert abs(trim[4] - (time.time() - KEEP_S) * 1000) < 60_000
    now += 601
    trail.note("login", by="u1")
    assert sum(words[0] == "XTRIM" for words in posted.words) == 2


async def test_without_post_a_note_is_only_logged(
    redis: fakeredis.FakeAsyncRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gateway.audit")
    Audit(redis.execute_command).note("denied", by="cli")
    await asyncio.sleep(0)
    assert [record.message for record in caplog.records] == ["denied"]
    assert await redis.xlen(STREAM) == 0


def test_every_action_is_known_and_documented() -> None:
    """The command line refuses to search for an unknown one, and people look them up."""
    code = "".join(path.read_text() for path in Path("gateway").rglob("*.py"))
    assert set(re.findall(r'audit\.(?:note|record)\(\s*"([a-z._]+)"', code)) <= set(ACTIONS)
    described = Path("docs/security.md").read_text().partition("The audit (")[2].partition("\n\n")[0]
    assert set(ACTIONS) <= set(re.findall(r"`([a-z._]+)`", described))

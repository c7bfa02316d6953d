"""The contract of accrual, reconciliation and sweep, for any Redis, with a 100ms that answers by a dictionary."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from gateway.audit import Audit
from gateway.hms.client import HmsClient
from gateway.hms.replies import HmsStay
from gateway.hms.tokens import HmsTokens
from gateway.metering import keys
from gateway.metering.accrual import MOST_STAY_MS, Accrual
from gateway.metering.events import SessionFact, Stay, stay_of
from gateway.metering.reconcile import Reconciliation
from gateway.metering.stays import Stays
from gateway.metering.sweep import EVERY_S, IDLE_S, RETRY_MS, Sweep
from gateway.rooms import keys as room_keys
from gateway.usage.feed import STREAM
from limits import Execute
from limits.derived import Derived
from tests.unit.gateway.upstream import KEY, SECRET

ANN, OWNER = "u" + "a" * 20, "u" + "b" * 20
ROOM, SESSION = "6" * 24, "7" * 24
BEGUN = 1_795_341_600_000  # 2026-11-22T10:00:00Z
MONTH = "2026-11"
MINUTE = 60_000


def written(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"


class Sessions:
    """A 100ms that knows some sessions, or fails."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        self.failure: httpx.Response | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        found = self.known.get(request.url.path.rpartition("/")[2])
        if self.failure or found:
            return self.failure or httpx.Response(200, json=found)
        return httpx.Response(404, json={"code": 404, "message": "session not found"})

    def show(self, *peers: tuple[str, int, int | None], ended_s: int | None = None) -> None:
        """Show the session with stays as (peer, joined, left), in seconds after its begin."""
        shown: dict[str, dict[str, str]] = {}
        for peer, joined_s, left_s in peers:
            shown[peer] = {"user_id": ANN, "role": "guest", "joined_at": written(BEGUN + joined_s * 1000)}
            if left_s is not None:
                shown[peer]["left_at"] = written(BEGUN + left_s * 1000)
        self.known[SESSION] = {
            "id": SESSION, "room_id": ROOM, "active": ended_s is None, "peers": shown, "created_at": written(BEGUN),
            "updated_at": written(BEGUN + (ended_s or 0) * 1000),
        }  # fmt: skip


class Bench:
    """Everything that keeps minutes exact, with one clock that a test moves."""

    def __init__(self, execute: Execute, http: httpx.AsyncClient, upstream: Sessions) -> None:
        self.execute = execute
        self.http = http
        self.upstream = upstream
        self.shows = upstream.show
        self.now_ms = BEGUN
        self.hms = HmsClient(http, HmsTokens(KEY, SECRET))
        self.stays = Stays(execute, Derived(execute, lambda *_: None), now_ms=lambda: self.now_ms)
        self.accrual = Accrual(execute, self.stays, self.clock)
        self.reconciliation = Reconciliation(execute, self.stays, Audit(execute), self.clock)
        self.sweep = Sweep(execute, self.hms, self.reconciliation, self.clock)

    async def clock(self) -> int:
        return self.now_ms

    async def hear(self, *stays: Stay) -> None:
        """Credit what webhooks report."""
        await self.stays.credit(stays)

    async def closes(self, after_s: int) -> None:
        fact = SessionFact(ROOM, SESSION, BEGUN, BEGUN + after_s * 1000, has_closed=True)
        await self.stays.learn({(ROOM, SESSION): fact})

    def later(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)

    async def minutes(self, key: str = f"uc:1:{{{ANN}}}:{MONTH}", metric: str = "minutes.ok") -> int:
        return int(await self.execute("HGET", key, f"*:{metric}") or 0)

    async def everywhere(self) -> set[int]:
        """Return the seconds of participant, room, owner and installation, which must agree."""
        return {
            await self.minutes(),
            await self.minutes(f"rc:1:{{{ROOM}}}:{MONTH}"),
            await self.minutes(f"uc:1:{{{OWNER}}}:{MONTH}", "owned.ok"),
            await self.minutes(f"uc:1:{{all}}:{MONTH}"),
        }

    async def online(self) -> int:
        return int(await self.execute("HLEN", keys.open_stays("all")))

    async def due_in_s(self) -> float | None:
        score = await self.execute("ZSCORE", keys.SESSIONS_DUE, f"{ROOM}|{SESSION}")
        return None if score is None else (int(score) - self.now_ms) / 1000

    async def audited(self) -> list[tuple[str, dict[str, str | int]]]:
        entries, _ = await Audit(self.execute).page()
        return [(entry.action, entry.details) for entry in reversed(entries)]

    async def fed(self) -> list[tuple[str, int]]:
        entries = await self.execute("XRANGE", STREAM, "-", "+")
        told = [dict(zip(words[::2], words[1::2], strict=True)) for _, words in entries]
        return [(one[b"id"].decode(), int(one[b"seconds"])) for one in told]


def stay(peer: str = "p", joined_s: int = 0, left_s: int | None = None) -> Stay:
    left_ms = None if left_s is None else BEGUN + left_s * 1000
    return stay_of(ROOM, SESSION, HmsStay(peer, ANN, "guest", BEGUN + joined_s * 1000, left_ms))


class UpkeepContract:
    @pytest.fixture
    async def bench(self, execute: Execute) -> AsyncIterator[Bench]:
        await execute("HSET", room_keys.room(ROOM), "owner", OWNER, "template", "default")
        hms = Sessions()
        async with httpx.AsyncClient(transport=httpx.MockTransport(hms), base_url="https://api.100ms.test/v2") as http:
            yield Bench(execute, http, hms)

    # --- accrual ---

    async def test_an_open_stay_is_credited_up_to_the_present_to_everybody(self, bench: Bench) -> None:
        await bench.hear(stay(), stay("q", 10))
        bench.later(70)
        assert await bench.accrual.work() == 2
        assert await bench.everywhere() == {130}
        bench.later(5)
        await asyncio.gather(bench.accrual.work(), bench.accrual.work())  # two leaders at once
        assert await bench.everywhere() == {140}

    async def test_the_leave_corrects_what_was_accrued(self, bench: Bench) -> None:
        await bench.hear(stay())
        bench.later(70)
        await bench.accrual.work()
        await bench.hear(stay(left_s=66))
        await bench.accrual.work()
        assert (await bench.everywhere(), await bench.online()) == ({66}, 0)

    async def test_a_clock_behind_that_of_100ms_credits_nothing_yet(self, bench: Bench) -> None:
        await bench.hear(stay(joined_s=30))
        await bench.accrual.work()
        assert await bench.everywhere() == {0}

    async def test_nothing_accrues_beyond_the_close_of_the_session(self, bench: Bench) -> None:
        await bench.hear(stay())
        await bench.closes(40)
        bench.later(70)
        await bench.accrual.work()
        assert await bench.everywhere() == {40}

    async def test_nothing_accrues_beyond_twelve_hours(self, bench: Bench) -> None:
        await bench.hear(stay())
        bench.later(30 * 3600)
        await bench.accrual.work()
        assert await bench.everywhere() == {MOST_STAY_MS // 1000} == {12 * 3600 + 300}

    async def test_a_session_with_open_stays_is_always_queued(self, bench: Bench, execute: Execute) -> None:
        await bench.hear(stay())
        await execute("DEL", keys.SESSIONS_DUE)
        await bench.accrual.work()
        assert await bench.due_in_s() == 300

    async def test_a_join_that_comes_after_the_reconciliation_is_ended_by_another_one(self, bench: Bench) -> None:
        bench.shows(("p", 0, 60), ended_s=60)
        await bench.hear(stay())
        bench.later(400)
        await bench.sweep.work()
        await bench.hear(stay("late", 5))
        bench.later(300)
        await bench.accrual.work()
        assert await bench.everywhere() == {115}  # until the close
        await bench.sweep.work()
        assert (await bench.everywhere(), await bench.online(), await bench.due_in_s()) == ({60}, 0, None)

    # --- reconciliation ---

    async def test_lost_leaves_and_joins_are_corrected_after_the_close(self, bench: Bench) -> None:
        bench.shows(("p", 0, 60), ("lost", 10, 40), ("heard", 0, 20), ended_s=60)
        await bench.hear(stay(), stay("heard", left_s=20))
        bench.later(70)
        await bench.accrual.work()
        await bench.closes(60)
        assert await bench.sweep.work() == IDLE_S
        bench.later(5)
        assert await bench.sweep.work() == EVERY_S
        assert (await bench.everywhere(), await bench.online(), await bench.due_in_s()) == ({60 + 30 + 20}, 0, None)
        details = {"room": ROOM, "session": SESSION, "stays": 2, "seconds": 20}  # 70 to 60, 0 to 30
        assert await bench.audited() == [("minutes.corrected", details)]
        assert await bench.execute("HMGET", keys.STATISTICS, "corrected", "corrected_s") == [b"2", b"40"]
        assert await bench.execute("HEXISTS", keys.session(ROOM, SESSION), "reconciled_ms")

    async def test_a_repetition_changes_nothing(self, bench: Bench) -> None:
        bench.shows(("p", 0, 60), ended_s=60)
        await bench.hear(stay())
        await bench.closes(60)
        bench.later(300)
        found = await bench.hms.get_session(SESSION)
        assert found is not None
        both = await asyncio.gather(bench.reconciliation.apply(found), bench.reconciliation.apply(found))
        assert sum(finding.seconds for finding in both) == 60
        again = await bench.reconciliation.apply(found)
        assert (again.stays, again.corrected, again.seconds) == (1, 0, 0)
        assert await bench.everywhere() == {60}
        assert set(await bench.fed()) == {(stay().digest, 60)}

    async def test_a_lost_close_is_found_and_the_looks_become_rarer(self, bench: Bench) -> None:
        bench.shows(("p", 0, None))
        await bench.hear(stay())
        pauses = []
        for _ in range(6):
            pauses.append(await bench.due_in_s())
            bench.later(pauses[-1] or 0)
            await bench.sweep.work()
            await bench.accrual.work()
            assert await bench.online() == 1
        assert pauses == [300, 300, 600, 1200, 2400, 3600]
        bench.shows(("p", 0, 4000), ended_s=4000)
        bench.later(3600)
        await bench.sweep.work()
        assert (await bench.everywhere(), await bench.online(), await bench.due_in_s()) == ({4000}, 0, None)

    async def test_the_looks_at_many_running_sessions_take_half_of_the_budget(self, bench: Bench) -> None:
        bench.shows(("p", 0, None))
        await bench.hear(stay())
        words = [word for n in range(2000) for word in (bench.now_ms + 10**9, f"{ROOM}|{n}")]
        await bench.execute("ZADD", keys.SESSIONS_DUE, *words)
        bench.later(300)
        await bench.sweep.work()
        assert await bench.due_in_s() == 2 * EVERY_S * 2001

    async def test_a_close_during_a_look_counts(self, bench: Bench) -> None:
        bench.shows(("p", 0, None))
        await bench.hear(stay())
        bench.later(300)
        due_ms = await bench.execute("ZSCORE", keys.SESSIONS_DUE, f"{ROOM}|{SESSION}")
        await bench.closes(299)
        await bench.sweep._postpone(f"{ROOM}|{SESSION}".encode(), due_ms, bench.now_ms + 10**6)
        assert await bench.due_in_s() == 5

    async def test_a_session_that_100ms_does_not_know_ends_when_it_was_last_seen(self, bench: Bench) -> None:
        await bench.hear(stay(), stay("q", left_s=30))
        bench.later(600)
        await bench.accrual.work()
        bench.later(400)
        await bench.sweep.work()
        assert (await bench.everywhere(), await bench.online(), await bench.due_in_s()) == ({630}, 0, None)
        assert await bench.audited() == [("minutes.unconfirmed", {"room": ROOM, "session": SESSION, "stays": 2})]
        assert sorted(await bench.fed()) == sorted([(stay().digest, 600), (stay("q").digest, 30)])

    async def test_a_young_session_that_100ms_does_not_know_yet_is_looked_at_again(self, bench: Bench) -> None:
        await bench.stays.learn({(ROOM, SESSION): SessionFact(ROOM, SESSION, BEGUN)})
        await bench.hear(stay())
        bench.later(300)
        await bench.sweep.work()
        assert (await bench.online(), await bench.due_in_s()) == (1, 300)

    async def test_an_ended_session_without_peers_takes_no_minutes_away(self, bench: Bench) -> None:
        bench.shows(ended_s=60)
        await bench.hear(stay(left_s=60))
        bench.later(300)
        await bench.sweep.work()
        assert (await bench.everywhere(), await bench.due_in_s()) == ({60}, None)

    @pytest.mark.parametrize("status", [401, 400, 429, 500])
    async def test_a_session_stays_queued_while_100ms_fails(self, bench: Bench, status: int) -> None:
        bench.upstream.failure = httpx.Response(status, json={"message": "no"}, headers={"retry-after": "7"})
        await bench.hear(stay())
        bench.later(300)
        assert await bench.sweep.work() == (7 if status == 429 else 2 * EVERY_S)
        assert (await bench.due_in_s(), await bench.online()) == (RETRY_MS / 1000, 1)
        bench.later(60)
        assert await bench.sweep.work() >= 4 * EVERY_S or status == 429

    async def test_a_session_that_cannot_be_reconciled_does_not_block_the_others(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(*_: object) -> None:
            raise ValueError("a bug")

        monkeypatch.setattr(bench.reconciliation, "apply", fail)
        bench.shows(("p", 0, 60), ended_s=60)
        await bench.hear(stay())
        bench.later(1)
        await bench.hear(stay_of(ROOM, "8" * 24, HmsStay("q", ANN, "guest", BEGUN, None)))
        bench.later(300)
        with pytest.raises(ValueError, match="a bug"):
            await bench.sweep.work()
        await bench.sweep.work()  # the other one, which 100ms does not know
        assert (await bench.due_in_s(), await bench.online()) == (RETRY_MS / 1000, 1)

    # --- the feed ---

    async def test_a_confirmed_stay_is_published_once_and_then_only_what_changes(self, bench: Bench) -> None:
        bench.shows(("p", 0, 60), ("q", 0, None))
        await bench.hear(stay(), stay("q"))
        bench.later(300)
        await bench.sweep.work()
        assert await bench.fed() == [(stay().digest, 60)]  # q is still there
        for left_s in (50, 55):
            bench.shows(("p", 0, left_s), ("q", 0, 70), ended_s=70)
            bench.later(3600)
            found = await bench.hms.get_session(SESSION)
            assert found is not None
            await bench.reconciliation.apply(found)
        name, other = stay().digest, stay("q").digest
        assert await bench.fed() == [(name, 60), (f"{name}.2", -10), (other, 70), (f"{name}.3", 5)]

    async def test_an_entry_of_the_feed_says_whose_minutes_they_are(self, bench: Bench) -> None:
        bench.shows(("p", 0, 60), ended_s=60)
        found = await bench.hms.get_session(SESSION)
        assert found is not None
        await bench.reconciliation.apply(found)
        [[_, words]] = await bench.execute("XRANGE", STREAM, "-", "+")
        assert dict(zip(words[::2], words[1::2], strict=True)) == {
            b"id": stay().digest.encode(), b"room": ROOM.encode(), b"session": SESSION.encode(), b"user": ANN.encode(),
            b"owner": OWNER.encode(), b"role": b"guest", b"started_ms": b"%d" % BEGUN,
            b"ended_ms": b"%d" % (BEGUN + MINUTE), b"seconds": b"60",
        }  # fmt: skip

    async def test_a_process_that_dies_after_any_step_leaves_nothing_undone(self, bench: Bench) -> None:
        """The session stays in the queue until everything is done; only the audit of a correction may be missing."""
        bench.shows(("p", 0, 60), ("q", 0, 70), ended_s=70)
        for fails_at in range(1, 100):
            await bench.execute("FLUSHALL")
            await bench.execute("HSET", room_keys.room(ROOM), "owner", OWNER)
            survivor = Bench(bench.execute, bench.http, bench.upstream)
            await survivor.hear(stay(), stay("q", left_s=70))
            survivor.later(300)
            left = [fails_at]

            async def failing(*words: Any, left: list[int] = left) -> Any:
                left[0] -= 1
                if left[0] <= 0:
                    raise ConnectionError("killed")
                return await bench.execute(*words)

            dying = Bench(failing, bench.http, bench.upstream)
            dying.later(300)
            died = False
            try:
                await dying.sweep.work()
            except ConnectionError:
                died = True
            survivor.later(RETRY_MS / 1000)
            await survivor.sweep.work()
            assert (fails_at, await survivor.everywhere(), await survivor.online()) == (fails_at, {130}, 0)
            assert await survivor.due_in_s() is None
            assert set(await survivor.fed()) == {(stay().digest, 60), (stay("q").digest, 70)}
            if not died:
                assert fails_at > 15  # it had died after each of its commands
                return
        raise AssertionError("the sweep has no end")

"""The contract of stays, for any Redis: who is credited, and that every order of reports ends in the same counters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from gateway.hms.replies import HmsStay
from gateway.metering import keys
from gateway.metering.events import SessionFact, Stay, digest_of, stay_of
from gateway.metering.stays import Stays, read_open
from gateway.rooms import keys as room_keys
from gateway.usage.rollup import CHANGED
from limits import Execute
from limits.derived import Derived
from limits.metered import CONFIRMED

ANN, BOB = "u" + "a" * 20, "u" + "b" * 20
ROOM, SESSION = "6" * 24, "7" * 24
JOINED = 1_795_341_600_000  # 2026-11-22T10:00:00Z
MONTH = "2026-11"


def stay(peer: str = "p", user: str = ANN, *, left: int | None = 60, room: str = ROOM, joined: int = JOINED) -> Stay:
    left_ms = None if left is None else joined + left * 1000
    return stay_of(room, SESSION, HmsStay(peer, user, "guest", joined, left_ms))


async def seconds(execute: Execute, key: str, field: str = "*:minutes.ok") -> int:
    return int(await execute("HGET", key, field) or 0)


def poster(execute: Execute) -> Callable[..., None]:
    """Send without waiting, as `Store.post` does."""
    kept = set()

    def post(*words: Any) -> None:
        task = asyncio.ensure_future(execute(*words))
        kept.add(task)
        task.add_done_callback(kept.discard)

    return post


class StaysContract:
    @pytest.fixture
    def stays(self, execute: Execute) -> Stays:
        return Stays(execute, Derived(execute, poster(execute)), now_ms=lambda: JOINED + 100_000)

    @pytest.fixture
    async def owned(self, execute: Execute) -> None:
        await execute("HSET", room_keys.room(ROOM), "owner", BOB, "template", "default")

    async def test_participant_room_owner_and_installation_are_credited(
        self, stays: Stays, execute: Execute, owned: None
    ) -> None:
        assert await stays.credit([stay()]) == [60]
        assert await seconds(execute, f"uc:1:{{{ANN}}}:{MONTH}") == 60
        assert await seconds(execute, f"rc:1:{{{ROOM}}}:{MONTH}") == 60
        assert await seconds(execute, f"rc:1:{{{ROOM}}}:all", "minutes.ok") == 60
        assert await seconds(execute, f"uc:1:{{{BOB}}}:{MONTH}", "*:owned.ok") == 60
        assert await seconds(execute, f"uc:1:{{{BOB}}}:{MONTH}") == 0
        assert await seconds(execute, f"uc:1:{{all}}:{MONTH}") == 60
        for metric, uid in (("minutes", ANN), ("owned", BOB)):
            assert await execute("ZSCORE", f"tp:1:{MONTH}:{metric}.ok", uid) == 60
            assert await execute("ZSCORE", f"tp:1:{MONTH}-22:{metric}.ok", uid) == 60

    async def test_time_is_also_counted_by_minute_once_and_corrections_subtract_it(self, execute: Execute) -> None:
        sent: list[tuple[Any, ...]] = []
        derived = Derived(execute, lambda *words: sent.append(words))
        stays = Stays(execute, derived, now_ms=lambda: JOINED + 100_000)

        async def counted(*some: Stay) -> dict[str, int]:
            sent.clear()
            await stays.credit(some)
            derived.flush()
            return {words[2]: words[3] for words in sent if words[:2] == ("HINCRBY", "mn:1:2026-11-22T10")}

        assert await counted(stay(left=90), stay(left=90), stay("q", left=None)) == {"00:seconds": 60, "01:seconds": 30}
        corrected = structs.replace(stay(left=70), rank=CONFIRMED, stamp_ms=JOINED + 99_000)
        assert await counted(corrected, corrected) == {"01:seconds": -20}

    async def test_time_of_earlier_days_is_not_counted_by_minute(self, stays: Stays, execute: Execute) -> None:
        await stays.credit([stay(joined=JOINED - 3 * 86_400_000)])
        assert not await execute("KEYS", "mn:1:*")

    async def test_the_ledger_of_the_installation_is_of_one_day(self, stays: Stays, execute: Execute) -> None:
        before = stay("q", joined=JOINED - 86_400_000)
        for _ in range(2):
            await stays.credit([stay(), before])
        days = {f"sl:1:{{all}}:{MONTH}-{day}" for day in (21, 22)}
        assert {key.decode() for key in await execute("KEYS", "sl:1:{all}:*")} == days
        assert [await execute("HLEN", key) for key in days] == [1, 1]
        assert await seconds(execute, f"uc:1:{{all}}:{MONTH}") == 120

    async def test_an_owner_in_their_own_room_is_credited_both(
        self, stays: Stays, execute: Execute, owned: None
    ) -> None:
        await stays.credit([stay(user=BOB), stay(user=BOB)])
        counters = f"uc:1:{{{BOB}}}:{MONTH}"
        assert [await seconds(execute, counters, f"*:{metric}.ok") for metric in ("minutes", "owned")] == [60, 60]

    @pytest.mark.parametrize("user", ["", "somebody", "all", "u" + "A" * 20, f"{ANN}x", "}x{"])
    async def test_an_unknown_user_id_has_no_account(self, stays: Stays, execute: Execute, user: str) -> None:
        await stays.credit([stay(user=user)])
        assert await seconds(execute, f"rc:1:{{{ROOM}}}:{MONTH}") == 60
        assert await seconds(execute, f"uc:1:{{all}}:{MONTH}") == 60
        assert {key.decode() for key in await execute("KEYS", "uc:*")} == {f"uc:1:{{all}}:{MONTH}", "uc:1:{all}:all"}

    async def test_a_stay_in_an_unknown_room_has_no_owner(self, stays: Stays, execute: Execute) -> None:
        assert await stays.credit([stay()]) == [60]
        assert await execute("HGET", keys.session(ROOM, SESSION), "owner") == b""
        assert await execute("KEYS", "*owned*") == []

    async def test_the_owner_is_the_one_at_first_sight(self, stays: Stays, execute: Execute, owned: None) -> None:
        await stays.credit([stay(left=None)])
        await execute("HSET", room_keys.room(ROOM), "owner", ANN)
        elsewhere = Stays(execute, Derived(execute, poster(execute)))
        await elsewhere.credit([stay()])
        assert await seconds(execute, f"uc:1:{{{BOB}}}:{MONTH}", "*:owned.ok") == 60
        assert await seconds(execute, f"uc:1:{{{ANN}}}:{MONTH}", "*:owned.ok") == 0

    async def test_days_of_a_session_stay_those_of_its_zone_when_the_policy_has_another(self, execute: Execute) -> None:
        """Otherwise a correction would take from one day what was counted on another."""
        zone, now_ms = ["UTC"], JOINED + 14 * 3_600_000  # midnight
        sent: list[tuple[Any, ...]] = []
        derived = Derived(execute, lambda *words: sent.append(words), zone=lambda: zone[0])

        def process() -> Stays:  # the second one knows nothing of the first
            return Stays(execute, derived, zone=lambda: zone[0], now_ms=lambda: now_ms)

        evening = stay(left=None, joined=now_ms - 1800_000)
        await process().credit([structs.replace(evening, left_ms=now_ms - 60_000)])
        zone[0] = "Europe/Berlin"  # where it is the 23rd since an hour
        later = process()
        await later.credit([structs.replace(evening, left_ms=now_ms + 60_000)])
        other = stay_of(ROOM, "8" * 24, HmsStay("p", ANN, "guest", now_ms - 600_000, now_ms))
        await later.credit([other])
        days = f"uc:1:{{{ANN}}}:{MONTH}"
        counted = [await seconds(execute, days, f"{day}:minutes.ok") for day in (22, 23, "*")]
        assert counted == [1800, 60 + 600, 1800 + 60 + 600]
        corrected = structs.replace(evening, left_ms=now_ms - 1700_000, rank=CONFIRMED, stamp_ms=now_ms)
        await later.credit([corrected])
        counted = [await seconds(execute, days, f"{day}:minutes.ok") for day in (22, 23, "*")]
        assert counted == [100, 600, 700]
        assert {words[2] for words in sent if words[0] == "HSET"} == {
            "22:zone.UTC", "23:zone.UTC", "23:zone.Europe/Berlin"
        }  # fmt: skip

    async def test_a_session_from_before_zones_were_kept_is_counted_in_utc(self, execute: Execute) -> None:
        await execute("HSET", keys.session(ROOM, SESSION), "owner", "", "template", "")
        stays = Stays(execute, Derived(execute, poster(execute)), zone=lambda: "Asia/Kolkata")
        await stays.credit([stay(joined=JOINED + 10 * 3_600_000)])  # 20:00, which is the 23rd in Kolkata
        assert await seconds(execute, f"uc:1:{{{ANN}}}:{MONTH}", "22:minutes.ok") == 60

    async def test_an_open_stay_is_listed_for_each_account_until_it_ends(
        self, stays: Stays, execute: Execute, owned: None
    ) -> None:
        await stays.credit([stay(left=None)])
        lists = [keys.open_stays(ANN), keys.open_stays(ROOM), keys.open_in_rooms_of(BOB), keys.open_stays("all")]
        for key in lists:
            ((field, value),) = (await execute("HGETALL", key)).items()
            assert field.decode() == stay().digest == digest_of(f"{SESSION}:{JOINED}:p")
            known = read_open(value)
            assert (known.owner, known.user, known.joined_ms) == (BOB, ANN, JOINED)
        assert await stays.credit([known.until(JOINED + 30_500)]) == [30]
        assert await stays.credit([stay()]) == [30]
        assert [await execute("EXISTS", key) for key in lists] == [0, 0, 0, 0]

    async def test_a_session_is_queued_once_and_sooner_when_it_closes(self, stays: Stays, execute: Execute) -> None:
        await stays.credit([stay(left=None)])
        assert await execute("ZRANGE", keys.SESSIONS_DUE, 0, -1, "WITHSCORES") == [
            [f"{ROOM}|{SESSION}".encode(), JOINED + 400_000]
        ]
        fact = SessionFact(ROOM, SESSION, JOINED, JOINED + 90_000, has_closed=True)
        await stays.learn({(ROOM, SESSION): fact})
        assert await execute("ZSCORE", keys.SESSIONS_DUE, f"{ROOM}|{SESSION}") == JOINED + 105_000
        known = await execute("HGETALL", keys.session(ROOM, SESSION))
        assert {known[b"opened_ms"], known[b"closed_ms"]} == {b"%d" % JOINED, b"%d" % (JOINED + 90_000)}

    async def test_a_reconciled_session_is_queued_again_only_for_a_new_stay(
        self, stays: Stays, execute: Execute
    ) -> None:
        await stays.credit([stay(left=None)])
        await execute("HSET", keys.session(ROOM, SESSION), "reconciled_ms", "1")
        await execute("DEL", keys.SESSIONS_DUE)
        await Stays(execute, Derived(execute, poster(execute))).credit([stay()])
        assert await execute("EXISTS", keys.SESSIONS_DUE) == 0
        await stays.credit([stay("late")])
        assert await execute("ZSCORE", keys.SESSIONS_DUE, f"{ROOM}|{SESSION}") == JOINED + 400_000

    async def test_a_past_day_that_changes_is_archived_again(self, execute: Execute) -> None:
        now_ms = JOINED + 14 * 3_600_000  # midnight
        stays = Stays(execute, Derived(execute, poster(execute)), now_ms=lambda: now_ms + 60_000)
        await stays.credit([stay("open", left=None)])
        await stays.credit([stay(joined=now_ms + 1000)])
        assert not await execute("SMEMBERS", CHANGED)
        await stays.credit([stay("across", left=14 * 3600 + 30)])
        assert list(await execute("SMEMBERS", CHANGED)) == [b"2026-11-22"]

    async def test_a_late_report_is_noted_before_it_is_credited(self, execute: Execute) -> None:
        """Its repetition after a crash changes nothing, and would note nothing."""
        noted = []

        async def heard(*words: Any) -> Any:
            noted.append(words[0:2] if words[0] == "SADD" else words[:1])
            return await execute(*words)

        stays = Stays(heard, Derived(heard, poster(execute)), now_ms=lambda: JOINED)
        await stays.credit([stay(joined=JOINED - 10 * 86_400_000)])
        assert noted.index(("SADD", CHANGED)) == 2  # after the session's script and its place in the queue
        assert noted[3] == ("EVAL",)
        assert list(await execute("SMEMBERS", CHANGED)) == [b"2026-11-12"]

    async def test_a_repetition_completes_what_a_crash_between_two_accounts_left_out(
        self, execute: Execute, owned: None
    ) -> None:
        for fails_at in range(1, 7):
            await execute("FLUSHALL")
            await execute("HSET", room_keys.room(ROOM), "owner", BOB)
            left = [fails_at]

            async def failing(*words: Any, left: list[int] = left) -> Any:
                left[0] -= 1
                if not left[0]:
                    raise ConnectionError("killed")
                return await execute(*words)

            dying = Stays(failing, Derived(execute, poster(execute)))
            with pytest.raises(ConnectionError):
                await dying.credit([stay(left=None), stay()])
            survivor = Stays(execute, Derived(execute, poster(execute)))
            await survivor.credit([stay(left=None), stay()])
            for key in (f"uc:1:{{{ANN}}}:{MONTH}", f"rc:1:{{{ROOM}}}:{MONTH}", f"uc:1:{{all}}:{MONTH}"):
                assert await seconds(execute, key) == 60
            assert await seconds(execute, f"uc:1:{{{BOB}}}:{MONTH}", "*:owned.ok") == 60
            assert await execute("KEYS", "op:*") == []

    async def test_peers_that_share_a_time_or_an_id_are_different_stays(self, stays: Stays, execute: Execute) -> None:
        same_id_later = stay("p", left=10, joined=JOINED + 1)
        assert await stays.credit([stay("p"), stay("q"), same_id_later]) == [60, 60, 10]
        assert await seconds(execute, f"uc:1:{{{ANN}}}:{MONTH}") == 130

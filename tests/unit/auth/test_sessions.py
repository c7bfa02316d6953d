"""Sessions. `SessionsContract` applies to any Redis; it runs on fakeredis here and on Valkey in integration."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from auth.errors import InvalidCredentials, InvalidGrant
from auth.keys import KeyRing
from auth.sessions import ABSOLUTE_MS, GRACE_MS, IDLE_MS, MOST_PER_USER, Grant, Sessions
from auth.tokens import Principal
from auth.users import User
from tests.fake_redis import fake_redis

Execute = Callable[..., Awaitable[Any]]

OLD, NEW = "old-secret-" + "o" * 32, "new-secret-" + "n" * 32
RING = KeyRing([NEW], "refresh")
UID, OTHER_UID = "u" + "a" * 20, "u" + "b" * 20


def counter_of(token: str) -> int:
    return int(token.split(".")[3])


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def sealed(uid: str, sid: str, counter: int, ring: KeyRing = RING) -> str:
    """Return the refresh token for any counter, as a gateway with the key would make it."""
    body = f"v1.{uid}.{sid}.{counter}"
    return f"{body}.{ring.mac(body)}"


class Counting:
    """Forwards and counts commands."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self.count = 0

    async def __call__(self, *words: Any) -> Any:
        self.count += 1
        return await self._execute(*words)


class SessionsContract:
    """A subclass brings an `execute` fixture on an empty database."""

    @pytest.fixture
    def sessions(self, execute: Execute) -> Sessions:
        return Sessions(execute, RING)

    @pytest.fixture
    async def user(self, execute: Execute) -> User:
        return await self.given_user(execute, UID)

    async def given_user(self, execute: Execute, uid: str) -> User:
        row = {"username": "ada", "roles": "host member", "status": "active", "ver": "4", "created_ms": "1"}
        await execute("HSET", f"u:1:{{{uid}}}", *(word for item in row.items() for word in item))
        return User(uid, "ada", "Ada", ("host", "member"), "active", 4, 1)

    async def age(self, execute: Execute, grant: Grant, field: str, ms: int) -> None:
        """Move a time of a session into the past."""
        key = f"s:1:{{{grant.principal.uid}}}:{grant.principal.sid}"
        await execute("HSET", key, field, int(await execute("HGET", key, field)) - ms)

    async def refused(self, sessions: Sessions, token: str) -> InvalidGrant:
        with pytest.raises(InvalidGrant) as caught:
            await sessions.refresh(token)
        assert len(token) < 8 or token not in str(caught.value)
        return caught.value

    # --- damaged accounts ---

    @pytest.mark.parametrize("ver", [b"\xff", b"", b"four"])
    async def test_an_unreadable_version_opens_and_admits_no_session(
        self, sessions: Sessions, user: User, execute: Execute, ver: bytes
    ) -> None:
        grant = await sessions.open(user)
        await execute("HSET", f"u:1:{{{UID}}}", "ver", ver)
        with pytest.raises(InvalidCredentials):
            await sessions.open(replace(user, ver=0))
        principal = (await sessions.refresh(grant.refresh_token)).principal
        assert not await sessions.is_current(principal)

    @pytest.mark.parametrize("since", [b"\xff", b"", b"four"])
    async def test_an_unreadable_oldest_version_ends_every_session(
        self, sessions: Sessions, user: User, execute: Execute, since: bytes
    ) -> None:
        grant = await sessions.open(user)
        await execute("HSET", f"u:1:{{{UID}}}", "since", since)
        assert not await sessions.is_live(UID, grant.principal.sid)
        assert await sessions.current(UID) == []
        await self.refused(sessions, grant.refresh_token)

    async def test_unreadable_roles_refresh_to_no_roles(self, sessions: Sessions, user: User, execute: Execute) -> None:
        grant = await sessions.open(user)
        await execute("HSET", f"u:1:{{{UID}}}", "roles", b"host\xff")
        assert (await sessions.refresh(grant.refresh_token)).principal.roles == ("host\ufffd",)

    # --- opening ---

    async def test_a_login_opens_a_live_session(self, sessions: Sessions, user: User) -> None:
        grant = await sessions.open(user)
        principal = grant.principal
        assert (principal.uid, principal.roles, principal.ver) == (user.id, user.roles, user.ver)
        assert await sessions.is_live(user.id, principal.sid)
        assert counter_of(grant.refresh_token) == 1
        assert grant.refresh_expires_s == IDLE_MS // 1000
        assert abs(grant.auth_time - time.time()) < 60

    async def test_the_last_login_is_kept_after_its_session(self, sessions: Sessions, user: User) -> None:
        assert await sessions.last_login_ms(user.id) is None
        await sessions.open(user)
        last = await sessions.open(user)
        [newest, _] = await sessions.current(user.id)
        await sessions.end_all(user.id)
        assert await sessions.last_login_ms(user.id) == newest.opened_ms
        assert newest.opened_ms // 1000 == last.auth_time

    async def test_every_session_has_a_unique_id(self, sessions: Sessions, user: User) -> None:
        grants = await asyncio.gather(*(sessions.open(user) for _ in range(10)))
        assert len({grant.principal.sid for grant in grants}) == 10
        assert len({grant.refresh_token for grant in grants}) == 10

    async def test_a_user_disabled_or_deleted_since_the_password_was_verified_gets_no_session(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        key = f"u:1:{{{user.id}}}"
        await execute("HSET", key, "status", "disabled")
        with pytest.raises(InvalidCredentials):
            await sessions.open(user)
        await execute("DEL", key)
        with pytest.raises(InvalidCredentials):
            await sessions.open(user)
        assert await execute("DBSIZE") == 0

    async def test_a_user_whose_version_changed_since_the_password_was_verified_gets_no_session(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        """The password or the roles changed between the check and the session: the login lost the race."""
        await execute("HINCRBY", f"u:1:{{{user.id}}}", "ver", 1)
        with pytest.raises(InvalidCredentials) as caught:
            await sessions.open(user)
        assert caught.value.uid == user.id
        assert await sessions.current(user.id) == []

    # --- listing ---

    async def test_sessions_are_listed_newest_first_with_address_and_client(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        grants = []
        for number in range(3):
            grants.append(await sessions.open(user, address=f"192.0.2.{number}", agent=f"Client/{number}"))
            await asyncio.sleep(0.002)
        listed = await sessions.current(user.id)
        assert [one.id for one in listed] == [grant.principal.sid for grant in reversed(grants)]
        assert [(one.address, one.agent) for one in listed] == [(f"192.0.2.{n}", f"Client/{n}") for n in (2, 1, 0)]
        for one in listed:
            assert abs(one.opened_ms - now_ms()) < 60_000
            assert one.used_ms == one.opened_ms
            assert one.expires_ms == one.opened_ms + IDLE_MS
        assert await sessions.current(OTHER_UID) == []

    async def test_ended_and_idle_sessions_are_not_listed(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        one, two, three = [(await sessions.open(user)).principal.sid for _ in range(3)]
        await sessions.end(user.id, one)
        await execute("DEL", f"s:1:{{{user.id}}}:{two}")
        assert [session.id for session in await sessions.current(user.id)] == [three]

    async def test_a_refresh_counts_as_the_last_use_and_moves_the_end(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        grant = await sessions.open(user)
        for field in ("opened", "at", "until"):
            await self.age(execute, grant, field, 86_400_000)
        await sessions.refresh(grant.refresh_token)
        [listed] = await sessions.current(user.id)
        assert 86_000_000 < listed.used_ms - listed.opened_ms < 87_000_000
        assert listed.expires_ms == listed.used_ms + IDLE_MS
        await self.age(execute, grant, "until", ABSOLUTE_MS - 5 * 86_400_000)
        [listed] = await sessions.current(user.id)
        assert listed.expires_ms < listed.used_ms + 5 * 86_400_000

    # --- secrets ---

    async def test_no_secret_part_of_a_refresh_token_is_stored(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        grant = await sessions.refresh((await sessions.open(user)).refresh_token)
        mac = grant.refresh_token.rpartition(".")[2]
        for key in await execute("KEYS", "*"):
            kind = await execute("TYPE", key)
            stored = await (execute("ZRANGE", key, 0, -1) if kind == b"zset" else execute("HGETALL", key))
            assert mac not in repr(stored)

    async def test_a_grant_does_not_show_its_refresh_token(self, sessions: Sessions, user: User) -> None:
        grant = await sessions.open(user)
        assert grant.refresh_token not in f"{grant!r} {grant} {[grant]}"

    async def test_a_session_may_idle_fourteen_days_and_the_list_outlives_every_session(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        grant = await sessions.open(user)
        assert IDLE_MS == 14 * 86_400_000
        assert ABSOLUTE_MS == 30 * 86_400_000
        left_ms = await execute("PTTL", f"s:1:{{{user.id}}}:{grant.principal.sid}")
        assert IDLE_MS - 60_000 < left_ms <= IDLE_MS
        assert await execute("PTTL", f"us:1:{{{user.id}}}") > left_ms

    # --- refreshing ---

    async def test_a_refresh_rotates(self, sessions: Sessions, user: User) -> None:
        first = await sessions.open(user)
        second = await sessions.refresh(first.refresh_token)
        third = await sessions.refresh(second.refresh_token)
        assert [counter_of(grant.refresh_token) for grant in (first, second, third)] == [1, 2, 3]
        assert first.principal == second.principal == third.principal
        assert first.auth_time == second.auth_time == third.auth_time

    async def test_a_refresh_returns_the_current_roles_and_version(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        grant = await sessions.open(user)
        await execute("HSET", f"u:1:{{{user.id}}}", "roles", "operator", "ver", "9")
        principal = (await sessions.refresh(grant.refresh_token)).principal
        assert principal == Principal(user.id, grant.principal.sid, ("operator",), 9)

    async def test_a_refresh_restarts_the_idle_time(self, sessions: Sessions, user: User, execute: Execute) -> None:
        grant = await sessions.open(user)
        key = f"s:1:{{{user.id}}}:{grant.principal.sid}"
        await execute("PEXPIRE", key, 60_000)
        assert (await sessions.refresh(grant.refresh_token)).refresh_expires_s == IDLE_MS // 1000
        assert await execute("PTTL", key) > IDLE_MS - 60_000

    async def test_a_second_tab_with_the_predecessor_gets_the_same_successor(
        self, sessions: Sessions, user: User
    ) -> None:
        first = await sessions.open(user)
        second = await sessions.refresh(first.refresh_token)
        for _ in range(3):
            assert (await sessions.refresh(first.refresh_token)).refresh_token == second.refresh_token
        assert counter_of((await sessions.refresh(second.refresh_token)).refresh_token) == 3

    async def test_a_second_tab_does_not_prolong_the_session_or_its_grace(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        first = await sessions.open(user)
        await sessions.refresh(first.refresh_token)
        key = f"s:1:{{{user.id}}}:{first.principal.sid}"
        await self.age(execute, first, "at", GRACE_MS - 10_000)
        await execute("PEXPIRE", key, 90_000)
        before = await execute("HGET", key, "at")
        assert (await sessions.refresh(first.refresh_token)).refresh_expires_s <= 90
        assert await execute("HGET", key, "at") == before
        assert await execute("PTTL", key) <= 90_000

    async def test_the_predecessor_after_its_grace_ends_the_session(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        first = await sessions.open(user)
        second = await sessions.refresh(first.refresh_token)
        await self.age(execute, first, "at", GRACE_MS + 1000)
        assert (await self.refused(sessions, first.refresh_token)).reused_by == user.id
        assert not await sessions.is_live(user.id, first.principal.sid)
        assert (await self.refused(sessions, second.refresh_token)).reused_by is None
        assert await execute("ZCARD", f"us:1:{{{user.id}}}") == 0

    async def test_an_older_token_ends_the_session_even_within_grace(self, sessions: Sessions, user: User) -> None:
        first = await sessions.open(user)
        second = await sessions.refresh(first.refresh_token)
        third = await sessions.refresh(second.refresh_token)
        assert (await self.refused(sessions, first.refresh_token)).reused_by == user.id
        for grant in (first, second, third):
            assert (await self.refused(sessions, grant.refresh_token)).reused_by is None

    async def test_reuse_in_one_session_does_not_affect_the_others(self, sessions: Sessions, user: User) -> None:
        stolen, other = await sessions.open(user), await sessions.open(user)
        second = await sessions.refresh(stolen.refresh_token)
        await sessions.refresh(second.refresh_token)
        await self.refused(sessions, stolen.refresh_token)
        assert counter_of((await sessions.refresh(other.refresh_token)).refresh_token) == 2

    async def test_fifty_racing_refreshes_make_one_rotation_and_get_equal_tokens(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        grant = await sessions.open(user)
        grants = await asyncio.gather(*(sessions.refresh(grant.refresh_token) for _ in range(50)))
        assert sum(again.rotated for again in grants) == 1
        assert {again.refresh_token for again in grants} == {sealed(user.id, grant.principal.sid, 2)}
        assert await execute("HGET", f"s:1:{{{user.id}}}:{grant.principal.sid}", "n") == b"2"

    async def test_a_counter_ahead_of_the_store_is_accepted(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        """Redis lost its last second of writes, which must not log the client out."""
        grant = await sessions.open(user)
        ahead = sealed(user.id, grant.principal.sid, 5)
        assert counter_of((await sessions.refresh(ahead)).refresh_token) == 6
        assert await execute("HGET", f"s:1:{{{user.id}}}:{grant.principal.sid}", "n") == b"6"
        assert counter_of((await sessions.refresh(ahead)).refresh_token) == 6  # now the predecessor, within grace

    async def test_the_largest_counter_is_counted_exactly(self, sessions: Sessions, user: User) -> None:
        grant = await sessions.open(user)
        huge = sealed(user.id, grant.principal.sid, 999_999_999_999_998)
        assert counter_of((await sessions.refresh(huge)).refresh_token) == 999_999_999_999_999

    async def test_a_disabled_user_is_refused_and_not_reported_for_reuse(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        grant = await sessions.open(user)
        await execute("HSET", f"u:1:{{{user.id}}}", "status", "disabled")
        assert (await self.refused(sessions, grant.refresh_token)).reused_by is None

    async def test_a_deleted_user_is_refused(self, sessions: Sessions, user: User, execute: Execute) -> None:
        grant = await sessions.open(user)
        await execute("DEL", f"u:1:{{{user.id}}}")
        assert (await self.refused(sessions, grant.refresh_token)).reused_by is None

    async def test_a_session_ends_thirty_days_after_it_was_opened_even_if_used(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        grant = await sessions.open(user)
        await self.age(execute, grant, "until", ABSOLUTE_MS + 1000)
        assert (await self.refused(sessions, grant.refresh_token)).reused_by is None
        assert not await sessions.is_live(user.id, grant.principal.sid)
        assert await execute("ZCARD", f"us:1:{{{user.id}}}") == 0

    async def test_near_its_end_a_session_may_not_idle_beyond_its_lifetime(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        grant = await sessions.open(user)
        await self.age(execute, grant, "until", ABSOLUTE_MS - 600_000)
        assert 500 < (await sessions.refresh(grant.refresh_token)).refresh_expires_s <= 600
        assert await execute("PTTL", f"s:1:{{{user.id}}}:{grant.principal.sid}") <= 600_000

    async def test_a_token_of_an_older_secret_refreshes_while_that_secret_is_listed(
        self, execute: Execute, user: User
    ) -> None:
        grant = await Sessions(execute, KeyRing([OLD], "refresh")).open(user)
        rotated = Sessions(execute, KeyRing([NEW, OLD], "refresh"))
        child = await rotated.refresh(grant.refresh_token)
        assert child.refresh_token == sealed(user.id, grant.principal.sid, 2)  # signed with the first
        await self.refused(Sessions(execute, RING), grant.refresh_token)

    # --- tampering ---

    async def test_a_tampered_token_never_reaches_redis(self, user: User, execute: Execute) -> None:
        counting = Counting(execute)
        sessions = Sessions(counting, RING)
        token = (await sessions.open(user)).refresh_token
        version, uid, sid, counter, mac = token.split(".")
        other_mac = mac[:-1] + ("0" if mac[-1] != "0" else "1")
        tampered = [
            f"{version}.{uid}.{sid}.{counter}.{other_mac}",
            f"{version}.{OTHER_UID}.{sid}.{counter}.{mac}",
            f"{version}.{uid}.{'0' * 20}.{counter}.{mac}",
            f"{version}.{uid}.{sid}.2.{mac}",
            f"v2.{uid}.{sid}.{counter}.{mac}",
            sealed(uid, sid, 1, KeyRing([OLD], "refresh")),
            sealed(uid, sid, 1, KeyRing([NEW], "login-token")),
            # correctly signed, but not of the form that we issue
            sealed(uid, sid, 0),
            sealed(uid, sid, -1),
            sealed(uid, sid, 10**15),
            sealed(uid.upper(), sid, 1),
            sealed(uid + "}x{", sid, 1),
            sealed(uid, sid + ".1", 1),
            f"{version}.{uid}.{sid}.01.{RING.mac(f'{version}.{uid}.{sid}.01')}",
            f"{version}.{uid}.{sid}.１.{RING.mac(f'{version}.{uid}.{sid}.１')}",
            token.upper(), token + "\n", " " + token, token + ".", token[:-1], token + "0", token.replace(".", "..", 1),
            "", ".", "....", "v1....", "\ud800", "v1" * 5000, mac,
        ]  # fmt: skip
        counting.count = 0
        for attempt in tampered:
            await self.refused(sessions, attempt)
            with pytest.raises(InvalidGrant):
                sessions.owner_of(attempt)
        assert counting.count == 0
        assert counter_of((await sessions.refresh(token)).refresh_token) == 2

    async def test_a_genuine_token_identifies_its_owner_even_after_its_session(
        self, sessions: Sessions, user: User
    ) -> None:
        grant = await sessions.open(user)
        assert sessions.owner_of(grant.refresh_token) == (user.id, grant.principal.sid)
        await sessions.end(user.id, grant.principal.sid)
        assert sessions.owner_of(grant.refresh_token) == (user.id, grant.principal.sid)

    async def test_a_refresh_is_one_command(self, user: User, execute: Execute) -> None:
        counting = Counting(execute)
        sessions = Sessions(counting, RING)
        grant = await sessions.open(user)
        counting.count = 0
        await sessions.refresh(grant.refresh_token)
        assert counting.count == 1

    # --- ending ---

    async def test_ending_a_session_does_not_affect_the_others(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        one, other = await sessions.open(user), await sessions.open(user)
        await sessions.end(user.id, one.principal.sid)
        assert not await sessions.is_live(user.id, one.principal.sid)
        assert (await self.refused(sessions, one.refresh_token)).reused_by is None
        assert await sessions.is_live(user.id, other.principal.sid)
        assert await execute("ZRANGE", f"us:1:{{{user.id}}}", 0, -1) == [other.principal.sid.encode()]

    async def test_ending_an_ended_session_is_not_an_error(self, sessions: Sessions, user: User) -> None:
        grant = await sessions.open(user)
        for _ in range(2):
            await sessions.end(user.id, grant.principal.sid)
        await sessions.end(user.id, "0" * 20)
        await sessions.end_all(OTHER_UID)

    async def test_ending_all_ends_all_sessions_of_one_user(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        theirs = await sessions.open(await self.given_user(execute, OTHER_UID))
        grants = [await sessions.open(user) for _ in range(4)]
        await sessions.end_all(user.id)
        assert not any([await sessions.is_live(user.id, grant.principal.sid) for grant in grants])
        assert await execute("ZCARD", f"us:1:{{{user.id}}}") == 0
        assert await sessions.is_live(OTHER_UID, theirs.principal.sid)

    async def test_ending_all_but_one_keeps_that_one(self, sessions: Sessions, user: User) -> None:
        grants = [await sessions.open(user) for _ in range(4)]
        await sessions.end_all(user.id, but=grants[2].principal.sid)
        live = [await sessions.is_live(user.id, grant.principal.sid) for grant in grants]
        assert live == [False, False, True, False]

    async def test_a_session_ended_during_a_refresh_stays_ended(self, sessions: Sessions, user: User) -> None:
        for _ in range(10):
            grant = await sessions.open(user)
            refreshing = [sessions.refresh(grant.refresh_token) for _ in range(3)]
            await asyncio.gather(
                *refreshing, sessions.end(user.id, grant.principal.sid), *[sessions.refresh(grant.refresh_token)],
                return_exceptions=True,
            )  # fmt: skip
            assert not await sessions.is_live(user.id, grant.principal.sid)

    async def test_the_twenty_first_session_ends_the_oldest(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        assert MOST_PER_USER == 20
        grants = [await sessions.open(user) for _ in range(20)]
        for age, grant in enumerate(grants):  # the seventh is the oldest, whatever the resolution of the clock
            opened = now_ms() - (10**7 if age == 6 else 10**6 - age * 1000)
            await execute("ZADD", f"us:1:{{{user.id}}}", opened, grant.principal.sid)
        newest = await sessions.open(user)
        assert not await sessions.is_live(user.id, grants[6].principal.sid)
        await self.refused(sessions, grants[6].refresh_token)
        for grant in [*grants[:6], *grants[7:], newest]:
            assert await sessions.is_live(user.id, grant.principal.sid)
        assert await execute("ZCARD", f"us:1:{{{user.id}}}") == 20

    async def test_expired_sessions_do_not_end_live_ones(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        """Otherwise a script that logs in every day would end the phone's session, though few of its own are live."""
        phone = await sessions.open(user)
        for _ in range(19):
            idle = await sessions.open(user)
            await execute("DEL", f"s:1:{{{user.id}}}:{idle.principal.sid}")
        await sessions.open(user)
        assert await sessions.is_live(user.id, phone.principal.sid)
        assert await execute("ZCARD", f"us:1:{{{user.id}}}") == 2

    async def test_a_session_ended_by_a_change_is_neither_live_nor_listed_and_takes_no_place(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        """Its key still exists if the gateway crashed between the change and the cleanup."""
        over = await sessions.open(user)
        row = f"u:1:{{{user.id}}}"
        await execute("HSET", row, "since", await execute("HINCRBY", row, "ver", 1))
        assert not await sessions.is_live(user.id, over.principal.sid)
        assert await sessions.current(user.id) == []
        new = await sessions.open(replace(user, ver=user.ver + 1))
        assert await execute("ZRANGE", f"us:1:{{{user.id}}}", 0, -1) == [new.principal.sid.encode()]
        assert await execute("EXISTS", f"s:1:{{{user.id}}}:{over.principal.sid}") == 0

    async def test_a_token_is_current_until_its_account_changes(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        principal = (await sessions.open(user)).principal
        assert await sessions.is_current(principal)
        await execute("HINCRBY", f"u:1:{{{user.id}}}", "ver", 1)
        assert not await sessions.is_current(principal)
        await execute("DEL", f"u:1:{{{user.id}}}")
        assert not await sessions.is_current(principal)

    async def test_sessions_past_their_absolute_lifetime_take_no_place(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        live = [await sessions.open(user) for _ in range(5)]
        for n in range(10):
            await execute("ZADD", f"us:1:{{{user.id}}}", now_ms() - ABSOLUTE_MS - 60_000 - n, f"{n:020x}")
        live.append(await sessions.open(user))
        assert await execute("ZCARD", f"us:1:{{{user.id}}}") == 6
        assert all([await sessions.is_live(user.id, grant.principal.sid) for grant in live])

    # --- guards ---

    async def holding(self, execute: Execute, principal: Principal) -> list[bool]:
        guards = Sessions.guards(principal)
        return [await execute("HGET", key, field) == expected.encode() for key, field, expected in guards]

    async def test_the_guards_of_a_live_session_hold_and_are_in_the_users_slot(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        principal = (await sessions.open(user)).principal
        assert await self.holding(execute, principal) == [True, True]
        assert all(f"{{{user.id}}}" in key for key, _, _ in Sessions.guards(principal))

    async def test_the_first_guard_fails_once_the_session_has_ended(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        principal = (await sessions.open(user)).principal
        await sessions.end(user.id, principal.sid)
        assert await self.holding(execute, principal) == [False, True]

    async def test_the_second_guard_fails_once_the_version_has_changed(
        self, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        grant = await sessions.open(user)
        await execute("HINCRBY", f"u:1:{{{user.id}}}", "ver", 1)
        assert await self.holding(execute, grant.principal) == [True, False]
        assert await self.holding(execute, (await sessions.refresh(grant.refresh_token)).principal) == [True, True]


@pytest.fixture
def execute() -> Execute:
    return fake_redis().execute_command


class TestSessions(SessionsContract):
    pass


async def test_a_session_opened_after_the_clock_was_set_back_is_not_the_one_that_ends() -> None:
    redis = fake_redis()
    execute = redis.execute_command
    sessions = Sessions(execute, KeyRing(["a test's own secret, which is long enough"], "refresh"))
    user = User("u" + "a" * 20, "ada", "ada", ("host",), "active", 1, 1)
    await redis.hset("u:1:{" + user.id + "}", mapping={"status": "active", "roles": "host", "ver": "1"})
    for _ in range(20):
        grant = await sessions.open(user)
        await redis.zadd("us:1:{" + user.id + "}", {grant.principal.sid: 9e12})
    newest = (await sessions.open(user)).principal
    assert await sessions.is_live(newest.uid, newest.sid)
    assert await redis.zcard("us:1:{" + user.id + "}") == 20

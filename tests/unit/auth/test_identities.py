"""Accounts of identities. `IdentitiesContract` applies to any Redis; fakeredis here, Valkey in integration."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from auth.accounts import Accounts
from auth.errors import ChangedMeanwhile
from auth.federation import Identity, Logout, Provider
from auth.identities import Identities, ext_of
from auth.keys import KeyRing
from auth.passwords import Passwords
from auth.sessions import Sessions
from auth.users import ExternalId, User
from tests.fake_redis import fake_redis
from tests.identity_provider import AUDIENCE

Execute = Callable[..., Awaitable[Any]]
ISSUER, NOW = "https://login.example.com", int(time.time())
PROVIDER = Provider("ours", ISSUER, frozenset({AUDIENCE}))


def identity(
    subject: str = "", *, name: str = "Ada Lovelace", issued_s: int = NOW, sid: str = "", **more: Any
) -> Identity:
    who = ExternalId("ours", more.pop("issuer", ISSUER), subject or secrets.token_hex(8))
    return Identity(PROVIDER, who, name, more.pop("roles", ("member",)), sid, issued_s)


def logout(subject: str = "", sid: str = "", *, issued_s: int = NOW, jti: str = "") -> Logout:
    return Logout(PROVIDER, subject, sid, jti or secrets.token_hex(8), issued_s)


class IdentitiesContract:
    """A subclass brings an `execute` fixture on an empty database."""

    @pytest.fixture
    def accounts(self, execute: Execute) -> Iterator[Accounts]:
        passwords = Passwords(memory_kib=8, passes=1)
        yield Accounts(execute, passwords)
        passwords.close()

    @pytest.fixture
    def sessions(self, execute: Execute) -> Sessions:
        return Sessions(execute, KeyRing(["x" * 32], "refresh"))

    @pytest.fixture
    def identities(self, execute: Execute, accounts: Accounts, sessions: Sessions) -> Identities:
        return Identities(execute, accounts, sessions, write=execute)

    # --- accounts ---

    async def test_an_account_is_found_by_issuer_and_subject_alone(self, identities: Identities) -> None:
        ada = identity("42")
        assert await identities.find(ada.id) is None
        user, is_new = await identities.add(ada, "Ada")
        assert is_new
        assert (user.username, user.display_name, user.roles) == ("Ada-Lovelace", "Ada", ("member",))
        assert (user.identity, user.mapped, user.mapped_s) == (ada.id, ("member",), NOW)
        assert await identities.find(ExternalId("renamed", ISSUER, "42")) == user
        for other in (ExternalId("ours", ISSUER, "43"), ExternalId("ours", "https://other.test", "42")):
            assert await identities.find(other) is None

    async def test_a_name_that_somebody_has_never_leads_to_their_account(
        self, identities: Identities, accounts: Accounts
    ) -> None:
        """E-mail addresses and names are not identities: takeover by a second provider is impossible."""
        victim = await accounts.add("ada@example.com", "correct horse battery staple", roles=["admin"])
        intruder, is_new = await identities.add(identity(name="ada@example.com"), "Ada")
        assert is_new
        assert intruder.id != victim.id
        assert re.fullmatch(r"ada@example\.com-[a-z2-7]{8}", intruder.username)
        assert await accounts.get(victim.id) == victim
        assert not await accounts.has_password(intruder.id)

    @pytest.mark.parametrize(
        ("name", "username"),
        [
            ("Zoë / admin", "Zoë-admin"), ("", "user"), ("a", "user"), ("\u202eevil\u200b", "evil"),
            ("x" * 300, "x" * 40), ("u" + "a" * 20, "user"), ("two\n lines", "two-lines"), ("ＡＤＡ", "ADA"),
        ],
    )  # fmt: skip
    async def test_a_user_name_resembles_the_name_and_breaks_no_rule(
        self, identities: Identities, accounts: Accounts, name: str, username: str
    ) -> None:
        user, _ = await identities.add(identity(name=name), "")
        assert user.username == username
        assert await accounts.find(username) == user

    async def test_a_name_that_grows_when_it_is_compared_still_has_room_for_an_end(
        self, identities: Identities
    ) -> None:
        names = [(await identities.add(identity(name="ß" * 31), ""))[0].username for _ in range(2)]
        assert names[0] == "user"
        assert re.fullmatch("user-[a-z2-7]{8}", names[1])

    async def test_racing_first_logins_make_one_account(self, identities: Identities, execute: Execute) -> None:
        one = identity()
        await identities.add(identity(), "")  # has the name already
        made = await asyncio.gather(*(identities.add(one, "") for _ in range(20)))
        assert len({user.id for user, _ in made}) == 1
        assert sum(is_new for _, is_new in made) == 1
        assert int(await execute("ZCARD", "ui:1")) == 2

    async def test_an_account_that_a_crash_left_unclaimed_is_found_and_claimed(
        self, identities: Identities, execute: Execute
    ) -> None:
        one = identity()
        user, _ = await identities.add(one, "")
        await execute("DEL", one.id.claim)
        found, is_new = await identities.add(one, "")
        assert (found.id, is_new) == (user.id, False)
        assert await identities.find(one.id) == user

    async def test_an_identity_that_could_not_be_claimed_leaves_no_account(
        self, accounts: Accounts, sessions: Sessions, execute: Execute
    ) -> None:
        async def broken(*words: Any) -> Any:
            raise ConnectionError

        with pytest.raises(ConnectionError):
            await Identities(execute, accounts, sessions, write=broken).add(identity(), "")
        assert int(await execute("ZCARD", "ui:1")) == 0

    async def test_an_identity_has_one_account_also_by_an_administrator(
        self, accounts: Accounts, identities: Identities
    ) -> None:
        one = identity()
        prepared = await accounts.add("prepared", None, roles=["host"], identity=one.id)
        assert await identities.claim_new(prepared, one.id)
        assert await identities.find(one.id) == prepared
        another = await accounts.add("another", None, roles=["host"], identity=one.id)
        assert not await identities.claim_new(another, one.id)
        assert await accounts.find_id("another") is None
        assert await identities.find(one.id) == prepared

    async def test_a_deleted_account_frees_the_identity(self, accounts: Accounts, identities: Identities) -> None:
        one = identity()
        user, _ = await identities.add(one, "")
        await accounts.erase(user)
        assert await identities.find(one.id) is None
        again, is_new = await identities.add(one, "")
        assert is_new
        assert again.id != user.id

    async def test_an_identity_that_a_crash_left_to_a_deleted_account_is_freed(
        self, accounts: Accounts, identities: Identities, execute: Execute
    ) -> None:
        one = identity()
        user, _ = await identities.add(one, "")
        await accounts.erase(user)
        await execute("SET", one.id.claim, user.id)
        assert await identities.find(one.id) is None
        assert (await identities.add(one, ""))[1]

    # --- roles ---

    async def test_roles_of_the_provider_are_replaced_and_others_stay(
        self, accounts: Accounts, identities: Identities
    ) -> None:
        user, _ = await identities.add(identity(roles=("host", "operator")), "")
        user = await accounts.change(user, roles=["host", "operator", "admin"])
        changed = await identities.map_roles(user, ["member"], NOW + 1)
        assert (changed.roles, changed.mapped, changed.mapped_s) == (("admin", "member"), ("member",), NOW + 1)
        assert changed.ver == user.ver + 1
        assert await accounts.get(user.id) == changed

    async def test_the_same_roles_make_no_token_void(self, accounts: Accounts, identities: Identities) -> None:
        user, _ = await identities.add(identity(roles=("host", "member")), "")
        same = await identities.map_roles(user, ["member", "host"], NOW + 1)
        assert (same.ver, same.mapped_s) == (user.ver, NOW + 1)
        assert await accounts.get(user.id) == same

    async def test_roles_of_an_account_that_has_changed_are_decided_again(
        self, accounts: Accounts, identities: Identities
    ) -> None:
        user, _ = await identities.add(identity(), "")
        await accounts.change(user, status="disabled")
        with pytest.raises(ChangedMeanwhile):
            await identities.map_roles(user, ["host"], NOW + 1)

    # --- logouts at the provider ---

    @staticmethod
    async def log_in(identities: Identities, sessions: Sessions, one: Identity) -> tuple[User, str]:
        user = await identities.find(one.id) or (await identities.add(one, ""))[0]
        grant = await sessions.open(user, ext=ext_of(one))
        await identities.follow(one, user.id)
        return user, grant.principal.sid

    async def test_a_logout_ends_the_sessions_that_it_is_about(
        self, identities: Identities, sessions: Sessions
    ) -> None:
        user, phone = await self.log_in(identities, sessions, identity("1", sid="phone"))
        _, laptop = await self.log_in(identities, sessions, identity("1", sid="laptop"))
        _, unknown = await self.log_in(identities, sessions, identity("1"))
        by_password = (await sessions.open(user)).principal.sid
        assert await identities.end(logout(sid="phone")) == (user.id, 2)
        live = {session.id for session in await sessions.current(user.id)}
        assert live == {laptop, by_password}, "one of which nothing is known ends with any"
        assert not {phone, unknown} & live
        assert await identities.end(logout(subject="1")) == (user.id, 1)
        assert {session.id for session in await sessions.current(user.id)} == {by_password}

    async def test_a_logout_is_about_no_other_provider_or_person(
        self, identities: Identities, sessions: Sessions
    ) -> None:
        user, _ = await self.log_in(identities, sessions, identity("1", sid="s"))
        other = Logout(Provider("other", "https://other.test"), "1", "s", "j", NOW)
        assert await identities.end(other) == ("", 0)
        assert await identities.end(logout(subject="2", sid="s")) == ("", 0)
        assert len(await sessions.current(user.id)) == 1

    async def test_a_logout_token_is_used_once(self, identities: Identities) -> None:
        one = logout(subject="1")
        assert await identities.end(one) == ("", 0)
        assert await identities.end(one) is None

    async def test_a_logout_token_whose_use_failed_can_be_used_again(
        self, identities: Identities, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = identity()
        user, _ = await self.log_in(identities, sessions, one)

        async def broken(*_: Any) -> int:
            raise ConnectionError

        token = logout(one.id.subject)
        with monkeypatch.context() as broken_for_now:
            broken_for_now.setattr(sessions, "end_external", broken)
            with pytest.raises(ConnectionError):
                await identities.end(token)
        assert await identities.end(token) == (user.id, 1)
        assert await identities.end(token) is None

    async def test_a_logout_that_arrives_late_does_not_undo_a_later_one(self, identities: Identities) -> None:
        one = identity(issued_s=NOW - 30)
        for issued_s in (NOW - 20, NOW - 40):
            await identities.end(logout(one.id.subject, issued_s=issued_s))
        assert await identities.has_ended(one)

    async def test_tokens_from_before_a_logout_are_void_and_later_ones_are_not(self, identities: Identities) -> None:
        await identities.end(logout(subject="1", issued_s=NOW))
        assert await identities.has_ended(identity("1", issued_s=NOW))
        assert await identities.has_ended(identity("1", issued_s=NOW - 100, sid="s"))
        assert not await identities.has_ended(identity("1", issued_s=NOW + 1))
        assert not await identities.has_ended(identity("2", issued_s=NOW))
        await identities.end(logout(subject="3", sid="phone", issued_s=NOW))
        assert await identities.has_ended(identity("3", issued_s=NOW, sid="phone"))
        assert not await identities.has_ended(identity("3", issued_s=NOW, sid="laptop"))
        assert not await identities.has_ended(identity("3", issued_s=NOW))

    async def test_what_is_remembered_of_a_logout_expires(self, identities: Identities, execute: Execute) -> None:
        await identities.follow(identity("1", sid="s"), "u")
        await identities.end(logout(subject="1", sid="s"))
        keys = [key async for key in self.keys(execute)]
        assert {key.partition(b":")[0] for key in keys} == {b"xs", b"xe", b"lt"}
        for key in keys:
            assert 0 < int(await execute("TTL", key)) <= 30 * 86_400

    @staticmethod
    async def keys(execute: Execute) -> Any:
        for key in await execute("KEYS", "*"):
            yield key

    async def test_a_new_password_or_a_ban_voids_earlier_tokens_of_the_provider(
        self, accounts: Accounts, identities: Identities
    ) -> None:
        user, _ = await identities.add(identity(), "")
        assert user.voided_s == 0
        await accounts.void_tokens(user.id)
        assert abs((await accounts.get(user.id)).voided_s - time.time()) < 60


class TestIdentities(IdentitiesContract):
    @pytest.fixture
    def execute(self) -> Execute:
        return fake_redis().execute_command


def test_the_text_of_an_identity_is_read_back_whatever_the_subject_is() -> None:
    for subject in ("1", "auth0|1", "||", "a|b|c"):
        who = ExternalId("ours", ISSUER, subject)
        assert ExternalId.of(str(who)) == who
    assert ExternalId.of("") is None

"""Accounts. `AccountsContract` says what holds on any Redis; here it runs on fakeredis, in integration on Valkey."""

import asyncio
import unicodedata
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import fakeredis
import pytest

from auth import passwords as passwords_module
from auth.accounts import FAILURE_FLOOR_S, Accounts, User, name_key
from auth.errors import BadUsername, InvalidCredentials, UnknownUser, UserExists, WeakPassword
from auth.passwords import Passwords

Execute = Callable[..., Awaitable[Any]]

PASSWORD = "correct horse battery staple"
# One name, as keyboards, phones and attackers write it: case, composition, full width, ligature, Kelvin sign.
SAME_NAME = ["kafﬁé", "kaffié", "KAFFIÉ", "Kaffie\u0301", "\u212aaffié", "ｋａｆｆｉé", "kaFFIÉ", "kaﬀié"]


class AccountsContract:
    """A subclass brings an `execute` fixture on an empty database."""

    @pytest.fixture
    def passwords(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Passwords]:
        # What argon2 costs is test_passwords' business; here it must only not take the time.
        monkeypatch.setattr(passwords_module, "MEMORY_KIB", 8)
        monkeypatch.setattr(passwords_module, "PASSES", 1)
        made = Passwords()
        yield made
        made.close()

    @pytest.fixture
    def accounts(self, execute: Execute, passwords: Passwords) -> Accounts:
        return Accounts(execute, passwords)

    # --- adding ---

    async def test_a_new_user_can_be_found_and_is_active(self, accounts: Accounts) -> None:
        user = await accounts.add("Ada.L", PASSWORD, roles=["host", "member"], display_name="Ada Lovelace")
        assert await accounts.get(user.id) == user
        assert await accounts.find("ada.l") == user
        assert (user.username, user.display_name, user.roles) == ("Ada.L", "Ada Lovelace", ("host", "member"))
        assert (user.ver, user.status, user.is_active) == (1, "active", True)

    async def test_an_id_is_opaque_plain_and_new_each_time(self, accounts: Accounts) -> None:
        users = [await accounts.add(f"user{n}", PASSWORD, roles=[]) for n in range(20)]
        assert len({user.id for user in users}) == 20
        for user in users:
            assert user.id.isascii()
            assert user.id.isalnum()
            assert len(user.id) == 21

    async def test_a_user_without_a_display_name_is_shown_by_his_name(self, accounts: Accounts) -> None:
        assert (await accounts.add("Ada.L", PASSWORD, roles=[])).display_name == "Ada.L"

    async def test_what_is_stored_is_a_hash_and_not_the_password(self, accounts: Accounts, execute: Execute) -> None:
        user = await accounts.add("ada", PASSWORD, roles=[])
        stored = await execute("HGET", f"u:1:{{{user.id}}}", "password")
        assert stored.startswith(b"$argon2id$")
        assert PASSWORD not in repr(user)
        assert stored.decode() not in repr(user)

    async def test_one_name_in_fifty_concurrent_spellings_is_given_exactly_once(
        self, accounts: Accounts, execute: Execute
    ) -> None:
        spellings = [SAME_NAME[n % len(SAME_NAME)] for n in range(50)]
        outcomes = await asyncio.gather(
            *(accounts.add(name, PASSWORD, roles=["member"]) for name in spellings), return_exceptions=True
        )
        winners = [outcome for outcome in outcomes if isinstance(outcome, User)]
        assert len(winners) == 1
        assert sum(isinstance(outcome, UserExists) for outcome in outcomes) == 49
        assert await accounts.page() == (winners, None)
        assert await accounts.find(SAME_NAME[0]) == winners[0]
        assert len(await execute("KEYS", "u:1:*")) == 1  # the losers left nothing behind

    async def test_a_taken_name_is_refused_in_every_spelling(self, accounts: Accounts) -> None:
        await accounts.add(SAME_NAME[0], PASSWORD, roles=[])
        for name in SAME_NAME:
            with pytest.raises(UserExists):
                await accounts.add(name, PASSWORD, roles=[])

    async def test_a_refused_password_or_name_writes_nothing(self, accounts: Accounts, execute: Execute) -> None:
        with pytest.raises(WeakPassword):
            await accounts.add("somebody", "short", roles=[])
        with pytest.raises(BadUsername):
            await accounts.add("no body", PASSWORD, roles=[])
        assert await execute("DBSIZE") == 0

    # --- finding ---

    @pytest.mark.parametrize("name", ["nobody", "", "no body", "\ud800\ud800\ud800", "x" * 1000])
    async def test_a_name_nobody_has_or_can_have_is_unknown(self, accounts: Accounts, name: str) -> None:
        with pytest.raises(UnknownUser):
            await accounts.find(name)

    async def test_an_id_nobody_has_is_unknown(self, accounts: Accounts) -> None:
        with pytest.raises(UnknownUser):
            await accounts.get("u" + "a" * 20)

    async def test_pages_bring_every_user_once(self, accounts: Accounts) -> None:
        added = {(await accounts.add(f"user{n}", PASSWORD, roles=[])).id for n in range(7)}
        for size in (1, 3, 7, 100):
            seen: list[str] = []
            after: int | None = 0
            while after is not None:
                users, after = await accounts.page(after=after, size=size)
                assert 0 < len(users) <= size
                seen += [user.id for user in users]
            assert len(seen) == 7
            assert set(seen) == added

    async def test_a_page_begins_with_the_oldest(self, accounts: Accounts, execute: Execute) -> None:
        users = [await accounts.add(f"user{n}", PASSWORD, roles=[]) for n in range(3)]
        for age, user in enumerate(users):
            await execute("ZADD", "ui:1", 1000 - age, user.id)
        found, _ = await accounts.page()
        assert [user.username for user in found] == ["user2", "user1", "user0"]

    async def test_a_page_leaves_out_who_is_gone(self, accounts: Accounts, execute: Execute) -> None:
        users = [await accounts.add(f"user{n}", PASSWORD, roles=[]) for n in range(3)]
        await execute("DEL", f"u:1:{{{users[1].id}}}")
        found, following = await accounts.page()
        assert {user.username for user in found} == {"user0", "user2"}
        assert following is None

    async def test_a_user_is_looked_up_by_name_or_id(self, accounts: Accounts) -> None:
        user = await accounts.add("Ada.L", PASSWORD, roles=[])
        assert await accounts.lookup("ada.l") == await accounts.lookup(user.id) == user
        for unknown in ("nobody", "", "u" + "a" * 20, user.id.upper()):
            with pytest.raises(UnknownUser):
                await accounts.lookup(unknown)

    async def test_users_are_counted(self, accounts: Accounts) -> None:
        assert await accounts.count() == 0
        for n in range(3):
            await accounts.add(f"user{n}", PASSWORD, roles=[])
        with pytest.raises(UserExists):
            await accounts.add("USER0", PASSWORD, roles=[])
        assert await accounts.count() == 3

    # --- authenticating ---

    async def test_the_right_password_brings_the_user(self, accounts: Accounts) -> None:
        user = await accounts.add("Zoe.R", PASSWORD, roles=["member"])
        for name in ("Zoe.R", "zoe.r", "ｚｏｅ.R"):
            assert await accounts.authenticate(name, PASSWORD) == user

    async def test_unknown_wrong_and_disabled_are_one_error_and_none_is_quick(self, accounts: Accounts) -> None:
        await accounts.add("known", PASSWORD, roles=[])
        disabled = await accounts.add("disabled", PASSWORD, roles=[])
        await accounts.set_status(disabled.id, "disabled")
        loop = asyncio.get_running_loop()

        async def attempt(name: str, password: str) -> tuple[type, str, object, float]:
            begun = loop.time()
            with pytest.raises(InvalidCredentials) as caught:
                await accounts.authenticate(name, password)
            took_s = loop.time() - begun
            return type(caught.value), str(caught.value), caught.value.__cause__, took_s

        attempts = [("known", PASSWORD + "!"), ("nobody", PASSWORD), ("disabled", PASSWORD), ("disabled", "wrong")]
        attempts += [("no body", PASSWORD), ("", ""), ("x" * 5000, PASSWORD), ("known", "\ud800"), ("\ud800" * 4, "x")]
        outcomes = await asyncio.gather(*(attempt(*given) for given in attempts))
        assert {outcome[:3] for outcome in outcomes} == {(InvalidCredentials, str(InvalidCredentials()), None)}
        assert min(outcome[3] for outcome in outcomes) >= FAILURE_FLOOR_S - 0.001
        assert FAILURE_FLOOR_S >= 0.25

    async def test_a_name_whose_user_is_gone_is_like_any_unknown_name(
        self, accounts: Accounts, execute: Execute
    ) -> None:
        user = await accounts.add("known", PASSWORD, roles=[])
        await execute("DEL", f"u:1:{{{user.id}}}")
        with pytest.raises(InvalidCredentials):
            await accounts.authenticate("known", PASSWORD)

    async def test_a_user_without_a_password_cannot_log_in(self, accounts: Accounts, execute: Execute) -> None:
        user = await accounts.add("known", PASSWORD, roles=[])
        await execute("HDEL", f"u:1:{{{user.id}}}", "password")
        with pytest.raises(InvalidCredentials):
            await accounts.authenticate("known", "")

    async def test_a_user_enabled_again_can_log_in_again(self, accounts: Accounts) -> None:
        user = await accounts.add("known", PASSWORD, roles=[])
        await accounts.set_status(user.id, "disabled")
        await accounts.set_status(user.id, "active")
        assert (await accounts.authenticate("known", PASSWORD)).ver == 3

    # --- changing ---

    async def test_a_change_of_roles_or_status_bumps_the_version(self, accounts: Accounts) -> None:
        user = await accounts.add("known", PASSWORD, roles=["member"])
        changed = await accounts.set_roles(user.id, ["host", "member"])
        assert (changed.roles, changed.ver) == (("host", "member"), 2)
        changed = await accounts.set_status(user.id, "disabled")
        assert (changed.status, changed.is_active, changed.ver) == ("disabled", False, 3)
        assert await accounts.get(user.id) == changed

    async def test_all_roles_can_be_taken_away(self, accounts: Accounts) -> None:
        user = await accounts.add("known", PASSWORD, roles=["member"])
        assert (await accounts.set_roles(user.id, [])).roles == ()

    async def test_every_one_of_many_concurrent_changes_bumps_the_version(self, accounts: Accounts) -> None:
        user = await accounts.add("known", PASSWORD, roles=["member"])
        await asyncio.gather(*(accounts.set_roles(user.id, [f"role{n}"]) for n in range(25)))
        assert (await accounts.get(user.id)).ver == 26

    async def test_a_change_of_nobody_is_refused_and_creates_nobody(self, accounts: Accounts, execute: Execute) -> None:
        with pytest.raises(UnknownUser):
            await accounts.set_roles("u" + "a" * 20, ["admin"])
        with pytest.raises(UnknownUser):
            await accounts.set_status("u" + "a" * 20, "active")
        assert await execute("DBSIZE") == 0


@pytest.fixture
def execute() -> Execute:
    return fakeredis.FakeAsyncRedis().execute_command


class TestAccounts(AccountsContract):
    pass


@pytest.mark.parametrize("name", ["abc", "a.b", "o'neil", "ada@example.org", "名前だ", "x" * 64, "ада", "a-b_c"])
def test_a_name_may_have_any_visible_characters(name: str) -> None:
    assert name_key(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ab",
        "x" * 65,
        "a b c",
        " abc",
        "abc\n",
        "abc\0",
        "a\u00a0bc",
        "a\u200bbc",  # zero width space
        "abc\u202e",  # right-to-left override
        "abc\ufeff",
        "abc\ue000",  # private use
        "abc\ud800",
        "abc\u2028",
        "abc\u3000",
        "abc\u00b4",  # its compatibility form begins with a space
        "\ufdfa" * 3,  # its compatibility form has spaces
        "\ufdfb" * 30,
    ],
)
def test_a_name_with_space_invisible_or_too_few_or_many_characters_is_refused(name: str) -> None:
    with pytest.raises(BadUsername):
        name_key(name)


def test_spellings_of_one_name_have_one_key() -> None:
    assert {name_key(name) for name in SAME_NAME} == {"kaffi\u00e9"}


@pytest.mark.parametrize(("one", "other"), [("Straße", "STRASSE"), ("ΣΊΣΥΦΟΣ", "σίσυφος"), ("ﬃnn", "FFINN")])
def test_case_is_folded_and_not_only_lowered(one: str, other: str) -> None:
    assert name_key(one) == name_key(other)


@pytest.mark.parametrize("name", [*SAME_NAME, "Straße", "ΣΊΣΥΦΟΣ", "İstanbul", "ǅungla", "ᾳᾳᾳ", "ϓϓϓ"])
def test_a_key_is_its_own_key(name: str) -> None:
    key = name_key(name)
    assert name_key(key) == key
    assert unicodedata.is_normalized("NFKC", key)

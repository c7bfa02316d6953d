"""Accounts. `AccountsContract` applies to any Redis; it runs on fakeredis here and on Valkey in integration."""

import asyncio
import unicodedata
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from auth.accounts import FAILURE_FLOOR_S, Accounts
from auth.errors import BadUsername, Busy, ChangedMeanwhile, InvalidCredentials, UnknownUser, UserExists, WeakPassword
from auth.names import name_key
from auth.password_policy import PasswordPolicy
from auth.passwords import Passwords
from auth.users import User
from tests.fake_redis import fake_redis
from tests.unit.auth.logging_in import authenticate

Execute = Callable[..., Awaitable[Any]]

PASSWORD = "correct horse battery staple"
# One name as keyboards, phones and attackers write it: case, composition, full width, ligature, Kelvin sign.
SAME_NAME = ["kafﬁé", "kaffié", "KAFFIÉ", "Kaffie\u0301", "\u212aaffié", "ｋａｆｆｉé", "kaFFIÉ", "kaﬀié"]


class AccountsContract:
    """A subclass brings an `execute` fixture on an empty database."""

    @pytest.fixture
    def passwords(self) -> Iterator[Passwords]:
        # The cost of argon2 is tested in test_passwords; here it must only be fast.
        made = Passwords(memory_kib=8, passes=1)
        yield made
        made.close()

    @pytest.fixture
    def accounts(self, execute: Execute, passwords: Passwords) -> Accounts:
        return Accounts(execute, passwords)

    @pytest.fixture
    def stronger(self, execute: Execute) -> Iterator[Accounts]:
        """The same accounts with a higher configured cost."""
        made = Passwords(memory_kib=16, passes=2)
        yield Accounts(execute, made)
        made.close()

    # --- adding ---

    async def test_a_new_user_can_be_found_and_is_active(self, accounts: Accounts) -> None:
        user = await accounts.add("Ada.L", PASSWORD, roles=["host", "member"], display_name="Ada Lovelace")
        assert await accounts.get(user.id) == user
        assert await accounts.find("ada.l") == user
        assert (user.username, user.display_name, user.roles) == ("Ada.L", "Ada Lovelace", ("host", "member"))
        assert (user.ver, user.status, user.is_active) == (1, "active", True)

    async def test_an_id_is_opaque_plain_ascii_and_unique(self, accounts: Accounts) -> None:
        users = [await accounts.add(f"user{n}", PASSWORD, roles=[]) for n in range(20)]
        assert len({user.id for user in users}) == 20
        for user in users:
            assert user.id.isascii()
            assert user.id.isalnum()
            assert len(user.id) == 21

    async def test_the_display_name_defaults_to_the_user_name(self, accounts: Accounts) -> None:
        assert (await accounts.add("Ada.L", PASSWORD, roles=[])).display_name == "Ada.L"

    async def test_a_hash_is_stored_and_not_the_password(self, accounts: Accounts, execute: Execute) -> None:
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

    async def test_the_given_password_policy_is_applied(self, execute: Execute, passwords: Passwords) -> None:
        accounts = Accounts(execute, passwords, PasswordPolicy(min_length=8))
        await accounts.add("somebody", "x7!Kq9#m", roles=[])
        with pytest.raises(WeakPassword) as caught:
            await accounts.add("another", "another", roles=[])
        assert "must have at least 8 characters" in caught.value.reasons
        assert "must not contain the user name" in caught.value.reasons

    # --- finding ---

    @pytest.mark.parametrize("name", ["nobody", "", "no body", "\ud800\ud800\ud800", "x" * 1000])
    async def test_a_name_that_no_user_has_or_can_have_is_unknown(self, accounts: Accounts, name: str) -> None:
        with pytest.raises(UnknownUser):
            await accounts.find(name)

    async def test_an_id_that_no_user_has_is_unknown(self, accounts: Accounts) -> None:
        with pytest.raises(UnknownUser):
            await accounts.get("u" + "a" * 20)

    async def test_pages_list_every_user_once(self, accounts: Accounts) -> None:
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

    async def test_a_page_omits_users_without_a_row(self, accounts: Accounts, execute: Execute) -> None:
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

    async def test_a_name_like_an_id_from_before_the_rule_does_not_hide_the_account_with_that_id(
        self, accounts: Accounts, execute: Execute
    ) -> None:
        victim, squatter = [await accounts.add(name, PASSWORD, roles=[]) for name in ("ada", "eve")]
        await execute("SET", f"un:1:{victim.id}", squatter.id)
        assert await accounts.lookup(victim.id) == victim
        await accounts.erase(await accounts.get(victim.id))
        with pytest.raises(UnknownUser):
            await accounts.lookup(victim.id)

    async def test_users_are_counted(self, accounts: Accounts) -> None:
        assert await accounts.count() == 0
        for n in range(3):
            await accounts.add(f"user{n}", PASSWORD, roles=[])
        with pytest.raises(UserExists):
            await accounts.add("USER0", PASSWORD, roles=[])
        assert await accounts.count() == 3

    # --- authenticating ---

    async def test_the_right_password_returns_the_user(self, accounts: Accounts) -> None:
        user = await accounts.add("Zoe.R", PASSWORD, roles=["member"])
        for name in ("Zoe.R", "zoe.r", "ｚｏｅ.R"):
            assert await authenticate(accounts, name, PASSWORD) == user

    async def test_unknown_wrong_and_disabled_are_one_error_with_a_minimum_delay(self, accounts: Accounts) -> None:
        await accounts.add("known", PASSWORD, roles=[])
        disabled = await accounts.add("disabled", PASSWORD, roles=[])
        await accounts.change(await accounts.get(disabled.id), status="disabled")
        loop = asyncio.get_running_loop()

        async def attempt(name: str, password: str) -> tuple[type, str, object, float]:
            begun = loop.time()
            with pytest.raises(InvalidCredentials) as caught:
                await authenticate(accounts, name, password)
            took_s = loop.time() - begun
            return type(caught.value), str(caught.value), caught.value.__cause__, took_s

        attempts = [("known", PASSWORD + "!"), ("nobody", PASSWORD), ("disabled", PASSWORD), ("disabled", "wrong")]
        attempts += [("no body", PASSWORD), ("", ""), ("x" * 5000, PASSWORD), ("known", "\ud800"), ("\ud800" * 4, "x")]
        outcomes = await asyncio.gather(*(attempt(*given) for given in attempts))
        assert {outcome[:3] for outcome in outcomes} == {(InvalidCredentials, str(InvalidCredentials()), None)}
        assert min(outcome[3] for outcome in outcomes) >= FAILURE_FLOOR_S - 0.001
        assert FAILURE_FLOOR_S >= 0.25

    async def test_the_delay_of_a_refusal_has_jitter(self, accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("auth.accounts.random.uniform", lambda least, most: most)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(InvalidCredentials):
            await authenticate(accounts, "nobody", PASSWORD)
        assert loop.time() - begun >= FAILURE_FLOOR_S + 0.049

    async def test_a_name_without_its_user_is_like_an_unknown_name(self, accounts: Accounts, execute: Execute) -> None:
        user = await accounts.add("known", PASSWORD, roles=[])
        await execute("DEL", f"u:1:{{{user.id}}}")
        with pytest.raises(InvalidCredentials):
            await authenticate(accounts, "known", PASSWORD)

    async def test_a_user_without_a_password_cannot_log_in(self, accounts: Accounts, execute: Execute) -> None:
        user = await accounts.add("known", PASSWORD, roles=[])
        await execute("HDEL", f"u:1:{{{user.id}}}", "password")
        with pytest.raises(InvalidCredentials):
            await authenticate(accounts, "known", "")

    @pytest.mark.parametrize(
        "damage",
        [
            lambda stored: b"\xff\xfe",
            lambda stored: stored[:-4] + b"\xff\xfe\xfd\xfc",
            lambda stored: stored.replace(b"m=8", b"m=\xff"),
            lambda stored: stored[:30],
            lambda stored: stored.replace(b"m=8", b"m=4294967295"),
        ],
    )
    async def test_a_damaged_hash_is_like_a_wrong_password_and_logged_once(
        self, accounts: Accounts, execute: Execute, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes]
    ) -> None:
        user = await accounts.add("known", PASSWORD, roles=[])
        stored = await execute("HGET", f"u:1:{{{user.id}}}", "password")
        await execute("HSET", f"u:1:{{{user.id}}}", "password", damage(stored))
        loop = asyncio.get_running_loop()
        for _ in range(2):
            begun = loop.time()
            with pytest.raises(InvalidCredentials) as caught:
                await authenticate(accounts, "known", PASSWORD)
            assert loop.time() - begun >= FAILURE_FLOOR_S - 0.001
            assert (str(caught.value), caught.value.__cause__) == (str(InvalidCredentials()), None)
        [line] = [record.getMessage() for record in caplog.records]
        assert user.id in line
        assert "argon2" not in line
        assert stored.decode()[-20:] not in line

    @pytest.mark.parametrize("field", ["display_name", "roles", "status", "ver", "created_ms", "changes"])
    @pytest.mark.parametrize("damage", [b"\xff\xfe", b"", b"-1", b"9" * 5000])
    async def test_a_damaged_row_can_be_read_and_gives_no_rights(
        self, accounts: Accounts, execute: Execute, field: str, damage: bytes
    ) -> None:
        user = await accounts.add("known", PASSWORD, roles=["admin"])
        await execute("HSET", f"u:1:{{{user.id}}}", field, damage)
        read = await accounts.lookup("known")
        assert (await accounts.page(), (await accounts.search(""))[0]) == (([read], None), [read])
        assert field != "roles" or "admin" not in read.roles
        assert field != "ver" or read.ver == 0
        if field == "status":
            with pytest.raises(InvalidCredentials):
                await authenticate(accounts, "known", PASSWORD)
        else:
            assert await authenticate(accounts, "known", PASSWORD) == read

    async def test_a_user_enabled_again_can_log_in_again(self, accounts: Accounts) -> None:
        user = await accounts.add("known", PASSWORD, roles=[])
        await accounts.change(await accounts.get(user.id), status="disabled")
        await accounts.change(await accounts.get(user.id), status="active")
        assert (await authenticate(accounts, "known", PASSWORD)).ver == 3

    # --- renewing a hash ---

    async def test_a_weak_hash_is_renewed_without_voiding_tokens(
        self, accounts: Accounts, execute: Execute, stronger: Accounts
    ) -> None:
        user = await accounts.add("known", PASSWORD, roles=["member"])
        assert await stronger.renew_hash(await stronger.credentials(user.id), PASSWORD)
        assert (await stored_hash(execute, user)).startswith("$argon2id$v=19$m=16,t=2,p=1$")
        assert await authenticate(stronger, "known", PASSWORD) == user
        with pytest.raises(InvalidCredentials):
            await authenticate(stronger, "known", PASSWORD + "!")

    async def test_a_hash_that_is_strong_enough_stays(
        self, accounts: Accounts, execute: Execute, stronger: Accounts
    ) -> None:
        user = await stronger.add("known", PASSWORD, roles=[])
        old = await stored_hash(execute, user)
        for those in (stronger, accounts):
            assert not await those.renew_hash(await those.credentials(user.id), PASSWORD)
        assert await stored_hash(execute, user) == old

    async def test_a_password_changed_meanwhile_is_not_undone(
        self, accounts: Accounts, execute: Execute, stronger: Accounts, passwords: Passwords
    ) -> None:
        user = await accounts.add("known", PASSWORD, roles=[])
        before = await stronger.credentials(user.id)
        changed = await passwords.hash("another horse battery staple")
        await execute("HSET", f"u:1:{{{user.id}}}", "password", changed)
        for credentials in (before, await stronger.credentials(user.id)):
            assert not await stronger.renew_hash(credentials, PASSWORD)
        assert await stored_hash(execute, user) == changed

    async def test_one_of_ten_concurrent_renewals_is_done(
        self, accounts: Accounts, execute: Execute, stronger: Accounts
    ) -> None:
        user = await accounts.add("known", PASSWORD, roles=[])
        credentials = await stronger.credentials(user.id)
        assert sum(await asyncio.gather(*(stronger.renew_hash(credentials, PASSWORD) for _ in range(10)))) == 1
        assert await authenticate(stronger, "known", PASSWORD) == user

    async def test_renewing_does_not_restore_a_deleted_user(
        self, accounts: Accounts, execute: Execute, stronger: Accounts
    ) -> None:
        user = await accounts.add("known", PASSWORD, roles=[])
        before = await stronger.credentials(user.id)
        await execute("DEL", f"u:1:{{{user.id}}}")
        for credentials in (before, await stronger.credentials(user.id)):
            assert not await stronger.renew_hash(credentials, PASSWORD)
        assert not await execute("EXISTS", f"u:1:{{{user.id}}}")

    async def test_a_full_pool_leaves_the_renewal_to_the_next_login(
        self, accounts: Accounts, execute: Execute, stronger: Accounts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def busy(self: Passwords, password: str, *, replacing: str = "") -> str:
            raise Busy

        user = await accounts.add("known", PASSWORD, roles=[])
        old = await stored_hash(execute, user)
        monkeypatch.setattr(Passwords, "hash", busy)
        assert not await stronger.renew_hash(await stronger.credentials(user.id), PASSWORD)
        assert await stored_hash(execute, user) == old

    # --- changing ---

    async def test_a_change_of_roles_or_status_bumps_the_version(self, accounts: Accounts) -> None:
        user = await accounts.add("known", PASSWORD, roles=["member"])
        changed = await accounts.change(await accounts.get(user.id), roles=["host", "member"])
        assert (changed.roles, changed.ver) == (("host", "member"), 2)
        changed = await accounts.change(await accounts.get(user.id), status="disabled")
        assert (changed.status, changed.is_active, changed.ver) == ("disabled", False, 3)
        assert await accounts.get(user.id) == changed

    async def test_all_roles_can_be_taken_away(self, accounts: Accounts) -> None:
        user = await accounts.add("known", PASSWORD, roles=["member"])
        assert (await accounts.change(await accounts.get(user.id), roles=[])).roles == ()

    async def test_one_of_many_changes_decided_on_the_same_account_is_made(self, accounts: Accounts) -> None:
        user = await accounts.add("known", PASSWORD, roles=["member"])
        changes = (accounts.change(user, roles=[f"role{n}"]) for n in range(25))
        outcomes = await asyncio.gather(*changes, return_exceptions=True)
        [made] = [outcome for outcome in outcomes if isinstance(outcome, User)]
        assert sum(isinstance(outcome, ChangedMeanwhile) for outcome in outcomes) == 24
        assert (await accounts.get(user.id), made.ver) == (made, 2)

    async def test_a_change_of_an_unknown_user_is_refused_and_creates_nothing(
        self, accounts: Accounts, execute: Execute
    ) -> None:
        nobody = User("u" + "a" * 20, "nobody", "Nobody", (), "active", 1, 1)
        with pytest.raises(UnknownUser):
            await accounts.change(nobody, roles=["admin"])
        with pytest.raises(UnknownUser):
            await accounts.erase(nobody)
        assert await execute("DBSIZE") == 0


async def stored_hash(execute: Execute, user: User) -> str:
    stored: bytes = await execute("HGET", f"u:1:{{{user.id}}}", "password")
    return stored.decode()


@pytest.fixture
def execute() -> Execute:
    return fake_redis().execute_command


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
        "a/b",
        "../admin",
        "a\uff0fb",
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
def test_names_are_case_folded_and_not_only_lower_cased(one: str, other: str) -> None:
    assert name_key(one) == name_key(other)


@pytest.mark.parametrize("name", [*SAME_NAME, "Straße", "ΣΊΣΥΦΟΣ", "İstanbul", "ǅungla", "ᾳᾳᾳ", "ϓϓϓ"])
def test_folding_a_key_again_does_not_change_it(name: str) -> None:
    key = name_key(name)
    assert name_key(key) == key
    assert unicodedata.is_normalized("NFKC", key)

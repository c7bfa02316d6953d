"""Password changes, erasure, undone creations. The contract runs on fakeredis and, in integration, Valkey."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from auth.accounts import Accounts
from auth.errors import BadUsername, ChangedMeanwhile, InvalidCredentials, InvalidGrant, UnknownUser, WeakPassword
from auth.keys import KeyRing
from auth.names import name_key
from auth.passwords import Passwords
from auth.sessions import Grant, Sessions
from auth.users import User
from tests.fake_redis import fake_redis
from tests.unit.auth.logging_in import authenticate

Execute = Callable[..., Awaitable[Any]]

OLD, NEW, OTHER = "correct horse battery staple", "seventeen green umbrellas", "a lighthouse full of maps"


class NotOnDisk(Exception):
    """The error of a durable write that the disk did not confirm."""


class AccountChangesContract:
    """A subclass brings an `execute` fixture on an empty database."""

    @pytest.fixture
    def passwords(self) -> Iterator[Passwords]:
        made = Passwords(memory_kib=8, passes=1)  # the cost is tested in test_passwords
        yield made
        made.close()

    @pytest.fixture
    def accounts(self, execute: Execute, passwords: Passwords) -> Accounts:
        return Accounts(execute, passwords)

    @pytest.fixture
    def sessions(self, execute: Execute) -> Sessions:
        return Sessions(execute, KeyRing(["s" * 40], "refresh"))

    @pytest.fixture
    async def user(self, accounts: Accounts) -> User:
        return await accounts.add("Ada.L", OLD, roles=["member"], display_name="Ada Lovelace")

    async def everything(self, execute: Execute) -> str:
        """Return all keys and values."""
        texts = []
        for key in await execute("KEYS", "*"):
            kind = (await execute("TYPE", key)).decode()
            words = {"hash": ("HGETALL", key), "zset": ("ZRANGE", key, 0, -1), "string": ("GET", key)}[kind]
            texts.append(repr((key, await execute(*words))))
        return "\n".join(texts)

    async def ended(self, sessions: Sessions, grant: Grant) -> None:
        with pytest.raises(InvalidGrant) as caught:
            await sessions.refresh(grant.refresh_token)
        assert caught.value.reused_by is None

    # --- changing a password ---

    async def test_a_changed_password_replaces_the_old_one(self, accounts: Accounts, user: User) -> None:
        changed = await accounts.change_password(user.id, OLD, NEW)
        assert changed.ver == user.ver + 1
        assert await authenticate(accounts, "ada.l", NEW) == changed
        with pytest.raises(InvalidCredentials):
            await authenticate(accounts, "ada.l", OLD)

    async def test_a_new_password_is_checked_before_it_is_set(self, accounts: Accounts) -> None:
        user = await accounts.add("ada", None, roles=["host"])
        for weak in ("short", "ada-ada-ada-ada"):
            with pytest.raises(WeakPassword):
                await accounts.check_password(user.id, weak)
        await accounts.check_password(user.id, "a lighthouse full of maps")

    async def test_a_wrong_current_or_weak_new_password_changes_nothing(self, accounts: Accounts, user: User) -> None:
        with pytest.raises(InvalidCredentials) as caught:
            await accounts.change_password(user.id, NEW, OTHER)
        assert caught.value.uid == user.id
        with pytest.raises(WeakPassword):
            await accounts.change_password(user.id, OLD, "short")
        with pytest.raises(WeakPassword):
            await accounts.change_password(user.id, OLD, "ada.l is my own name")
        with pytest.raises(UnknownUser):
            await accounts.change_password("u" + "a" * 20, OLD, NEW)
        assert await authenticate(accounts, "ada.l", OLD) == user

    async def test_one_of_ten_concurrent_changes_succeeds(self, accounts: Accounts, user: User) -> None:
        wanted = [f"{number} seventeen green umbrellas" for number in range(10)]
        outcomes = await asyncio.gather(
            *(accounts.change_password(user.id, OLD, new) for new in wanted), return_exceptions=True
        )
        [winner] = [new for new, outcome in zip(wanted, outcomes, strict=True) if isinstance(outcome, User)]
        assert sum(isinstance(outcome, InvalidCredentials) for outcome in outcomes) == 9
        assert (await authenticate(accounts, "ada.l", winner)).ver == user.ver + 1

    async def test_a_password_change_ends_every_session_but_the_kept_one_in_the_same_write(
        self, accounts: Accounts, sessions: Sessions, user: User
    ) -> None:
        """The sessions were not deleted: a crash right after the write must not leave a thief logged in."""
        grants = [await sessions.open(user) for _ in range(3)]
        changed = await accounts.change_password(user.id, OLD, NEW)
        await sessions.keep(changed, grants[0].principal.sid)
        for grant in grants[1:]:
            await self.ended(sessions, grant)
        kept = await sessions.refresh(grants[0].refresh_token)
        assert kept.principal.ver == changed.ver
        await sessions.refresh(kept.refresh_token)

    async def test_keeping_does_not_revive_a_session(
        self, accounts: Accounts, sessions: Sessions, user: User, execute: Execute
    ) -> None:
        grant = await sessions.open(user)
        await sessions.end(user.id, grant.principal.sid)
        await sessions.keep(user, grant.principal.sid)
        assert not await sessions.is_live(user.id, grant.principal.sid)

    async def test_earlier_sessions_end_after_a_link_a_disabling_or_a_logout_of_all(
        self, accounts: Accounts, sessions: Sessions, user: User
    ) -> None:
        async def ban() -> None:
            await accounts.change(await accounts.get(user.id), status="disabled")
            await accounts.change(await accounts.get(user.id), status="active")

        async def link() -> None:
            await accounts.set_password(user.id, NEW, mark=(await accounts.get(user.id)).mark)

        for act in (ban, link, lambda: accounts.void_tokens(user.id)):
            grant = await sessions.open(await accounts.get(user.id))
            await act()
            await self.ended(sessions, grant)

    async def test_a_change_of_roles_or_name_ends_no_session(
        self, accounts: Accounts, sessions: Sessions, user: User
    ) -> None:
        grant = await sessions.open(user)
        await accounts.change(await accounts.get(user.id), roles=["host"])
        renamed = await accounts.set_display_name(user.id, "Countess")
        assert (renamed.display_name, renamed.ver) == ("Countess", user.ver + 1)
        assert (await sessions.refresh(grant.refresh_token)).principal.roles == ("host",)

    # --- setting one with a link ---

    async def test_a_link_is_void_once_the_password_has_changed(self, accounts: Accounts, user: User) -> None:
        mark = (await accounts.get(user.id)).mark
        await accounts.change_password(user.id, OLD, NEW)
        with pytest.raises(InvalidCredentials):
            await accounts.set_password(user.id, OTHER, mark=mark)
        assert await authenticate(accounts, "ada.l", NEW)

    async def test_one_of_ten_links_to_the_first_password_sets_it(self, accounts: Accounts) -> None:
        user = await accounts.add("waiting", None, roles=[])
        mark = (await accounts.get(user.id)).mark
        outcomes = await asyncio.gather(
            *(accounts.set_password(user.id, f"{n} {NEW}", mark=mark) for n in range(10)), return_exceptions=True
        )
        assert sum(isinstance(outcome, User) for outcome in outcomes) == 1

    async def test_a_user_without_a_password_cannot_log_in_with_any_text(self, accounts: Accounts) -> None:
        await accounts.add("waiting", None, roles=[])
        for password in ("", "None", OLD):
            with pytest.raises(InvalidCredentials):
                await authenticate(accounts, "waiting", password)

    async def test_a_link_is_void_after_a_change_that_was_undone(self, accounts: Accounts, user: User) -> None:
        """Disabling a user because their link leaked, and enabling them again, voids the link."""

        async def disabled_and_enabled() -> None:
            await accounts.change(await accounts.get(user.id), status="disabled")
            await accounts.change(await accounts.get(user.id), status="active")

        async def promoted_and_demoted() -> None:
            await accounts.change(await accounts.get(user.id), roles=["admin"])
            await accounts.change(await accounts.get(user.id), roles=["member"])

        for change in (disabled_and_enabled, promoted_and_demoted):
            mark = (await accounts.get(user.id)).mark
            await change()
            with pytest.raises(InvalidCredentials):
                await accounts.set_password(user.id, OTHER, mark=mark)
        assert await authenticate(accounts, "ada.l", OLD)

    async def test_a_link_outlives_changes_that_do_not_affect_powers(self, accounts: Accounts, user: User) -> None:
        mark = (await accounts.get(user.id)).mark
        await accounts.set_display_name(user.id, "Countess")
        await accounts.void_tokens(user.id)
        await accounts.set_password(user.id, NEW, mark=mark)
        assert await authenticate(accounts, "ada.l", NEW)

    async def test_a_link_is_void_if_its_user_is_promoted_while_the_password_is_hashed(
        self, accounts: Accounts, user: User, passwords: Passwords, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mark, hash_password = (await accounts.get(user.id)).mark, passwords.hash

        async def hash_slowly(password: str, **more: Any) -> str:
            await accounts.change(await accounts.get(user.id), roles=["admin"])
            return await hash_password(password, **more)

        monkeypatch.setattr(passwords, "hash", hash_slowly)
        with pytest.raises(InvalidCredentials):
            await accounts.set_password(user.id, NEW, mark=mark)

    async def test_a_password_verified_before_a_disabling_is_not_changed_after_it(
        self, accounts: Accounts, user: User, passwords: Passwords, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otherwise a thief whose account is being disabled could choose the password for when it is enabled again."""
        hash_password = passwords.hash

        async def hash_slowly(password: str, **more: Any) -> str:
            await accounts.change(await accounts.get(user.id), status="disabled")
            return await hash_password(password, **more)

        monkeypatch.setattr(passwords, "hash", hash_slowly)
        with pytest.raises(InvalidCredentials):
            await accounts.change_password(user.id, OLD, NEW)
        await accounts.change(await accounts.get(user.id), status="active")
        assert await authenticate(accounts, "ada.l", OLD)

    # --- decisions on an outdated account ---

    async def test_a_decision_on_an_account_is_not_applied_after_the_account_has_changed(
        self, accounts: Accounts, user: User
    ) -> None:
        """Permission to disable a member is not permission to disable an admin, which the member may have become."""
        promoted = await accounts.change(user, roles=["admin"])
        for attempt in (
            lambda: accounts.change(user, status="disabled"),
            lambda: accounts.change(user, roles=["guest"]),
            lambda: accounts.erase(user),
        ):
            with pytest.raises(ChangedMeanwhile):
                await attempt()
        assert await accounts.get(user.id) == promoted
        await accounts.change(promoted, status="disabled")
        with pytest.raises(ChangedMeanwhile):
            await accounts.change(promoted, status="disabled")

    async def test_roles_and_status_change_in_one_write(self, accounts: Accounts, user: User) -> None:
        changed = await accounts.change(user, roles=["host"], status="disabled")
        assert (changed.roles, changed.status, changed.ver) == (("host",), "disabled", user.ver + 1)

    async def test_unchanged_roles_and_status_are_written_again_and_void_nothing(
        self, execute: Execute, passwords: Passwords, accounts: Accounts, sessions: Sessions, user: User
    ) -> None:
        """Repeating an unconfirmed change must wait for the disk again."""
        written: list[tuple[Any, ...]] = []

        async def write(*words: Any) -> Any:
            written.append(words)
            return await execute(*words)

        grant = await sessions.open(user)
        again = await Accounts(execute, passwords, write=write).change(user, roles=user.roles, status="active")
        assert again == user
        assert [words[0] for words in written] == ["EVAL"]
        assert await sessions.refresh(grant.refresh_token)

    # --- erasing ---

    async def test_an_erased_user_leaves_only_an_id(self, accounts: Accounts, user: User, execute: Execute) -> None:
        await execute("HSET", f"u:1:{{{user.id}}}", "login_ms", 4711)
        await accounts.erase(await accounts.get(user.id))
        left = await self.everything(execute)
        assert user.id in left
        for text in ("ada", "Ada", "Lovelace", "argon2", "member", "login_ms"):
            assert text not in left
        for attempt in (accounts.find("ada.l"), accounts.get(user.id), accounts.erase(user)):
            with pytest.raises(UnknownUser):
                await attempt
        [gone], _ = await accounts.page()
        assert (gone.id, gone.username, gone.status, gone.roles) == (user.id, "", "deleted", ())
        assert await accounts.search("") == ([], None)

    async def test_an_erased_user_cannot_be_restored(self, accounts: Accounts, user: User) -> None:
        mark = (await accounts.get(user.id)).mark
        await accounts.erase(await accounts.get(user.id))
        for attempt in (
            accounts.change(user, roles=["admin"]),
            accounts.change(user, status="active"),
            accounts.set_display_name(user.id, "Ada"),
            accounts.set_password(user.id, NEW, mark=mark),
        ):
            with pytest.raises(UnknownUser):
                await attempt

    async def test_erasing_a_user_again_does_not_free_a_name_that_another_user_has_taken(
        self, accounts: Accounts, user: User, execute: Execute
    ) -> None:
        row = await execute("HGETALL", f"u:1:{{{user.id}}}")
        await accounts.erase(await accounts.get(user.id))
        heir = await accounts.add("ada.l", NEW, roles=["host"])
        assert heir.id != user.id
        # Only the name's part of a deletion had reached the disk: the row exists, and the name belongs to another user.
        pairs = row.items() if isinstance(row, dict) else zip(row[::2], row[1::2], strict=True)
        await execute("HSET", f"u:1:{{{user.id}}}", *(word for pair in pairs for word in pair))
        await accounts.erase(await accounts.get(user.id))
        assert await accounts.find("ada.l") == heir
        assert ([heir], None) == await accounts.search("ada")

    async def test_erasing_a_half_erased_user_again_completes_it(
        self, accounts: Accounts, user: User, execute: Execute
    ) -> None:
        await execute("DEL", "un:1:ada.l")
        await accounts.erase(await accounts.get(user.id))
        assert "ada" not in (await self.everything(execute)).lower()

    # --- unconfirmed writes ---

    @pytest.mark.parametrize("written", [0, 1, 2, 3, 4])
    async def test_an_unconfirmed_account_leaves_nothing_behind(
        self, execute: Execute, passwords: Passwords, written: int
    ) -> None:
        """Regardless of how many of its writes took effect before the connection broke."""
        sent = 0

        async def failing(*words: Any) -> Any:
            nonlocal sent
            sent += 1
            if sent <= written:
                await execute(*words)
            raise NotOnDisk

        with pytest.raises(NotOnDisk):
            await Accounts(execute, passwords, write=failing).add("ada", OLD, roles=[])
        assert await execute("DBSIZE") == 0
        assert await Accounts(execute, passwords).add("ada", OLD, roles=[])

    async def test_an_unconfirmed_loser_leaves_nothing_and_does_not_affect_the_winner(
        self, execute: Execute, passwords: Passwords, accounts: Accounts
    ) -> None:
        first: list[User] = []

        async def beaten(*words: Any) -> Any:
            if words[0] == "SET":
                first.append(await accounts.add("ada", OLD, roles=[]))
            await execute(*words)
            raise NotOnDisk

        with pytest.raises(NotOnDisk):
            await Accounts(execute, passwords, write=beaten).add("ADA", NEW, roles=["admin"])
        assert await accounts.page() == (first, None)
        assert await accounts.search("a") == (first, None)
        assert await authenticate(accounts, "ada", OLD) == first[0]

    # --- names ---

    async def test_a_search_finds_names_by_their_beginning_page_by_page(self, accounts: Accounts) -> None:
        names = ["anna", "Anton", "ANTONIA", "berta", "an", "Ärger", "anz"]
        for name in names:
            if len(name) > 2:
                await accounts.add(name, OLD, roles=[])
        found: list[str] = []
        after: str | None = ""
        while after is not None:
            page, after = await accounts.search("ＡＮ", after=after, size=2)
            assert len(page) <= 2
            found += [user.username for user in page]
        assert found == ["anna", "Anton", "ANTONIA", "anz"]
        assert [user.username for user in (await accounts.search("är"))[0]] == ["Ärger"]
        assert await accounts.search("ant\xff") == ([], None)

    async def test_a_name_cannot_look_like_the_id_of_another_user(self, accounts: Accounts, user: User) -> None:
        """An administrator who gives an id would otherwise change the account of the user with that name."""
        for name in (user.id, user.id.upper(), "\uff55" + user.id[1:]):
            with pytest.raises(BadUsername):
                await accounts.add(name, OLD, roles=[])
        assert await accounts.lookup(user.id) == user


@pytest.fixture
def execute() -> Execute:
    return fake_redis().execute_command


class TestAccountChanges(AccountChangesContract):
    pass


@pytest.mark.parametrize(
    "char", ["\u034f", "\u115f", "\u1160", "\u17b4", "\u180b", "\u2800", "\u3164", "\ufe0f", "\uffa0", "\U000e0100"]
)
def test_a_name_with_another_kind_of_blank_is_refused(char: str) -> None:
    """Unicode Technical Report 36, section 3.5: an invisible character makes two names that look the same."""
    for name in (f"ada{char}", f"{char}ada", f"a{char}da"):
        with pytest.raises(BadUsername):
            name_key(name)

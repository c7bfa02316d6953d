"""Password changes in which something fails. The rest is tested over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from auth.accounts import Accounts
from auth.errors import Busy, InvalidCredentials, InvalidGrant, WeakPassword
from auth.keys import KeyRing
from auth.passwords import Passwords
from auth.sessions import Grant, Sessions
from auth.users import User
from auth.vouchers import Vouchers
from gateway.accounts.password_change import PasswordChange
from gateway.audit import Audit, Origin
from gateway.redis.durable import NotDurable
from tests.fake_redis import fake_redis
from tests.unit.auth.logging_in import authenticate

OLD, NEW = "correct horse battery staple", "seventeen green umbrellas"
ORIGIN = Origin("192.0.2.7", "f" * 16)


class Trail(Audit):
    """Records the noted actions."""

    def __init__(self) -> None:
        super().__init__(fake_redis().execute_command)
        self.actions: list[str] = []

    def note(self, action: str, **said: Any) -> None:
        assert said["origin"] == ORIGIN
        self.actions.append(action)


@dataclass
class House:
    accounts: Accounts
    sessions: Sessions
    links: Vouchers
    trail: Trail
    change: PasswordChange
    throttled: list[BaseException | None]  # how each throttled attempt ended
    unconfirmed: bool = False

    async def user(self) -> User:
        return await self.accounts.add("ada", OLD, roles=["member"])

    async def link(self, user: User) -> str:
        return await self.links.issue({"uid": user.id, "mark": user.mark}, ttl_s=60)

    async def live(self, *grants: Grant) -> list[bool]:
        return [await self.sessions.is_live(grant.principal.uid, grant.principal.sid) for grant in grants]

    @asynccontextmanager
    async def attempt(self) -> AsyncIterator[None]:
        try:
            yield
        except BaseException as error:
            self.throttled.append(error)
            raise
        self.throttled.append(None)


@pytest.fixture
def house() -> Iterator[House]:
    execute, passwords = fake_redis().execute_command, Passwords(memory_kib=8, passes=1)

    async def write(*words: Any) -> Any:
        reply = await execute(*words)
        if made.unconfirmed:
            raise NotDurable
        return reply

    accounts, sessions = Accounts(execute, passwords, write=write), Sessions(execute, KeyRing(["x" * 40], "refresh"))
    links, trail = Vouchers(execute, "password"), Trail()
    made = House(accounts, sessions, links, trail, PasswordChange(accounts, sessions, links, trail), [])
    yield made
    passwords.close()


async def test_an_unconfirmed_change_by_the_owner_is_in_force_audited_and_ends_the_other_sessions(house: House) -> None:
    user = await house.user()
    here, there = await house.sessions.open(user), await house.sessions.open(user)
    house.unconfirmed = True
    with pytest.raises(NotDurable):
        await house.change.by_owner(here.principal, OLD, NEW, throttled=house.attempt(), origin=ORIGIN)
    assert await house.live(here, there) == [True, False]
    assert house.trail.actions == ["password.changed"]
    assert await authenticate(house.accounts, "ada", NEW)


async def test_an_unconfirmed_change_by_link_is_in_force_audited_and_uses_up_the_link(house: House) -> None:
    user = await house.user()
    session, code = await house.sessions.open(user), await house.link(user)
    house.unconfirmed = True
    with pytest.raises(NotDurable):
        await house.change.by_link(code, NEW, origin=ORIGIN)
    assert await house.live(session) == [False]
    assert house.trail.actions == ["password.set"]
    assert await authenticate(house.accounts, "ada", NEW)
    with pytest.raises(InvalidGrant):
        await house.change.by_link(code, OLD, origin=ORIGIN)


async def test_a_link_whose_use_failed_can_be_used_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(self: Passwords, password: str, *, replacing: str = "") -> str:
        raise Busy

    code = await house.link(await house.user())
    with monkeypatch.context() as patch:
        patch.setattr(Passwords, "hash", busy)
        with pytest.raises(Busy):
            await house.change.by_link(code, NEW, origin=ORIGIN)
    with pytest.raises(WeakPassword):
        await house.change.by_link(code, "short", origin=ORIGIN)
    assert house.trail.actions == []
    await house.change.by_link(code, NEW, origin=ORIGIN)
    assert house.trail.actions == ["password.set"]


async def test_a_wrong_current_password_is_audited_charged_and_changes_nothing(house: House) -> None:
    user = await house.user()
    here, there = await house.sessions.open(user), await house.sessions.open(user)
    with pytest.raises(InvalidCredentials):
        await house.change.by_owner(here.principal, NEW, NEW, throttled=house.attempt(), origin=ORIGIN)
    assert [type(end) for end in house.throttled] == [InvalidCredentials]
    assert house.trail.actions == ["password.refused"]
    assert await house.live(here, there) == [True, True]
    assert await authenticate(house.accounts, "ada", OLD) == user


async def test_a_refusal_by_the_throttle_is_neither_audited_as_a_guess_nor_changes_anything(house: House) -> None:
    @asynccontextmanager
    async def refusing() -> AsyncIterator[None]:
        raise PermissionError
        yield

    user = await house.user()
    here = await house.sessions.open(user)
    with pytest.raises(PermissionError):
        await house.change.by_owner(here.principal, OLD, NEW, throttled=refusing(), origin=ORIGIN)
    assert house.trail.actions == []
    assert await authenticate(house.accounts, "ada", OLD) == user


async def test_all_invalid_links_get_one_error_and_are_audited(house: House) -> None:
    user = await house.user()
    stale = await house.link(user)
    await house.accounts.change(user, roles=["host"])
    gone = await house.links.issue({"uid": "u" + "a" * 20, "mark": "0"}, ttl_s=60)
    texts = set()
    for code in (stale, gone, "a" * 26, "no code"):
        with pytest.raises(InvalidGrant) as caught:
            await house.change.by_link(code, NEW, origin=ORIGIN)
        texts.add(str(caught.value))
    assert texts == {"The code is invalid, expired or used. Ask for a new one."}
    assert house.trail.actions == ["code.refused"] * 4

"""Races with an administrator's request that waits for Redis. The rest is tested over HTTP and the command line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from auth.accounts import Accounts
from auth.errors import InvalidCredentials, UnknownUser
from auth.identities import Identities
from auth.keys import KeyRing
from auth.passwords import Passwords
from auth.sessions import Sessions
from auth.users import User
from auth.vouchers import Vouchers
from gateway.accounts.actor import Actor, NotAllowed
from gateway.accounts.admin import AdminsBusy, Changes, LastAdmin, NewAccount, UserAdmin
from gateway.audit import Audit
from gateway.policy.file import load_policy
from gateway.policy.live import PolicyInForce
from gateway.rooms.keys import GUESTS
from tests.fake_redis import fake_redis

CLI = Actor.command_line()
MANAGER = Actor("umanager", frozenset({"users:manage"}))  # manages members: no other power
PASSWORD = "correct horse battery staple"


class Interrupted(Audit):
    """A trail that runs something else once while it writes an entry with a given action."""

    def __init__(self, execute: Any) -> None:
        super().__init__(execute)
        self.meanwhile: dict[str, Callable[[], Awaitable[Any]]] = {}
        self.written: list[tuple[str, dict[str, Any]]] = []

    async def record(self, action: str, **said: Any) -> None:
        await super().record(action, **said)
        self.written.append((action, said))
        if action in self.meanwhile:
            await self.meanwhile.pop(action)()


@dataclass
class Office:
    execute: Any
    accounts: Accounts
    links: Vouchers
    audit: Interrupted
    admin: UserAdmin

    async def promote(self, user: User) -> None:
        await self.admin.change(CLI, user.id, Changes(roles=("admin",)))


@pytest.fixture
def office() -> Iterator[Office]:
    execute, passwords = fake_redis().execute_command, Passwords(memory_kib=8, passes=1)
    accounts, links, audit = Accounts(execute, passwords), Vouchers(execute, "password"), Interrupted(execute)
    sessions = Sessions(execute, KeyRing(["x" * 40], "refresh"))
    identities = Identities(execute, accounts, sessions, write=execute)
    admin = UserAdmin(execute, accounts, sessions, PolicyInForce(load_policy()), audit, links, identities)
    yield Office(execute, accounts, links, audit, admin)
    passwords.close()


async def test_password_link_for_a_user_promoted_during_its_creation_is_void(office: Office) -> None:
    """OWASP API5:2023: otherwise a user who may only manage members could set an admin's password."""
    user = await office.accounts.add("rising", None, roles=["member"])
    office.audit.meanwhile["user.password_link"] = lambda: office.promote(user)
    said = await office.links.spend(await office.admin.password_link(MANAGER, "rising"))
    assert said["uid"] == user.id
    with pytest.raises(InvalidCredentials):
        await office.accounts.set_password(user.id, "the manager chose this one, ha", mark=said["mark"])
    with pytest.raises(NotAllowed):
        await office.admin.password_link(MANAGER, "rising")


@pytest.mark.parametrize(
    ("action", "change"),
    [("user.disabled", Changes(status="disabled")), ("user.roles", Changes(roles=("host",))), ("user.deleted", None)],
)
async def test_change_of_a_user_who_is_promoted_meanwhile_is_refused(
    office: Office, action: str, change: Changes | None
) -> None:
    """OWASP API5:2023, CWE-367: permission to change a member is checked again once the member has become an admin."""
    user = await office.accounts.add("rising", PASSWORD, roles=["member"])
    office.audit.meanwhile[action] = lambda: office.promote(user)
    with pytest.raises(NotAllowed):
        await (office.admin.change(MANAGER, "rising", change) if change else office.admin.delete(MANAGER, "rising"))
    now = await office.accounts.find("rising")
    assert (now.roles, now.status) == (("admin",), "active")


async def test_last_admin_who_became_one_during_the_change_stays(office: Office) -> None:
    """Bob, a host, is being disabled; meanwhile Bob becomes admin and Ada is demoted, so Bob is the last admin."""
    ada = await office.accounts.add("ada", PASSWORD, roles=["admin"])
    bob = await office.accounts.add("bob", PASSWORD, roles=["host"])

    async def meanwhile() -> None:
        await office.promote(bob)
        await office.admin.change(CLI, ada.id, Changes(roles=("host",)))

    office.audit.meanwhile["user.disabled"] = meanwhile
    with pytest.raises(LastAdmin):
        await office.admin.change(CLI, "bob", Changes(status="disabled"))
    assert (await office.accounts.find("bob")).is_active


async def test_change_that_other_changes_always_precede_is_abandoned(office: Office) -> None:
    user, turns = await office.accounts.add("busy", PASSWORD, roles=["member"]), []

    async def again() -> None:
        turns.append(1)
        office.audit.meanwhile["user.disabled"] = again
        one = await office.accounts.get(user.id)
        await office.accounts.change(one, roles=["host" if len(turns) % 2 else "member"])

    office.audit.meanwhile["user.disabled"] = again
    with pytest.raises(AdminsBusy, match="Try again"):
        await office.admin.change(CLI, "busy", Changes(status="disabled"))
    assert len(turns) == 3
    assert (await office.accounts.get(user.id)).is_active


async def test_change_is_repeated_without_a_second_entry(office: Office) -> None:
    await office.accounts.add("ada", PASSWORD, roles=["member"])
    for _ in range(2):
        changed = await office.admin.change(CLI, "ada", Changes(roles=("host", "host"), status="disabled"))
        assert (changed.roles, changed.status) == (("host",), "disabled")
    assert [action for action, _ in office.audit.written] == ["user.roles", "user.disabled"]


async def test_repeated_roles_are_stored_once(office: Office) -> None:
    user = await office.admin.create(CLI, NewAccount("dup", roles=["host", "member", "host"]))
    assert user.roles == ("host", "member")


async def test_account_whose_creation_cannot_be_audited_is_not_created(office: Office) -> None:
    async def fail() -> None:
        raise ConnectionError

    office.audit.meanwhile["user.created"] = fail
    with pytest.raises(ConnectionError):
        await office.admin.create(CLI, NewAccount("secret", roles=["admin"]))
    with pytest.raises(UnknownUser):
        await office.accounts.find("secret")
    assert await office.admin.create(CLI, NewAccount("secret", roles=["admin"]))


async def test_promoted_guest_stays_and_guest_whose_promotion_failed_still_expires(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = await office.accounts.add("gus", None, roles=["guest"])
    await office.execute("ZADD", GUESTS, 1234567890, guest.id)

    async def fail(*_: Any, **__: Any) -> User:
        raise ConnectionError

    with monkeypatch.context() as broken:
        broken.setattr(office.accounts, "change", fail)
        with pytest.raises(ConnectionError):
            await office.admin.change(CLI, guest.id, Changes(roles=("member",)))
    assert float(await office.execute("ZSCORE", GUESTS, guest.id)) == 1234567890
    await office.admin.change(CLI, guest.id, Changes(status="disabled"))
    assert await office.execute("ZSCORE", GUESTS, guest.id) is not None
    await office.admin.change(CLI, guest.id, Changes(roles=("member",)))
    assert await office.execute("ZSCORE", GUESTS, guest.id) is None


@pytest.mark.parametrize(
    ("attempt", "subject", "why"),
    [
        (lambda admin, own, other: admin.change(own, own.id, Changes(status="disabled")), "own", "own"),
        (lambda admin, own, other: admin.change(own, own.id, Changes()), "own", "own"),
        (lambda admin, own, other: admin.delete(own, own.id), "own", "own"),
        (lambda admin, own, other: admin.password_link(own, own.id), "own", "own"),
        (lambda admin, own, other: admin.delete(own, other), "other", "touches audit:read"),
        (lambda admin, own, other: admin.end_sessions(own, other), "other", "touches audit:read"),
        (lambda admin, own, other: admin.change(own, other, Changes(display_name="x")), "other", "touches audit:read"),
        (lambda admin, own, other: admin.create(own, NewAccount("new", roles=["admin"])), "", "grants audit:read"),
    ],
)
async def test_denial_carries_its_subject_and_reason_for_the_audit(
    office: Office, attempt: Callable[..., Awaitable[Any]], subject: str, why: str
) -> None:
    own, other = [await office.accounts.add(name, None, roles=["admin"]) for name in ("own", "other")]
    actor = Actor(own.id, frozenset(load_policy().permissions(["admin"])) - {"" if subject == "own" else "audit:read"})
    with pytest.raises(NotAllowed) as caught:
        await attempt(office.admin, actor, other.id)
    assert caught.value.subject == {"own": own.id, "other": other.id, "": ""}[subject]
    assert caught.value.why == why
    assert office.audit.written == []


async def test_half_deleted_user_can_only_be_deleted_again(office: Office) -> None:
    """A crash has left the user with status `deleted` and a name."""
    user = await office.accounts.add("half", PASSWORD, roles=["member"])
    await office.execute("HSET", f"u:1:{{{user.id}}}", "status", "deleted")
    with pytest.raises(UnknownUser):
        await office.admin.change(CLI, "half", Changes(status="active"))
    await office.admin.delete(CLI, "half")
    with pytest.raises(UnknownUser):
        await office.accounts.find("half")

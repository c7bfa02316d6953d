"""Registration: permission, roles and invitations. The rest is tested over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest

from auth.accounts import Accounts
from auth.errors import BadUsername, InvalidVoucher, UserExists, WeakPassword
from auth.passwords import Passwords
from auth.vouchers import Vouchers
from gateway.accounts.actor import Actor, NotAllowed
from gateway.accounts.registration import Newcomer, Registration, RegistrationClosed
from gateway.audit import Audit, Origin
from gateway.policy.file import load_policy
from gateway.policy.live import PolicyInForce
from gateway.text import FieldError
from tests.fake_redis import fake_redis

CLI = Actor.command_line()
PASSWORD = "correct horse battery staple"
ORIGIN = Origin("192.0.2.7", "f" * 16)


@pytest.fixture
def noted() -> list[str]:
    """The entries of the audit trail."""
    return []


@pytest.fixture
def execute() -> Any:
    return fake_redis().execute_command


@pytest.fixture
def invites(execute: Any) -> Vouchers:
    return Vouchers(execute, "account")


@pytest.fixture
def with_mode(execute: Any, invites: Vouchers, noted: list[str]) -> Iterator[Callable[[str], Registration]]:
    passwords = Passwords(memory_kib=8, passes=1)
    audit = Audit(execute, lambda *words: noted.append(str(words[-1])) if words[0] == "XADD" else None)

    def make(mode: str) -> Registration:
        policy = load_policy()
        policy = replace(policy, registration=replace(policy.registration, mode=mode))
        return Registration(Accounts(execute, passwords), invites, PolicyInForce(policy), audit)

    yield make
    passwords.close()


@pytest.mark.parametrize(("mode", "invite"), [("closed", None), ("closed", "a" * 26), ("invite", None)])
async def test_closed_registration_is_refused_before_anything_is_charged(
    with_mode: Callable[[str], Registration], mode: str, invite: str | None
) -> None:
    @asynccontextmanager
    async def never() -> AsyncIterator[None]:
        raise AssertionError("the attempt was charged")
        yield

    with pytest.raises(RegistrationClosed):
        await with_mode(mode).register(Newcomer("ada", PASSWORD, "", invite), throttled=never(), origin=ORIGIN)


@pytest.mark.parametrize("mode", ["invite", "open"])
async def test_an_invitation_sets_the_roles_and_is_used_up(
    with_mode: Callable[[str], Registration], invites: Vouchers, noted: list[str], mode: str
) -> None:
    registration, code = with_mode(mode), await invites.issue({"roles": "host member", "by": "umanager"}, ttl_s=60)
    user = await registration.register(Newcomer("ada", PASSWORD, "Ada", code), throttled=nullcontext(), origin=ORIGIN)
    assert (user.roles, user.display_name) == (("host", "member"), "Ada")
    [entry] = noted
    assert '"account.registered"' in entry
    assert '"invited_by":"umanager"' in entry
    assert code not in entry
    with pytest.raises(InvalidVoucher):
        await registration.register(Newcomer("bob", PASSWORD, "", code), throttled=nullcontext(), origin=ORIGIN)
    assert '"code.refused"' in noted[-1]


async def test_an_invitation_whose_registration_failed_can_be_used_again(
    with_mode: Callable[[str], Registration], invites: Vouchers
) -> None:
    registration, code = with_mode("invite"), await invites.issue({"roles": "member", "by": "cli"}, ttl_s=60, uses=2)
    await registration.register(Newcomer("ada", PASSWORD, "", code), throttled=nullcontext(), origin=ORIGIN)
    for newcomer, error in (
        (Newcomer("ada", PASSWORD, "", code), UserExists),
        (Newcomer("bob", "short", "", code), WeakPassword),
        (Newcomer("b b", PASSWORD, "", code), BadUsername),
    ):
        with pytest.raises(error):
            await registration.register(newcomer, throttled=nullcontext(), origin=ORIGIN)
    assert (await registration.register(Newcomer("bob", PASSWORD, "", code), throttled=nullcontext(), origin=ORIGIN)).id


async def test_without_an_invitation_the_roles_are_those_of_the_policy(
    with_mode: Callable[[str], Registration], noted: list[str]
) -> None:
    user = await with_mode("open").register(Newcomer("ada", PASSWORD), throttled=nullcontext(), origin=ORIGIN)
    assert user.roles == load_policy().registration.roles
    assert '"invited_by":""' in noted[0]


def test_repr_of_a_newcomer_shows_no_secret() -> None:
    shown = repr(Newcomer("ada", PASSWORD, "Ada", "a" * 26))
    assert PASSWORD not in shown
    assert "a" * 26 not in shown


async def test_an_invitation_cannot_grant_a_power_that_its_maker_does_not_have(
    with_mode: Callable[[str], Registration],
) -> None:
    manager = Actor("umanager", frozenset({"users:manage"}))
    with pytest.raises(NotAllowed) as caught:
        await with_mode("invite").invite(manager, roles=["member", "admin"], lasts_s=60, uses=1)
    assert caught.value.why.startswith("grants ")
    with pytest.raises(FieldError, match="roles: the policy has no role"):
        await with_mode("invite").invite(manager, roles=["no such role"], lasts_s=60, uses=1)


async def test_revoking_an_unknown_invitation_leaves_no_entry(
    with_mode: Callable[[str], Registration], execute: Any
) -> None:
    registration = with_mode("invite")
    assert not await registration.revoke_invite(CLI, "nonsense")
    code = await registration.invite(CLI, roles=["member"], lasts_s=60, uses=1)
    assert await registration.revoke_invite(CLI, code)
    with pytest.raises(InvalidVoucher):
        await registration.register(Newcomer("ada", PASSWORD, "", code), throttled=nullcontext(), origin=ORIGIN)
    entries, _ = await Audit(execute).page()
    assert [entry.action for entry in entries] == ["user.invite_revoked", "user.invited"]

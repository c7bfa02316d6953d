"""How people come by an account of their own: where the operator allows it, or with an invitation."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from auth.accounts import Accounts
from auth.errors import InvalidVoucher
from auth.users import User
from auth.vouchers import Vouchers, short_ref_of
from gateway.audit import NOBODY, Audit, Origin
from gateway.policy.live import PolicyInForce

_CLOSED = {
    "closed": "Registration is closed. Ask the operator for an account.",
    "invite": "Registration needs an invitation.",
}


class RegistrationClosed(Exception):
    """The policy lets nobody register, or not without an invitation. The text says which."""


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Somebody who wants an account. `invite` is the code of an invitation, which says in which roles."""

    username: str
    password: str = field(repr=False)
    display_name: str = ""
    invite: str | None = field(default=None, repr=False)


class Registration:
    """Creates accounts for those who ask for one. `invites` are the invitations of `UserAdmin`."""

    def __init__(self, accounts: Accounts, invites: Vouchers, policy: PolicyInForce, audit: Audit) -> None:
        self._accounts = accounts
        self._invites = invites
        self._policy = policy
        self._audit = audit

    async def register(
        self, newcomer: Newcomer, *, throttled: AbstractAsyncContextManager[Any], origin: Origin
    ) -> User:
        """Create an account within `throttled`. An invitation is used up only if that succeeds.

        Raises:
            RegistrationClosed, InvalidVoucher, UserExists, BadUsername, WeakPassword, Busy
        """
        registration = self._policy.now.registration
        if registration.mode == "closed" or (registration.mode == "invite" and newcomer.invite is None):
            raise RegistrationClosed(_CLOSED[registration.mode])
        async with throttled:
            if newcomer.invite is None:
                user, inviter, ref = await self._add(newcomer, registration.roles), NOBODY, ""
            else:
                user, inviter = await self._add_invited(newcomer, newcomer.invite, origin)
                ref = short_ref_of(newcomer.invite)
        self._audit.note(
            "account.registered", by=user.id, subject=user.id, origin=origin, invited_by=inviter, invite=ref
        )
        return user

    async def _add_invited(self, newcomer: Newcomer, code: str, origin: Origin) -> tuple[User, str]:
        """Return the new user and the id of who invited them."""
        try:
            said = await self._invites.spend(code)
        except InvalidVoucher:
            self._audit.refused_code("account", origin)
            raise
        try:
            return await self._add(newcomer, tuple(said["roles"].split())), said["by"]
        except BaseException:
            await self._invites.give_back(code)
            raise

    async def _add(self, newcomer: Newcomer, roles: tuple[str, ...]) -> User:
        return await self._accounts.add(
            newcomer.username, newcomer.password, roles=roles, display_name=newcomer.display_name
        )

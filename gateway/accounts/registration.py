"""Registration: people create their own accounts, where the operator allows it or with an invitation."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from auth.accounts import Accounts
from auth.errors import InvalidVoucher
from auth.users import User
from auth.vouchers import Vouchers, ref_of, short_ref_of
from gateway.accounts.actor import Actor
from gateway.audit import NO_USER, Audit, Origin
from gateway.policy.live import PolicyInForce

MOST_INVITE_S = 90 * 86_400
MOST_INVITE_USES = 1000
_CLOSED = {
    "closed": "Registration is closed. Ask the operator for an account.",
    "invite": "Registration needs an invitation.",
}


class RegistrationClosed(Exception):
    """Registration is closed, or needs an invitation. The text says which."""


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A person who registers. `invite` is the code of an invitation, which names their roles."""

    username: str
    password: str = field(repr=False)
    display_name: str = ""
    invite: str | None = field(default=None, repr=False)


class Registration:
    """Invites people to register, and creates accounts for those who do."""

    def __init__(self, accounts: Accounts, invites: Vouchers, policy: PolicyInForce, audit: Audit) -> None:
        self._accounts = accounts
        self._invites = invites
        self._policy = policy
        self._audit = audit

    async def invite(self, actor: Actor, *, roles: Sequence[str], lasts_s: int, uses: int) -> str:
        """Return a code with which people register in these roles. Raises: NotAllowed, FieldError"""
        actor.check_grant(self._policy.now, roles)
        given = " ".join(roles)
        code = await self._invites.issue({"roles": given, "by": actor.id}, ttl_s=lasts_s, uses=uses)
        await self._audit.record(
            "user.invited", by=actor.id, subject="", roles=given, uses=uses, invite=short_ref_of(code)
        )
        return code

    async def revoke_invite(self, actor: Actor, code: str) -> bool:
        """Void an invitation; tell whether there was one."""
        revoked = await self._invites.revoke(ref_of(code))
        if revoked:
            await self._audit.record("user.invite_revoked", by=actor.id, subject="", invite=short_ref_of(code))
        return revoked

    async def register(
        self, newcomer: Newcomer, *, throttled: AbstractAsyncContextManager[Any], origin: Origin
    ) -> User:
        """Create an account within `throttled`. An invitation is used up only if that succeeds.

        Raises: RegistrationClosed, InvalidVoucher, UserExists, BadUsername, WeakPassword, Busy
        """
        registration = self._policy.now.registration
        if registration.mode == "closed" or (registration.mode == "invite" and newcomer.invite is None):
            raise RegistrationClosed(_CLOSED[registration.mode])
        async with throttled:
            if newcomer.invite is None:
                user, inviter, ref = await self._add(newcomer, registration.roles), NO_USER, ""
            else:
                user, inviter = await self._add_invited(newcomer, newcomer.invite, origin)
                ref = short_ref_of(newcomer.invite)
        self._audit.note(
            "account.registered", by=user.id, subject=user.id, origin=origin, invited_by=inviter, invite=ref
        )
        return user

    async def _add_invited(self, newcomer: Newcomer, code: str, origin: Origin) -> tuple[User, str]:
        """Return the new user and the id of the user who invited them."""
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

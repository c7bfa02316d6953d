"""Password changes: by the owner, who gives the current one, or with a link from an operator."""

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from typing import Any

from auth.accounts import Accounts
from auth.errors import InvalidCredentials, InvalidGrant, InvalidVoucher, UnknownUser
from auth.sessions import Sessions
from auth.tokens import Principal
from auth.users import User
from auth.vouchers import Vouchers
from gateway.audit import Audit, Origin
from gateway.redis.durable import NotDurable

_DEAD_LINK = "The code is invalid, expired or used. Ask for a new one."


class PasswordChange:
    """Changes passwords, audits the changes and ends earlier sessions. `links` are the codes that `UserAdmin` makes."""

    def __init__(self, accounts: Accounts, sessions: Sessions, links: Vouchers, audit: Audit) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._links = links
        self._audit = audit

    async def by_owner(
        self, caller: Principal, current: str, new: str, *, throttled: AbstractAsyncContextManager[Any], origin: Origin
    ) -> None:
        """Replace the caller's password. Every other session of theirs ends; this one continues with its next refresh.

        The current password is verified within `throttled`, so guessing it with a stolen token is limited like a login.
        Raises: UnknownUser, InvalidCredentials, WeakPassword, Busy, NotDurable (the new password is in force)
        """

        async def write() -> User:
            try:
                async with throttled:
                    return await self._accounts.change_password(caller.uid, current, new)
            except InvalidCredentials:
                self._audit.note("password.refused", by=caller.uid, subject=caller.uid, origin=origin)
                raise

        await self._finish(write(), "password.changed", caller.uid, origin, keep=caller.sid)

    async def by_link(self, code: str, new: str, *, origin: Origin) -> None:
        """Set the password of the user to whom an operator gave this code, once. Every session of theirs ends.

        Raises: InvalidGrant, WeakPassword or Busy (the code stays valid), NotDurable (the new password is in force)
        """
        uid, mark = await self._spend(code, new, origin)

        async def write() -> User:
            try:
                return await self._accounts.set_password(uid, new, mark=mark)
            except (InvalidCredentials, UnknownUser):
                raise InvalidGrant(_DEAD_LINK) from None
            except NotDurable:
                raise
            except BaseException:
                await self._links.give_back(code)
                raise

        await self._finish(write(), "password.set", uid, origin)

    async def _spend(self, code: str, new: str, origin: Origin) -> tuple[str, str]:
        """Return the id of a code's user and the mark it is bound to. A weak password does not use the code up."""
        try:
            said = (await self._links.look(code)).payload
            if (await self._accounts.get(said["uid"])).mark != said["mark"]:
                raise InvalidVoucher
            await self._accounts.check_password(said["uid"], new)
            await self._links.spend(code)
        except (InvalidVoucher, UnknownUser):
            self._audit.refused_code("password", origin)
            raise InvalidGrant(_DEAD_LINK) from None
        return said["uid"], said["mark"]

    async def _finish(
        self, write: Awaitable[User], action: str, uid: str, origin: Origin, *, keep: str | None = None
    ) -> None:
        """Await a new password, audit it and end sessions except `keep`, even if the disk did not confirm it."""
        unconfirmed: NotDurable | None = None
        try:
            user = await write
        except NotDurable as error:
            unconfirmed, user = error, await self._accounts.get(uid)
        self._audit.note(action, by=uid, subject=uid, origin=origin)
        if keep is not None:
            await self._sessions.keep(user, keep)
        await self._sessions.end_all(uid, but=keep)
        if unconfirmed is not None:
            raise unconfirmed

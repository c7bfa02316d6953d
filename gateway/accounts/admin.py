"""Administers accounts, for the operator's routes and the command line: checks, changes and audit entries."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from auth import Execute
from auth.accounts import Accounts
from auth.errors import ChangedMeanwhile, UnknownUser, UserExists
from auth.federation import is_subject
from auth.identities import Identities
from auth.sessions import Sessions
from auth.users import ExternalId, User
from auth.vouchers import Vouchers
from gateway.accounts.actor import MANAGE, Actor
from gateway.audit import Audit
from gateway.policy.live import PolicyInForce
from gateway.rooms.guest_accounts import no_longer_guest
from gateway.text import FieldError

PASSWORD_LINK_S = 24 * 3600

_LOCK, _LOCK_MS = "lk:1:admins", 20_000  # two durable writes, each behind another batch, take 10 s at most
# KEYS 1 lock. ARGV 1 its holder: a lock that has expired and was taken by another holder stays theirs.
_UNLOCK = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"
_ATTEMPTS = 3

T = TypeVar("T")


class LastAdmin(Exception):
    """The change would leave no user who may manage users."""


class NoSession(Exception):
    """The user has no such session, or it has ended."""


class AdminsBusy(Exception):
    """Another change of who may manage users is under way."""


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account to create. Without a password it needs a link, or an identity: a provider's name and a subject."""

    username: str
    password: str | None = field(default=None, repr=False)
    roles: Sequence[str] = ()
    display_name: str = ""
    identity: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes of an account; None leaves a field as it is."""

    roles: tuple[str, ...] | None = None
    status: str | None = None
    display_name: str | None = None


@dataclass(repr=False, eq=False)
class UserAdmin:
    """Changes the accounts of other users. Changes take effect with the user's next request.

    Audits a change before it makes it, and a new account once it has an id. If another change of the account comes
    first, decides again.
    """

    _execute: Execute
    _accounts: Accounts
    _sessions: Sessions
    _policy: PolicyInForce
    _audit: Audit
    _links: Vouchers
    _identities: Identities

    async def create(self, actor: Actor, new: NewAccount) -> User:
        """Create an account. Raises as `Accounts.add`; NotAllowed, FieldError"""
        actor.check_grant(self._policy.now, new.roles)
        roles = tuple(dict.fromkeys(new.roles))
        identity = self._identity(new.identity) if new.identity else None
        user = await self._accounts.add(
            new.username, new.password, roles=roles, display_name=new.display_name, identity=identity
        )
        if identity is not None and not await self._identities.claim_new(user, identity):
            raise UserExists("There is already a user with this identity.")
        said = {"roles": " ".join(roles)} | ({"identity": identity.provider} if identity else {})
        try:
            await self._audit.record("user.created", by=actor.id, subject=user.id, **said)
        except BaseException:
            await self._accounts.erase(user)  # no account without an entry in the audit trail
            raise
        return user

    def _identity(self, named: tuple[str, str]) -> ExternalId:
        """Raises: FieldError"""
        name, subject = named
        provider = next((one for one in self._policy.now.identities if one.name == name), None)
        if provider is None:
            known = ", ".join(one.name for one in self._policy.now.identities) or "none"
            raise FieldError("identity.provider", f"must be a provider of the policy, which has: {known}")
        if not is_subject(subject):
            raise FieldError("identity.subject", "must be the `sub` of the provider's tokens, 1 to 255 characters")
        return ExternalId(name, provider.issuer, subject)

    async def change(self, actor: Actor, user: str, changes: Changes) -> User:
        """Change a user (by name or id). Disabling ends their sessions. Raises as `delete`; FieldError"""
        return await _decided_anew(lambda: self._change(actor, user, changes))

    async def _change(self, actor: Actor, user: str, changes: Changes) -> User:
        one = await self._accounts.lookup(user)
        if changes.display_name is None or changes.roles is not None or changes.status is not None:
            actor.check_other(one)
        actor.check_reach(self._policy.now, one)
        if one.status == "deleted":  # half deleted, after a crash: only deleting it again is possible
            raise UnknownUser(f"There is no user {user!r}.")
        if changes.roles is not None:
            actor.check_grant(self._policy.now, changes.roles)
        if changes.roles is not None or changes.status is not None:
            roles = one.roles if changes.roles is None else tuple(dict.fromkeys(changes.roles))
            await self._change_rights(actor, one, roles, changes.status or one.status)
        if changes.display_name is not None:
            await self._audit.record("user.renamed", by=actor.id, subject=one.id)
            await self._accounts.set_display_name(one.id, changes.display_name)
        return await self._accounts.get(one.id)

    async def _change_rights(self, actor: Actor, one: User, roles: tuple[str, ...], status: str) -> None:
        has_new_roles = set(roles) != set(one.roles)
        async with self._keeping_an_admin(one, still=self._manages(roles) and status == "active", by=actor.id):
            if has_new_roles:
                was, now = " ".join(one.roles), " ".join(roles)
                await self._audit.record("user.roles", by=actor.id, subject=one.id, was=was, now=now)
            if status != one.status:
                await self._audit.record(f"user.{_STATUS_ACTION[status]}", by=actor.id, subject=one.id)
            async with no_longer_guest(self._execute, one.id) if has_new_roles else contextlib.nullcontext():
                await self._accounts.change(one, roles=roles, status=status)
            if status == "disabled":
                await self._sessions.end_all(one.id)

    async def delete(self, actor: Actor, user: str) -> None:
        """Delete an account; its usage stays counted. Raises: UnknownUser, NotAllowed, LastAdmin, AdminsBusy"""
        uid = await _decided_anew(lambda: self._delete(actor, user))
        await self._sessions.end_all(uid)

    async def _delete(self, actor: Actor, user: str) -> str:
        one = await actor.find_other(self._accounts, self._policy.now, user)
        async with self._keeping_an_admin(one, still=False, by=actor.id):
            await self._audit.record("user.deleted", by=actor.id, subject=one.id)
            # Repeated by `delete` afterwards, for sessions that are opened during this.
            await self._sessions.end_all(one.id)
            await self._accounts.erase(one)
        return one.id

    async def end_sessions(self, actor: Actor, user: str) -> int:
        """Log a user out everywhere; return how many sessions that ended. Raises: UnknownUser, NotAllowed"""
        one = await self._accounts.lookup(user)
        actor.check_reach(self._policy.now, one)
        await self._audit.record("user.sessions_ended", by=actor.id, subject=one.id)
        await self._accounts.void_tokens(one.id)
        return await self._sessions.end_all(one.id)

    async def end_session(self, actor: Actor, user: str, sid: str) -> None:
        """End one session of a user. Raises: UnknownUser, NotAllowed; NoSession if they have no such one"""
        one = await self._accounts.lookup(user)
        actor.check_reach(self._policy.now, one)
        if not await self._sessions.is_live(one.id, sid):
            raise NoSession(f"{one.username} has no such session.")
        await self._audit.record("user.session_ended", by=actor.id, subject=one.id, session=sid)
        await self._sessions.end(one.id, sid)

    async def password_link(self, actor: Actor, user: str) -> str:
        """Return a code to set a user's password with, once, within 24 hours. Raises: UnknownUser, NotAllowed"""
        # Not for the actor, who would avoid giving the current password. The link is bound to the mark that was
        # checked here: if the user is promoted beyond the actor's authority after that, the link is void.
        one = await actor.find_other(self._accounts, self._policy.now, user)
        await self._audit.record("user.password_link", by=actor.id, subject=one.id)
        return await self._links.issue({"uid": one.id, "mark": one.mark}, ttl_s=PASSWORD_LINK_S)

    def _manages(self, roles: Iterable[str]) -> bool:
        return MANAGE in self._policy.now.permissions(roles)

    @asynccontextmanager
    async def _keeping_an_admin(self, one: User, *, still: bool, by: str) -> AsyncIterator[None]:
        """Hold a lock while a user loses users:manage, as two may demote each other; refuse the last such user."""
        if still or not (one.is_active and self._manages(one.roles)):
            yield
            return
        holder = secrets.token_hex(8)
        if not await self._execute("SET", _LOCK, holder, "NX", "PX", _LOCK_MS):
            raise AdminsBusy("Another change of who may manage users is under way. Try again in a second.")
        try:
            if not await self._another_admin(one.id):
                self._audit.note("denied", by=by, subject=one.id, code="last_admin", attempted="users.manage")
                raise LastAdmin("No other user may manage users. Give another user that role first.")
            yield
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(self._execute("EVAL", _UNLOCK, 1, _LOCK, holder))

    async def _another_admin(self, uid: str) -> bool:
        # Reads all users: admins change so rarely that an index is not worth it, and the index would become wrong
        # when the policy gives a role other permissions.
        after: int | None = 0
        while after is not None:
            users, after = await self._accounts.page(after=after, size=500)
            for user in users:
                able = user.id != uid and user.is_active and self._manages(user.roles)
                if able and await self._accounts.has_password(user.id):
                    return True
        return False


async def _decided_anew(attempt: Callable[[], Awaitable[T]]) -> T:
    """Decide and change; repeat if the account has changed in between, so that no stale decision is carried out."""
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(ChangedMeanwhile):
            return await attempt()
    raise AdminsBusy("Another change of this account is under way. Try again in a second.")


_STATUS_ACTION = {"active": "enabled", "disabled": "disabled"}

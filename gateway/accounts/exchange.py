"""Exchange: people log in with a token of an identity provider, and out when the provider says so.

Whatever is wrong with a token, its sender gets the same answer; the reason is in the audit trail.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from auth.accounts import Accounts
from auth.errors import ChangedMeanwhile, ForeignTokenRefused, InvalidCredentials, UnknownUser
from auth.federation import Federation, Identity
from auth.identities import Identities, ext_of
from auth.sessions import Grant, Sessions
from auth.users import User, with_mapped
from gateway.accounts.admin import AdminsBusy
from gateway.accounts.logins import Client, Logins
from gateway.audit import NO_USER, Audit, Origin
from gateway.policy.actions import POWERS
from gateway.policy.live import PolicyInForce
from gateway.text import FieldError, plain_text

_REFUSED_ONCE_PER_S = 60  # an attacker must not fill the trail with repetitions
_MOST_DISPLAY_NAME = 100
_ATTEMPTS = 3


@dataclass(repr=False, eq=False)
class Exchange:
    """Logs people of identity providers in and out."""

    _federation: Federation
    _identities: Identities
    _accounts: Accounts
    _sessions: Sessions
    _logins: Logins
    _audit: Audit
    _policy: PolicyInForce

    async def log_in(self, token: str, client: Client) -> tuple[User, Grant]:
        """Open a session for the person a token is about. Raises: ForeignTokenRefused, KeysUnavailable, Blocked"""
        try:
            return await self._log_in(token, client)
        except ForeignTokenRefused as refused:
            self._note("exchange.refused", refused, client.origin)
            raise

    async def log_out(self, name: str, token: str, origin: Origin) -> None:
        """End the sessions that a logout token of a provider is about. Raises: ForeignTokenRefused, KeysUnavailable"""
        try:
            logout = await self._federation.verify_logout(name, token)
            ended = await self._identities.end(logout)
            if ended is None:
                raise ForeignTokenRefused("replayed", provider=name)
        except ForeignTokenRefused as refused:
            self._note("logout.refused", refused, origin)
            raise
        uid, count = ended
        if count:
            self._audit.note("logout", by=NO_USER, subject=uid, scope="provider", identity=name, sessions=count)

    async def _log_in(self, token: str, client: Client) -> tuple[User, Grant]:
        identity, user = await self._federation.verify(token), None
        name = identity.provider.name
        try:
            user = await self._account(identity, client)
            following = self._identities.follow(identity, user.id)
            grant = await self._logins.open(user, client, following, ext=ext_of(identity), identity=name)
        except (InvalidCredentials, UnknownUser):  # disabled, changed or deleted a moment ago
            _refuse(identity, "account", user)
        if await self._identities.has_ended(identity):  # while the session was opened
            await self._sessions.end(user.id, grant.principal.sid)
            _refuse(identity, "logged_out", user)
        return user, grant

    async def _account(self, identity: Identity, client: Client) -> User:
        """Return the account of an identity, with the roles that its claims give. Raises: ForeignTokenRefused"""
        user, has_ended = await asyncio.gather(self._identities.find(identity.id), self._identities.has_ended(identity))
        if has_ended:
            _refuse(identity, "logged_out", user)
        if user is None:
            user = await self._create(identity, client)
        if not user.is_active:
            _refuse(identity, "disabled", user)
        if identity.issued_s <= user.voided_s:
            _refuse(identity, "voided", user)
        user = await self._with_roles(user, identity)
        if not user.roles:
            _refuse(identity, "no_role", user)
        return user

    async def _create(self, identity: Identity, client: Client) -> User:
        if not identity.provider.create_accounts:
            _refuse(identity, "no_account")
        if not identity.roles:
            _refuse(identity, "no_role")
        user, is_new = await self._identities.add(identity, _display_name(identity.name))
        if is_new:
            name = identity.provider.name
            self._audit.note("account.registered", by=user.id, subject=user.id, origin=client.origin, identity=name)
        return user

    async def _with_roles(self, user: User, identity: Identity) -> User:
        """Give a user the roles of the youngest token: an older one must not bring back what was taken away since."""
        for _ in range(_ATTEMPTS):
            if identity.issued_s <= user.mapped_s:
                return user
            roles = with_mapped(user, identity.roles)
            ends_password = self._gains_power(user, roles) and await self._accounts.has_password(user.id)
            if set(roles) != set(user.roles):
                said = {"was": " ".join(user.roles), "now": " ".join(roles), "identity": identity.provider.name}
                said |= {"password": "removed"} if ends_password else {}
                await self._audit.record("user.roles", by=NO_USER, subject=user.id, **said)
            try:
                return await self._identities.map_roles(
                    user, identity.roles, identity.issued_s, ends_password=ends_password
                )
            except ChangedMeanwhile:
                user = await self._accounts.get(user.id)
        raise AdminsBusy("Another change of this account is under way. Try again in a second.")

    def _gains_power(self, user: User, roles: Sequence[str]) -> bool:
        """Tell whether new roles give a user power over others that they did not have.

        Whoever set their password, or had it set, may not have that power: they must not get it by logging in as them.
        """
        policy = self._policy.now
        return bool(POWERS & (policy.permissions(roles) - policy.permissions(user.roles)))

    def _note(self, action: str, refused: ForeignTokenRefused, origin: Origin) -> None:
        said = {"identity": refused.provider, "reason": refused.reason}
        self._audit.note(action, by=NO_USER, subject=refused.uid, origin=origin, once_per_s=_REFUSED_ONCE_PER_S, **said)


def _refuse(identity: Identity, reason: str, user: User | None = None) -> NoReturn:
    raise ForeignTokenRefused(reason, provider=identity.provider.name, uid=user.id if user else "")


def _display_name(name: str) -> str:
    """Return a provider's name of a person for people to see; empty if it could deceive them."""
    try:
        return plain_text("name", name)[:_MOST_DISPLAY_NAME].strip()
    except FieldError:
        return ""

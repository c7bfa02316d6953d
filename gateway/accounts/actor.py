"""The authority of an administrator: they neither grant a power that they do not have nor change a user who has it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from auth.accounts import Accounts
from auth.service_keys import ServiceKey
from auth.tokens import Principal
from auth.users import User
from gateway.audit import CLI
from gateway.policy.actions import POWERS
from gateway.policy.model import Policy
from gateway.policy.scopes import ACT
from gateway.text import FieldError, near

MANAGE = "users:manage"


class NotAllowed(Exception):
    """An actor may not do this. The text says why; `subject` (a user id) and `why` are for the audit."""

    def __init__(self, text: str, *, subject: str = "", why: str) -> None:
        super().__init__(text)
        self.subject = subject
        self.why = why


@dataclass(frozen=True, slots=True)
class Actor:
    """An administrator, with the id of the service key that acts for them.

    The command line may do everything, because its user can access Redis anyway.
    """

    id: str
    permissions: frozenset[str]
    key: str = ""

    @classmethod
    def of(cls, principal: Principal, policy: Policy) -> Actor:
        key = principal.key.id if principal.key else ""
        return cls(principal.uid, policy.permissions(principal.roles), key)

    @classmethod
    def command_line(cls) -> Actor:
        return cls(CLI, POWERS)

    async def find_other(self, accounts: Accounts, policy: Policy, user: str) -> User:
        """Return a user, other than the actor, whom the actor may act on. Raises: UnknownUser, NotAllowed"""
        one = await accounts.lookup(user)
        self.check_other(one)
        self.check_reach(policy, one)
        return one

    def check_other(self, user: User) -> None:
        """Check that a user is neither the actor nor the service key that acts for them. Raises: NotAllowed"""
        if user.id in (self.id, self.key):
            raise NotAllowed("You cannot do this to your own account.", subject=user.id, why="own")

    def check_reach(self, policy: Policy, user: User) -> None:
        """Check that a user has no power that the actor does not have. Raises: NotAllowed"""
        if beyond := self._lacks(policy, user.roles):
            text = f"This user has a permission that you do not have: {beyond}."
            raise NotAllowed(text, subject=user.id, why=f"touches {beyond}")

    def check_grant(self, policy: Policy, roles: Iterable[str]) -> None:
        """Check that roles exist and give no power that the actor does not have. Raises: FieldError, NotAllowed"""
        for role in roles:
            if role not in policy.roles:
                raise FieldError("roles", f"the policy has no role {role!r}; {near(role, policy.roles)}")
        if beyond := self._lacks(policy, roles):
            raise NotAllowed(f"You cannot grant a permission that you do not have: {beyond}.", why=f"grants {beyond}")

    def check_scopes(self, scopes: Iterable[str]) -> None:
        """Check that scopes of a service key give no power that the actor does not have. Raises: NotAllowed"""
        if beyond := self._beyond(_reach_of(scopes)):
            text = f"You cannot grant a permission that you do not have: {beyond}.{_note_on(scopes)}"
            raise NotAllowed(text, why=f"grants {beyond}")

    def check_key(self, key: ServiceKey) -> None:
        """Check that a service key has no power that the actor does not have. Raises: NotAllowed"""
        if beyond := self._beyond(_reach_of(key.scopes)):
            text = f"This key has a permission that you do not have: {beyond}.{_note_on(key.scopes)}"
            raise NotAllowed(text, subject=key.id, why=f"touches {beyond}")

    def _lacks(self, policy: Policy, roles: Iterable[str]) -> str:
        return self._beyond(policy.permissions(roles))

    def _beyond(self, permissions: Iterable[str]) -> str:
        return ", ".join(sorted((POWERS & set(permissions)) - self.permissions))


def _reach_of(scopes: Iterable[str]) -> set[str]:
    """Return what a maker of a key with these scopes must have.

    One that acts for users enters and ends rooms also as those with every power, so only who may act on all users makes
    one.
    """
    asked = set(scopes)
    return asked | POWERS if ACT in asked else asked


def _note_on(scopes: Iterable[str]) -> str:
    return f" With {ACT} a key acts for every user, also for those who have it." if ACT in scopes else ""

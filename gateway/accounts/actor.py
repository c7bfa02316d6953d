"""Who administers, and whom: nobody acts on a user who has a power that he has not got himself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from auth.tokens import Principal
from gateway.audit import CLI
from gateway.policy.model import POWERS, Policy

MANAGE = "users:manage"


class NotAllowed(Exception):
    """The policy forbids it to this actor. The text says why."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who administers. The command line may do everything: whoever has Redis has it anyway."""

    id: str
    permissions: frozenset[str]

    @classmethod
    def of(cls, principal: Principal, policy: Policy) -> Actor:
        return cls(principal.uid, policy.permissions(principal.roles))

    @classmethod
    def command_line(cls) -> Actor:
        return cls(CLI, POWERS)

    def lacks(self, policy: Policy, roles: Iterable[str]) -> str:
        """Return the powers that these gateway roles give and the actor has not, as text; "" if there are none."""
        return ", ".join(sorted((policy.permissions(roles) & POWERS) - self.permissions))

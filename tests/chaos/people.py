"""The people of a load, and the installation that they need."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from tests.accounts import office, password_of
from tests.e2e.policies import roomy
from tests.servers import Installation

BURST, STEADY_BURST, STEADY_PER_S = 5, 3, 1  # so small that each trial reaches them
ROLES = f"""
[roles.scarce]
permissions = ["rooms:join", "usage:read-own"]
limits.api = {{ rate = "100000/min", burst = 10000 }}
limits."tokens.mint" = {{ rate = "{BURST}/h", burst = {BURST} }}

[roles.steady]
permissions = ["rooms:join", "usage:read-own"]
limits.api = {{ rate = "100000/min", burst = 10000 }}
limits."tokens.mint" = {{ rate = "{STEADY_PER_S * 60}/min", burst = {STEADY_BURST} }}
"""
POLICY = roomy() + ROLES
PEOPLE = {"host": 10, "member": 6, "scarce": 1, "steady": 1, "operator": 1, "admin": 1}
PASSWORD = "crowd"


@dataclass(slots=True, eq=False)
class Person:
    """A person with a session. `refreshing`: their refresh token is under way, so no one else may use it."""

    id: str
    name: str
    role: str
    token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    refreshing: bool = False


async def arrive(installation: Installation) -> list[Person]:
    """Return new people, created and logged in without the gateway."""
    people = []
    async with office(installation.valkey.url, installation.env) as at:
        for role, count in PEOPLE.items():
            for _ in range(count):
                name = f"{role}-{secrets.token_hex(5)}"
                user = await at.accounts.add(name, password_of(PASSWORD), roles=[role])
                grant = await at.sessions.open(user)
                token = at.tokens.issue(grant.principal, auth_time=grant.auth_time)
                people.append(Person(user.id, name, role, token, grant.refresh_token))
    return people


def settings(installation: Installation) -> None:
    """Set up an installation that has not started: its own webhook secret, and as long for Redis as in production.

    Its allocator gives the memory of a password's hash back at once; by default it keeps the 19 MiB or not, by chance.
    """
    installation.env["HMS_WEBHOOK_SECRET"] = secrets.token_urlsafe(48)
    installation.env["MALLOC_MMAP_THRESHOLD_"] = "1048576"
    del installation.env["GATEWAY_REDIS_TIMEOUT_MS"]

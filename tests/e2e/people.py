"""New people for tests, created and logged in without the API, because argon2 has its own tests."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from dataclasses import dataclass, field
from typing import Any

import httpx

from gateway.hms.tokens import HmsTokens
from tests.accounts import office
from tests.e2e.volley import Answer, fire
from tests.identity_provider import IdentityProvider
from tests.servers import HOST, NO_TLS, Installation

_NUMBERS = itertools.count()
PROVIDER = IdentityProvider("https://login.example.com")
"""The identity provider of `installation`, under the name `people`."""


@dataclass(frozen=True, slots=True)
class Person:
    """A logged-in person; `token` is an access token."""

    id: str
    name: str
    token: str = field(repr=False)


async def arrive(installation: Installation, *roles: str) -> list[Person]:
    """Return a new user of each role."""
    people = []
    async with office(installation.valkey.url, installation.env) as at:
        for role in roles:
            name = f"{role}-{next(_NUMBERS)}-{secrets.token_hex(3)}"
            user = await at.accounts.add(name, None, roles=[role])
            people.append(Person(user.id, name, await at.log_in(user)))
    return people


def newcomers(installation: Installation, *roles: str) -> list[Person]:
    return asyncio.run(arrive(installation, *roles))


def ask(
    installation: Installation, who: Person | None, method: str, path: str, body: Any = None, **headers: str
) -> httpx.Response:
    """Send one request to the API on a connection of its own, which may reach any worker."""
    with installation.client(who.token if who else None) as client:
        return client.request(
            method, f"/api{path}", json=body, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )


def new_room(installation: Installation, owner: Person, **body: Any) -> str:
    answer = ask(installation, owner, "POST", "/rooms", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["room"]["id"])


def mint(installation: Installation, who: Person, room: str, **body: Any) -> httpx.Response:
    return ask(installation, who, "POST", f"/rooms/{room}/token", body)


def usage(installation: Installation, who: Person, action: str) -> dict[str, Any]:
    """Return today's tally of an action."""
    return dict(ask(installation, who, "GET", "/usage").json()["usage"]["today"].get(action, {}))


def places(installation: Installation, who: Person) -> int:
    """Return how many rooms at once are counted for a person."""
    with installation.valkey.client() as redis:
        return int(redis.zcard(f"ls:1:{{{who.id}}}:rooms.active"))  # type: ignore[arg-type]


def statuses(answers: list[Answer | None]) -> list[int]:
    assert None not in answers
    return sorted(answer.status for answer in answers if answer)


async def at_once(installation: Installation, *requests: bytes) -> list[Answer]:
    """Send requests at the same moment; each must be answered."""
    answers = await fire(installation.port, requests)
    assert None not in answers
    return [answer for answer in answers if answer]


# --- the local 100ms ---


def join(installation: Installation, token: str, peer: str) -> httpx.Response:
    """Join a room as this peer."""
    body = {"token": token, "peer_id": peer}
    url = f"{installation.emulator_url}/emulator/peers"
    return httpx.post(url, json=body, timeout=5, verify=NO_TLS, trust_env=False)


def upstream(installation: Installation, path: str, **query: str) -> dict[str, Any]:
    """Send a request to the local 100ms itself."""
    env = installation.env
    token = HmsTokens(env["HMS_APP_ACCESS_KEY"], env["HMS_APP_SECRET"]).management_token()
    url = f"http://{HOST}:{installation.emulator_port}/v2{path}"
    headers = {"Authorization": f"Bearer {token}"}
    return dict(httpx.get(url, params=query, headers=headers, timeout=5, verify=NO_TLS, trust_env=False).json())


def peers(installation: Installation, room: str) -> set[str]:
    """Return the ids of all peers in a room now."""
    return set(upstream(installation, f"/active-rooms/{room}/peers").get("peers", {}))


def strike(installation: Installation, fault: str, *, match: str, times: int = 1) -> None:
    """Make the next calls at or below a path fail."""
    body = {"match": match, "fault": fault, "times": times}
    url = f"{installation.emulator_url}/emulator/faults"
    assert httpx.post(url, json=body, timeout=5, verify=NO_TLS, trust_env=False).status_code == 200


def calls_since(installation: Installation, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the calls to 100ms since `before` was read, except those for templates, which are read in the background.

    The emulator keeps the last 200 calls, so the first of these may have dropped out.
    """
    now = installation.upstream_calls()
    common = next((n for n in range(len(before) + 1) if now[: len(before) - n] == before[n:]), len(before))
    return [call for call in now[len(before) - common :] if not call["path"].startswith("/v2/templates")]

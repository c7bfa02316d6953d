"""The counters equal the responses, to the unit."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from auth.accounts import Accounts
from auth.keys import KeyRing
from auth.passwords import Passwords
from auth.sessions import Sessions
from auth.tokens import LoginTokens
from gateway.redis.store import Store, connect
from tests.e2e.policies import roomy
from tests.e2e.volley import Answer, Line, open_lines
from tests.servers import Installation

REQUESTS, USERS, AT_ONCE = 10_000, 50, 40

# Small enough that random traffic reaches every limit.
POLICY = (
    roomy()
    + """
[roles.busy]
permissions = ["rooms:join", "rooms:create", "usage:read-own"]
limits.api = { rate = "600/min", burst = 150 }
limits."rooms.create" = { rate = "60/min", burst = 12 }
limits."tokens.mint" = { rate = "120/min", burst = 60 }
quotas.mints = 70
[quotas.mints]
counter = "tokens.mint"
period = "day"
"""
)


@pytest.fixture
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("busy"), workers=2, policy=POLICY) as running:
        yield running


async def log_in_many(installation: Installation) -> list[str]:
    """Return access tokens of new users, created without the API: logins would measure argon2."""
    store = Store(connect(installation.valkey.url), deadline_s=5)
    secrets = [installation.env["GATEWAY_SECRET"]]
    passwords = Passwords()
    accounts, tokens = Accounts(store.execute, passwords), LoginTokens(KeyRing(secrets, "login-token"))
    sessions = Sessions(store.execute, KeyRing(secrets, "refresh"))
    issued = []
    for number in range(USERS):
        user = await accounts.add(f"user-{number}", None, roles=["busy"])
        grant = await sessions.open(user)
        issued.append(tokens.issue(grant.principal, auth_time=grant.auth_time))
    await store.close()
    passwords.close()
    return issued


def outcome(answer: Answer) -> str:
    if answer.status < 400:
        return "ok"
    if answer.status >= 500:
        return "failed"
    return "denied" if answer.status == 429 else f"refused.{answer.json()['code']}"


async def test_thousands_of_random_requests_are_counted_as_they_were_answered(busy: Installation) -> None:
    tokens = await log_in_many(busy)
    seen: list[Counter[str]] = [Counter() for _ in tokens]
    chance = random.Random(20261122)
    async with open_lines(busy.port, AT_ONCE) as lines:
        room = (await lines[0].ask("POST", "/api/rooms", {}, token=tokens[0])).json()["room"]["id"]
        seen[0]["rooms.create.ok"] += 1
        requests = [
            ("tokens.mint", "POST", f"/api/rooms/{room}/token", {}),
            ("tokens.mint", "POST", f"/api/rooms/{room}/token", {"role": "nosuch"}),
            ("tokens.mint", "POST", f"/api/rooms/{'0' * 24}/token", {}),
            ("rooms.create", "POST", "/api/rooms", {"name": "x"}),
            ("rooms.create", "POST", "/api/rooms", {"webhook": 1}),
            ("api", "GET", "/api/rooms", None),
            ("api", "GET", f"/api/rooms/{'0' * 24}", None),
            ("api", "GET", "/api/admin/usage", None),
        ]
        weights = [8, 1, 1, 2, 1, 4, 1, 1]

        async def keep_asking(line: Line, left: list[None]) -> None:
            while left:  # shared, so that no line is idle for the seconds after which the server closes it
                left.pop()
                who = chance.randrange(USERS)
                counter, method, path, body = chance.choices(requests, weights)[0]
                answer = await line.ask(method, path, body, token=tokens[who])
                seen[who][f"{counter}.{outcome(answer)}"] += 1

        for part in range(10):
            if part % 3 == 1:
                busy.break_upstream("status=503")
            left = [None] * (REQUESTS // 10)
            await asyncio.gather(*(keep_asking(line, left) for line in lines))
            busy.mend_upstream()

        counted: list[Counter[str]] = []
        for token in tokens:
            answer = await lines[0].ask("GET", "/api/usage", token=token)
            counted.append(flatten(answer.json()["usage"]["total"]))
    wrong = [(counts - user, user - counts) for counts, user in zip(counted, seen, strict=True) if counts != user]
    assert not wrong, wrong
    assert sum(sum(user.values()) for user in seen) == REQUESTS + 1
    for needed in ("tokens.mint.ok", "tokens.mint.denied", "rooms.create.failed", "tokens.mint.refused.unknown_role"):
        assert any(user[needed] for user in seen), f"the traffic never caused {needed}"


def flatten(tallies: dict[str, dict[str, object]]) -> Counter[str]:
    """Return a user's counters in the form of the test: denials of an action are added up over its limits."""
    flat: Counter[str] = Counter()
    for action, tally in tallies.items():
        for name in ("ok", "failed"):
            flat[f"{action}.{name}"] += int(str(tally[name]))
        denied, refused = tally["denied"], tally["refused"]
        assert isinstance(denied, dict)
        assert isinstance(refused, dict)
        flat[f"{action}.denied"] += sum(denied.values())
        for code, count in refused.items():
            flat[f"{action}.refused.{code}"] += count
    return +flat

"""Three gateways, each a process of its own, behind the load balancer that deploy/compose/balancer.yml starts."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.e2e.policies import guarded
from tests.e2e.proxies import balancer
from tests.e2e.volley import Answer, Line, fire, open_lines, post
from tests.servers import HOST, Installation, Service, wait_until

ADDRESSES = (HOST, "127.0.0.2", "127.0.0.3")
MINTS, ROOMS, LOGINS = 30, 7, 5
CALLERS = 12
FEW = f"""
[roles.few]
permissions = ["rooms:join", "rooms:create", "usage:read-own"]
limits.api = {{ rate = "100000/min", burst = 10000 }}
limits."rooms.create" = {{ rate = "1/h", burst = {ROOMS} }}
limits."tokens.mint" = {{ rate = "1/h", burst = {MINTS} }}
"""


@dataclass(frozen=True, slots=True)
class Replicas:
    """An installation whose gateway runs three times, and a client of the balancer."""

    installation: Installation
    services: tuple[Service, ...]
    client: httpx.Client

    @property
    def port(self) -> int:
        """The balancer's."""
        return self.client.base_url.port or 0

    def shares(self, answers: list[Answer | None]) -> list[int]:
        """Return how many of the answers each replica has logged."""
        ids = {answer.headers["x-request-id"] for answer in answers if answer}

        def shares() -> list[int]:
            return [sum(one in log for one in ids) for log in (service.output() for service in self.services)]

        wait_until(lambda: sum(shares()) == len(ids), "each answer is in the log of one replica")
        return shares()


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    folder = tmp_path_factory.mktemp("replicas")
    own = Installation(folder, policy=guarded() + FEW)
    own.env["GATEWAY_TRUSTED_PROXIES"] = "127.0.0.0/8"
    with own as running:
        running.add_users(nora="hundred", ruth="few")
        others = [
            Service(
                running.gateway.arguments,
                folder=folder,
                env=running.env | {"GATEWAY_HOST": address},
                log=folder / f"{address}.log",
            )
            for address in ADDRESSES[1:]
        ]
        try:
            for service in others:
                service.start()
            for service in others:
                service.wait_until(lambda: "Application startup complete" in service.output(), "it has started")  # noqa: B023
            with balancer(folder, running.port, ADDRESSES, site=f"http://{HOST}") as client:
                yield Replicas(running, (running.gateway, *others), client)
        finally:
            for service in others:
                service.stop()


async def test_limits_are_exact_across_three_replicas(replicas: Replicas) -> None:
    token = replicas.installation.token_of("ruth")
    made = await fire(replicas.port, [post("/api/rooms", token=token)] * 4 * ROOMS)
    assert Counter(answer and answer.status for answer in made) == {201: ROOMS, 429: 3 * ROOMS}
    room = next(answer for answer in made if answer and answer.status == 201).json()["room"]["id"]
    mints = await fire(replicas.port, [post(f"/api/rooms/{room}/token", token=token)] * 6 * MINTS)
    assert Counter(answer and answer.status for answer in mints) == {200: MINTS, 429: 5 * MINTS}
    guess = post("/api/auth/login", {"username": "ruth", "password": "not the password of ruth"})
    guesses = await fire(replicas.port, [guess] * 4 * LOGINS)
    assert Counter(answer and answer.status for answer in guesses) == {401: LOGINS, 429: 3 * LOGINS}
    assert min(replicas.shares(mints)) > MINTS / 2, "each replica has decided on more than a handful"


async def test_killed_replica_costs_at_most_one_request_of_each_connection(replicas: Replicas) -> None:
    """A request that was sent is not repeated: the replica may have carried it out."""
    token = replicas.installation.token_of("nora")
    with replicas.installation.client(token) as client:
        room = client.post("/api/rooms", json={}).json()["room"]["id"]
        path = f"/api/rooms/{room}/token"

        async def call(line: Line) -> list[tuple[float, Answer]]:
            answers: list[tuple[float, Answer]] = []
            while not answers or time.monotonic() < end:
                begun = time.monotonic()
                # Without a body: Debian's Caddy does not send one to the second replica that it tries (2.11.2 does).
                answers.append((begun, await line.ask("POST", path, token=token)))
                answers.append((begun, await line.ask("GET", "/api/auth/me", token=token)))
                await asyncio.sleep(0.05)
            return answers

        async def kill() -> float:
            await asyncio.sleep(0.4)
            replicas.services[1].kill()
            return time.monotonic()

        end = time.monotonic() + 1.4
        async with open_lines(replicas.port, CALLERS) as lines:
            died, *calls = await asyncio.gather(kill(), *(call(line) for line in lines))
        used = client.get("/api/usage").json()["usage"]["total"]["tokens.mint"]
    answers = [one for own in calls for one in own]
    lost = [begun for begun, answer in answers if answer.status == 502]
    assert {answer.status for _, answer in answers} <= {200, 429, 502}
    assert len(lost) <= CALLERS
    assert all(begun < died + 0.2 for begun in lost), "later ones find another replica"
    assert all(answer.json()["code"] == "replica_lost" for _, answer in answers if answer.status == 502)
    minted = sum("token" in answer.json() for _, answer in answers if answer.status == 200)
    assert minted <= used["ok"] <= minted + len(lost), "none was executed twice"
    replicas.services[1].start()
    wait_until(lambda: _answers_again(replicas), "the replica gets requests again", within_s=5)


def _answers_again(replicas: Replicas) -> bool:
    before = len(replicas.services[1].output())
    found = [replicas.client.get("/api/auth/me").headers["x-request-id"] for _ in range(6)]
    time.sleep(0.05)  # a line is written after the answer
    return any(one in replicas.services[1].output()[before:] for one in found)

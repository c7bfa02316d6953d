"""kill -9 of the gateway under load: every answered request was counted, and nothing else was."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.e2e.policies import roomy
from tests.e2e.volley import Answer, fire, post
from tests.servers import Installation

CLIENTS, CREATES = 32, 40
BEFORE_THE_KILL = 300


@pytest.fixture
def own(tmp_path: object) -> Iterator[Installation]:
    with Installation(tmp_path, workers=2, policy=roomy()) as running:  # type: ignore[arg-type]
        running.add_users(hanna="host", otto="operator")
        yield running


class Load:
    """Clients that mint one token after another until their connection breaks."""

    def __init__(self, own: Installation, request: bytes) -> None:
        self.own = own
        self.request = request
        self.succeeded = 0
        self.unanswered = 0
        self.other: list[Answer] = []
        self.stopped = False
        self.well_under_way = asyncio.Event()

    async def run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(CLIENTS)))

    async def _client(self) -> None:
        while not self.stopped:
            try:
                [answer] = await fire(self.own.port, [self.request])
            except OSError:
                return  # the connection was never made, so nothing was counted
            if answer is None:
                self.unanswered += 1
                return
            if answer.status == 200:
                self.succeeded += 1
                if self.succeeded >= BEFORE_THE_KILL:
                    self.well_under_way.set()
            else:
                self.other.append(answer)


def minted(own: Installation) -> int:
    """Return the counter of successful mints as a client reads it, in a separate session."""
    with own.client_of("hanna") as client:
        usage = client.get("/api/usage").json()["usage"]
    counts = {usage[period]["tokens.mint"]["ok"] for period in ("today", "month", "total")}
    assert len(counts) == 1, usage
    return counts.pop()


async def test_kill_9_neither_loses_nor_adds_counts(own: Installation) -> None:
    token = own.token_of("hanna")
    with own.client(token) as client:
        room_id = client.post("/api/rooms", json={}).json()["room"]["id"]
    load = Load(own, post(f"/api/rooms/{room_id}/token", token=token))
    running = asyncio.create_task(load.run())
    async with asyncio.timeout(30):
        await load.well_under_way.wait()
    await asyncio.to_thread(own.gateway.kill)
    load.stopped = True
    await running
    assert load.succeeded >= BEFORE_THE_KILL
    assert not load.other, [(answer.status, answer.body) for answer in load.other[:3]]

    await asyncio.to_thread(own.start_gateway)
    counted = minted(own)
    print(f"answered {load.succeeded}, counted {counted}, in flight at the kill {load.unanswered}")
    assert load.succeeded <= counted <= load.succeeded + load.unanswered
    # The session survived, and counting continues.
    with own.client(token) as client:
        assert client.post(f"/api/rooms/{room_id}/token", json={}).status_code == 200
    assert minted(own) == counted + 1


async def test_concurrent_creates_make_as_many_rooms_on_both_sides(own: Installation) -> None:
    login = own.log_in("hanna")
    answers = await fire(own.port, [post("/api/rooms", {"name": "Same"}, token=login["access_token"])] * CREATES)
    assert [answer and answer.status for answer in answers] == [201] * CREATES
    made = {answer.json()["room"]["id"] for answer in answers if answer}
    assert len(made) == CREATES
    with own.client(login["access_token"]) as client:
        listed = client.get("/api/rooms", params={"limit": 100}).json()["rooms"]
        assert {room["id"] for room in listed} == made
        assert {room["name"] for room in listed} == {"Same"}
        assert {room["owner_id"] for room in listed} == {login["user"]["id"]}
        assert client.get("/api/usage").json()["usage"]["total"]["rooms.create"]["ok"] == CREATES
    calls = [call for call in own.upstream_calls() if (call["method"], call["path"]) == ("POST", "/v2/rooms")]
    assert len({call["body"]["name"] for call in calls}) == len(calls) == CREATES
    state = (own.folder / "emulator.json").read_text()
    assert all(room_id in state for room_id in made)

"""From a peer at 100ms to the minutes of a user: real processes, and the webhooks that the local 100ms sends."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.e2e.checks import assert_problem
from tests.e2e.policies import roomy
from tests.servers import NO_TLS, Installation, wait_until


@pytest.fixture(scope="module")
def metered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation whose local 100ms sends its events to the gateway."""
    own = Installation(tmp_path_factory.mktemp("metered"), workers=2, policy=roomy())
    own.env["HMS_WEBHOOK_SECRET"] = secrets.token_urlsafe(48)
    own.env["HMS_WEBHOOK_HEADER"] = "X-Their-Secret"
    own.env["EMULATOR_WEBHOOK_URL"] = f"{own.url}/hooks/100ms"
    own.env["EMULATOR_WEBHOOK_HEADER"] = f"X-Their-Secret={own.env['HMS_WEBHOOK_SECRET']}"
    with own:
        own.add_users(hanna="host", mira="member", otto="operator")
        yield own


@pytest.fixture(scope="module")
def hms(metered: Installation) -> Iterator[httpx.Client]:
    url = f"{metered.emulator_url}/emulator/"
    with httpx.Client(base_url=url, timeout=15, verify=NO_TLS, trust_env=False) as client:
        yield client


def second_of(text: str) -> int:
    return int(datetime.fromisoformat(f"{text.partition('.')[0].rstrip('Z')}+00:00").timestamp())


def events(hms: httpx.Client, kind: str) -> list[dict[str, Any]]:
    found = [one["event"] for one in hms.get("deliveries").json()["deliveries"]]
    return [one["data"] for one in found if one["type"] == kind]


def hash_of(metered: Installation, key: str) -> dict[str, int]:
    with metered.valkey.client() as redis:
        return {name.decode(): int(value) for name, value in redis.hgetall(key).items()}  # type: ignore[union-attr]


def test_minutes_of_a_peer_reach_its_user_the_room_and_its_owner(metered: Installation, hms: httpx.Client) -> None:
    hanna, mira = metered.log_in("hanna"), metered.log_in("mira")
    with metered.client(hanna["access_token"]) as host, metered.client(mira["access_token"]) as member:
        room = host.post("/api/rooms", json={}).json()["room"]["id"]
        token = member.post(f"/api/rooms/{room}/token", json={}).json()["token"]
        hms.post("webhook/disorder", json={"duplicate": 6, "reorder": 3})
        peers = [hms.post("peers", json={"token": token}).json()["id"] for _ in range(2)]
        time.sleep(1.2)
        for peer in peers:
            assert hms.delete(f"peers/{peer}").status_code == 204
        hms.delete("webhook/disorder")
        wait_until(lambda: len(events(hms, "session.close.success")) > 0, "the session has closed")
        left = {one["peer_id"]: one for one in events(hms, "peer.leave.success")}
        expected = sum(second_of(one["left_at"]) - second_of(one["joined_at"]) for one in left.values())
        uid, owner = mira["user"]["id"], hanna["user"]["id"]
        wait_until(lambda: hash_of(metered, f"uc:1:{{{uid}}}:all").get("minutes.ok") == expected, "minutes are counted")
        assert hash_of(metered, f"uc:1:{{{owner}}}:all")["owned.ok"] == expected
        assert "minutes" in member.get("/api/usage").json()["usage"]["total"]
    with metered.valkey.client() as redis:
        wait_until(lambda: redis.xlen("wh:1") == 0, "all events are processed")
        assert redis.keys("op:1:*") == []
        assert redis.hget(f"se:1:{{{room}}}:{left[peers[0]]['session_id']}", "owner") == owner.encode()
    month = hash_of(metered, f"rc:1:{{{room}}}:{datetime.fromisoformat(left[peers[0]]['joined_at'][:10]):%Y-%m}")
    assert month["*:minutes.ok"] == expected


def test_operators_see_that_events_arrive_and_replay_what_was_not_understood(
    metered: Installation, hms: httpx.Client
) -> None:
    hms.post("events", json={"event": {"type": "peer.leave.success", "data": {"room_id": "?"}}})
    with metered.client_of("otto") as operator:
        wait_until(lambda: operator.get("/api/admin/webhooks").json()["dead_letters"] == 1, "there is a dead letter")
        state = operator.get("/api/admin/webhooks").json()
        assert state["enabled"]
        assert state["last_at"]
        assert state["counts"]["received"] >= 1
        assert state["lag_ms"] < 5000
    status = json.loads(metered.command("webhooks", "status", "--json").stdout)
    assert status["dead_letters"] == 1
    assert "dead" in metered.command("webhooks", "status").stdout
    (letter,) = json.loads(metered.command("webhooks", "dead", "--json").stdout)
    assert letter["why"] == "joined_at is not a time"
    done = metered.command("webhooks", "replay", letter["id"])
    assert (done.returncode, done.stdout) == (0, "1 event is processed again.\n")
    assert metered.command("webhooks", "replay", letter["id"]).returncode == 1
    assert metered.command("webhooks", "replay").returncode == 2
    with metered.client_of("otto") as operator:
        wait_until(lambda: operator.get("/api/admin/webhooks").json()["dead_letters"] == 1, "it failed again")
    assert metered.command("webhooks", "replay", "--all").returncode == 0


def test_an_event_that_cannot_be_stored_is_answered_503(metered: Installation) -> None:
    secret = {"X-Their-Secret": metered.env["HMS_WEBHOOK_SECRET"]}
    metered.valkey.kill()
    try:
        with metered.client() as client:
            assert_problem(client.post("/hooks/100ms", content=b"{}", headers=secret), 503, "unavailable")
    finally:
        metered.valkey.start()
    wait_until(metered.has_store, "the gateway has Redis again")
    with metered.client() as client:
        assert client.post("/hooks/100ms", content=b"{}", headers=secret).status_code == 200
    with metered.valkey.client() as redis:
        wait_until(lambda: redis.xlen("wh:1") == 0, "the consumers work again")

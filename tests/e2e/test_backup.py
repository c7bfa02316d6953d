"""A snapshot of Redis taken under load, restored into an empty server as docs/docker.md says, holds the same data."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from tests.e2e.policies import roomy
from tests.e2e.volley import Answer, fire, post
from tests.servers import Installation, Valkey, wait_until

LASTING_S = 3600  # shorter-lived keys, such as locks and limits, may expire meanwhile
CLIENTS = 8


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Installation]:
    valkey = Valkey(tmp_path, options=("--enable-debug-command", "local"))
    own = Installation(tmp_path, policy=roomy(), valkey=valkey)
    own.env["GATEWAY_REGISTRATION"] = "open"
    own.env["HMS_WEBHOOK_SECRET"] = secrets.token_urlsafe(48)
    with own as running:
        running.add_users(hanna="host", mira="member")
        yield running


def lasting(client: redis.Redis) -> list[bytes]:
    keys = list(client.scan_iter(count=1000))
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.ttl(key)
        return sorted(key for key, ttl in zip(keys, pipe.execute(), strict=True) if ttl < 0 or ttl > LASTING_S)


def snapshot(client: redis.Redis, keys: list[bytes]) -> list[bytes]:
    """Save the data set to disk; return the digests of keys at the same instant."""
    saved = client.lastsave()
    time.sleep(max(0.0, 1.1 - (time.time() - saved.timestamp())))  # the time of the last save has no fraction
    client.execute_command(
        "CLIENT", "PAUSE", 2000, "WRITE"
    )  # until the fork: no write falls between it and the digests
    digests: list[bytes] = client.execute_command("DEBUG", "DIGEST-VALUE", *keys)
    client.bgsave()
    client.execute_command("CLIENT", "UNPAUSE")
    wait_until(lambda: client.lastsave() > saved, "the snapshot is on disk")
    return digests


async def load(own: Installation, token: str, room_id: str, stopped: Callable[[], bool]) -> list[Answer]:
    """Mint tokens, create rooms and register users until told to stop."""
    answers: list[Answer] = []

    async def client(number: int) -> None:
        turn = 0
        while not stopped():
            turn += 1
            account = {"username": f"user-{number}-{turn}", "password": f"correct horse battery {number} {turn}"}
            requests = [post(f"/api/rooms/{room_id}/token", token=token)] * 5 + [post("/api/rooms", token=token)]
            if turn % 4 == 1:
                requests.append(post("/api/auth/register", account))
            answers.extend(answer for answer in await fire(own.port, requests) if answer)

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return answers


def report_stays(own: Installation, room_id: str, user: str) -> None:
    """Report ten peers that have left, and ten that are in the room, whose time accrues from then on."""
    begun = datetime.now(UTC) - timedelta(minutes=5)
    joined_at, left_at = (f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in (begun, begun + timedelta(minutes=1)))
    header = {"X-Gateway-Webhook-Secret": own.env["HMS_WEBHOOK_SECRET"]}
    with own.client() as client:
        for number in range(20):
            data = {"room_id": room_id, "session_id": "a-session", "peer_id": f"peer-{number}", "user_id": user}
            data |= {"role": "guest", "joined_at": joined_at, "left_at": left_at}
            event = {"type": "peer.leave.success" if number < 10 else "peer.join.success", "data": data}
            assert client.post("/hooks/100ms", json=event, headers=header).status_code == 200
    with own.valkey.client() as client:
        total = f"uc:1:{{{user}}}:all"
        wait_until(lambda: int(client.hget(total, "owned.ok") or 0) >= 10 * 60 + 10 * 300, "the stays are credited")


async def test_a_snapshot_under_load_is_restored_into_an_empty_server(own: Installation, tmp_path: Path) -> None:
    token = own.token_of("hanna")
    with own.client(token) as client:
        room = client.post("/api/rooms", json={"name": "Standup"}).json()["room"]
    room_id = room["id"]
    await asyncio.to_thread(report_stays, own, room_id, room["owner_id"])
    stop = asyncio.Event()
    running = asyncio.create_task(load(own, token, room_id, stop.is_set))
    await asyncio.sleep(1.5)
    with own.valkey.client() as source:
        keys = await asyncio.to_thread(lasting, source)
        digests = await asyncio.to_thread(snapshot, source, keys)
    stop.set()
    answers = await running
    assert {answer.status for answer in answers} == {200, 201}
    kinds = {key.split(b":")[0] for key in keys}
    assert {b"u", b"un", b"uc", b"rm", b"ur", b"rc", b"audit", b"sl", b"op", b"se", b"sq", b"wm"} <= kinds

    folder = tmp_path / "restored"
    folder.mkdir()
    shutil.copy(tmp_path / "dump.rdb", folder)
    own.gateway.stop()
    own.valkey.__exit__(None, None, None)
    debug = ("--enable-debug-command", "local")
    with Valkey(folder, options=("--appendonly", "no", *debug)) as once, once.client() as client:
        assert client.execute_command("DEBUG", "DIGEST-VALUE", *keys) == digests
        client.config_set("appendonly", "yes")
        wait_until(
            lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0, "the append-only file is written"
        )
    with Valkey(folder, port=own.valkey.port, options=debug) as restored, restored.client() as client:
        assert client.execute_command("DEBUG", "DIGEST-VALUE", *keys) == digests
        own.start_gateway()
        with own.client_of("hanna") as hanna:
            assert hanna.get(f"/api/rooms/{room_id}").json()["room"]["name"] == "Standup"
            assert hanna.get("/api/usage").json()["usage"]["total"]["owned"]["seconds"] >= 10 * 60 + 10 * 300
        own.gateway.stop()

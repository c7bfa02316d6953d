"""`gateway emulator join` plays peers in the local 100ms, under the ids of the gateway's users."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.commands import assert_done, assert_failed
from tests.e2e.people import peers, upstream
from tests.servers import NO_TLS, Installation, Service

REMOVED = 3


@pytest.fixture
def room(installation: Installation) -> Iterator[dict[str, Any]]:
    with installation.client_of("hanna") as client:
        made = client.post("/api/rooms", json={"name": "Peers of the choir"}).json()["room"]
        yield made
        client.post(f"/api/rooms/{made['id']}/end", json={"lock": True})


def joined(installation: Installation, folder: Path, room: str, *users: str) -> Service:
    """Start peers that would stay for an hour, and wait until they are in the room."""
    names = [word for user in users for word in ("--user", user)]
    service = Service(
        ["emulator", "join", room, *names, "--for", "1h"], folder=folder, env=installation.env, log=folder / "join.log"
    )
    service.start()
    service.wait_until(lambda: len(peers(installation, room)) == len(users), "the peers have joined")
    return service


def ended(service: Service) -> int:
    assert service.process is not None
    code = service.process.wait(10)
    service.process = None
    return code


def test_peers_stay_for_their_time_under_the_ids_of_the_users(installation: Installation, room: dict[str, Any]) -> None:
    done = installation.command("emulator", "join", room["id"], "--user", "mira", "--user", "Hanna", "--for", "1s")
    said = assert_done(done, installation.env)
    assert [line.split()[:3] for line in said.splitlines()] == [
        ["mira", "has", "joined"],
        ["hanna", "has", "joined"],
        ["mira", "has", "left."],
        ["hanna", "has", "left."],
    ]
    [session] = upstream(installation, "/sessions", room_id=room["id"])["data"]
    assert session["active"] is False
    with installation.client_of("mira") as client:
        mira = client.get("/api/auth/me").json()["user"]["id"]
    assert {(peer["user_id"], peer["role"]) for peer in session["peers"].values()} == {
        (mira, "guest"),
        (room["owner_id"], "guest"),
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_peer_leaves(
    installation: Installation, room: dict[str, Any], tmp_path: Path, number: signal.Signals
) -> None:
    service = joined(installation, tmp_path, room["id"], "mira")
    assert service.process is not None
    service.process.send_signal(number)
    assert ended(service) == 0
    assert service.output().splitlines()[-1] == "mira has left."
    assert peers(installation, room["id"]) == set()


def test_peers_of_an_ended_room_say_so_and_exit_with_a_code_of_their_own(
    installation: Installation, room: dict[str, Any], tmp_path: Path
) -> None:
    service = joined(installation, tmp_path, room["id"], "mira", "mark")
    with installation.client_of("hanna") as client:
        assert client.post(f"/api/rooms/{room['id']}/end", json={}).status_code == 202
    assert ended(service) == REMOVED
    assert service.output().splitlines()[-2:] == [
        f"{name}: removed by the server; the room's session has ended" for name in ("mira", "mark")
    ]


def test_a_removed_peer_shows_the_message_that_its_event_has(
    installation: Installation, room: dict[str, Any], tmp_path: Path
) -> None:
    webhook = f"{installation.emulator_url}/emulator/webhook"
    own = {"timeout": 5, "verify": NO_TLS, "trust_env": False}
    assert httpx.post(webhook, json={"url": "http://127.0.0.1:9", "headers": {}}, **own).status_code == 200
    try:
        service = joined(installation, tmp_path, room["id"], "mira")
        with installation.client_of("hanna") as client:
            assert client.post(f"/api/rooms/{room['id']}/end", json={"reason": "Time is up"}).status_code == 202
        assert ended(service) == REMOVED
    finally:
        httpx.delete(webhook, **own)
    assert service.output().splitlines()[-1].startswith('mira: removed by the server with the message "Time is up"; ')


def test_a_room_is_found_by_a_name_that_only_one_has(installation: Installation, room: dict[str, Any]) -> None:
    arguments = ("emulator", "join", room["name"], "--user", "mira", "--for", "1s")
    said = assert_done(installation.command(*arguments), installation.env)
    assert f"({room['id']})" in said
    with installation.client_of("hanna") as client:
        second = client.post("/api/rooms", json={"name": room["name"]}).json()["room"]
        try:
            assert_failed(installation.command(*arguments), installation.env, "2 rooms", room["id"], second["id"])
        finally:
            client.post(f"/api/rooms/{second['id']}/end", json={"lock": True})  # the list has only enabled rooms


@pytest.mark.parametrize(
    ("arguments", "env", "words"),
    [
        (["ROOM", "--user", "nobody"], {}, ["no user named 'nobody'"]),
        (["no such room", "--user", "mira"], {}, ["no room named 'no such room'"]),
        (["f" * 24, "--user", "mira"], {}, ["404", "not found"]),
        (["ROOM", "--user", "mira", "--role", "owner"], {}, ["mira cannot join", "role is invalid"]),
        (["ROOM", "--user", "mira"], {"HMS_API_URL": "https://api.100ms.live/v2"}, ["HMS_API_URL", "local 100ms"]),
        (["ROOM", "--user", "mira"], {"HMS_API_URL": "http://127.0.0.1:9/v2"}, ["does not answer", "is it running"]),
    ],
)
def test_what_cannot_be_played_is_refused_in_one_line(
    installation: Installation, room: dict[str, Any], arguments: list[str], env: dict[str, str], words: list[str]
) -> None:
    arguments = [room["id"] if word == "ROOM" else word for word in arguments]
    done = installation.command("emulator", "join", *arguments, "--for", "1s", **env)
    assert_failed(done, installation.env, *words)
    assert done.stdout == ""


def test_an_option_of_the_emulator_is_not_ignored_by_join(installation: Installation) -> None:
    done = installation.command("emulator", "--port", "8100", "join", "x", "--user", "mira", "--for", "1s")
    assert done.returncode == 2
    assert "no effect on `join`" in done.stderr

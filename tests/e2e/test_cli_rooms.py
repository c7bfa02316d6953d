"""`gateway rooms`: adopt, give, list, show, end, unlock."""

from __future__ import annotations

import csv
import io
import re
import uuid

from tests.e2e.commands import assert_done, assert_failed, parsed
from tests.e2e.people import ask, new_room, newcomers
from tests.e2e.templates import create_room, create_template, role
from tests.servers import Installation


def test_an_adopted_room_belongs_to_its_owner(installation: Installation) -> None:
    name = f"old-{uuid.uuid4()}"
    room_id = create_room(installation, name, description="made by hand")
    with installation.client_of("hanna") as hanna, installation.client_of("hugo") as hugo:
        assert hanna.post(f"/api/rooms/{room_id}/token", json={}).status_code == 404
        done = installation.command("rooms", "adopt", room_id, "--owner", "hanna", "--json")
        adopted = parsed(done, installation.env)
        assert (adopted["name"], adopted["owner"], adopted["enabled"]) == (name, "hanna", True)
        assert hanna.get(f"/api/rooms/{room_id}").json()["room"]["description"] == "made by hand"
        assert hanna.post(f"/api/rooms/{room_id}/token", json={"role": "host"}).json()["role"] == "host"
        assert hugo.post(f"/api/rooms/{room_id}/token", json={"role": "host"}).status_code == 403
        assert room_id in [room["id"] for room in hanna.get("/api/rooms?limit=100").json()["rooms"]]
    trail = assert_done(installation.command("audit", "tail", "--action", "room.adopted", "--json"), installation.env)
    assert room_id in trail
    assert '"by": "cli"' in trail


def test_a_room_is_adopted_under_the_given_name(installation: Installation) -> None:
    room_id = create_room(installation, f"old-{uuid.uuid4()}")
    said = installation.command("rooms", "adopt", room_id, "--owner", "hugo", "--name", " Stand-up ")
    assert assert_done(said, installation.env) == f"{room_id} (Stand-up) is registered; hugo owns it.\n"


def test_a_room_is_adopted_with_the_given_access(installation: Installation) -> None:
    room_id = create_room(installation, f"old-{uuid.uuid4()}")
    words = ("rooms", "adopt", room_id, "--owner", "hugo", "--access", "invited", "--json")
    assert parsed(installation.command(*words), installation.env)["access"] == "invited"
    with installation.client_of("mira") as mira:
        assert mira.get(f"/api/rooms/{room_id}").status_code == 404


def test_a_room_that_cannot_be_adopted_is_refused_in_one_line(installation: Installation) -> None:
    room_id = create_room(installation, f"old-{uuid.uuid4()}")
    foreign = create_room(installation, f"old-{uuid.uuid4()}", create_template(installation, stage=role()))

    def adopt(room: str, *words: str, owner: str = "hanna") -> str:
        done = installation.command("rooms", "adopt", room, "--owner", owner, *words)
        return assert_failed(done, installation.env)

    assert "not a room id" in adopt("lobby")
    assert "100ms has no room" in adopt("7" * 24)
    assert "[templates.*]" in adopt(foreign)
    assert "nobody" in adopt(room_id, owner="nobody")
    assert "cannot own a room" in adopt(room_id, owner="mira")
    assert "control characters" in adopt(room_id, "--name", "a\nb")
    assert "at most 100" in adopt(room_id, "--name", "n" * 101)
    assert_done(installation.command("rooms", "adopt", room_id, "--owner", "hanna"), installation.env)
    assert "registered already" in adopt(room_id, owner="hugo")
    trail = installation.command("audit", "tail", "--action", "room.adopted", "--json", "--lines", "1000").stdout
    assert trail.count(room_id) == 1  # a refusal adopts nothing
    assert foreign not in trail


def test_a_room_is_handed_over_even_if_its_owner_was_deleted(installation: Installation) -> None:
    maker, heir = newcomers(installation, "host", "host")
    room_id = new_room(installation, maker, access="invited")
    said = assert_done(installation.command("rooms", "give", room_id, "hugo"), installation.env)
    assert said == f"hugo now owns {room_id} (Untitled room).\n"
    shown = parsed(installation.command("rooms", "show", room_id, "--json"), installation.env)
    relations = [(member["username"], member["relation"]) for member in shown["members"]]
    assert relations == [("hugo", "owner"), (maker.name, "cohost")]
    orphan = new_room(installation, maker, access="invited")
    assert_done(installation.command("users", "delete", maker.name, "--yes"), installation.env)
    given = parsed(installation.command("rooms", "give", orphan, heir.id, "--json"), installation.env)
    assert given["owner"] == heir.name
    shown = parsed(installation.command("rooms", "show", orphan, "--json"), installation.env)
    assert [(member["username"], member["relation"]) for member in shown["members"]] == [(heir.name, "owner")]
    trail = assert_done(installation.command("audit", "tail", "--action", "member.changed", "--json"), installation.env)
    assert orphan in trail
    assert '"by": "cli"' in trail


def test_a_room_is_not_handed_over_to_a_user_who_cannot_own_it(installation: Installation) -> None:
    [maker] = newcomers(installation, "host")
    room_id = new_room(installation, maker)
    for room, user, why in (
        (room_id, "mira", "cannot own a room"),
        (room_id, "nobody", "nobody"),
        (room_id, maker.name, "owns room"),
        ("7" * 24, "hugo", "there is no room"),
    ):
        assert_failed(installation.command("rooms", "give", room, user), installation.env, why)
    assert ask(installation, maker, "GET", f"/rooms/{room_id}").json()["room"]["relation"] == "owner"
    assert "ROOM USER" in assert_done(installation.command("rooms", "give", "--help"), installation.env)


def test_rooms_are_listed_for_all_and_for_one(installation: Installation) -> None:
    with installation.client_of("hugo") as hugo:
        room_id = hugo.post("/api/rooms", json={"name": "[red]Listed[/red]"}).json()["room"]["id"]
    everything = parsed(installation.command("rooms", "list", "--json"), installation.env)
    mine = parsed(installation.command("rooms", "list", "--user", "hugo", "--json"), installation.env)
    marks = parsed(installation.command("rooms", "list", "--user", "mark", "--json"), installation.env)
    assert everything[0]["id"] == mine[0]["id"] == room_id
    assert mine[0]["owner"] == "hugo"
    assert room_id not in [room["id"] for room in marks]
    table = assert_done(installation.command("rooms", "list"), installation.env)
    assert room_id in table  # not shortened, because the other commands need it
    assert "[red]" in table
    assert "\u2026" not in table
    assert not re.search("[\u2500-\u257f]", table)  # no frames, where no terminal shows it
    assert all(line[:24].isalnum() for line in table.splitlines()[1:]), "a line for each room"
    listed = csv.DictReader(io.StringIO(assert_done(installation.command("rooms", "list", "--csv"), installation.env)))
    assert [row["room"] for row in listed] == [row["id"] for row in everything]
    assert_failed(installation.command("rooms", "list", "--user", "nobody"), installation.env, "nobody")


def test_a_room_is_shown_with_its_members(installation: Installation) -> None:
    with installation.client_of("hanna") as hanna:
        room_id = hanna.post("/api/rooms", json={"name": "Shown", "access": "invited"}).json()["room"]["id"]
        uid = parsed(installation.command("users", "show", "mira", "--json"), installation.env)["id"]
        assert hanna.put(f"/api/rooms/{room_id}/members/{uid}", json={"relation": "cohost"}).is_success
    shown = parsed(installation.command("rooms", "show", room_id, "--json"), installation.env)
    assert [(member["username"], member["relation"]) for member in shown["members"]] == [
        ("hanna", "owner"),
        ("mira", "cohost"),
    ]
    said = assert_done(installation.command("rooms", "show", room_id), installation.env)
    assert f"mira ({uid}): cohost" in said
    for wrong in ("Shown", "7" * 24):
        assert_failed(installation.command("rooms", "show", wrong), installation.env, "there is no room")


def test_an_owner_cannot_unlock_a_room_locked_from_the_command_line(installation: Installation) -> None:
    with installation.client_of("hanna") as hanna:
        room_id = hanna.post("/api/rooms", json={"name": "Ended"}).json()["room"]["id"]
        ended = parsed(installation.command("rooms", "end", room_id, "--json"), installation.env)
        assert ended == {"id": room_id, "ended": False, "locked": False}
        assert hanna.post(f"/api/rooms/{room_id}/token", json={}).status_code == 200
        said = assert_done(
            installation.command("rooms", "end", room_id, "--lock", "--reason", "fire drill"), installation.env
        )
        assert "no one can join it any more" in said
        assert hanna.post(f"/api/rooms/{room_id}/token", json={}).json()["code"] == "room_disabled"
        assert hanna.patch(f"/api/rooms/{room_id}", json={"enabled": True}).status_code == 403
        unlocked = parsed(installation.command("rooms", "unlock", room_id, "--json"), installation.env)
        assert unlocked == {"id": room_id, "locked": False}
        assert hanna.post(f"/api/rooms/{room_id}/token", json={}).status_code == 200
        assert hanna.patch(f"/api/rooms/{room_id}", json={"enabled": False}).status_code == 200
        said = assert_done(installation.command("rooms", "unlock", room_id), installation.env)
        assert said == f"{room_id} (Ended) can be joined.\n"
        again = assert_done(installation.command("rooms", "unlock", room_id), installation.env)
        assert again == f"{room_id} (Ended) can be joined; it was not locked.\n"
    trail = assert_done(installation.command("audit", "tail", "--action", "room.locked", "--json"), installation.env)
    assert "fire drill" in trail
    trail = assert_done(installation.command("audit", "tail", "--action", "room.changed", "--json"), installation.env)
    assert room_id in trail
    assert_failed(installation.command("rooms", "unlock", "7" * 24), installation.env, "there is no room")
    assert_failed(installation.command("rooms", "end", "7" * 24), installation.env, "there is no room")


def test_unlocking_takes_a_place_of_the_creator_or_fails_if_there_is_none(house: Installation) -> None:
    [maker] = newcomers(house, "host")
    locked = new_room(house, maker)
    assert_done(house.command("rooms", "end", locked, "--lock"), house.env)
    for _ in range(3):
        new_room(house, maker)
    assert_failed(house.command("rooms", "unlock", locked), house.env, "its creator already has 3 rooms")
    assert ask(house, maker, "GET", f"/rooms/{locked}").json()["room"]["enabled"] is False


def test_while_100ms_is_unreachable_the_error_is_one_line_and_the_lock_holds(installation: Installation) -> None:
    with installation.client_of("hanna") as hanna:
        room_id = hanna.post("/api/rooms", json={"name": "Away"}).json()["room"]["id"]
        done = installation.command("rooms", "end", room_id, "--lock", HMS_API_URL="http://127.0.0.1:9/v2")
        assert_failed(done, installation.env, "100ms cannot be reached")
        assert hanna.post(f"/api/rooms/{room_id}/token", json={}).json()["code"] == "room_disabled"

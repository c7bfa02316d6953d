"""`gateway policy check` and `gateway policy explain` agree with what the gateway does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import assert_done, assert_failed, parsed
from tests.e2e.policies import BUILT_IN
from tests.servers import Installation

QUOTA = """
[quotas.tokens-month]
counter = "tokens.mint"
period = "month"
time_zone = "Europe/Berlin"
amount = 5000
[quotas.minutes-day]
counter = "minutes"
period = "day"
amount = 120
on_exhausted = "end"
[quotas.minutes-rooms]
counter = "minutes"
scope = "owner"
period = "month"
amount = 3000
[quotas.minutes-all]
counter = "minutes"
scope = "all"
period = "month"
amount = 90000
[prices]
currency = "EUR"
per_1000_minutes = 4.25
"""


@pytest.fixture
def bare(tmp_path: Path) -> Installation:
    """An installation without settings and without running processes."""
    at = Installation(tmp_path)
    at.env = {name: at.env[name] for name in ("PATH", "PYTHONPATH")}
    return at


# --- check ---


def test_a_valid_policy_is_summarised_without_settings_or_servers(bare: Installation, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(BUILT_IN.read_text() + QUOTA)
    said = assert_done(bare.command("policy", "check", str(path)), bare.env)
    assert said.startswith("mine.toml is valid.\n")
    for words in (
        "Role          host: may rooms:create rooms:join usage:read-own\n",
        "rooms.create: 10/h, burst 5\n",
        "tokens-month: 5000 per month, Europe/Berlin\n",
        "minutes-day: 120 min per day, UTC, the user's own; ends rooms\n",
        "minutes-rooms: 3000 min per month, UTC, of everyone in the owner's rooms\n",
        "Installation  minutes-all: 90000 min per month, UTC, of all users together\n",
        "Prices        EUR: 4.25 per 1,000 minutes\n",
        "guest: may rooms:join usage:read-own; joins no open room without a relation\n",
        "owner: guest, host\n",
        "sessions of 12 h, join tokens 1 h\n",
        "50 per owner\n",
        "Registration  from GATEWAY_REGISTRATION, else closed: roles: member\n",
        "Guests        guest: for 12 h\n",
    ):
        assert words in said
    assert "built-in" not in said


def test_a_valid_policy_as_json_has_every_number(bare: Installation, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(BUILT_IN.read_text() + QUOTA)
    plain = parsed(bare.command("policy", "check", str(path), "--json"), bare.env)
    assert plain["valid"] is True
    assert plain["roles"]["host"]["permissions"] == ["rooms:create", "rooms:join", "usage:read-own"]
    assert plain["roles"]["host"]["limits"]["rooms.create"] == {
        "rate": "10/h",
        "burst": 5,
        "cost": 1,
        "strict": False,
        "shadow": False,
    }
    assert plain["roles"]["guest"]["open_rooms"] is False
    assert plain["roles"]["guest"]["quotas"]["tokens-month"]["amount"] == 5000
    assert plain["roles"]["guest"]["quotas"]["minutes-day"] == {
        "counter": "minutes",
        "scope": "user",
        "amount": 120,
        "period": "day",
        "time_zone": "UTC",
        "shadow": False,
        "on_exhausted": "end",
    }
    assert plain["installation"]["minutes-all"]["scope"] == "all"
    assert plain["prices"] == {"currency": "EUR", "per_1000_minutes": "4.25"}
    assert plain["templates"]["default"]["owner"] == ["guest", "host"]
    assert plain["rooms"]["max_duration_s"] == 43_200
    assert plain["guests"] == {"role": "guest", "lasts_s": 43_200}
    assert "rooms.end" in plain["limits"]["api"]["applies_to"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[rooms]\nsize = 0\n", ("mine.toml: ",)),
        (BUILT_IN.read_text().replace("size = 100", "size = 0"), ("mine.toml: rooms.size: must be",)),
        (BUILT_IN.read_text().replace('"rooms:create"', '"rooms:creat"'), ("roles.host.permissions", "rooms:creat")),
        (BUILT_IN.read_text() + "[extra]\n", ("mine.toml: extra: unknown key",)),
        ("[roles\n", ("mine.toml: ",)),
    ],
)
def test_a_wrong_policy_is_refused_in_one_line_with_file_key_and_reason(
    bare: Installation, tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    for json in ((), ("--json",)):
        done = bare.command("policy", "check", str(path), *json)
        assert_failed(done, bare.env, *words)
        assert done.stdout == ""


def test_a_missing_policy_file_or_a_folder_is_refused_in_one_line(bare: Installation, tmp_path: Path) -> None:
    assert_failed(bare.command("policy", "check", "none.toml"), bare.env, "none.toml: cannot be read")
    assert_failed(bare.command("policy", "check", str(tmp_path)), bare.env, "is not a regular file")


# --- explain ---


@pytest.fixture(scope="module")
def rooms(installation: Installation) -> dict[str, str]:
    """An open, an invited and a locked room of hanna's; mira is banned from `banning`."""
    ids: dict[str, str] = {}
    with installation.client_of("hanna") as hanna:
        for name, access in (("open", "open"), ("invited", "invited"), ("locked", "open"), ("banning", "open")):
            answer = hanna.post("/api/rooms", json={"name": name, "access": access})
            ids[name] = answer.json()["room"]["id"]
        hanna.post(f"/api/rooms/{ids['locked']}/end", json={"lock": True})
        uid = _uid(installation, "mira")
        assert hanna.delete(f"/api/rooms/{ids['banning']}/members/{uid}").status_code == 204
    return ids


def _uid(at: Installation, name: str) -> str:
    return str(parsed(at.command("users", "show", name, "--json"), at.env)["id"])


def explained(at: Installation, *words: str) -> dict[str, Any]:
    return dict(parsed(at.command("policy", "explain", *words, "--json"), at.env))


@pytest.mark.parametrize(
    ("user", "action", "room", "role", "rule", "code"),
    [
        ("hanna", "rooms.create", None, None, "permission", None),
        ("mira", "rooms.create", None, None, "permission", "forbidden"),
        ("mira", "rooms.list", None, None, "login", None),
        ("mira", "tokens.mint", "open", None, "relation", None),
        ("mira", "tokens.mint", "open", "host", "100ms role", "role_not_allowed"),
        ("mira", "tokens.mint", "open", "Guest", "100ms role", "unknown_role"),
        ("hanna", "tokens.mint", "open", "host", "relation", None),
        ("mira", "tokens.mint", "invited", None, "default deny", "not_found"),
        ("mira", "tokens.mint", "banning", None, "banned", "not_found"),
        ("hanna", "tokens.mint", "locked", None, "room disabled", "room_disabled"),
        ("otto", "tokens.mint", "open", None, "permission", "forbidden"),
        ("mira", "rooms.end", "open", None, "relation", "forbidden"),
    ],
)
def test_an_explanation_agrees_with_the_gateway(
    installation: Installation,
    rooms: dict[str, str],
    user: str,
    action: str,
    room: str | None,
    role: str | None,
    rule: str,
    code: str | None,
) -> None:
    words = [word for word in (rooms[room] if room else None, role) if word is not None]
    plain = explained(installation, user, action, *words)
    assert (plain["rule"], plain["code"], plain["allowed"]) == (rule, code, code is None)
    with installation.client_of(user) as client:
        match action:
            case "rooms.create":
                answer = client.post("/api/rooms", json={"name": "as explained"})
            case "rooms.list":
                answer = client.get("/api/rooms")
            case "tokens.mint":
                body = {"role": role} if role else {}
                answer = client.post(f"/api/rooms/{rooms[room or '']}/token", json=body)
            case _:
                answer = client.post(f"/api/rooms/{rooms[room or '']}/end", json={})
    assert answer.json().get("code") == code
    assert answer.is_success == plain["allowed"]
    if plain["allowed"] and action == "tokens.mint":
        assert plain["role"]["role"] == answer.json()["role"]
        assert plain["role"]["template_roles"] == ["guest", "host"]


def test_explaining_charges_nothing_and_shows_what_is_left(installation: Installation, rooms: dict[str, str]) -> None:
    first = explained(installation, "mark", "tokens.mint", rooms["open"])
    second = explained(installation, "mark", "tokens.mint", rooms["open"])
    names = [limit["name"] for limit in first["charges"]["limits"]]
    assert names == ["api", "tokens.mint"]
    left = [[limit["remaining"] for limit in one["charges"]["limits"]] for one in (first, second)]
    assert left[0] == left[1]
    assert first["refused_now_by"] == []


def test_the_stored_relation_and_the_implicit_one_are_distinguished(
    installation: Installation, rooms: dict[str, str]
) -> None:
    assert explained(installation, "mira", "rooms.read", rooms["open"])["relation"] == {
        "stored": None,
        "effective": "participant",
    }
    assert explained(installation, "mira", "rooms.read", rooms["banning"])["relation"] == {
        "stored": "banned",
        "effective": None,
    }
    said = assert_done(installation.command("policy", "explain", "mira", "rooms.read", rooms["open"]), installation.env)
    assert said.startswith("ALLOWED  rooms.read by mira in room ")
    assert "participant (implicit: the room is open)" in said
    assert "owner hanna" in said


def test_a_disabled_user_and_a_block_are_explained(installation: Installation) -> None:
    installation.add_users(dora="host")
    uid = _uid(installation, "dora")
    blocked = installation.command("limits", "override", uid, "--block", "--for", "1h", "--reason", "a test")
    assert_done(blocked, installation.env)
    plain = explained(installation, uid, "rooms.create")
    assert (plain["allowed"], plain["refused_now_by"]) == (True, ["block"])
    assert_done(installation.command("users", "disable", "dora"), installation.env)
    plain = explained(installation, "dora", "rooms.create")
    assert (plain["allowed"], plain["rule"]) == (False, "user disabled")
    assert plain["user"]["status"] == "disabled"


def test_without_100ms_the_policys_own_lists_are_used_and_the_output_says_so(
    installation: Installation, rooms: dict[str, str]
) -> None:
    words = ("policy", "explain", "mira", "tokens.mint", rooms["open"])
    away = installation.command(*words, HMS_API_URL="http://127.0.0.1:9/v2")
    assert "could not be read" in assert_done(away, installation.env)
    assert "was not asked" in assert_done(installation.command(*words, "--offline"), installation.env)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nobody", "rooms.list"), "nobody"),
        (("mira", "rooms.fly"), "unknown action 'rooms.fly'"),
        (("mira", "tokens.mint"), "needs a room"),
        (("mira", "rooms.list", "6" * 24), "takes no room"),
        (("mira", "rooms.read", "6" * 24, "host"), "takes no role"),
    ],
)
def test_an_invalid_question_is_refused_in_one_line(
    installation: Installation, words: tuple[str, ...], said: str
) -> None:
    assert_failed(installation.command("policy", "explain", *words), installation.env, said)


def test_an_unregistered_room_is_explained(installation: Installation) -> None:
    plain = explained(installation, "otto", "rooms.read", "6" * 24)
    assert (plain["allowed"], plain["code"], plain["room"]["registered"]) == (False, "not_found", False)


def test_an_unreachable_redis_is_reported_in_one_line(bare: Installation) -> None:
    done = bare.command("policy", "explain", "mira", "rooms.list", REDIS_URL="redis://127.0.0.1:9/0")
    assert_failed(done, bare.env, "REDIS_URL")

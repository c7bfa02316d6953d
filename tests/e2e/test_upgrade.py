"""From 0.1.0 to this version and back on the same Redis, and both at once, as docs/upgrade.md says.

The tests are one story, in their order: 0.1.0 is used and stopped, this version takes over, 0.1.0 again, then both.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.e2e.checks import assert_problem
from tests.e2e.earlier import MINTS, Earlier, Past, api, ask, done, live_with, log_in, policy, settings
from tests.servers import REPOSITORY, Installation, wait_until

SECONDS = 6  # of the stay that this version counts
LASTS_S = 60  # what these tests take at most, on a busy machine
# What changes by itself, or because it is read: reading one's own counters is counted as `api`.
_CHANGING = {"full_again_at", "full_again_in_s", "today", "api"}


def views(url: str, past: Past) -> dict[str, Any]:
    """Return what users and operators see of the data, by whom and where."""
    span, rooms = f"from={past.day}&to={past.day}", past.rooms.values()
    paths = {
        "ada": [
            *("/auth/me", "/admin/users", "/admin/users/dora", "/rooms"),
            *(f"/admin/usage?{span}&user={name}" for name in ("mira", "hanna")),
            *(f"/admin/usage/top?period={past.day}&counter={name}.ok" for name in ("tokens.mint", "rooms.create")),
            *(f"/admin/usage/rooms/{room}?{span}" for room in rooms),
            *(f"/admin/limits/{name}" for name in ("mira", "pia", "hanna")),
            *(f"/admin/audit?limit=200&action={kind}" for kind in ("token", "room", "member", "user", "limits")),
        ],
        "hanna": [
            *("/auth/me", "/usage", "/rooms"),
            *(f"/rooms/{room}{part}" for room in rooms for part in ("", "/members", "/invites")),
        ],
        "mira": ["/auth/me", "/auth/sessions", "/usage", "/rooms", f"/rooms/{past.rooms['closed']}"],
        "guest": ["/auth/me", "/rooms"],
    }
    return {f"{who} {path}": done(ask(url, past.token(who), "GET", path)) for who in paths for path in paths[who]}


def losses(answer: Any, later: Any, place: str = "") -> Iterator[str]:
    """Yield the places where a later answer lacks something of an answer or differs; additions of fields are fine."""
    if isinstance(answer, dict) and isinstance(later, dict):
        for name in answer.keys() - _CHANGING:
            yield from losses(answer[name], later.get(name), f"{place}.{name}")
    elif isinstance(answer, list) and isinstance(later, list):
        was, now = ([one for one in some if one_action(one) != "api"] for some in (answer, later))
        if len(was) != len(now):
            yield f"{place}: {was!r}, then {now!r}"
        for number, (one, other) in enumerate(zip(was, now, strict=False)):
            yield from losses(one, other, f"{place}[{number}]")
    elif answer != later:
        yield f"{place}: {answer!r}, then {later!r}"


def one_action(row: Any) -> Any:
    return row.get("action") if isinstance(row, dict) else None


def iso(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S.%fZ}"


def stay(room: str, user: str) -> bytes:
    """Return an event of 100ms: somebody has been in a room for SECONDS and has left."""
    left = datetime.now(UTC)
    joined = left - timedelta(seconds=SECONDS)
    data = {
        "room_id": room,
        "session_id": secrets.token_hex(12),
        "peer_id": secrets.token_hex(12),
        "user_id": user,
        "role": "guest",
        "joined_at": iso(joined),
        "left_at": iso(left),
    }
    event = {"version": "2.0", "id": secrets.token_hex(12), "type": "peer.leave.success"}
    return json.dumps(event | {"timestamp": iso(left), "data": data}).encode()


def wait_out_midnight() -> None:
    """Wait until these tests and the stay before them are of one day, with which counters and reports begin anew."""
    now = datetime.now(UTC)
    first, last = now - timedelta(seconds=SECONDS), now + timedelta(seconds=LASTS_S)
    if first.date() != last.date():
        midnight = datetime.combine(last.date(), datetime.min.time(), UTC)
        time.sleep((midnight - now).total_seconds() + SECONDS + 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Valkey, the local 100ms and, later, this version. The policy file is that of 0.1.0."""
    own = Installation(tmp_path_factory.mktemp("upgrade"), policy=policy(), fsync="always")
    own.env["HMS_WEBHOOK_SECRET"] = secrets.token_urlsafe(48)
    try:
        own.valkey.start()
        own.start_emulator()
        yield own
    finally:
        own.stop()


@pytest.fixture(scope="module")
def earlier(place: Installation) -> Iterator[Earlier]:
    own = Earlier(place)
    yield own
    own.server.stop()


@pytest.fixture(scope="module")
def past(earlier: Earlier) -> Past:
    """What was done with 0.1.0, which is stopped again."""
    wait_out_midnight()
    earlier.start()
    past = live_with(earlier)
    past.views, past.api = views(earlier.url, past), api(earlier.url)
    earlier.server.stop()
    return past


@pytest.fixture(scope="module")
def upgraded(place: Installation, past: Past) -> Installation:
    place.start_gateway()
    return place


def test_all_that_0_1_0_showed_is_there_after_the_upgrade(upgraded: Installation, past: Past) -> None:
    assert list(losses(past.views, views(upgraded.url, past))) == []


class Document:
    """An OpenAPI document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.root = document
        paths = document["paths"]
        self.operations = {f"{method} {path}": one for path in paths for method, one in paths[path].items()}

    def at(self, part: Any) -> Any:
        """Return a part, or what it refers to."""
        while isinstance(part, dict) and "$ref" in part:
            names, part = part["$ref"].removeprefix("#/").split("/"), self.root
            for name in names:
                part = part[name]
        return part

    def parameters(self, place: str) -> dict[str, bool]:
        """Return the parameters of an operation, and whether each is required."""
        found = [self.at(one) for one in self.operations[place].get("parameters", [])]
        return {f"{one['in']} {one['name']}": one.get("required", False) for one in found}

    def fields(self, part: Any, of: str = "") -> dict[str, bool]:
        """Return the fields of a JSON body or answer, at any depth, and whether each is required."""
        schema = self.at(part)
        for name in ("content", "application/json", "schema"):
            schema = self.at(schema.get(name, {})) if name in schema else schema
        found = {}
        for name, one in schema.get("properties", {}).items():
            found[f"{of}.{name}"] = name in schema.get("required", ())
            found |= self.fields(one, f"{of}.{name}")
        return found | (self.fields(schema["items"], f"{of}[]") if "items" in schema else {})


def test_api_has_all_that_0_1_0_described_and_requires_no_more(upgraded: Installation, past: Past) -> None:
    was, now = Document(past.api), Document(api(upgraded.url))
    assert was.operations.keys() <= now.operations.keys()
    for place, operation in was.operations.items():
        old, new = was.parameters(place), now.parameters(place)
        body = operation.get("requestBody", {}), now.operations[place].get("requestBody", {})
        old, new = old | was.fields(body[0]), new | now.fields(body[1])
        assert old.keys() <= new.keys(), place
        assert {name for name in new if new[name]} <= {name for name in old if old[name]}, place
        for status, answer in operation["responses"].items():
            assert was.fields(answer).keys() <= now.fields(now.operations[place]["responses"][status]).keys(), place
    codes = [set(one.root["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]) for one in (was, now)]
    assert codes[0] < codes[1]


def test_settings_are_those_of_0_1_0_and_more() -> None:
    page = (REPOSITORY / "docs" / "settings.md").read_text()
    assert settings() < set(re.findall(r"^\| `([A-Z0-9_]+)` \|", page, re.MULTILINE))


def test_a_rebuild_counts_what_0_1_0_did_in_the_totals_of_the_installation(upgraded: Installation, past: Past) -> None:
    report = f"/admin/usage?from={past.day}&to={past.day}&group_by=day&action=tokens.mint"
    assert upgraded.command("usage", "rebuild", "--month", past.day[:7]).returncode == 0
    (row,) = done(ask(upgraded.url, past.token("ada"), "GET", report))["items"]
    assert (row["ok"], row["denied"]) == (MINTS, {"tokens.mint": 1})


@pytest.mark.parametrize("name", ["hanna", "mira", "guest"])
def test_sessions_go_on(upgraded: Installation, past: Past, name: str) -> None:
    refresh = {"refresh_token": past.logins[name]["refresh_token"]}
    assert done(ask(upgraded.url, past.token(name), "GET", "/auth/me"))
    past.logins[name] = done(ask(upgraded.url, None, "POST", "/auth/refresh", json=refresh))
    assert done(ask(upgraded.url, past.token(name), "GET", "/auth/me"))


def test_users_log_in_with_their_passwords(upgraded: Installation, past: Past) -> None:
    for name in ("ada", "hanna", "mira"):
        assert done(log_in(upgraded.url, past, name))["user"]["username"] == name
    assert_problem(log_in(upgraded.url, past, "dora"), 401, "invalid_credentials")
    wrong = {"username": "mira", "password": past.passwords["hanna"]}
    assert_problem(ask(upgraded.url, None, "POST", "/auth/login", json=wrong), 401, "invalid_credentials")


def test_limits_blocks_and_bans_go_on(upgraded: Installation, past: Past) -> None:
    mint = f"/rooms/{past.rooms['open']}/token"
    assert_problem(ask(upgraded.url, past.token("mira"), "POST", mint, json={}), 429, "rate_limited")
    assert_problem(ask(upgraded.url, past.token("pia"), "POST", mint, json={}), 429, "rate_limited")
    assert_problem(ask(upgraded.url, past.token("mark"), "POST", mint, json={}), 404, "not_found")


def test_codes_work_as_often_as_they_still_may(upgraded: Installation, past: Past) -> None:
    accept = f"/invites/{past.codes['users']}/accept"
    assert done(ask(upgraded.url, past.token("mark"), "POST", accept, json={}))["relation"] == "participant"
    guest = f"/invites/{past.codes['guests']}/accept"
    assert done(ask(upgraded.url, None, "POST", guest, json={"display_name": "Second"}))["login"]
    assert_problem(ask(upgraded.url, None, "POST", guest, json={"display_name": "Third"}), 403, "invite_invalid")
    past.passwords["nora"] = secrets.token_hex(16)
    new = {"token": past.codes["password"], "new_password": past.passwords["nora"]}
    done(ask(upgraded.url, None, "POST", "/auth/password/setup", json=new))
    assert done(log_in(upgraded.url, past, "nora"))


def test_a_create_that_is_repeated_after_the_upgrade_returns_its_room(upgraded: Installation, past: Past) -> None:
    answer = ask(upgraded.url, past.token("hanna"), "POST", "/rooms", **past.creates["open"])
    assert done(answer)["room"]["id"] == past.rooms["open"]


@pytest.fixture(scope="module")
def back(upgraded: Installation, past: Past, earlier: Earlier) -> Earlier:
    """0.1.0 again, on data that this version has changed too."""
    url, ada, hanna = upgraded.url, past.token("ada"), past.token("hanna")
    past.passwords["nils"] = secrets.token_hex(16)
    body = {"username": "nils", "password": past.passwords["nils"], "roles": ["member"]}
    past.ids["nils"] = done(ask(url, ada, "POST", "/admin/users", json=body))["user"]["id"]
    past.logins["nils"] = done(log_in(url, past, "nils"))
    past.rooms["later"] = done(ask(url, hanna, "POST", "/rooms", json={"name": "later", "access": "invited"}))["room"][
        "id"
    ]
    done(ask(url, hanna, "PUT", f"/rooms/{past.rooms['later']}/members/nils", json={"relation": "viewer"}))
    override = {"name": "rooms.create", "rate": "1/7s", "burst": 30, "lasts_s": 3600, "reason": "conference"}
    done(ask(url, ada, "PUT", "/admin/limits/hanna/override", json=override))
    past.codes["key"] = json.loads(
        upgraded.command("keys", "add", "billing", "--scope", "usage:read-any", "--json").stdout
    )["key"]
    secret = {"X-Gateway-Webhook-Secret": upgraded.env["HMS_WEBHOOK_SECRET"]}
    with upgraded.client() as client:
        event = stay(past.rooms["later"], past.ids["nils"])
        assert client.post("/hooks/100ms", content=event, headers=secret).is_success
    report = f"/admin/usage?from={past.day}&to={past.day}&user=nils&action=minutes"
    wait_until(lambda: bool(done(ask(url, ada, "GET", report))["items"]), "minutes are counted")
    past.views = views(url, past)
    upgraded.gateway.stop()
    upgraded.sign_tokens("es256")
    upgraded.start_gateway()
    past.logins["nora"] = done(log_in(url, past, "nora"))
    upgraded.gateway.stop()
    del upgraded.env["GATEWAY_SIGNING_KEY"], upgraded.env["GATEWAY_PUBLIC_URL"]
    earlier.start()
    return earlier


def test_0_1_0_shows_what_this_version_has_written_and_minutes_as_seconds(back: Earlier, past: Past) -> None:
    differences = list(losses(views(back.url, past), past.views))
    assert differences
    assert [one for one in differences if not one.endswith(f".ok: {SECONDS}, then {SECONDS / 60}")] == []


def test_sessions_go_on_after_a_rollback(back: Earlier, past: Past) -> None:
    for name in ("nils", "hanna", "guest"):
        assert done(ask(back.url, past.token(name), "GET", "/auth/me"))
        refresh = {"refresh_token": past.logins[name]["refresh_token"]}
        past.logins[name] = done(ask(back.url, None, "POST", "/auth/refresh", json=refresh))
    for name in ("nils", "nora", "ada"):
        assert done(log_in(back.url, past, name))
    mint = f"/rooms/{past.rooms['later']}/token"
    assert done(ask(back.url, past.token("nils"), "POST", mint, json={}))["token"]


def test_0_1_0_refuses_service_keys_and_tokens_that_others_can_verify(back: Earlier, past: Past) -> None:
    assert_problem(ask(back.url, past.codes["key"], "GET", "/admin/usage"), 401, "invalid_token")
    assert_problem(ask(back.url, past.token("nora"), "GET", "/auth/me"), 401, "invalid_token")
    refresh = {"refresh_token": past.logins["nora"]["refresh_token"]}
    login = done(ask(back.url, None, "POST", "/auth/refresh", json=refresh))
    assert done(ask(back.url, login["access_token"], "GET", "/auth/me"))


@pytest.fixture(scope="module")
def both(back: Earlier, upgraded: Installation) -> list[str]:
    """The addresses of 0.1.0 and of this version, which run at once."""
    upgraded.start_gateway()
    return [back.url, upgraded.url]


def test_versions_that_run_at_once_share_sessions_and_rooms(both: list[str], past: Past) -> None:
    for here, there in (both, both[::-1]):
        login = done(log_in(here, past, "hanna"))
        assert done(ask(there, login["access_token"], "GET", "/auth/me"))
        refresh = {"refresh_token": login["refresh_token"]}
        login = done(ask(there, None, "POST", "/auth/refresh", json=refresh))
        room = done(ask(here, login["access_token"], "POST", "/rooms", json={}))["room"]["id"]
        assert done(ask(there, login["access_token"], "POST", f"/rooms/{room}/token", json={}))["token"]
        done(ask(there, login["access_token"], "POST", "/auth/logout", json={}))
        assert_problem(ask(here, login["access_token"], "GET", "/auth/me"), 401, "invalid_token")


def test_versions_that_run_at_once_charge_one_limit(both: list[str], past: Past) -> None:
    mint, token = f"/rooms/{past.rooms['open']}/token", past.token("nils")
    used = 1  # after the rollback
    statuses = [ask(both[number % 2], token, "POST", mint, json={}).status_code for number in range(2 * MINTS)]
    assert statuses == [200] * (MINTS - used) + [429] * (MINTS + used)

"""Budgets of minutes with real processes: refused at the mint, and ended while a room runs."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.e2e.checks import assert_problem
from tests.e2e.people import peers
from tests.e2e.policies import roomy
from tests.servers import NO_TLS, Installation, wait_until

# Months, so that the test may run at midnight.
BUDGETS = """
[quotas.mine]
counter = "minutes"
period = "month"
on_exhausted = "end"
[quotas.rooms]
counter = "minutes"
scope = "owner"
period = "month"
on_exhausted = "end"
[quotas.everybody]
counter = "minutes"
scope = "all"
period = "month"
amount = 15
on_exhausted = "end"
"""
HEADER = "X-Gateway-Webhook-Secret"


@pytest.fixture(scope="module")
def metered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation whose members have a minute, and whose hosts have five minutes for all people in their rooms."""
    policy = roomy()
    for role, line in (("member", "quotas.mine = 1"), ("host", "quotas.rooms = 5")):
        assert policy.count(f"[roles.{role}]\n") == 1
        policy = policy.replace(f"[roles.{role}]\n", f"[roles.{role}]\n{line}\n")
    policy = policy.replace("[roles.hundred]\n", "[roles.hundred]\nmax_participants = 1\nconcurrent_rooms = 1\n")
    own = Installation(tmp_path_factory.mktemp("budgets"), workers=2, policy=policy + BUDGETS)
    own.set_constant("gateway.metering.consequences.FIRST_MS", 500)
    own.set_constant("gateway.metering.unlocking.AGAIN_MS", 500)
    own.env["HMS_WEBHOOK_SECRET"] = secrets.token_urlsafe(48)
    own.env["EMULATOR_WEBHOOK_URL"] = f"{own.url}/hooks/100ms"
    own.env["EMULATOR_WEBHOOK_HEADER"] = f"{HEADER}={own.env['HMS_WEBHOOK_SECRET']}"
    with own:
        own.add_users(hanna="host", thea="hundred", mira="member", mark="member", otto="operator")
        yield own


@pytest.fixture(scope="module")
def hms(metered: Installation) -> Iterator[httpx.Client]:
    url = f"{metered.emulator_url}/emulator/"
    with httpx.Client(base_url=url, timeout=15, verify=NO_TLS, trust_env=False) as client:
        yield client


def report_stay(metered: Installation, room: str, user: str, seconds: int) -> None:
    """Send what 100ms sends when a peer has left after so many seconds."""
    left = int(time.time()) - 5
    at = [datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z") for moment in (left - seconds, left)]
    data = {"room_id": room, "session_id": secrets.token_hex(12), "peer_id": secrets.token_hex(8), "user_id": user}
    data |= {"role": "guest", "joined_at": at[0], "left_at": at[1]}
    event = {"version": "2.0", "id": secrets.token_hex(8), "type": "peer.leave.success", "data": data}
    with metered.client() as client:
        secret = {HEADER: metered.env["HMS_WEBHOOK_SECRET"]}
        assert client.post("/hooks/100ms", json=event, headers=secret).status_code == 200
    with metered.valkey.client() as redis:
        wait_until(lambda: redis.xlen("wh:1") == 0, "the event is processed")


def messages(hms: httpx.Client, kind: str, field: str) -> list[str]:
    found = [one["event"] for one in hms.get("deliveries").json()["deliveries"]]
    return [one["data"][field] for one in found if one["type"] == kind]


def mint(client: httpx.Client, room: str) -> httpx.Response:
    return client.post(f"/api/rooms/{room}/token", json={})


def quota_of(client: httpx.Client) -> dict[str, Any]:
    (quota,) = client.get("/api/usage").json()["quotas"]
    return dict(quota)


def test_a_member_whose_minutes_are_used_up_is_removed_and_gets_no_token(
    metered: Installation, hms: httpx.Client
) -> None:
    with metered.client_of("hanna") as host, metered.client_of("mira") as member:
        room = host.post("/api/rooms", json={}).json()["room"]["id"]
        mira = member.get("/api/auth/me").json()["user"]["id"]
        report_stay(metered, room, mira, 52)
        quota = quota_of(member)
        assert (quota["unit"], quota["amount"], quota["used"], quota["remaining"]) == ("minutes", 1, 1, 0)
        minted = mint(member, room)
        assert '"mine";q=1;' in minted.headers["ratelimit-policy"]
        expires_in_s = datetime.fromisoformat(minted.json()["expires_at"]).timestamp() - time.time()
        assert 4 < expires_in_s <= 8
        stays = hms.post("peers", json={"token": mint(host, room).json()["token"]}).json()["id"]
        ends = hms.post("peers", json={"token": minted.json()["token"]}).json()["id"]
        wait_until(lambda: peers(metered, room) == {stays}, "the member was removed", within_s=8 + 10)
        assert ends not in peers(metered, room)
        assert messages(hms, "peer.leave.success", "message") == ["your minutes are used up"]
        refused = mint(member, room)
        problem = assert_problem(refused, 429, "quota_exceeded")
        assert (problem["violated-policies"], problem["budget_of"]) == (["mine"], "user")
        assert "mine (1 min per month, UTC)" in problem["detail"]
        assert len(refused.headers.get_list("ratelimit")) == 1
        assert metered.command("limits", "reset", "mira", "--name", "mine").stdout in (
            "Reset. Used before: mine 1\n",  # exactly a minute
            "Reset. Used before: mine 2\n",
        )
        assert mint(member, room).status_code == 200
        shown = metered.command("limits", "show", "mira").stdout
        assert "1 min per month" in shown


def test_rooms_of_an_owner_end_with_their_budget(metered: Installation, hms: httpx.Client) -> None:
    with metered.client_of("hanna") as host, metered.client_of("mark") as member:
        room, empty = (host.post("/api/rooms", json={}).json()["room"]["id"] for _ in range(2))
        hms.post("peers", json={"token": mint(member, room).json()["token"]})
        report_stay(metered, room, "a guest of another system", 300)
        wait_until(lambda: peers(metered, room) == set(), "the room has ended", within_s=10)
        assert set(messages(hms, "room.end.success", "reason")) == {"the minutes of the owner of this room are used up"}
        assert_problem(mint(member, room), 409, "room_disabled")
        refused = mint(member, empty)
        problem = assert_problem(refused, 429, "quota_exceeded")
        assert (problem["violated-policies"], problem["budget_of"]) == (["rooms"], "owner")
        assert len(refused.headers.get_list("ratelimit")) == 1
        assert int(refused.headers["retry-after"]) >= 1
        assert member.get("/api/usage").json()["usage"]["total"]["tokens.mint"]["refused"]["quota_exceeded"] == 1
        said = metered.command("policy", "explain", "mark", "tokens.mint", empty, "--offline").stdout
        assert "budget of the owner rooms: 5 min per month, UTC; 0 left" in said
        assert "would still be refused with 429 by: rooms" in said
    with metered.client_of("otto") as operator:
        entries = operator.get("/api/admin/audit", params={"action": "budget"}).json()["items"]
    reached = {(entry["details"]["budget"], entry["details"]["percent"]) for entry in entries}
    assert reached >= {("mine", 80), ("mine", 100), ("rooms", 80), ("rooms", 100)}


def test_numbers_of_rooms_and_people_are_those_of_the_creators_role(metered: Installation, hms: httpx.Client) -> None:
    with metered.client_of("thea") as host:
        room = host.post("/api/rooms", json={}).json()["room"]["id"]
        problem = assert_problem(host.post("/api/rooms", json={}), 429, "quota_exceeded")
        assert problem["violated-policies"] == ["rooms.active"]
        peer = hms.post("peers", json={"token": mint(host, room).json()["token"]}).json()["id"]
        wait_until(lambda: mint(host, room).status_code == 409, "the gateway knows who is in the room")
        problem = assert_problem(mint(host, room), 409, "room_full")
        assert problem["detail"] == "The room is full: 1 of 1 people are in it."
        hms.delete(f"peers/{peer}")
        wait_until(lambda: mint(host, room).status_code == 200, "there is room again")


def test_the_budget_of_all_locks_what_it_ends_until_there_is_more(metered: Installation, hms: httpx.Client) -> None:
    with metered.client_of("thea") as host, metered.client_of("otto") as operator:
        (room,) = (one["id"] for one in host.get("/api/rooms").json()["rooms"])
        hms.post("peers", json={"token": mint(host, room).json()["token"]})
        report_stay(metered, room, "a guest of another system", 15 * 60)
        wait_until(lambda: peers(metered, room) == set(), "the room has ended", within_s=10)
        assert "the minutes of this service are used up" in messages(hms, "room.end.success", "reason")
        assert_problem(mint(host, room), 409, "room_disabled")
        path = metered.folder / "policy.toml"
        path.write_text(path.read_text().replace("amount = 15\n", "amount = 1000\n"))
        wait_until(lambda: host.get(f"/api/rooms/{room}").json()["room"]["enabled"], "the room is unlocked")
        assert mint(host, room).status_code == 200

        def said() -> list[tuple[str, dict[str, Any]]]:
            entries = operator.get("/api/admin/audit", params={"action": "room"}).json()["items"]
            return [(one["action"], one["details"]) for one in entries if one["details"].get("budget") == "everybody"]

        # The audit follows the change.
        wait_until(lambda: [action for action, _ in said()] == ["room.changed", "room.ended"], "both are audited")
        (_, unlocked), (_, ended) = said()
    assert (unlocked["fields"], ended["lock"]) == ("enabled", 1)

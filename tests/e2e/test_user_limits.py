"""One user's limits through the API and the command line: quotas, overrides, blocks, resets, leases, top lists."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.checks import assert_problem
from tests.e2e.policies import roomy
from tests.servers import Installation, wait_until

POLICY = (
    roomy().replace("active_per_owner = 100_000", "active_per_owner = 3")
    + """
[quotas.tokens-week]
counter = "tokens.mint"
period = "week"
time_zone = "Europe/Berlin"
amount = 5
[quotas.tokens-day]
counter = "tokens.mint"
period = "day"
amount = 1000
"""
)


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("limited"), workers=2, policy=POLICY) as running:
        names = {f"mem{number}": "member" for number in range(8)}
        running.add_users(hanna="host", hugo="host", otto="operator", **names)
        yield running


@pytest.fixture(scope="module")
def room(limited: Installation) -> str:
    with limited.client_of("hanna") as host:
        return str(host.post("/api/rooms", json={}).json()["room"]["id"])


@pytest.fixture
def operator(limited: Installation) -> Iterator[httpx.Client]:
    with limited.client_of("otto") as client:
        yield client


def mint(client: httpx.Client, room: str, role: str | None = None) -> httpx.Response:
    return client.post(f"/api/rooms/{room}/token", json={"role": role})


def quota(client: httpx.Client, name: str) -> dict[str, object]:
    return next(one for one in client.get("/api/usage").json()["quotas"] if one["name"] == name)


def test_a_used_up_quota_denies_until_its_period_ends(limited: Installation, room: str) -> None:
    with limited.client_of("mem0") as member:
        for _ in range(5):
            assert mint(member, room).status_code == 200
        denied = mint(member, room)
        document = assert_quota(denied)
        assert document["violated-policies"] == ["tokens-week"]
        assert '"tokens-week";q=5;w=' in denied.headers["ratelimit-policy"]
        assert '"tokens-week";r=0;t=' in denied.headers["ratelimit"]
        assert quota(member, "tokens-week")["remaining"] == 0
        today = member.get("/api/usage").json()["usage"]["today"]["tokens.mint"]
        assert (today["ok"], today["denied"]) == (5, {"tokens-week": 1})


def assert_quota(answer: httpx.Response) -> dict[str, object]:
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    assert 1 <= int(answer.headers["retry-after"]) <= 8 * 86_400
    document: dict[str, object] = answer.json()
    assert document["code"] == "quota_exceeded"
    assert document["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    return document


def test_a_refused_mint_is_refunded_to_the_quota(limited: Installation, room: str) -> None:
    with limited.client_of("mem1") as member:
        for _ in range(3):
            assert_problem(mint(member, room, "host"), 403, "role_not_allowed")
        assert quota(member, "tokens-week")["used"] == 0
        assert quota(member, "tokens-day")["used"] == 0


def test_reset_restores_units_and_is_audited(limited: Installation, room: str, operator: httpx.Client) -> None:
    with limited.client_of("mem2") as member:
        for _ in range(5):
            mint(member, room)
        assert mint(member, room).status_code == 429
        used = operator.post("/api/admin/limits/mem2/reset", json={"names": ["tokens-week"]}).json()["used"]
        assert used == {"tokens-week": 5}
        assert [mint(member, room).status_code for _ in range(6)] == [200] * 5 + [429]
        assert member.get("/api/usage").json()["usage"]["today"]["tokens.mint"]["ok"] == 10
    entries = [entry for entry in audit(limited) if entry["action"] == "limits.reset"]
    assert entries[-1]["used.tokens-week"] == 5


def audit(limited: Installation) -> list[dict[str, object]]:
    with limited.valkey.client() as redis:
        return [json.loads(fields[b"entry"]) for _, fields in redis.xrange("audit:1")]


def test_override_takes_effect_at_once_on_every_worker(
    limited: Installation, room: str, operator: httpx.Client
) -> None:
    body = {"name": "tokens.mint", "rate": "1/h", "burst": 1, "lasts_s": 600, "reason": "abuse"}
    answer = operator.put("/api/admin/limits/mem3/override", json=body)
    assert answer.status_code == 200, answer.text
    access = limited.token_of("mem3")
    statuses = []
    for _ in range(4):
        with limited.client(access) as fresh:  # a new connection may reach either worker
            statuses.append(mint(fresh, room).status_code)
    assert sorted(statuses) == [200, 429, 429, 429]
    shown = operator.get("/api/admin/limits/mem3").json()
    assert shown["overrides"][0] | {"until": ""} == {
        "name": "tokens.mint", "block": False, "rate": "1/h", "burst": 1, "until": "", "reason": "abuse",
        "by": operator.get("/api/auth/me").json()["user"]["id"],
    }  # fmt: skip
    assert operator.delete("/api/admin/limits/mem3/override", params={"name": "tokens.mint"}).status_code == 204
    with limited.client(access) as fresh:
        assert mint(fresh, room).status_code == 200
    gone = operator.delete("/api/admin/limits/mem3/override", params={"name": "tokens.mint"})
    assert_problem(gone, 404, "not_found")
    mistyped = operator.delete("/api/admin/limits/mem3/override", params={"name": "token.mint"})
    [error] = assert_problem(mistyped, 400, "invalid_request", field="name")["errors"]
    assert error["rule"].startswith("there is no limit or quota 'token.mint'; did you mean tokens.mint")


def test_an_override_expires(limited: Installation, room: str, operator: httpx.Client) -> None:
    body = {"name": "tokens-week", "amount": 1, "lasts_s": 1, "reason": "a second"}
    assert operator.put("/api/admin/limits/mem4/override", json=body).status_code == 200
    with limited.client_of("mem4") as member:
        mint(member, room)
        until = time.monotonic() + 5
        while mint(member, room).status_code == 429:
            assert time.monotonic() < until
            time.sleep(0.1)


def test_a_blocked_user_is_denied_and_the_answer_says_so(
    limited: Installation, room: str, operator: httpx.Client
) -> None:
    body = {"block": True, "lasts_s": 600, "reason": "spam"}
    with limited.client_of("mem5") as member:
        assert operator.put("/api/admin/limits/mem5/override", json=body).status_code == 200
        denied = mint(member, room)
        assert_problem(denied, 429, "rate_limited")
        assert denied.json()["violated-policies"] == ["block"]
        assert denied.json()["detail"].startswith("An operator has blocked this account for now. Try again in ")
        usage = member.get("/api/usage")
        assert usage.status_code == 200
        assert usage.json()["blocked_until"] is not None
        body = {"username": "mem5", "password": limited.passwords["mem5"]}
        assert_problem(member.post("/api/auth/login", json=body), 429, "rate_limited")
        assert operator.delete("/api/admin/limits/mem5/override", params={"name": "*"}).status_code == 204
        assert mint(member, room).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "nosuch", "rate": "1/s", "burst": 1, "lasts_s": 1, "reason": "r"}, "name"),
        ({"name": "api", "lasts_s": 1, "reason": "r"}, "rate"),
        ({"name": "api", "rate": "fast", "burst": 1, "lasts_s": 1, "reason": "r"}, "rate"),
        ({"name": "api", "rate": "1/s", "burst": 0, "lasts_s": 1, "reason": "r"}, "rate"),
        ({"name": "api", "amount": 1, "lasts_s": 1, "reason": "r"}, "amount"),
        ({"name": "tokens-week", "rate": "1/s", "burst": 1, "lasts_s": 1, "reason": "r"}, "rate"),
        ({"name": "tokens-week", "amount": 0, "lasts_s": 1, "reason": "r"}, "amount"),
        ({"block": True, "lasts_s": 0, "reason": "r"}, "lasts_s"),
        ({"block": True, "lasts_s": 10**9, "reason": "r"}, "lasts_s"),
        ({"block": True, "lasts_s": 1, "reason": "  "}, "reason"),
        ({"block": True, "lasts_s": 1}, "reason"),
        ({"lasts_s": 1, "reason": "r"}, "name"),
        ({"block": True, "name": "api", "lasts_s": 1, "reason": "r"}, "name"),
        ({"block": True, "lasts_s": 1, "reason": "r", "by": "me"}, "by"),
    ],
)
def test_an_invalid_override_is_refused_by_field(operator: httpx.Client, body: dict[str, object], field: str) -> None:
    assert_problem(operator.put("/api/admin/limits/mem6/override", json=body), 400, "invalid_request", field=field)
    assert operator.get("/api/admin/limits/mem6").json()["overrides"] == []


def test_only_operators_manage_limits_of_others(limited: Installation) -> None:
    with limited.client_of("mem6") as member:
        for answer in (
            member.get("/api/admin/limits/mem6"),
            member.post("/api/admin/limits/mem6/reset", json={}),
            member.put("/api/admin/limits/mem6/override", json={"block": True, "lasts_s": 1, "reason": "r"}),
            member.delete("/api/admin/limits/mem6/override", params={"name": "*"}),
            member.get("/api/admin/usage/top"),
        ):
            assert_problem(answer, 403, "forbidden")


def test_an_owner_has_a_maximum_of_rooms_at_once(limited: Installation) -> None:
    with limited.client_of("hugo") as host:
        assert [host.post("/api/rooms", json={}).status_code for _ in range(3)] == [201] * 3
        denied = host.post("/api/rooms", json={})
        assert_quota(denied)
        assert denied.json()["violated-policies"] == ["rooms.active"]
        assert host.get("/api/usage").json()["leases"] == [{"name": "rooms.active", "most": 3, "held": 3}]


def test_a_room_that_100ms_did_not_create_holds_no_place(limited: Installation) -> None:
    limited.break_upstream("status=500")
    try:
        with limited.client_of("hanna") as host:
            held = host.get("/api/usage").json()["leases"][0]["held"]
            assert_problem(host.post("/api/rooms", json={}), 502, "upstream_error")
            assert host.get("/api/usage").json()["leases"][0]["held"] == held
    finally:
        limited.mend_upstream()


def test_top_lists_and_room_counters_match_the_requests(
    limited: Installation, room: str, operator: httpx.Client
) -> None:
    with limited.client_of("mem7") as member:
        for _ in range(4):
            mint(member, room)
        uid = member.get("/api/auth/me").json()["user"]["id"]

    def listed() -> dict[str, int]:
        items = operator.get("/api/admin/usage/top", params={"limit": 100}).json()["items"]
        return {item["username"]: item["count"] for item in items}

    wait_until(lambda: listed().get("mem7") == 4, "the top list has mem7")
    before = listed()
    days = operator.get(f"/api/admin/usage/rooms/{room}").json()["items"]
    rows = operator.get("/api/admin/usage", params={"action": "tokens.mint"}).json()["items"]
    assert sum(day["usage"]["tokens.mint"]["ok"] for day in days) == sum(row["ok"] for row in rows)
    with limited.valkey.client() as redis:
        for key in redis.scan_iter("tp:1:*"):
            redis.delete(key)
    assert listed() == {}
    done = limited.command("usage", "rebuild")
    assert done.returncode == 0, done.stderr
    assert listed() == before
    assert uid


def test_the_command_line_manages_limits_in_the_same_way(limited: Installation, room: str) -> None:
    done = limited.command(
        "limits",
        "override",
        "mem6",
        "--name",
        "api",
        "--rate",
        "1/min",
        "--burst",
        "1",
        "--for",
        "10min",
        "--reason",
        "[/oops] x",
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(limited.command("limits", "show", "mem6", "--json").stdout)
    assert [(one["name"], one["numbers"]) for one in shown["overrides"]] == [("api", "1/min, burst 1")]
    assert next(one for one in shown["limits"] if one["name"] == "api")["burst"] == 1
    assert "burst 1" in limited.command("limits", "show", "mem6").stdout
    assert limited.command("limits", "override", "mem6", "--name", "api", "--lift").returncode == 0
    assert json.loads(limited.command("limits", "reset", "mem6", "--json").stdout).keys() >= {"api", "tokens-week"}
    for wrong in (
        ("limits", "show", "nobody"),
        ("limits", "override", "mem6", "--name", "nosuch", "--amount", "1", "--reason", "x"),
        ("limits", "override", "mem6", "--name", "api", "--rate", "x", "--burst", "1", "--reason", "x"),
        ("limits", "reset", "mem6", "--name", "nosuch"),
        ("limits", "override", "mem6", "--name", "nosuch", "--lift"),
    ):
        failed = limited.command(*wrong)
        assert failed.returncode == 1
        assert len(failed.stderr.strip().splitlines()) == 1, failed.stderr
    assert [entry["by"] for entry in audit(limited)][-1] == "cli"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("period", "foo"), ("period", "2026-13"), ("counter", "nothing")),
        *(("counter", "token.mint.ok"), ("counter", "api.denied.apo"), ("counter", "api.refused.forbid")),
    ],
)
def test_top_list_with_invalid_parameters_is_refused_by_name(limited: Installation, option: str, value: str) -> None:
    with limited.client_of("otto") as operator:
        answer = operator.get("/api/admin/usage/top", params={option: value})
    assert_problem(answer, 400, "invalid_request", field=option)
    done = limited.command("usage", "top", f"--{option}", value)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert f"--{option}" in done.stderr
